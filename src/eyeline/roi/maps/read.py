"""Map files read back: what an encoder would do with one, or why it would not.

Parsers are as strict as the encoders' own are, and say what those do in silence.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.arrays import read_member
from eyeline.errors import MediaError
from eyeline.roi.maps.write import CTU, SVT_MOST_VALUES, MapFormat
from eyeline.roi.steering.levels import grid_size

Grid = npt.NDArray[np.int32]

MOST_CELLS = 1 << 22
"""Cells that a map may claim: beyond it a header is a bomb, or another kind of file."""

LIMITS = {"kvazaar": 51, "kvazaar-binary": 51, "svtav1": 255, "json": 51, "npz": 51}
"""Largest offset either way: kvazaar's QPs, AV1's qindex."""


@dataclass
class MapReport:
    """What a map file holds and what an encoder would do with it.

    Attributes:
        kind: its format.
        frames: maps in it.
        grid: (rows, columns) of the first.
        low, high: least and greatest offset.
        values: distinct offsets.
        problems: why it would be refused or misread, each one line; none = it is obeyed.
        notes: what to know when using it.
    """

    kind: str
    frames: int = 0
    grid: tuple[int, int] = (0, 0)
    low: int = 0
    high: int = 0
    values: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "format": self.kind,
            "frames": self.frames,
            "grid": list(self.grid),
            "offsets": [self.low, self.high],
            "values": self.values,
            "problems": self.problems,
            "notes": self.notes,
        }


def guess_format(path: str | Path) -> MapFormat:
    """The format of a file, by suffix and first line.

    Raises:
        MediaError: it can't be read.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".json":
        return "json"
    if suffix == ".npz":
        return "npz"
    if suffix == ".bin":
        return "kvazaar-binary"
    try:
        with file.open("rb") as f:
            line = f.readline(1 << 20)
    except OSError as exc:
        raise MediaError(f"{path}: can't be read: {exc.strerror}") from exc
    return "kvazaar" if len(line.split()) == 2 else "svtav1"


def read_levels(path: str | Path, kind: MapFormat) -> Iterator[tuple[int, Grid]]:
    """The maps of a file, frame by frame.

    Yields:
        The frame's number, and int32 (rows, columns) offsets; of `svtav1` one row, as the file does
        not say how wide the picture is.

    Raises:
        MediaError: it does not parse, and where; or pictures, which are not read back.
    """
    if kind == "png":
        raise MediaError(f"{path}: pictures are to look at, and not read back")
    try:
        if kind == "kvazaar":
            yield from _kvazaar_text(Path(path))
        elif kind == "kvazaar-binary":
            yield from _kvazaar_binary(Path(path))
        elif kind == "svtav1":
            yield from _svtav1(Path(path))
        elif kind == "json":
            yield from _json(Path(path))
        elif kind == "npz":
            with np.load(path, allow_pickle=False) as members:
                for name in sorted(n for n in members.files if n.isdigit()):
                    yield int(name), read_member(members, name).astype(np.int32)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as exc:
        raise MediaError(f"{path}: is no {kind} map: {exc}") from exc


def _json(path: Path) -> Iterator[tuple[int, Grid]]:
    document = json.loads(path.read_text("utf-8"))
    if not isinstance(document, dict) or document.get("format") != "eyeline-roi":
        raise ValueError("its format is not eyeline-roi")
    for f in document["frames"]:
        yield int(f["frameNum"]), np.array(f["qp_offset"], np.int32)


def _kvazaar_text(path: Path) -> Iterator[tuple[int, Grid]]:
    with path.open("r", encoding="ascii") as f:
        words = (word for line in f for word in line.split())
        for index, first in enumerate(words):
            columns, rows = int(first), int(next(words, "0"))
            yield index, _cells(words, rows, columns, f"map {index}")


def _cells(words: Iterator[str], rows: int, columns: int, what: str) -> Grid:
    if rows < 1 or columns < 1 or rows * columns > MOST_CELLS:
        raise ValueError(f"{what} claims {columns} x {rows} cells")
    cells = [int(word) for _, word in zip(range(rows * columns), words, strict=False)]
    if len(cells) < rows * columns:
        raise ValueError(f"{what} ends after {len(cells)} of {rows * columns} cells")
    return np.array(cells, np.int32).reshape(rows, columns)


