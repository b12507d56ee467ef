"""What every kind of video input offers: `container`, `raw` (with Y4M) and `images` implement it.

`source.Video` is the only caller: it turns decoded frames into what the rest of the package uses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av

from eyeline.errors import MediaError
from eyeline.media.colour import Tags
from eyeline.media.types import DecodeReport

DEFAULT_FPS = Fraction(25)
"""Frame rate of what carries none: raw video, images, some elementary streams."""

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm"),
    *(".dpx", ".jp2", ".j2k", ".qoi"),
)
"""Still images: what is taken from a folder; a list may name anything that FFmpeg reads."""

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg"),
    *(".mxf", ".flv", ".wmv", ".ogv", ".3gp", ".y4m", ".ivf", ".264", ".h264", ".265", ".hevc"),
    ".obu",
)
"""Videos: what is taken from a folder; a command may name anything that FFmpeg reads."""

READ_WHOLE = "read it from its start, in one piece"
"""What to do about a `SeekError`."""

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
    tags: Tags


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
    """Message and mend for a file that was cut off before its first frame."""
    return f"{path}: truncated before its first frame: {reason}", "copy or download it again"
