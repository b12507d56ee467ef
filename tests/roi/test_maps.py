"""Map files: exact grids, round trips, and a check that finds what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from witness import exact

from clips import moving, write_clip
from eyeline.errors import MediaError, OutputError, UsageError
from eyeline.roi.maps import (
    SVT_MOST_VALUES,
    WRITERS,
    MapFormat,
    check_file,
    check_for,
    guess_format,
    read_levels,
    write_map_file,
)
from eyeline.roi.steering import SteerOptions

SIZES = [(200, 136), (64, 64), (65, 63), (130, 258)]
EXACT: tuple[MapFormat, ...] = ("kvazaar", "kvazaar-binary", "json", "npz")
SUFFIX = {"kvazaar": ".txt", "kvazaar-binary": ".bin", "svtav1": ".svt"}


def clip_of(tmp_path: Path, size: tuple[int, int]) -> tuple[Path, list[np.ndarray]]:
    maps = [np.zeros((size[1], size[0]), np.float32) for _ in range(3)]
    for i, m in enumerate(maps):
        m[: 20 + 10 * i, : size[0] // 2] = 1
    return write_clip(tmp_path / "in.mkv", moving(3, size), "ffv1", pix_fmt="yuv444p"), maps


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [*EXACT, "svtav1"])
def test_the_grid_is_the_encoders(tmp_path: Path, size: tuple[int, int], kind: MapFormat) -> None:
    clip, maps = clip_of(tmp_path, size)
    out = tmp_path / f"map{SUFFIX.get(kind, '.' + kind)}"
    result = write_map_file(clip, out, kind, SteerOptions(strength=4), maps)
    block = 64 if kind not in ("json", "npz") else 16
    rows, columns = -(-size[1] // block), -(-size[0] // block)
    assert (result.frames, result.grid, result.block) == (3, (rows, columns), block)
    report = check_for(out, str(clip), kind)
    assert report.problems == []
    assert report.frames == 3
    if size != (64, 64):
        assert guess_format(out) == kind


@given(arrays(np.int16, (3, 2, 5), elements=st.integers(-12, 12)))
def test_files_read_back_as_written(levels: np.ndarray) -> None:
    import tempfile

    for kind in EXACT:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "map"
            with path.open("wb") as f:
                writer = WRITERS[kind](f, 300, 100, 64, -12)
                for i, grid in enumerate(levels):
                    writer.write(i, grid)
                writer.finish()
            back = list(read_levels(path, kind))
        assert [i for i, _ in back] == [0, 1, 2]
        assert (np.stack([g for _, g in back]) == levels).all()


def test_kvazaars_text_is_what_its_manual_shows(tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    with path.open("wb") as f:
        WRITERS["kvazaar"](f, 130, 70).write(0, np.array([[0, -4, 2], [1, 0, 0]]))
    assert path.read_text() == "3 2\n0 -4 2\n1 0 0\n"


def test_svtav1_offsets_raise_the_background(tmp_path: Path) -> None:
    clip, maps = clip_of(tmp_path, (200, 136))
    path = tmp_path / "map.svt"
    o = SteerOptions(strength=12, law="symmetric", smoothing=0, hysteresis=0)
    write_map_file(clip, path, "svtav1", o, maps)
    lines = [[int(n) for n in line.split()] for line in path.read_text().splitlines()]
    assert [line[0] for line in lines] == [0, 1, 2]
    assert {len(line) for line in lines} == {1 + 4 * 3}
    values = {n for line in lines for n in line[1:]}
    assert min(values) >= 0
    assert max(values) <= 255
    assert len(values) <= SVT_MOST_VALUES


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("2 2\n0 0\n0 0\n", "apply offsets to the wrong cells"),
        ("4 3\n" + "0 " * 12, "maps of 1 frames"),
        (("4 3\n" + "60 " * 12 + "\n") * 3, "but the encoder allows -51 to 51"),
        ("4 3\n" + "0 " * 12 + "\n2 2\n0 0 0 0\n", "the first one has 4 x 3"),
        ("", "contains no map"),
    ],
)
def test_the_check_finds_what_kvazaar_would_misread(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "map.txt"
    path.write_text(text)
    problems = check_file(path, "kvazaar", (200, 136), 3).problems
    assert any(match in p for p in problems), problems


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("kvazaar", b"4 3\n0 0 0"),
        ("kvazaar", b"999999 999999\n"),
        ("kvazaar", b"4 x\n"),
        ("kvazaar-binary", b"\x04\0\0"),
        ("kvazaar-binary", b"\xff\xff\xff\x7f\xff\xff\xff\x7f"),
        ("svtav1", b"3 0\n3 0\n"),
        ("json", b"[]"),
        ("json", b'{"format": "eyeline-roi"}'),
        ("npz", b"PK"),
    ],
)
def test_what_is_no_map_is_one_clear_error(tmp_path: Path, kind: MapFormat, data: bytes) -> None:
    path = tmp_path / "map"
    path.write_bytes(data)
    with pytest.raises(MediaError, match="is not a valid"):
        check_file(path, kind)


def test_the_check_warns_of_coding_order_and_of_nothing_steered(tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("1 1\n0\n")
    notes = " ".join(check_file(path, "kvazaar").notes)
    assert "coding order" in notes
    assert "do not move any bits" in notes


def test_json_is_one_documented_object(tmp_path: Path) -> None:
    clip, maps = clip_of(tmp_path, (200, 136))
    write_map_file(clip, tmp_path / "m.json", "json", exact(4), maps, block=64)
    document = json.loads((tmp_path / "m.json").read_text())
    assert {k: v for k, v in document.items() if k != "frames"} == {
        "format": "eyeline-roi", "version": 1, "width": 200, "height": 136,
        "block_size": 64, "unit": "qp",
    }  # fmt: skip
    assert [f["frameNum"] for f in document["frames"]] == [0, 1, 2]


def test_what_can_not_be_asked(tmp_path: Path) -> None:
    clip, maps = clip_of(tmp_path, (200, 136))
    with pytest.raises(UsageError, match="the strength is 0"):
        write_map_file(clip, tmp_path / "m", "json", SteerOptions(strength=0), maps)
    with pytest.raises(OutputError, match="cells of kvazaar always have 64"):
        write_map_file(clip, tmp_path / "m", "kvazaar", exact(4), maps, block=16)
    (tmp_path / "m").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        write_map_file(clip, tmp_path / "m", "json", exact(4), maps, force=False)
    assert (tmp_path / "m").read_text() == "mine"
