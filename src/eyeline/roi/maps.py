"""Map files: what encoders that read one read, our own JSON, and a check that reads them back.

| format | cells | numbers | order |
|---|---|---|---|
| `kvazaar` | 64 px, exactly ceil(w/64) x ceil(h/64) | text: per frame `W H`, W x H QP offsets | coding |
| `kvazaar-binary` | the same | int32 little-endian W, H, then int8 offsets | coding |
| `svtav1` | 64 px | text, a line a frame: number, then qindex offsets; at most 8 values | display |
| `json` | any | QP offsets with block size and picture size | display |
| `npz` | any | int16 (rows, columns) QP offsets named by frame | display |

`png` is a folder of pictures to look at: a cell a pixel, 128 = no change, 8 codes a QP.

kvazaar reads a frame's map when it codes it, so a file fits `gop=0` or `gop=lp-g4d3t1`, where
pictures are coded as they are shown. In SVT-AV1 (1.6 or newer, its own application) a map stays in
force until the next; since offsets below zero do next to nothing there, everything is shifted so
that the most wanted blocks are 0 and the others above: lower `--crf` by the shift to keep the size.

From a source to a map file, in one pass: what `roi map` calls.

Map files read back: what an encoder would do with one, or why it would not.

Parsers are as strict as the encoders' own are, and say what those do in silence.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt

from eyeline.arrays import read_member
from eyeline.errors import DamagedMediaError, MediaError, OutputError, UsageError
from eyeline.files import open_output
from eyeline.media.types import VideoOptions
from eyeline.roi._footage import Footage, MapSource
from eyeline.roi.steering import SteerOptions, grid_size, level_step
from eyeline.saliency.pipeline import ExtractOptions

Levels = npt.NDArray[np.int16]
MapFormat = Literal["kvazaar", "kvazaar-binary", "svtav1", "json", "npz", "png"]
FORMATS: tuple[MapFormat, ...] = get_args(MapFormat)

CTU = 64
"""Cell of kvazaar's and SVT-AV1's maps, pixels: a coding tree unit, a superblock."""

QINDEX_PER_QP = 4
"""Steps of AV1's qindex (0..255) that stand for one QP: 63 quantiser steps of 4, as SVT-AV1's `--qp`
(0..63) counts them. The scales agree in the middle of the range only."""

SVT_MOST_VALUES = 8
"""AV1 has eight segments, and SVT-AV1 refuses a map with more distinct values."""


def block_of(kind: MapFormat, wanted: int | None = None) -> int:
    """Side of a cell, pixels: the encoder's, or 16 where the format takes any."""
    if kind.startswith("kvazaar") or kind == "svtav1":
        if wanted not in (None, CTU):
            raise OutputError(f"{kind}: cells are {CTU} pixels", "leave out --block")
        return CTU
    return wanted or 16


class MapWriter(ABC):
    """Writes frames' levels to a stream, in the order of display.

    Args:
        stream: binary.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    @abstractmethod
    def write(self, index: int, levels: Levels) -> None:
        """Add a frame.

        Args:
            index: the frame's number, from 0 in the file's clip.
            levels: int16 (rows, columns), QP.
        """

    def finish(self) -> None:  # noqa: B027 - most formats need nothing
        """Write what ends the file."""


class KvazaarText(MapWriter):
    """kvazaar's text: per frame a line `W H`, then H lines of W offsets."""

    def write(self, index: int, levels: Levels) -> None:
        """See `MapWriter`."""
        rows, columns = levels.shape
        lines = [f"{columns} {rows}"]
        lines += [" ".join(map(str, row)) for row in levels.tolist()]
        self._stream.write(("\n".join(lines) + "\n").encode("ascii"))


class KvazaarBinary(MapWriter):
    """kvazaar's binary (suffix .bin): per frame int32 W, int32 H, then W x H int8 offsets."""

    def write(self, index: int, levels: Levels) -> None:
        """See `MapWriter`."""
        rows, columns = levels.shape
        self._stream.write(struct.pack("<2i", columns, rows) + levels.astype(np.int8).tobytes())


