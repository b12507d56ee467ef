"""Records of the media package, and `FrameReader`, the interface of every kind of video input.

`VideoOptions` goes in; `VideoInfo`, `Frame` and `DecodeReport` come out. `FrameIndex` lists the frames
at which decoding may begin. `container`, `_raw` and `source` implement `FrameReader`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from eyeline.errors import MediaError

if TYPE_CHECKING:
    import av

DEFAULT_FPS = Fraction(25)
"""Frame rate of inputs that state none: raw video, images, some elementary streams."""

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm"),
    *(".dpx", ".jp2", ".j2k", ".qoi"),
)
"""Files in a folder that count as still images. A file that is given by name may have any suffix."""

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg"),
    *(".mxf", ".flv", ".wmv", ".ogv", ".3gp", ".y4m", ".ivf", ".264", ".h264", ".265", ".hevc"),
    ".obu",
)
"""Files in a folder that count as videos. A file that is given by name may have any suffix."""

RAW_SUFFIXES = (".yuv", ".raw")
"""Files of raw YUV samples."""

READ_WHOLE = "read the video from its start, in one piece"
"""Hint of a `SeekError`."""

RESTART = 0.1
"""Seconds: a time that decreases by more than this starts another recording. FFmpeg's command line has
the same limit for formats whose times may decrease (`ts_discontinuity_detect` in ffmpeg_demux.c)."""

MAX_SIDE = 16384
MAX_PIXELS = 2**28
"""Largest number of pixels of a side and of a picture: a header that claims more is wrong or malicious."""

Matrix = Literal["bt601", "bt709", "bt2020"]
Range = Literal["limited", "full"]
Transfer = Literal["sdr", "pq", "hlg"]

SizePlan = Callable[[int, int], tuple[int, int]]
"""Function from the upright display (width, height) in square pixels to that of `Frame.rgb`."""


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Frames of a video and the places where decoding may begin (see `eyeline.media.index`)."""

    # (N,), presentation time of every frame in units of the stream's time base, strictly rising;
    # frame numbers for raw video and images.
    pts: npt.NDArray[np.int64]
    # (K,), numbers of the frames at which a decoder may begin so that they and all later frames
    # equal those of a decode from the start; rising, the first is 0.
    keyframes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pts)

    def number(self, pts: int | None) -> int | None:
        """Return the number of the frame that is shown at this time, or None."""
        if pts is None:
            return None
        at = int(np.searchsorted(self.pts, pts))
        return at if at < len(self.pts) and self.pts[at] == pts else None

    def last_keyframe(self, number: int) -> int:
        """Return the position in `keyframes` of the last one at or before a frame."""
        return int(np.searchsorted(self.keyframes, number, "right")) - 1


@dataclass(frozen=True)
class VideoOptions:
    """How to read a video; every default means "as the stream says".

    Attributes:
        width, height: size of raw YUV, pixels.
        pix_fmt: FFmpeg pixel format of raw YUV, such as `yuv420p10le`.
        fps: frame rate of raw YUV and image folders; 25 when None.
        matrix: YUV matrix that overrides the stream's tag.
        color_range: range that overrides the stream's tag.
        hdr: map PQ/HLG to SDR, or refuse it.
        threads: decoder threads; 0 = one per core.
        index: the index of this very file, from `eyeline.media.index.index_frames`. A reader then seeks
            to the first frame instead of decoding up to it, and checks every frame against the index.
    """

    width: int | None = None
    height: int | None = None
    pix_fmt: str | None = None
    fps: Fraction | None = None
    matrix: Matrix | None = None
    color_range: Range | None = None
    hdr: Literal["map", "refuse"] = "map"
    threads: int = 0
    index: FrameIndex | None = None


@dataclass(frozen=True)
class Colour:
    """How samples become RGB."""

    matrix: Matrix  # ITU-R BT.601, BT.709, BT.2020 non-constant luminance
    color_range: Range  # limited is 16..235
    transfer: Transfer  # an HDR transfer is mapped to SDR
    assumed: tuple[str, ...] = ()  # the fields that have a default because no tag states them


