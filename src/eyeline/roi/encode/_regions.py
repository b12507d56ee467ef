"""Convert grids of levels to few rectangles, and attach rectangles to frames as FFmpeg's side data.

A graph of `addroi` filters gives a frame one slot per filter. The numbers of the slots are then written
in place, which takes microseconds, while configuring a graph per frame would take milliseconds. Every
frame carries side data, and the last region is the whole picture with an offset of zero: x265 dies if
some frames have none, and VP9 keeps the regions of the frame before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import PictureType

from eyeline.errors import EncoderError
from eyeline.roi.steering import Levels


class Region(NamedTuple):
    """A rectangle with one offset, QP; edges in pixels of the coded picture, bottom and right exclusive."""

    top: int
    bottom: int
    left: int
    right: int
    offset: int


def _runs(levels: Levels) -> list[tuple[int, int, int, int]]:
    """Return (row, start, end, level) of every run of one level that is not zero, in reading order."""
    rows, columns = levels.shape
    change = np.ones((rows, columns), bool)
    np.not_equal(levels[:, 1:], levels[:, :-1], out=change[:, 1:])
    starts = np.flatnonzero(change)
    ends = np.append(starts[1:], rows * columns)  # each row begins a run, so no run crosses rows
    values = levels.ravel()[starts]
    row, first = np.divmod(starts, columns)
    runs = np.stack([row, first, ends - row * columns, values], 1)[values != 0]
    return list(map(tuple, runs.tolist()))


def rectangles(
    levels: Levels, width: int, height: int, block: int, most: int = 1 << 30
) -> list[Region]:
    """Cover all blocks whose level is not zero by rectangles that do not overlap.

    Runs of one level that stand exactly above one another are merged. If that leaves more than `most`,
    blocks are joined two by two: to their mean, rounded to a level that occurs.

    Args:
        levels: int16 (rows, columns), QP.
        width: of the picture, pixels.
        height: of the picture, pixels.
        block: side of a block, pixels.
        most: most rectangles, at least 1.

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
    rows, columns = levels.shape
    padded = np.pad(levels, ((0, rows % 2), (0, columns % 2)), mode="edge").astype(np.float32)
    means = (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4
    known = np.unique(levels)
    nearest = np.abs(means[..., None] - known).argmin(-1)
    out: Levels = known[nearest].astype(np.int16)
    return out


SLOT_COUNTS = (16, 64, 128, 192, 256, 320, 384, 512, 1024)
"""Filters of a graph: the smallest sufficient number is used. 256 take 0.2 ms per frame, 1024 2 ms."""

MOST_REGIONS = SLOT_COUNTS[-1] - 1
"""Most regions of a frame, beside the one of the whole picture."""

FIELDS = 7
"""int32 fields of FFmpeg's `AVRegionOfInterest` (libavutil/frame.h): its size in bytes, top, bottom,
left, right, and the offset as a share of the QP range: numerator, denominator."""


class RegionWriter:
    """Attaches regions to frames; `qp_range` is the denominator of offsets, see `capabilities.toml`."""

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
        """Return a frame of the same samples with at most `MOST_REGIONS` regions; the first one wins.

        Raises:
            EncoderError: FFmpeg's side data does not have the documented layout.
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
            packed[: len(regions), 1:6] = np.array(regions, np.int32)
        if not isinstance(out, av.VideoFrame) or data is None or data.buffer_size != packed.nbytes:
            raise EncoderError("this FFmpeg has another layout of regions", "use PyAV 18")
        # PyAV gives the bytes read-only; the buffer belongs to this frame alone.
        ctypes.memmove(data.buffer_ptr, packed.tobytes(), packed.nbytes)
        return out


def find_side_data(frame: av.VideoFrame | av.AudioFrame, name: str) -> SideData | None:
    """Return a frame's side data by FFmpeg's name in capitals, or None."""
    found = frame.side_data.get(name)
    return found if isinstance(found, SideData) else None


def forget_type(frame: av.VideoFrame) -> None:
    """Let the encoder choose the type of the frame instead of the decoded type."""
    frame.pict_type = PictureType.NONE
