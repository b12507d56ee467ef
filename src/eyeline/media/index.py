"""Where a video's frames are, from its packets alone: what splitting it at keyframes needs.

`index_frames` reads packets and decodes nothing. It answers only where they tell frames for sure,
and a `Video` that is given the answer holds every frame to it (`SeekError`), so that a file that
fooled it here is found out there.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from eyeline.media.container import ContainerReader
from eyeline.media.h264 import Pictures
from eyeline.media.images import ImagesReader
from eyeline.media.keyframes import may_begin, shows
from eyeline.media.matroska import broken_at
from eyeline.media.raw import RawReader
from eyeline.media.source import VideoPath, reader_of
from eyeline.media.types import DecodeReport, FrameIndex, VideoOptions

__all__ = ["FrameIndex", "index_frames"]

MAX_REORDER = 16
"""Frames by which decoding and presentation order may differ: the size of the picture buffer of
H.264 (ITU-T H.264, A.3.1) and HEVC (ITU-T H.265, A.4.2), the largest of all codecs."""


def index_frames(path: VideoPath, options: VideoOptions | None = None) -> FrameIndex | None:
    """Find every frame of a video and where decoding may begin, without decoding.

    Args:
        path: see `eyeline.media.open_video`.
        options: how it will be read.

    Returns:
        The index. None where packets don't tell frames for sure, or there is nothing to seek:
        stdin, pipes and Y4M; elementary streams and others without presentation times; files that
        are cut short or damaged; edit lists that hide frames; times out of order; codecs whose
        keyframes are not known to be independent; a single keyframe.

    Raises:
        MediaError, UsageError: it can't be read; see `eyeline.media.open_video`.
    """
    if isinstance(path, str | os.PathLike) and (path == "-" or Path(path).is_fifo()):
        return None  # read once
    report = DecodeReport()
    reader = reader_of(path, options or VideoOptions(), report)
    try:
        if isinstance(reader, ContainerReader):
            found = _index_packets(reader)
            whole = found is not None and not report.corrupt and not reader.ended_early()
            return found if whole and not _broken(reader) else None
        if isinstance(reader, RawReader | ImagesReader):
            numbers = np.arange(reader.facts.frames or 0)
            return FrameIndex(numbers, numbers) if len(numbers) > 1 else None
        return None
    finally:
        reader.close()


def _broken(reader: ContainerReader) -> bool:
    return "matroska" in reader.format and broken_at(reader.path) is not None


def _index_packets(reader: ContainerReader) -> FrameIndex | None:
    times: list[int] = []  # of frames, in decoding order
    starts: list[int] = []  # of keyframes
    last: int | None = None
    codec = reader.stream.codec_context
    pictures = Pictures(codec.extradata or b"") if codec.name == "h264" else None
    for packet in reader.packets():
        if packet.size == 0 and packet.dts is None:
            continue  # the demuxer's last word
        dts, pts = packet.dts, packet.pts
        if packet.size == 0 or packet.is_corrupt or packet.is_discard or pts is None:
            return None
        if dts is not None and last is not None and dts <= last:
            return None  # joined or damaged: decoded on its own, a part may come out otherwise
        last = last if dts is None else dts
        if not shows(codec.name, packet):
            continue
        begins = pictures.see(bytes(packet)) if pictures else may_begin(codec, packet)
        if begins and packet.is_keyframe:
            starts.append(pts)
        times.append(pts)
    if not times or (pictures and pictures.gap):
        return None
    order = np.array(times, np.int64)
    pts_in_order = np.sort(order)
    ranks = np.searchsorted(pts_in_order, order)
    keyframes = np.searchsorted(pts_in_order, np.sort(np.array(starts, np.int64)))
    if len(order) > 1 and np.diff(pts_in_order).min() <= 0:
        return None
    if np.abs(ranks - np.arange(len(ranks))).max() > MAX_REORDER:
        return None
    if len(keyframes) < 2 or keyframes[0] != 0:
        return None
    return FrameIndex(pts_in_order, keyframes)