@dataclass(frozen=True)
class ColourTags:
    """Tags of a container: code points of ITU-T H.273, and FFmpeg's code for the range."""

    matrix: int = 2  # 2 = unspecified
    transfer: int = 2
    color_range: int = 0  # 0 = unspecified, 1 = limited, 2 = full


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video stream, known before its frames are read."""

    path: str  # as given; `-` for stdin
    codec: str  # FFmpeg's name
    width: int  # coded size of a frame, pixels
    height: int
    display_width: int  # upright (rotation applied), in square pixels
    display_height: int
    rotation: int  # clockwise degrees that make a frame upright: 0, 90, 180, 270
    pix_fmt: str  # FFmpeg's name
    bit_depth: int  # bits per sample
    fps: Fraction | None  # average frame rate, where the container states it
    frames: int | None  # number of frames, if known from the container or the file's length
    duration: float | None  # seconds
    colour: Colour
    start: float = 0.0  # presentation time of the first frame, seconds

    @property
    def expected_frames(self) -> int | None:
        """Number of frames as stated, or else by duration and frame rate; None if both are unknown."""
        if self.frames is not None or self.duration is None or self.fps is None:
            return self.frames
        return max(1, round(self.duration * self.fps))


@dataclass
class DecodeReport:
    """Faults met while decoding; complete when the last frame was delivered."""

    delivered: int = 0  # number of frames delivered
    corrupt: int = 0  # frames flagged as damaged by the decoder, and packets that it rejected
    first_corrupt: int | None = None  # index of the first damaged frame
    # Index and (width, height) of every resolution change.
    size_changes: list[tuple[int, tuple[int, int]]] = field(default_factory=list)

    def count_damage(self, index: int) -> None:
        """Count a damaged frame or packet at the index where it belongs."""
        self.corrupt += 1
        if self.first_corrupt is None:
            self.first_corrupt = index


@dataclass(frozen=True)
class Frame:
    """One decoded frame at the size that was asked for."""

    index: int  # position in the stream, from 0
    pts_time: float  # presentation time, seconds
    rgb: npt.NDArray[np.uint8]  # (3, h, w), planar full-range RGB, upright, SDR
    scene_score: float  # 0..100: difference from the frame before (FFmpeg's `scdet`)
    display_size: tuple[int, int]  # upright (width, height) of the source in square pixels
    source: av.VideoFrame | None = None  # the decoded frame, with `keep_source`
    rotation: int = 0  # clockwise degrees that make `source` upright


@dataclass(frozen=True)
class DecodedFrame:
    """A frame with its samples as in the file."""

    index: int  # position in the stream, from 0
    seconds: float  # presentation time
    frame: av.VideoFrame
    aspect: Fraction  # width of a sample over its height


class FrameReader(ABC):
    """A stream of decoded frames that is read once; only `source.Video` calls it.

    `codec`, `fps`, `frames` and `duration` are those of `VideoInfo`; `path` is named in errors.
    """

    codec = "rawvideo"
    fps: Fraction | None = None
    frames: int | None = None
    duration: float | None = None
    tags = ColourTags()

    def __init__(self, path: str, report: DecodeReport) -> None:
        self.path = path
        self.report = report

    @abstractmethod
    def read(self) -> Iterator[DecodedFrame]:
        """Yield frames in presentation order; count damage in `report` and go on."""

    @abstractmethod
    def seek(self, index: int) -> None:
        """Continue at or before this frame, if that costs less than decoding up to it."""

    def ended_early(self) -> str:
        """Return, after the last frame, the evidence that the file was cut short, or an empty string."""
        return ""

    def close(self) -> None:  # noqa: B027 - a reader may hold nothing open
        """Close the file; may be called twice."""


def check_size(path: str, width: int, height: int) -> None:
    """Raise MediaError if the size of a picture is invalid or too large."""
    if min(width, height) < 1 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaError(
            f"{path}: a picture of {width}x{height} pixels can't be decoded; sides must be 1 to "
            f"{MAX_SIDE}, and {MAX_PIXELS:,} pixels in all are allowed",
            "check that the file is a video and that its size is right",
        )


def truncated_error(path: str, reason: str) -> MediaError:
    """Return the error for a file that ends before its first frame."""
    return MediaError(
        f"{path}: truncated before its first frame: {reason}", "copy or download the file again"
    )