def _kvazaar_binary(path: Path) -> Iterator[tuple[int, Grid]]:
    with path.open("rb") as f:
        index = 0
        while head := f.read(8):
            if len(head) < 8:
                raise ValueError(f"map {index} ends in its head")
            columns, rows = struct.unpack("<2i", head)
            if rows < 1 or columns < 1 or rows * columns > MOST_CELLS:
                raise ValueError(f"map {index} claims {columns} x {rows} cells")
            data = f.read(rows * columns)
            if len(data) < rows * columns:
                raise ValueError(f"map {index} ends after {len(data)} of {rows * columns} cells")
            yield index, np.frombuffer(data, np.int8).astype(np.int32).reshape(rows, columns)
            index += 1


def _svtav1(path: Path) -> Iterator[tuple[int, Grid]]:
    last = -1
    with path.open("r", encoding="ascii") as f:
        for number, line in enumerate(f, 1):
            cells = [int(word) for word in line.split()]
            if not cells:
                continue
            if cells[0] <= last:
                raise ValueError(f"line {number}: frame {cells[0]} after frame {last}")
            last = cells[0]
            yield last, np.array([cells[1:]], np.int32)


def check_file(
    path: str | Path,
    kind: MapFormat | None = None,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
) -> MapReport:
    """Read a map file and say what its encoder would do with it.

    Args:
        path: the file.
        kind: its format; guessed when None.
        size: coded (width, height) of the video it is for, if known.
        frames: of that video, if known.

    Raises:
        MediaError: it does not parse at all.
    """
    chosen = kind or guess_format(path)
    report = MapReport(chosen)
    seen: set[int] = set()
    say = report.problems.append
    last = -1
    for index, grid in read_levels(path, chosen):
        if not report.frames:
            report.grid = grid.shape[0], grid.shape[1]
            _check_grid(report, size, path, chosen)
        elif grid.shape != report.grid:
            say(f"frame {index}: {grid.shape[1]} x {grid.shape[0]} cells, the first has others")
            break
        report.frames += 1
        values = np.unique(grid).tolist()
        if chosen == "svtav1" and len(values) > SVT_MOST_VALUES:
            say(f"frame {index}: {len(values)} values, SVT-AV1 takes {SVT_MOST_VALUES}")
        seen.update(values)
        last = index
    if not report.frames:
        say("holds no map")
        return report
    report.low, report.high, report.values = min(seen), max(seen), len(seen)
    limit = LIMITS[chosen]
    if max(-report.low, report.high) > limit:
        say(f"offsets from {report.low} to {report.high}: the encoder knows -{limit} to {limit}")
    sticky = chosen == "svtav1"
    if frames is not None and (last >= frames if sticky else report.frames != frames):
        say(f"maps of {report.frames} frames, the video has {frames}")
    _advise(report)
    return report


def _check_grid(
    report: MapReport, size: tuple[int, int] | None, path: str | Path, kind: MapFormat
) -> None:
    if size is None:
        return
    block = CTU
    if kind == "json":
        block = int(json.loads(Path(path).read_text("utf-8")).get("block_size", 0)) or 16
    elif kind == "npz":
        with np.load(path, allow_pickle=False) as members:
            block = int(read_member(members, "block_size"))
    rows, columns = grid_size(*size, block)
    cells = report.grid[0] * report.grid[1]
    if (kind == "svtav1" and cells != rows * columns) or (
        kind != "svtav1" and report.grid != (rows, columns)
    ):
        report.problems.append(
            f"{report.grid[1]} x {report.grid[0]} cells: {size[0]}x{size[1]} has {columns} x {rows} "
            f"of {block} pixels, so every cell would land elsewhere"
        )


def _advise(report: MapReport) -> None:
    note = report.notes.append
    if report.kind.startswith("kvazaar"):
        note("read in coding order: encode with gop=0 or gop=lp-g4d3t1")
    elif report.kind == "svtav1":
        note("qindex offsets; a map stays in force until the next; SvtAv1EncApp 1.6 or newer only")
        if report.low < 0:
            note("offsets below zero do next to nothing: raise the background instead")
    else:
        note("no encoder reads this format")
    if report.values == 1:
        note("one value everywhere: nothing is steered")


def check_for(
    path: str | Path,
    source: str,
    kind: MapFormat | None = None,
    start: int = 0,
    stop: int | None = None,
) -> MapReport:
    """`check_file` against the video it is for, whose frames are decoded to be counted.

    Args:
        path: the map file.
        source: the video.
        kind: the file's format; guessed when None.
        start: first frame that the file is about.
        stop: the one after the last; None = the end.
    """
    from eyeline.media import open_video

    with open_video(source) as video:
        size = video.info.width, video.info.height
        frames = sum(1 for _ in video.pictures(start, stop))
    return check_file(path, kind, size, frames)