class SvtAv1Text(MapWriter):
    """SVT-AV1's text: a line a frame, `number offset offset ...`, qindex units, none below zero."""

    def __init__(self, stream: BinaryIO, lowest: int) -> None:
        super().__init__(stream)
        self._lowest = lowest

    def write(self, index: int, levels: Levels) -> None:
        """See `MapWriter`.

        Raises:
            OutputError: more than 8 distinct values.
        """
        shifted = np.clip((levels.astype(np.int32) - self._lowest) * QINDEX_PER_QP, 0, 255)
        if len(np.unique(shifted)) > SVT_MOST_VALUES:
            raise OutputError(
                f"frame {index}: more than {SVT_MOST_VALUES} values", "ask for fewer --levels"
            )
        numbers = " ".join(map(str, shifted.ravel().tolist()))
        self._stream.write(f"{index} {numbers}\n".encode("ascii"))


class JsonMaps(MapWriter):
    """Ours: one object with the picture's and a cell's size, and `frames` of rows of offsets."""

    def __init__(self, stream: BinaryIO, width: int, height: int, block: int) -> None:
        super().__init__(stream)
        head = {"format": "eyeline-roi", "version": 1, "width": width, "height": height}
        head |= {"block_size": block, "unit": "qp"}
        self._separator = ""
        stream.write((json.dumps(head)[:-1] + ', "frames": [').encode())

    def write(self, index: int, levels: Levels) -> None:
        """See `MapWriter`."""
        frame = {"frameNum": index, "qp_offset": levels.tolist()}
        text = json.dumps(frame, separators=(",", ":"))
        self._stream.write(f"{self._separator}\n{text}".encode())
        self._separator = ","

    def finish(self) -> None:
        """Close the list and the object."""
        self._stream.write(b"\n]}\n")


class NpzMaps(MapWriter):
    """A zip of int16 arrays named `000123`, with `block_size` and `picture_size` (width, height)."""

    def __init__(self, stream: BinaryIO, width: int, height: int, block: int) -> None:
        super().__init__(stream)
        self._zip = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED)
        self._add("block_size", np.array(block, np.int32))
        self._add("picture_size", np.array([width, height], np.int32))

    def _add(self, name: str, array: npt.NDArray[Any]) -> None:
        with self._zip.open(zipfile.ZipInfo(f"{name}.npy"), "w") as f:
            np.lib.format.write_array(f, array, allow_pickle=False)  # type: ignore[no-untyped-call]

    def write(self, index: int, levels: Levels) -> None:
        """See `MapWriter`."""
        self._add(f"{index:06d}", np.ascontiguousarray(levels))

    def finish(self) -> None:
        """Write the zip's directory."""
        self._zip.close()


def grey_of(levels: Levels) -> npt.NDArray[np.uint8]:
    """Levels as a grey picture: 128 is no change, brighter is more bits, 8 codes a QP."""
    return np.clip(128 - 8 * levels.astype(np.int32), 0, 255).astype(np.uint8)


class PngMaps:
    """A folder of `000123.png`, see `grey_of`; each appears whole.

    Args:
        folder: made if its parent exists.

    Raises:
        OutputError: it can't be made, or holds files.
    """

    def __init__(self, folder: Path) -> None:
        from eyeline.saliency.maps import PngFolder

        self._sink = PngFolder(folder, 8)

    def write(self, index: int, levels: Levels) -> None:
        """See `MapWriter`."""
        self._sink.write(index, 0.0, grey_of(levels).astype(np.float32) / np.float32(255))

    def commit(self) -> None:
        """Keep the files."""
        self._sink.commit()

    def discard(self) -> None:
        """Remove what was written."""
        self._sink.discard()


