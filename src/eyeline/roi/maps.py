"""Write and check map files, which pass QP offsets per block (cell) to an encoder.

| format | cells | numbers | order of frames |
|---|---|---|---|
| `kvazaar` | 64 px, ceil(w/64) x ceil(h/64) | text: per frame `W H`, then W x H QP offsets | coding |
| `kvazaar-binary` | same as `kvazaar` | int32 little-endian W, H, then int8 offsets | coding |
| `svtav1` | 64 px | text, one line per frame: number, then qindex offsets; at most 8 values | display |
| `json` | any | QP offsets with block size and picture size | display |
| `npz` | any | int16 (rows, columns) QP offsets, named by frame | display |

kvazaar reads the maps in coding order. Map files are written in display order, so they need `gop=0` or
`gop=lp-g4d3t1`, where both orders are the same. SVT-AV1 reads map files since version 1.6, in its own
application, and applies a map until the next one. Negative offsets have hardly any effect in SVT-AV1, so
all offsets are shifted: the most salient blocks get 0, and all others get positive offsets. To keep the
file size, lower `--crf` by the shift.

To add a format, add a writer to `WRITERS` and a reader to `READERS`.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from eyeline.arrays import read_member
from eyeline.errors import DamagedMediaError, MediaError, OutputError, UsageError
from eyeline.files import open_output
from eyeline.media import open_video
from eyeline.media.types import VideoOptions
from eyeline.roi._footage import Footage, MapSource
from eyeline.roi.steering import Levels, SteerOptions, grid_size, level_step
from eyeline.saliency.pipeline import ExtractOptions

Offsets = npt.NDArray[np.int32]
MapFormat = Literal["kvazaar", "kvazaar-binary", "svtav1", "json", "npz"]

CTU = 64
"""Cell size in pixels of the maps of kvazaar (a coding tree unit) and SVT-AV1 (a superblock)."""

DEFAULT_BLOCK = 16

QINDEX_PER_QP = 4
"""Steps of AV1's qindex (0..255) per QP. SVT-AV1's `--qp` (0..63) has the same ratio; the QP scales of HEVC
and AV1 agree only in the middle of the range."""

SVT_MOST_VALUES = 8
"""SVT-AV1 rejects a map with more distinct values, because AV1 has eight segments."""

MOST_CELLS = 1 << 22
"""Largest number of cells per map in a file; a header with a larger number is taken for damaged."""

LIMITS = {"kvazaar": 51, "kvazaar-binary": 51, "svtav1": 255, "json": 51, "npz": 51}
"""Largest absolute offset by format: QP, or qindex for `svtav1`."""


class MapWriter(ABC):
    """Writes levels (QP offsets per cell) in display order; `lowest` is the smallest possible level."""

    def __init__(
        self, stream: BinaryIO, width: int, height: int, block: int = CTU, lowest: int = 0
    ) -> None:
        self._stream, self._lowest = stream, lowest
        self._begin(width, height, block)

    def _begin(self, width: int, height: int, block: int) -> None:  # noqa: B027 - optional
        pass

    @abstractmethod
    def write(self, index: int, levels: Levels) -> None:
        """Write the levels of a frame, int16 (rows, columns), QP; `index` counts from 0."""

    def finish(self) -> None:  # noqa: B027 - optional
        """Write the end of the file."""


class _KvazaarText(MapWriter):
    """Text format of kvazaar: per frame a line `W H`, then H lines of W offsets."""

    def write(self, index: int, levels: Levels) -> None:
        rows, columns = levels.shape
        lines = [f"{columns} {rows}", *(" ".join(map(str, row)) for row in levels.tolist())]
        self._stream.write(("\n".join(lines) + "\n").encode("ascii"))


class _KvazaarBinary(MapWriter):
    """Binary format of kvazaar (suffix .bin): per frame int32 W, int32 H, then W x H int8 offsets."""

    def write(self, index: int, levels: Levels) -> None:
        rows, columns = levels.shape
        self._stream.write(struct.pack("<2i", columns, rows) + levels.astype(np.int8).tobytes())


class _SvtAv1Text(MapWriter):
    """Text format of SVT-AV1: per frame a line of its number and qindex offsets, which are at least 0."""

    def write(self, index: int, levels: Levels) -> None:
        shifted = np.clip((levels.astype(np.int32) - self._lowest) * QINDEX_PER_QP, 0, 255)
        if (count := len(np.unique(shifted))) > SVT_MOST_VALUES:
            raise OutputError(
                f"frame {index} has {count} distinct offsets, but SVT-AV1 allows {SVT_MOST_VALUES}",
                f"give --levels {SVT_MOST_VALUES} or less",
            )
        numbers = " ".join(map(str, shifted.ravel().tolist()))
        self._stream.write(f"{index} {numbers}\n".encode("ascii"))


class _JsonMaps(MapWriter):
    """One JSON object with the sizes of the picture and of a cell, and the offsets of all `frames`."""

    def _begin(self, width: int, height: int, block: int) -> None:
        head = {"format": "eyeline-roi", "version": 1, "width": width, "height": height}
        head |= {"block_size": block, "unit": "qp"}
        self._separator = ""
        self._stream.write((json.dumps(head)[:-1] + ', "frames": [').encode())

    def write(self, index: int, levels: Levels) -> None:
        frame = {"frameNum": index, "qp_offset": levels.tolist()}
        text = json.dumps(frame, separators=(",", ":"))
        self._stream.write(f"{self._separator}\n{text}".encode())
        self._separator = ","

    def finish(self) -> None:
        self._stream.write(b"\n]}\n")


class _NpzMaps(MapWriter):
    """An .npz with `block_size`, `picture_size` (width, height), and int16 arrays named like `000123`."""

    def _begin(self, width: int, height: int, block: int) -> None:
        self._zip = zipfile.ZipFile(self._stream, "w", zipfile.ZIP_DEFLATED)
        self._add("block_size", np.array(block, np.int32))
        self._add("picture_size", np.array([width, height], np.int32))

    def _add(self, name: str, array: npt.NDArray[Any]) -> None:
        with self._zip.open(zipfile.ZipInfo(f"{name}.npy"), "w") as f:
            np.lib.format.write_array(f, array, allow_pickle=False)  # type: ignore[no-untyped-call]

    def write(self, index: int, levels: Levels) -> None:
        self._add(f"{index:06d}", np.ascontiguousarray(levels))

    def finish(self) -> None:
        self._zip.close()


WRITERS: dict[MapFormat, type[MapWriter]] = {
    "kvazaar": _KvazaarText,
    "kvazaar-binary": _KvazaarBinary,
    "svtav1": _SvtAv1Text,
    "json": _JsonMaps,
    "npz": _NpzMaps,
}


@dataclass(frozen=True)
class MapResult:
    """Summary of a written map file.

    Attributes:
        frames: number of maps.
        grid: number of cells per map, (rows, columns).
        block: cell size in pixels.
    """

    frames: int
    grid: tuple[int, int]
    block: int


def write_map_file(
    source: Any,
    out: str | os.PathLike[str],
    kind: MapFormat,
    steer: SteerOptions | None = None,
    maps: MapSource | None = None,
    *,
    block: int | None = None,
    video: VideoOptions | None = None,
    extract_options: ExtractOptions | None = None,
    model: Any = None,
    registry: str | os.PathLike[str] | None = None,
    force: bool = True,
    on_frame: Callable[[int], None] | None = None,
) -> MapResult:
    """Write the QP offsets of a video's frames to a map file.

    Args:
        source: path of a video, or another source that `eyeline.media.open_video` accepts.
        out: path of the map file; `-` is stdout.
        kind: format of the map file; the docstring of this module lists them.
        steer: options of the conversion from saliency to QP offsets.
        maps: saliency maps, see `eyeline.roi._footage.MapSource`; None runs the model.
        block: cell size in pixels, for `json` and `npz`; None means 16.
        video: options for reading the source.
        extract_options: options for running the model, and the range of frames.
        model: registry id, path or `Model`; None uses the default of the registry.
        registry: folder of the user's own registry.
        force: replace an existing file.
        on_frame: called with the number of frames done.

    Raises:
        UsageError: the strength is 0, or `block` is invalid.
        OutputError: the file exists and `force` is False, or it cannot be written.
        MediaError: the source or the maps cannot be read, or the maps do not fit the source.
        DamagedMediaError: the source is damaged; the maps of the frames before the damage are kept.
    """
    o = steer or SteerOptions()
    if o.strength == 0:
        raise UsageError(
            "the strength is 0, so there are no offsets to write",
            "give a strength in QP, such as 4",
        )
    if str(out) != "-" and Path(out).exists() and not force:
        raise OutputError(f"{out}: exists already", "add --force to replace it")
    size = _cell_size(kind, block)
    most = SVT_MOST_VALUES if kind == "svtav1" else None
    footage = Footage(
        source, maps, o, size, most,
        video=video, extract_options=extract_options, model=model, registry=registry,
    )  # fmt: skip
    frames, grid, damage = 0, (0, 0), None
    with footage, open_output(os.fspath(out)) as stream:
        i, o = footage.info, footage.steer
        step = level_step(o.span, min(o.levels, most or o.levels))
        lowest = round(o.lowest / step) * step
        writer = WRITERS[kind](stream, i.width, i.height, size, lowest)
        try:
            for p in footage:
                assert p.levels is not None  # noqa: S101 - the strength is not 0
                grid = p.levels.shape[0], p.levels.shape[1]
                writer.write(p.index - footage.start, p.levels)
                frames += 1
                if on_frame is not None:
                    on_frame(frames)
        except DamagedMediaError as exc:
            if not frames:
                raise
            damage = exc
        if not frames:
            raise MediaError(f"{i.path}: has no frames in the given range", "correct --frames")
        writer.finish()
    if damage is not None:
        raise damage
    return MapResult(frames, grid, size)


def _cell_size(kind: MapFormat, wanted: int | None) -> int:
    if kind in ("json", "npz"):
        size = wanted or DEFAULT_BLOCK
        if size < 8 or size > 256 or size % 8:
            raise UsageError(
                f"--block is {size}; it must be a multiple of 8 between 8 and 256",
                f"give a value in this range; the default is {DEFAULT_BLOCK}",
            )
        return size
    if wanted not in (None, CTU):
        raise OutputError(
            f"--block is {wanted}, but the cells of {kind} always have {CTU} pixels",
            "leave out --block",
        )
    return CTU


@dataclass
class MapReport:
    """Result of the check of a map file.

    Attributes:
        format: format of the map file.
        frames: number of maps.
        grid: number of cells of the first map, (rows, columns).
        offsets: smallest and largest offset.
        values: number of distinct offsets.
        problems: reasons why the encoder would reject or misread the file, one line each.
        notes: advice on how to use the file.
    """

    format: MapFormat
    frames: int = 0
    grid: tuple[int, int] = (0, 0)
    offsets: tuple[int, int] = (0, 0)
    values: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return asdict(self)


def guess_format(path: str | Path) -> MapFormat:
    """Guess the format of a map file from its suffix and its first line.

    Raises:
        MediaError: the file cannot be read.
    """
    suffixes: dict[str, MapFormat] = {".json": "json", ".npz": "npz", ".bin": "kvazaar-binary"}
    if known := suffixes.get(Path(path).suffix.lower()):
        return known
    try:
        with Path(path).open("rb") as f:
            line = f.readline(1 << 20)
    except OSError as exc:
        raise MediaError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    return "kvazaar" if len(line.split()) == 2 else "svtav1"


def read_levels(path: str | Path, kind: MapFormat) -> Iterator[tuple[int, Offsets]]:
    """Read the maps of a file, which is parsed as strictly as the encoder does.

    Yields:
        Frame number and offsets of each map, int32 (rows, columns). A map of `svtav1` has one row, because
        the file does not contain the width of the picture.

    Raises:
        MediaError: the file is not valid in this format.
    """
    try:
        yield from READERS[kind](Path(path))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as exc:
        raise MediaError(
            f"{path}: is not a valid {kind} map file: {exc}",
            "give the format of the file with --format, or write the file again",
        ) from exc


def _read_json(path: Path) -> Iterator[tuple[int, Offsets]]:
    for f in _json_document(path)["frames"]:
        yield int(f["frameNum"]), np.array(f["qp_offset"], np.int32)


def _json_document(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text("utf-8"))
    if not isinstance(document, dict) or document.get("format") != "eyeline-roi":
        raise ValueError("the value of the key 'format' is not eyeline-roi")
    return document


def _read_npz(path: Path) -> Iterator[tuple[int, Offsets]]:
    with np.load(path, allow_pickle=False) as members:
        for name in sorted(n for n in members.files if n.isdigit()):
            yield int(name), read_member(members, name).astype(np.int32)


def _read_kvazaar_text(path: Path) -> Iterator[tuple[int, Offsets]]:
    with path.open("r", encoding="ascii") as f:
        words = (word for line in f for word in line.split())
        for index, first in enumerate(words):
            columns, rows = int(first), int(next(words, "0"))
            count = _cell_count(index, columns, rows)
            cells = [int(word) for _, word in zip(range(count), words, strict=False)]
            yield index, _grid(index, np.array(cells, np.int32), rows, columns)


def _read_kvazaar_binary(path: Path) -> Iterator[tuple[int, Offsets]]:
    with path.open("rb") as f:
        index = 0
        while head := f.read(8):
            if len(head) < 8:
                raise ValueError(f"the file ends in the header of map {index}")
            columns, rows = struct.unpack("<2i", head)
            data = f.read(_cell_count(index, columns, rows))
            yield index, _grid(index, np.frombuffer(data, np.int8), rows, columns)
            index += 1


def _cell_count(index: int, columns: int, rows: int) -> int:
    if rows < 1 or columns < 1 or rows * columns > MOST_CELLS:
        raise ValueError(f"map {index} has an invalid size of {columns} x {rows} cells")
    return rows * columns


def _grid(index: int, cells: npt.NDArray[Any], rows: int, columns: int) -> Offsets:
    if len(cells) < rows * columns:
        raise ValueError(
            f"the file ends after {len(cells)} of the {rows * columns} cells of map {index}"
        )
    return cells.astype(np.int32).reshape(rows, columns)


def _read_svtav1(path: Path) -> Iterator[tuple[int, Offsets]]:
    last = -1
    with path.open("r", encoding="ascii") as f:
        for number, line in enumerate(f, 1):
            cells = [int(word) for word in line.split()]
            if not cells:
                continue
            if cells[0] <= last:
                raise ValueError(
                    f"line {number}: frame {cells[0]} follows frame {last}, but frame numbers must increase"
                )
            last = cells[0]
            yield last, np.array([cells[1:]], np.int32)


READERS: dict[MapFormat, Callable[[Path], Iterator[tuple[int, Offsets]]]] = {
    "kvazaar": _read_kvazaar_text,
    "kvazaar-binary": _read_kvazaar_binary,
    "svtav1": _read_svtav1,
    "json": _read_json,
    "npz": _read_npz,
}


def check_for(
    path: str | Path,
    source: str,
    kind: MapFormat | None = None,
    start: int = 0,
    stop: int | None = None,
) -> MapReport:
    """Check a map file against its video; the video is decoded to count its frames.

    The map file describes the frames from `start` to before `stop`; a `stop` of None means the end of the
    video, and a `kind` of None guesses the format.

    Raises:
        MediaError: the map file is not valid in this format, or the video cannot be read.
    """
    with open_video(source) as video:
        size = video.info.width, video.info.height
        frames = sum(1 for _ in video.pictures(start, stop))
    return check_file(path, kind, size, frames)


def check_file(
    path: str | Path,
    kind: MapFormat | None = None,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
) -> MapReport:
    """Check whether the encoder would accept a map file and read it as intended.

    `size` is the coded (width, height) of the video, and `frames` its number of frames; None skips the
    checks against them. A `kind` of None guesses the format.

    Raises:
        MediaError: the map file is not valid in this format.
    """
    kind = kind or guess_format(path)
    report = MapReport(kind)
    seen: set[int] = set()
    problem, note = report.problems.append, report.notes.append
    last = -1
    for index, grid in read_levels(path, kind):
        if not report.frames:
            report.grid = grid.shape[0], grid.shape[1]
            if size is not None:
                report.problems += _grid_problems(Path(path), report, size)
        elif grid.shape != report.grid:
            problem(
                f"the map of frame {index} has {grid.shape[1]} x {grid.shape[0]} cells, but the first "
                f"one has {report.grid[1]} x {report.grid[0]}"
            )
            break
        report.frames += 1
        values = np.unique(grid).tolist()
        if kind == "svtav1" and len(values) > SVT_MOST_VALUES:
            problem(
                f"frame {index} has {len(values)} distinct offsets, but SVT-AV1 allows {SVT_MOST_VALUES}"
            )
        seen.update(values)
        last = index
    if not report.frames:
        problem("the file contains no map")
        return report
    low, high = min(seen), max(seen)
    report.offsets, report.values = (low, high), len(seen)
    limit = LIMITS[kind]
    if max(-low, high) > limit:
        problem(f"offsets range from {low} to {high}, but the encoder allows -{limit} to {limit}")
    # SVT-AV1 applies a map until the next one, so not every frame needs a map.
    if frames is not None and (last >= frames if kind == "svtav1" else report.frames != frames):
        problem(f"the file has maps of {report.frames} frames, but the video has {frames} frames")
    if kind.startswith("kvazaar"):
        note("kvazaar reads the maps in coding order: encode with gop=0 or gop=lp-g4d3t1")
    elif kind == "svtav1":
        note(
            "offsets are in qindex, and SVT-AV1 applies a map until the next one; "
            "SvtAv1EncApp must be 1.6 or newer"
        )
        if low < 0:
            note("negative offsets have hardly any effect: raise the other offsets instead")
    else:
        note("no encoder reads this format")
    if report.values == 1:
        note("all offsets are equal, so they do not move any bits")
    return report


def _grid_problems(path: Path, report: MapReport, size: tuple[int, int]) -> Iterator[str]:
    block = CTU
    if report.format == "json":
        block = int(_json_document(path).get("block_size", 0)) or DEFAULT_BLOCK
    elif report.format == "npz":
        with np.load(path, allow_pickle=False) as members:
            block = int(read_member(members, "block_size"))
    rows, columns = grid_size(*size, block)
    wanted = (1, rows * columns) if report.format == "svtav1" else (rows, columns)
    if report.grid != wanted:
        yield (
            f"the map has {report.grid[1]} x {report.grid[0]} cells, but a picture of "
            f"{size[0]}x{size[1]} has {columns} x {rows} cells of {block} pixels, so the encoder would "
            "apply offsets to the wrong cells"
        )
