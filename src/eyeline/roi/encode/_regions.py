"""Convert levels (QP offsets per block) to regions (rectangles), and attach these to frames as side data.

PyAV can't create the side data, so a graph of `addroi` filters adds one placeholder region per filter. The
numbers of the regions are then written into the side data, which takes microseconds; a new graph per frame
would take milliseconds. Every frame gets side data, and its last region is the whole picture with an offset
of zero, because x265 crashes if some frames have no side data, and VP9 would keep the regions of the
previous frame.
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
    """A rectangle of the coded picture with one QP offset; `bottom` and `right` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int
    offset: int


def _runs(levels: Levels) -> list[tuple[int, int, int, int]]:
    """Return (row, start, end, level) of every horizontal run of equal levels except zero, row by row."""
    rows, columns = levels.shape
    change = np.ones((rows, columns), bool)
    np.not_equal(levels[:, 1:], levels[:, :-1], out=change[:, 1:])
    starts = np.flatnonzero(change)
    ends = np.append(
        starts[1:], rows * columns
    )  # a new run starts at each row, so no run crosses rows
    values = levels.ravel()[starts]
    row, first = np.divmod(starts, columns)
    runs = np.stack([row, first, ends - row * columns, values], 1)[values != 0]
    return list(map(tuple, runs.tolist()))


def rectangles(
    levels: Levels, width: int, height: int, block: int, most: int = 1 << 30
) -> list[Region]:
    """Cover all blocks whose level is not zero by regions that do not overlap.

    Runs of equal levels with the same start and end in consecutive rows become one region. While there are
    more than `most` regions, 2 x 2 blocks are replaced by one block, whose level is the nearest existing
    level to their mean.

    `levels` are int16 (rows, columns); `width`, `height` and `block` are in pixels.
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
"""Possible numbers of filters in a graph. 256 filters take 0.2 ms per frame, and 1024 take 2 ms, so the
smallest sufficient number is used."""

MOST_REGIONS = SLOT_COUNTS[-1] - 1
"""Largest number of regions of a frame, without the region of the whole picture."""

FIELDS = 7
"""Number of int32 fields of FFmpeg's `AVRegionOfInterest` (libavutil/frame.h): size in bytes, top, bottom,
left, right, and numerator and denominator of the offset as a fraction of the QP range."""


class RegionWriter:
    """Attaches regions to frames; `qp_range` is the denominator of offsets, from `capabilities.toml`."""

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
        """Return the frame with at most `MOST_REGIONS` regions; where they overlap, the first one applies.

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
            raise EncoderError(
                "the FFmpeg in PyAV has an unknown layout of regions",
                "install PyAV 18",
            )
        # PyAV exposes the buffer as read-only, but no other frame uses it, so it is safe to write.
        ctypes.memmove(data.buffer_ptr, packed.tobytes(), packed.nbytes)
        return out


def find_side_data(frame: av.VideoFrame | av.AudioFrame, name: str) -> SideData | None:
    """Return the side data of a frame by FFmpeg's name in upper case; None if the frame has none."""
    found = frame.side_data.get(name)
    return found if isinstance(found, SideData) else None


def forget_type(frame: av.VideoFrame) -> None:
    """Clear the picture type of a decoded frame, so that the encoder chooses its own."""
    frame.pict_type = PictureType.NONE
