"""Records of the media package, and `FrameReader`, the interface of every kind of video input.

`VideoOptions` goes in; `VideoInfo`, `Frame` and `DecodeReport` come out. `FrameIndex` says where
decoding may begin. `container`, `_raw` and `source` implement `FrameReader`.
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
"""Files in a folder that count as still images. A path that is named itself may have any suffix."""

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg"),
    *(".mxf", ".flv", ".wmv", ".ogv", ".3gp", ".y4m", ".ivf", ".264", ".h264", ".265", ".hevc"),
    ".obu",
)
"""Files in a folder that count as videos. A path that is named itself may have any suffix."""

RAW_SUFFIXES = (".yuv", ".raw")
"""Files of raw YUV samples."""

READ_WHOLE = "read the video from its start, in one piece"
"""Hint of a `SeekError`."""

RESTART = 0.1
"""Seconds. Times that run back by more start another recording. FFmpeg's command line has the same
limit for formats whose times may run back (`ts_discontinuity_detect` of fftools/ffmpeg_demux.c)."""

MAX_SIDE = 16384
MAX_PIXELS = 2**28
"""Largest side and picture that are decoded: a header that claims more is wrong or malicious."""

Matrix = Literal["bt601", "bt709", "bt2020"]
Range = Literal["limited", "full"]
Transfer = Literal["sdr", "pq", "hlg"]

SizePlan = Callable[[int, int], tuple[int, int]]
"""Upright display (width, height) in square pixels to the (width, height) of `Frame.rgb`."""


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Frames of a video and the places where decoding may begin (see `eyeline.media.index`).

    Attributes:
        pts: int64 (N,), presentation time of every frame in units of the stream's time base,
            strictly rising; frame numbers for raw video and images.
        keyframes: int64 (K,), numbers of the frames at which a decoder may begin so that they
            and all later frames equal those of a decode from the start; rising, the first is 0.
    """

    pts: npt.NDArray[np.int64]
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
        index: the index of this very file, from `eyeline.media.index.index_frames`. A reader then
            seeks a first frame instead of decoding up to it, and checks every frame against it.
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
    """How samples become RGB.

    Attributes:
        matrix: YUV to RGB matrix (ITU-R BT.601, BT.709, BT.2020 non-constant luminance).
        color_range: limited (16..235) or full.
        transfer: `sdr`, or the HDR transfer that is mapped to SDR.
        assumed: names of the fields that the stream did not tag and a default filled.
    """

    matrix: Matrix
    color_range: Range
    transfer: Transfer
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColourTags:
    """Colour tags of a container: code points of ITU-T H.273, and FFmpeg's code for the range.

    Attributes:
        matrix: `matrix_coefficients`; 2 = unspecified.
        transfer: `transfer_characteristics`; 2 = unspecified.
        color_range: 0 = unspecified, 1 = limited, 2 = full.
    """

    matrix: int = 2
    transfer: int = 2
    color_range: int = 0


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a video stream, known before its frames are read.

    Attributes:
        path: as given; `-` for stdin.
        codec: FFmpeg's codec name.
        width, height: coded size of a frame, pixels.
        display_width, display_height: upright (rotation applied), in square pixels.
        rotation: clockwise degrees applied to show the picture upright: 0, 90, 180, 270.
        pix_fmt: FFmpeg's pixel format name.
        bit_depth: bits per sample.
        fps: average frame rate, or None when the container does not say.
        frames: number of frames when the container or the file's length says, else None.
        duration: seconds, or None.
        colour: how samples become RGB.
        start: presentation time of the first frame, seconds.
    """

    path: str
    codec: str
    width: int
    height: int
    display_width: int
    display_height: int
    rotation: int
    pix_fmt: str
    bit_depth: int
    fps: Fraction | None
    frames: int | None
    duration: float | None
    colour: Colour
    start: float = 0.0

    @property
    def expected_frames(self) -> int | None:
        """Number of frames as stated, or else by duration and frame rate; None if both are unknown."""
        if self.frames is not None or self.duration is None or self.fps is None:
            return self.frames
        return max(1, round(self.duration * self.fps))


@dataclass
class DecodeReport:
    """Faults met while decoding; complete when the last frame was delivered.

    Attributes:
        delivered: frames handed out.
        corrupt: frames that the decoder flagged as damaged, or packets that it refused.
        first_corrupt: index of the first of them.
        size_changes: index and (width, height) of every resolution change.
    """

    delivered: int = 0
    corrupt: int = 0
    first_corrupt: int | None = None
    size_changes: list[tuple[int, tuple[int, int]]] = field(default_factory=list)

    def count_damage(self, index: int) -> None:
        """Count a damaged frame or packet at the index where it belongs."""
        self.corrupt += 1
        if self.first_corrupt is None:
            self.first_corrupt = index


@dataclass(frozen=True)
class Frame:
    """One decoded frame at the size that was asked for.

    Attributes:
        index: position in the stream, from 0.
        pts_time: presentation time, seconds.
        rgb: uint8 (3, h, w), planar full-range RGB, upright, SDR.
        scene_score: 0..100, how much this frame differs from the one before (FFmpeg's `scdet`).
        display_size: upright (width, height) of the source frame in square pixels.
        source: the decoded frame, when it was asked for.
        rotation: clockwise degrees that make `source` upright.
    """

    index: int
    pts_time: float
    rgb: npt.NDArray[np.uint8]
    scene_score: float
    display_size: tuple[int, int]
    source: av.VideoFrame | None = None
    rotation: int = 0


@dataclass(frozen=True)
class DecodedFrame:
    """A frame with its samples as in the file.

    Attributes:
        index: position in the stream, from 0.
        seconds: presentation time.
        frame: the decoded frame.
        aspect: width of a sample over its height.
    """

    index: int
    seconds: float
    frame: av.VideoFrame
    aspect: Fraction


class FrameReader(ABC):
    """A stream of decoded frames that is read once; only `source.Video` calls it.

    Args:
        path: named in errors; `-` for stdin.
        report: counts damage.

    Attributes:
        codec, fps, frames, duration: as in `VideoInfo`.
        tags: colour tags of the container.
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
        """Continue at or before this frame, if that costs less than decoding up to it.

        Called after the first frame was read.
        """

    def ended_early(self) -> str:
        """Return, after the last frame, the evidence that the file was cut short, or an empty string."""
        return ""

    def close(self) -> None:  # noqa: B027 - a reader may hold nothing open
        """Close the file; may be called twice."""


def check_size(path: str, width: int, height: int) -> None:
    """Refuse a picture with a side over `MAX_SIDE`, or of more than `MAX_PIXELS`, by a MediaError."""
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaError(
            f"{path}: the file claims {width}x{height} pixels; at most {MAX_SIDE} per side and "
            f"{MAX_PIXELS:,} in all are decoded",
            "check that the file is a video",
        )


def truncated_error(path: str, reason: str) -> MediaError:
    """Return the error for a file that ends before its first frame."""
    return MediaError(
        f"{path}: truncated before its first frame: {reason}", "copy or download the file again"
    )
