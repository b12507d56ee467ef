"""Manifests, folders and patterns become titles; what is wrong in them is named by its row."""

from pathlib import Path

import pytest

from eyeline.batch.manifest import read_titles
from eyeline.errors import BatchError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_a_folder_names_its_videos_by_path_without_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "films/a.MKV", "films/notes.txt", ".hidden.mp4", "y.y4m")
    titles = read_titles(str(tmp_path))
    assert [t.name for t in titles] == ["b", "films/a", "y"]
    assert titles[1].source == str(tmp_path / "films" / "a.MKV")


def test_a_pattern_takes_whatever_it_matches(tmp_path: Path) -> None:
    touch(tmp_path, "one/clip.bin", "two/clip.bin", "two/other.txt")
    assert [t.name for t in read_titles(f"{tmp_path}/*/clip.bin")] == ["one/clip", "two/clip"]


def test_one_video_is_a_batch_of_one(tmp_path: Path) -> None:
    touch(tmp_path, "clip.mp4")
    assert [t.name for t in read_titles(str(tmp_path / "clip.mp4"))] == ["clip"]


def test_a_csv_names_titles_and_the_layout_of_raw_video(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "path,title,width,height,pix_fmt,fps\nraw/a.yuv,A,64,48,yuv420p,30000/1001\nb.mp4,,,,,\n"
    )
    a, b = read_titles(str(manifest))
    assert (a.name, a.source, a.width, a.height, a.pix_fmt, a.fps) == (
        "A", str(tmp_path / "raw/a.yuv"), 64, 48, "yuv420p", "30000/1001",
    )  # fmt: skip
    assert (b.name, b.source, b.width) == ("b", str(tmp_path / "b.mp4"), None)


def test_json_lines_and_parquet_say_the_same(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    lines = tmp_path / "m.jsonl"
    lines.write_text('{"path": "a.mp4", "title": "A"}\n\n{"path": "/x/b.mp4"}\n')
    table = pyarrow.Table.from_pylist([{"path": "a.mp4", "title": "A"}, {"path": "/x/b.mp4"}])
    parquet.write_table(table, tmp_path / "m.parquet")
    assert read_titles(str(lines)) == read_titles(str(tmp_path / "m.parquet"))
    assert [t.source for t in read_titles(str(lines))] == [str(tmp_path / "a.mp4"), "/x/b.mp4"]


def test_pairs_name_a_reference_and_what_is_compared_with_it(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("reference,distorted\nref.mp4,d/low.mp4\nref.mp4,d/high.mp4\n")
    titles = read_titles(str(manifest), pairs=True)
    assert [t.name for t in titles] == ["d/low", "d/high"]
    assert {t.source for t in titles} == {str(tmp_path / "ref.mp4")}
    assert titles[0].distorted == str(tmp_path / "d/low.mp4")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no videos"),
        ("film\na.mp4\n", "row 1: unknown column 'film'"),
        ("path,title\na.mp4,A\n,B\n", "row 2: has no path"),
        ("path\na.mp4\nb/../a.mp4\na.mp4\n", "two titles are named 'a'"),
        ("path,width\na.yuv,wide\n", "row 1: has an invalid number: invalid literal"),
        ("path,fps\na.yuv,0/0\n", "row 1"),
    ],
)
def test_a_bad_csv_is_refused_with_its_row(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(BatchError, match=said):
        read_titles(str(tmp_path / "m.csv"))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("m.jsonl", b'{"path": "a.mp4"}\n{"path"\n', "line 2 is not JSON"),
        ("m.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("m.csv", b"path\n\xff\xfe\n", "byte 5 is invalid"),
        ("m.parquet", b"PAR1 but not", "is not valid Parquet"),
    ],
)
def test_a_broken_manifest_is_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BatchError, match=said):
        read_titles(str(tmp_path / name))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="no such file"):
        read_titles(str(tmp_path / "m.csv"))
    with pytest.raises(BatchError, match="names no videos"):
        read_titles(str(tmp_path / "none" / "*.mp4"))
    with pytest.raises(BatchError, match="is not a manifest"):
        read_titles(str(tmp_path), pairs=True)
