"""What every kind of video input offers: `container`, `raw` (with Y4M) and `images` implement it.

`source.Video` is the only caller: it turns decoded frames into what the rest of the package uses.

Compute strictly rising presentation times of a container's frames from the decoder's times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av

from eyeline.errors import MediaError
from eyeline.media.colour import ColourTags
from eyeline.media.types import RESTART, DecodeReport

MAX_SIDE = 16384
MAX_PIXELS = 2**28
"""Largest side and picture that are decoded: a header that claims more is a bomb, or a mistake."""


@dataclass(frozen=True)
class Facts:
    """What is known of a stream beside its first frame.

    Attributes:
        codec: FFmpeg's codec name.
        fps: average frame rate, or None.
        frames: number of frames, or None.
        duration: seconds, or None.
        tags: the container's colour tags.
    """

    codec: str
    fps: Fraction | None
    frames: int | None
    duration: float | None
    tags: ColourTags


@dataclass(frozen=True)
class Decoded:
    """A frame as decoded.

    Attributes:
        index: position in the stream, from 0.
        seconds: presentation time.
        frame: the frame.
        aspect: width of a sample over its height.
    """

    index: int
    seconds: float
    frame: av.VideoFrame
    aspect: Fraction


class Reader(ABC):
    """A stream of decoded frames, read once.

    Args:
        path: named in errors; `-` for stdin.
        report: where damage is counted.
    """

    def __init__(self, path: str, report: DecodeReport) -> None:
        self.path = path
        self.report = report

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What is known of the stream."""

    @abstractmethod
    def read(self) -> Iterator[Decoded]:
        """Frames in presentation order; damage is counted in `report` and survived."""

    @abstractmethod
    def seek(self, index: int) -> None:
        """Go on at or before this frame, where that costs less than decoding up to it, else not.

        Called after the first frame was read.
        """

    @abstractmethod
    def ended_early(self) -> str:
        """After the last frame: what shows that the file was cut short, or an empty string."""

    @abstractmethod
    def close(self) -> None:
        """Close what was opened; safe to call twice."""

    def count_damage(self, index: int) -> None:
        """Note a frame or packet that is damaged, at the index where it belongs."""
        self.report.corrupt += 1
        if self.report.first_corrupt is None:
            self.report.first_corrupt = index


def check_size(path: str, width: int, height: int) -> None:
    """Refuse a picture too large to decode.

    Raises:
        MediaError: a side over `MAX_SIDE`, or more than `MAX_PIXELS`.
    """
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaError(
            f"{path}: claims {width}x{height} pixels, more than is decoded",
            f"at most {MAX_SIDE} a side and {MAX_PIXELS:,} in all",
        )


def too_short(path: str, reason: str) -> tuple[str, str]:
    """Message and hint for a file that was cut off before its first frame."""
    return f"{path}: truncated before its first frame: {reason}", "copy or download it again"


REORDERING_CODECS = ("h264", "hevc", "vvc")
"""Codecs whose frames only the decoder puts in order. For all other codecs FFmpeg's demuxers derive
presentation times from decoding times (`compute_pkt_fields` of libavformat/demux.c)."""


class FrameTimes:
    """Compute the presentation times of frames, which come in presentation order.

    A decoder gives a frame two times: the presentation time of its own packet, and the decoding time
    of the packet that brought it out. Both should rise. As in FFmpeg, the one that failed to rise less
    often is the frame's time (`guess_correct_pts` of libavcodec/decode.c). A frame that has neither
    follows the one before at that one's duration (`video_frame_process` of fftools/ffmpeg_dec.c).

    Args:
        time_base: seconds per tick; None when the stream states none.
        step: seconds from frame to frame at the average frame rate.
        codec: FFmpeg's codec name.
    """

    def __init__(self, time_base: Fraction | None, step: float, codec: str) -> None:
        self._base = time_base
        self._step = step
        # A decoding time says when a frame leaves the decoder, which may be later than its time.
        # So it does not replace a missing presentation time once other frames have one.
        self._reorders = codec in REORDERING_CODECS
        self._states_pts = False
        self._pts: int | None = None  # the last one; likewise below
        self._dts: int | None = None
        self._pts_faults = 0
        self._dts_faults = 0
        self._ticks: int | None = None
        self._duration = 0
        self._seconds: float | None = None
        self._shift = 0.0

    def time_of(self, frame: av.VideoFrame) -> float:
        """Return the time of the next frame, seconds; it is larger than that of the frame before."""
        ticks = self._best_effort(frame.pts, frame.dts)
        if ticks is None and self._ticks is not None:
            ticks = self._ticks + self._duration
        if ticks is not None:
            self._duration = self._duration_of(frame, ticks)
        self._ticks = ticks
        before = self._seconds
        if ticks is None or self._base is None:
            self._seconds = 0.0 if before is None else before + self._step
            return self._seconds
        seconds = float(ticks * self._base) + self._shift
        if before is not None and seconds < before - RESTART:
            self._shift += before + self._step - seconds
            seconds = before + self._step
        elif before is not None and seconds <= before:
            # Half a step leaves room for the times that follow.
            seconds = before + self._step / 2
        self._seconds = seconds
        return seconds

    def _best_effort(self, pts: int | None, dts: int | None) -> int | None:
        self._states_pts |= pts is not None
        if dts is not None:
            self._dts_faults += self._dts is not None and dts <= self._dts
        if pts is not None:
            self._pts_faults += self._pts is not None and pts <= self._pts
        if pts is not None or dts is not None:
            self._dts = pts if dts is None else dts
            self._pts = dts if pts is None else pts
        if pts is None and self._reorders and self._states_pts:
            return None
        if pts is not None and (dts is None or self._pts_faults <= self._dts_faults):
            return pts
        return dts

    def _duration_of(self, frame: av.VideoFrame, ticks: int) -> int:
        passed = 0 if self._ticks is None else ticks - self._ticks
        # FFmpeg makes up a duration of 1 tick where the container states none.
        stated = frame.duration > 1 or (frame.duration == 1 and passed <= 2)
        return frame.duration if stated or passed <= 0 else passed
