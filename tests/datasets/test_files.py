"""Files of a dataset in folders and archives: search, reading and temporary copies."""

import hashlib
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

pytest.importorskip("PIL")
from sets import write_archive, write_folder

from eyeline.datasets import files
from eyeline.datasets.files import (
    Source,
    copy_file,
    file_digest,
    files_under,
    find_files,
    local_path,
    read_bytes,
)
from eyeline.errors import DatasetError

CONTENT = {"SET/Images/b/1.png": b"one", "SET/Images/2.png": b"two", "SET/notes.csv": b"notes"}


def found_in(root: Path) -> list[tuple[PurePosixPath, Source]]:
    return find_files(root, ("images",), lambda path: path.suffix != "", ("notes.csv",))


def written(path: Path, content: dict[str, bytes] = CONTENT) -> Path:
    return (write_archive if path.suffix else write_folder)(path, content)


@pytest.mark.parametrize("name", ["set", "set.tar", "set.zip"])
def test_folders_and_archives_give_the_same_files(tmp_path: Path, name: str) -> None:
    found = found_in(written(tmp_path / name))
    assert {str(path): read_bytes(source) for path, source in found} == CONTENT


@pytest.mark.parametrize("name", ["set", "set.tar", "set.zip"])
def test_files_are_named_by_their_path_below_the_folder(tmp_path: Path, name: str) -> None:
    root = written(tmp_path / name)
    under = files_under(root, found_in(root), ("pictures", "images"))
    assert under is not None
    assert under[0] == PurePosixPath("SET")
    assert {key: read_bytes(source) for key, source in under[1].items()} == {
        "b/1": b"one",
        "2": b"two",
    }
    assert files_under(root, found_in(root), ("videos",)) is None


def test_no_dataset_at_all(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such dataset"):
        found_in(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["a.tar", "a.zip", "a.bin"])
def test_a_file_that_is_no_archive(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"words" * 300)
    with pytest.raises(DatasetError, match=rf"{name}: is not a (folder|readable)"):
        found_in(tmp_path / name)


def test_a_compressed_tar_says_what_to_do(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.add(write_folder(tmp_path / "set", CONTENT), "set")
    with pytest.raises(DatasetError) as caught:
        found_in(tmp_path / "set.tar.gz")
    assert "unpack a compressed" in caught.value.hint


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("images/1.png", b"one")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # general purpose bit 0 of the central directory
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"images/1\.png is encrypted"):
        found_in(path)


@pytest.mark.parametrize("name", ["set.tar", "set.zip"])
def test_a_replaced_archive_is_read_again(tmp_path: Path, name: str) -> None:
    for data in (b"first", b"the second"):
        found = found_in(written(tmp_path / name, {"images/1.png": data}))
        assert read_bytes(found[0][1]) == data


@pytest.mark.parametrize("name", ["set", "set.tar", "set.zip"])
def test_digests_and_copies_have_all_bytes(tmp_path: Path, name: str) -> None:
    data = bytes(range(256)) * 10_000  # more than one block
    source = found_in(written(tmp_path / name, {"images/1.png": data}))[0][1]
    assert file_digest(source) == hashlib.sha256(data).hexdigest()
    copy_file(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data


def test_only_a_file_in_an_archive_gets_a_temporary_copy(tmp_path: Path) -> None:
    plain = found_in(written(tmp_path / "set"))[0][1]
    with local_path(plain) as path:
        assert path == plain
    assert path.exists()
    packed = dict(found_in(written(tmp_path / "set.zip")))[PurePosixPath("SET/Images/2.png")]
    with local_path(packed) as path:
        assert (path.name, path.read_bytes()) == ("2.png", b"two")
    assert not path.exists()


@pytest.mark.parametrize("name", ["set", "set.tar", "set.zip"])
def test_a_member_that_swells_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    source = found_in(written(tmp_path / name, {"images/1.png": b"0" * 20_000}))[0][1]
    with pytest.raises(DatasetError, match=r"1\.png: has more than the allowed 10,000 bytes"):
        read_bytes(source)