def open_writer(
    kind: MapFormat, stream: BinaryIO, width: int, height: int, block: int, lowest: int
) -> MapWriter:
    """A writer by the format's name.

    Args:
        kind: not `png`, which is a folder.
        stream: binary.
        width: of the coded picture, pixels.
        height: of the coded picture, pixels.
        block: side of a cell, pixels.
        lowest: the least level that can come, QP: what SVT-AV1's 0 stands for.
    """
    if kind == "kvazaar":
        return KvazaarText(stream)
    if kind == "kvazaar-binary":
        return KvazaarBinary(stream)
    if kind == "svtav1":
        return SvtAv1Text(stream, lowest)
    if kind == "json":
        return JsonMaps(stream, width, height, block)
    if kind == "npz":
        return NpzMaps(stream, width, height, block)
    raise OutputError(f"{kind}: is not one file", "see PngMaps")


@dataclass(frozen=True)
class MapResult:
    """What was written.

    Attributes:
        frames: maps.
        grid: (rows, columns) of cells.
        block: side of a cell, pixels.
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
    """Write the QP offsets of a video's frames to a file.

    Args:
        source: path of a video, or what `eyeline.media.open_video` takes.
        out: the file, or a folder for `png`.
        kind: see `eyeline.roi.maps`.
        steer: how maps become offsets.
        maps: see `eyeline.roi._footage.MapSource`; None asks the model.
        block: side of a cell, pixels, where the format takes any.
        video: how the source is read.
        extract_options: how the model is run, and which frames.
        model: registry id, path or `Model`.
        registry: the user's own registry folder.
        force: replace a file of that name.
        on_frame: called with the frames done.

    Raises:
        UsageError: strength 0, which steers nothing.
        OutputError: the file exists and `force` is False, or can't be written.
        MediaError: the source or the maps can't be read, or do not belong together.
        DamagedMediaError: the source ends early; what came before is kept.
    """
    o = steer or SteerOptions()
    if o.strength == 0:
        raise UsageError("strength 0 makes no map", "give QPs, such as 4")
    if str(out) != "-" and Path(out).exists() and not force:
        raise OutputError(f"{out}: exists", "add --force to replace it")
    size = block_of(kind, block)
    if size < 8 or size > 256 or size % 8:
        raise UsageError(f"block is {size}", "give a multiple of 8, 8..256")
    most = SVT_MOST_VALUES if kind == "svtav1" else None
    footage = Footage(
        source, maps, o, size, most,
        video=video, extract_options=extract_options, model=model, registry=registry,
    )  # fmt: skip
    advance = on_frame or (lambda done: None)
    with footage:
        i, o = footage.info, footage.steer
        step = level_step(o.span, min(o.levels, most or o.levels))
        lowest = round(o.lowest / step) * step
        if kind == "png":
            folder = PngMaps(Path(out))
            try:
                done = _fill(footage, folder, advance)
            except BaseException:
                folder.discard()
                raise
            folder.commit()
        else:
            with open_output(os.fspath(out)) as stream:
                writer = open_writer(kind, stream, i.width, i.height, size, lowest)
                done = _fill(footage, writer, advance)
                writer.finish()
    frames, grid, damage = done
    if damage is not None:
        raise damage
    return MapResult(frames, grid, size)


def _fill(
    footage: Footage, writer: Any, advance: Callable[[int], None]
) -> tuple[int, tuple[int, int], DamagedMediaError | None]:
    frames, grid, damage = 0, (0, 0), None
    try:
        for p in footage:
            assert p.levels is not None  # noqa: S101 - strength is not 0
            grid = p.levels.shape[0], p.levels.shape[1]
            writer.write(p.index - footage.start, p.levels)
            frames += 1
            advance(frames)
    except DamagedMediaError as exc:
        if not frames:
            raise
        damage = exc
    if not frames:
        raise MediaError(f"{footage.info.path}: no frames in the range asked for", "check --frames")
    return frames, grid, damage


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
