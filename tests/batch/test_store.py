"""The layout of an output folder: names, versions, records, locks, what a killed writer leaves."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.batch.store import Place, Store, TitleRecord, exclusive, slug, version_of
from eyeline.errors import BatchError
from eyeline.files import is_temporary, whole_file


@given(st.text(min_size=1, max_size=300))
def test_a_title_makes_a_folder_name_that_every_file_system_takes(title: str) -> None:
    name = slug(title)
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith(".")
    assert 0 < len(name.encode()) <= 255
    if len(name) < 120:
        assert unquote(name) == title


@given(st.lists(st.text(min_size=1, max_size=200), unique=True, max_size=8))
def test_different_titles_have_different_folders(titles: list[str]) -> None:
    assert len({slug(t) for t in titles}) == len(titles)


def test_a_version_changes_with_what_decides_the_rows() -> None:
    facts = {"model_sha256": "a" * 64, "options": {"stride": 1}}
    one = version_of("extract", "student", facts)
    assert version_of("extract", "student", dict(reversed(facts.items()))).name == one.name
    names = {
        one.name,
        version_of("score", "student", facts).name,
        version_of("extract", "student", facts | {"model_sha256": "b" * 64}).name,
        version_of("extract", "student", facts | {"options": {"stride": 2}}).name,
    }
    assert len(names) == 4


def test_a_version_is_noted_once_and_never_changed(tmp_path: Path) -> None:
    store = Store(str(tmp_path), version_of("extract", "student", {"x": 1}))
    store.begin()
    store.begin()
    noted = tmp_path / "_eyeline" / "versions" / f"{store.version.name}.json"
    assert json.loads(noted.read_text())["x"] == 1
    noted.write_text("{}")
    with pytest.raises(BatchError, match="describes other options"):
        store.begin()


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(str(tmp_path), version_of("extract", "student", {}))
    assert store.record("a/b") is None
    record = TitleRecord("a/b", "failed", "x.mp4", {"size": 3, "tag": "1"}, reason="no")
    store.write_record(record)
    assert store.record("a/b") == record


def test_a_record_that_does_not_parse_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path), version_of("extract", "student", {}))
    store.write_record(TitleRecord("a", "ok", "x.mp4", {}))
    found = next((tmp_path / "_eyeline" / "titles").rglob("a.json"))
    found.write_text("{")
    with pytest.raises(BatchError, match=r"a\.json: is not the record"):
        store.record("a")


HOLD = """
import sys, time
from eyeline.batch.store import Place, exclusive
with exclusive(Place(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_batch_refuses_and_names_the_first(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(
            BatchError, match=f"another batch is at work there, process {holder.pid}"
        ):
            exclusive(place).__enter__()
        holder.kill()
    deadline = time.monotonic() + 60
    while True:  # the kernel lets go of it when the process is gone
        try:
            with exclusive(place):
                return
        except BatchError:
            assert time.monotonic() < deadline


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    place.write("version=a/title=b/part-0.parquet", b"rows")
    (tmp_path / "version=a" / ".mine").write_bytes(b"kept")
    unfinished = whole_file(tmp_path / "version=a" / "part-1.parquet")
    temporary = unfinished.__enter__()
    temporary.write_bytes(b"ro")
    assert is_temporary(temporary.name)
    place.sweep()
    left = sorted(f.name for f in tmp_path.rglob("*") if f.is_file())
    assert left == [".mine", "part-0.parquet"]
    os.close(os.open(temporary, os.O_CREAT))  # so that the block ends well
    unfinished.__exit__(None, None, None)
