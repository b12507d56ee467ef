"""What a video is, as plain records: options in, stream facts and frames out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

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

Matrix = Literal["bt601", "bt709", "bt2020"]
Range = Literal["limited", "full"]
Transfer = Literal["sdr", "pq", "hlg"]

SizePlan = Callable[[int, int], tuple[int, int]]
"""Display (width, height), upright and in square pixels, to the (width, height) of the planes wanted."""


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Where a video's frames are, from its packets alone; `eyeline.media.index` makes it.

    Attributes:
        pts: int64 (N,), presentation time of every frame in units of the stream's time base,
            strictly rising; frame numbers for what is not in a container.
        keyframes: int64 (K,), numbers of the frames from which a decoder may begin so that they
            and all later ones come out exactly as in a decode from the start; rising, the first
            is 0.
    """

    pts: npt.NDArray[np.int64]
    keyframes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pts)

    def number(self, pts: int | None) -> int | None:
        """Number of the frame that is shown at this time; None when there is none."""
        if pts is None:
            return None
        at = int(np.searchsorted(self.pts, pts))
        return at if at < len(self.pts) and self.pts[at] == pts else None

    def last_keyframe(self, number: int) -> int:
        """Position in `keyframes` of the last one at or before a frame."""
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
        index: where the frames of this very file are (`eyeline.media.index.index_frames`). With it
            a first frame is sought rather than decoded up to, and every frame is held to it.
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
class VideoInfo:
    """Facts of a video stream, known before the first frame is decoded.

    Attributes:
        path: as given; `-` for stdin.
        codec: FFmpeg's codec name.
        width, height: coded size of a frame, pixels.
        display_width, display_height: upright (rotation applied), in square pixels.
        rotation: clockwise degrees applied to show the picture upright: 0, 90, 180, 270.
        pix_fmt: FFmpeg's pixel format name.
        bit_depth: bits a sample.
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
        """Number of frames, by count or else by duration and frame rate; None when neither is known."""
        if self.frames is not None or self.duration is None or self.fps is None:
            return self.frames
        return max(1, round(self.duration * self.fps))


@dataclass
class DecodeReport:
    """What went wrong while decoding, filled as frames are delivered.

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
