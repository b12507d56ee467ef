"""Grids of levels to few rectangles, and back.

Regions onto decoded frames, as FFmpeg's side data, through PyAV.

A graph of `addroi` filters gives a frame as many slots as it has filters; the slots' numbers are
then written in place, which costs microseconds where configuring a graph per frame costs
milliseconds. Every frame carries side data that ends with a region of the whole picture at zero:
x265 dies where some frames have none, and VP9 keeps the regions of the frame before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import av
import av.filter
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideData
from av.video.frame import PictureType

from eyeline.errors import EncoderError

Levels = npt.NDArray[np.int16]


class Region(NamedTuple):
    """A rectangle of one offset; edges in pixels of the coded picture, bottom and right exclusive."""

    top: int
    bottom: int
    left: int
    right: int
    offset: int


def _runs(levels: Levels) -> list[tuple[int, int, int, int]]:
    """(row, start, end, level) of every run of one level that is not zero, in reading order."""
    rows, columns = levels.shape
    change = np.ones((rows, columns), bool)
    np.not_equal(levels[:, 1:], levels[:, :-1], out=change[:, 1:])
    starts = np.flatnonzero(change)
    ends = np.append(starts[1:], rows * columns)  # a run never crosses rows: each begins one
    values = levels.ravel()[starts]
    keep = values != 0
    starts, ends, values = starts[keep], ends[keep], values[keep]
    row = starts // columns
    base = row * columns
    return list(
        zip(
            row.tolist(),
            (starts - base).tolist(),
            (ends - base).tolist(),
            values.tolist(),
            strict=True,
        )
    )


def rectangles(
    levels: Levels, width: int, height: int, block: int, most: int = 1 << 30
) -> list[Region]:
    """Cover what is not zero by rectangles that do not overlap.

    Runs of one level that stand exactly above one another are merged. Where that leaves more than
    `most`, blocks are joined two by two (their mean, rounded to a level that occurs) until it does
    not.

    Args:
        levels: int16 (rows, columns), QP.
        width: of the picture, pixels.
        height: of the picture, pixels.
        block: side of a block, pixels.
        most: how many there may be; at least 1.

    Returns:
        Rectangles within the picture.
    """
    while True:
        open_runs: dict[tuple[int, int, int], list[int]] = {}
        done: list[tuple[int, int, int, int, int]] = []
        for row, start, end, level in _runs(levels):
            key = (start, end, level)
            span = open_runs.get(key)
            if span is not None and span[1] == row:
                span[1] = row + 1
                continue
            if span is not None:
                done.append((*span, *key))  # type: ignore[arg-type]
            open_runs[key] = [row, row + 1]
        done += [(*span, *key) for key, span in open_runs.items()]  # type: ignore[misc]
        if len(done) <= most or levels.size == 1:
            break
        levels, block = _halve(levels), 2 * block
    return [
        Region(t * block, min(b * block, height), x * block, min(r * block, width), level)
        for t, b, x, r, level in done
    ]


def _halve(levels: Levels) -> Levels:
    """Blocks joined two by two: the level that occurs and lies nearest to their mean."""
    rows, columns = levels.shape
    padded = np.pad(levels, ((0, rows % 2), (0, columns % 2)), mode="edge").astype(np.float32)
    means = (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4
    known = np.unique(levels)
    nearest = np.abs(means[..., None] - known).argmin(-1)
    out: Levels = known[nearest].astype(np.int16)
    return out


def paint(regions: list[Region], width: int, height: int, block: int) -> Levels:
    """The grid that regions stand for, as an encoder reads it: the first one wins.

    Args:
        regions: in order of precedence.
        width: of the picture, pixels.
        height: of the picture, pixels.
        block: side of an encoder's block, pixels; one that is partly covered counts whole.

    Returns:
        int16 (rows, columns), QP.
    """
    grid = np.zeros((-(-height // block), -(-width // block)), np.int16)
    for top, bottom, left, right, offset in reversed(regions):
        grid[top // block : -(-bottom // block), left // block : -(-right // block)] = offset
    return grid


SLOT_COUNTS = (16, 64, 128, 192, 256, 320, 384, 512, 1024)
"""Filters in a graph: the smallest that fits is used. 256 take 0.2 ms a frame, 1024 some 2 ms."""

MOST_REGIONS = SLOT_COUNTS[-1] - 1
"""Regions a frame can carry beside the one of the whole picture."""

FIELDS = 7
"""int32 fields of FFmpeg's `AVRegionOfInterest` (libavutil/frame.h): its own size in bytes, top,
bottom, left, right, and numerator and denominator of the offset as a share of the QP range."""


class RegionWriter:
    """Attaches regions to frames of one size and format.

    Args:
        qp_range: denominator of offsets, see `capabilities.toml`.
    """

    def __init__(self, qp_range: int) -> None:
        self._range = qp_range
        self._graphs: dict[tuple[object, ...], av.filter.Graph] = {}

    def _graph(self, frame: av.VideoFrame, slots: int) -> av.filter.Graph:
        key = frame.width, frame.height, frame.format.name, frame.time_base, slots
        graph = self._graphs.get(key)
        if graph is None:
            graph = av.filter.Graph()
            graph.threads = 1
            last = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            )
            for filter_ in [("addroi", "0:0:iw:ih:0")] * slots + [("buffersink", "")]:
                following = graph.add(*filter_)
                last.link_to(following)
                last = following
            graph.configure()
            self._graphs[key] = graph
        return graph

    def __call__(self, frame: av.VideoFrame, regions: Sequence[Region]) -> av.VideoFrame:
        """A frame of the same samples that carries the regions.

        Args:
            frame: decoded, with a time base.
            regions: at most `MOST_REGIONS`, the first wins where two overlap.

        Raises:
            EncoderError: FFmpeg's side data is not laid out as documented.
        """
        slots = next(n for n in SLOT_COUNTS if n > len(regions))
        graph = self._graph(frame, slots)
        graph.push(frame)
        out = graph.pull()
        data = find_side_data(out, "REGIONS_OF_INTEREST")
        size = 4 * FIELDS
        packed = np.zeros((slots, FIELDS), np.int32)
        packed[:] = size, 0, frame.height, 0, frame.width, 0, self._range
        if regions:
            table = np.array(regions, np.int32)
            packed[: len(regions), 1:6] = table
        if not isinstance(out, av.VideoFrame) or data is None or data.buffer_size != packed.nbytes:
            raise EncoderError("this FFmpeg lays regions out in another way", "use PyAV 18")
        # PyAV hands the bytes out read-only; the buffer was made by the last filter, for this frame.
        ctypes.memmove(data.buffer_ptr, packed.tobytes(), packed.nbytes)
        return out


def find_side_data(frame: av.VideoFrame | av.AudioFrame, name: str) -> SideData | None:
    """A frame's side data by FFmpeg's name in capitals, or None."""
    found = frame.side_data.get(name)
    return found if isinstance(found, SideData) else None


def forget_type(frame: av.VideoFrame) -> None:
    """Let the encoder choose the frame's type: the decoded one would be forced on it."""
    frame.pict_type = PictureType.NONE
