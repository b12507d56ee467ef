"""Write videos through PyAV: overlays as H.264, maps as FFV1.

A file appears whole or not at all. Timestamps are kept, and with them a variable frame rate: to
1/90000 s in MP4, to the millisecond in Matroska.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.container
import av.error
import av.video
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from eyeline.errors import OutputError
from eyeline.files import PendingFile, Sink, output_error

CONTAINERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    # The index comes first, so that a browser can play the file before the download ends.
    ".mp4": ("mp4", {"movflags": "+faststart"}),
    ".mkv": ("matroska", {}),
}
"""FFmpeg's container name and its options for each suffix."""

TIME_BASE = Fraction(1, 90000)
"""Tick of timestamps: the clock of MPEG systems, a multiple of 24, 25, 30, 50 and 60 Hz."""


@dataclass(frozen=True)
class Encoding:
    """An encoder of FFmpeg and its settings."""

    codec: str
    pix_fmt: str
    options: Mapping[str, str]
    grey: bool = False  # full-range grey of any size, else limited-range 4:2:0 of even sides


H264 = Encoding(
    "libx264",
    "yuv420p",
    # A short look-ahead needs 108 MB instead of 156 MB at 1080p, and a fifth less CPU time.
    {"preset": "veryfast", "crf": "20", "profile": "high", "rc-lookahead": "3", "bf": "2"},
)
"""H.264 High, 8-bit 4:2:0, limited range, tagged BT.709: every player and browser decodes it."""

_FFV1 = {"level": "3", "slicecrc": "1", "g": "1"}
FFV1_GRAY8 = Encoding("ffv1", "gray", _FFV1, grey=True)
"""Lossless, 8-bit grey, every frame a key frame."""
FFV1_GRAY16 = Encoding("ffv1", "gray16le", _FFV1, grey=True)
"""Lossless, 16-bit grey, every frame a key frame."""


def container_of(path: str | Path, suffixes: tuple[str, ...] = tuple(CONTAINERS)) -> str:
    """Return FFmpeg's container name for the suffix of `path`, or raise OutputError."""
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        raise OutputError(
            f"{path}: video can't be written as {suffix or 'a file without a suffix'}",
            f"use {' or '.join(suffixes)}",
        )
    return CONTAINERS[suffix][0]


def encodable_size(width: int, height: int, encoding: Encoding) -> tuple[int, int]:
    """Return the size that is encoded: 4:2:0 drops the last column and row of an odd size."""
    return (width, height) if encoding.grey else (width & ~1, height & ~1)


class VideoWriter(Sink):
    """Write frames to a video file that appears when it is committed.

    Args:
        path: `.mp4` or `.mkv`.
        width, height: size of the frames given to `write`, pixels; see `encodable_size`.
        fps: average frame rate, for the container's header; 25 when None.
        encoding: `H264`, `FFV1_GRAY8` or `FFV1_GRAY16`.
        metadata: tags of the container.
        threads: encoder threads; 0 = one per core.

    Raises:
        OutputError: the suffix is unknown, a frame is too small, or the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        *,
        fps: Fraction | float | None = None,
        encoding: Encoding = H264,
        metadata: Mapping[str, str] | None = None,
        threads: int = 0,
    ) -> None:
        container_of(path)  # raises an error for other suffixes
        self.path = path
        self.encoding = encoding
        self.width, self.height = encodable_size(width, height, encoding)
        self.frames = 0
        if not self.width or not self.height:
            raise OutputError(
                f"{path}: {width}x{height} is too small for {encoding.codec}",
                "give pictures of at least 2x2 pixels",
            )
        self._last_pts: int | None = None
        self._pending: PendingFile | None = PendingFile(path)
        try:
            self._open(self._pending.temporary, fps, metadata or {}, threads)
        except BaseException:
            self.discard()
            raise

    def _open(
        self,
        temporary: Path,
        fps: Fraction | float | None,
        metadata: Mapping[str, str],
        threads: int,
    ) -> None:
        container, options = CONTAINERS[Path(self.path).suffix.lower()]
        rate = Fraction(fps if fps and fps > 0 else 25).limit_denominator(1001)
        try:
            self._container: av.container.OutputContainer = av.open(
                str(temporary),
                "w",
                format=container,
                # bitexact: without random IDs, so that the same frames give the same bytes.
                options={**options, "fflags": "+bitexact"},
            )
            self._container.metadata.update(metadata)
            codec_options = dict(self.encoding.options)
            if self.encoding.codec == "ffv1" and self.width <= 352 and self.height <= 288:
                # FFmpeg's FFV1 fails to cut tiny pictures into its 4 slices or more.
                codec_options["slices"] = "1"
            stream = self._container.add_stream(self.encoding.codec, rate, options=codec_options)
            self._stream = cast(av.video.VideoStream, stream)
            codec = self._stream.codec_context
            codec.width, codec.height = self.width, self.height
            codec.pix_fmt = self.encoding.pix_fmt
            codec.time_base = TIME_BASE
            codec.thread_count = threads
            codec.thread_type = "SLICE"  # frame threads take 60 MB more at 1080p and are not faster
            codec.color_range = ColorRange.JPEG if self.encoding.grey else ColorRange.MPEG
            if not self.encoding.grey:
                codec.colorspace = Colorspace.ITU709
                codec.color_primaries = ColorPrimaries.BT709
                codec.color_trc = ColorTrc.BT709
        except av.error.FFmpegError as exc:
            raise self._error(exc) from exc

    def write(self, picture: av.VideoFrame | npt.NDArray[np.generic], pts_time: float) -> None:
        """Add a frame.

        Args:
            picture: a frame of the encoded size in the encoding's pixel format; or uint8
                (H, W, 3) full-range RGB for a colour encoding; or uint8 / uint16 (H, W) for a
                grey one.
            pts_time: presentation time, seconds. A time that is not after the previous frame's is moved
                to the next tick, because containers need rising times.

        Raises:
            OutputError: the size or format differs, the encoder fails, or the disk is full.
        """
        if self._pending is None:
            raise OutputError(
                f"{self.path}: the file is already complete", "write all frames before commit"
            )
        frame = picture if isinstance(picture, av.VideoFrame) else self._from_array(picture)
        shape = (frame.width, frame.height, frame.format.name)
        if shape != (self.width, self.height, self.encoding.pix_fmt):
            # The encoder would scale and convert the frame silently.
            raise OutputError(
                f"{self.path}: frame {self.frames} is {shape[0]}x{shape[1]} {shape[2]}, "
                f"not {self.width}x{self.height} {self.encoding.pix_fmt}",
                "give frames of one size and format",
            )
        pts = round(pts_time / TIME_BASE)
        if self._last_pts is not None:
            # The smallest step of the container: Matroska counts milliseconds.
            tick = 1 if Path(self.path).suffix.lower() == ".mp4" else TIME_BASE.denominator // 1000
            pts = max(pts, self._last_pts + tick)
        self._last_pts = pts
        frame.pts, frame.time_base = pts, TIME_BASE
        self._encode(frame)
        self.frames += 1

    def _from_array(self, array: npt.NDArray[np.generic]) -> av.VideoFrame:
        cut = np.ascontiguousarray(array[: self.height, : self.width])
        if self.encoding.grey:
            return av.VideoFrame.from_ndarray(cut, format=self.encoding.pix_fmt)
        return av.VideoFrame.from_ndarray(cut, format="rgb24").reformat(
            format=self.encoding.pix_fmt,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError as exc:
            raise self._error(exc) from exc

    def _error(self, exc: av.error.FFmpegError) -> OutputError:
        if isinstance(exc, OSError):
            return output_error(self.path, exc)
        return OutputError(f"{self.path}: {self.encoding.codec} failed: {exc.strerror or exc}")

    def commit(self) -> None:
        """Finish the file and give it its name; without a frame there is no file."""
        if self._pending is None:
            return
        if not self.frames:
            self.discard()
            return
        try:
            self._encode(None)
            try:
                self._container.close()
            except av.error.FFmpegError as exc:
                raise self._error(exc) from exc
        except BaseException:
            self.discard()
            raise
        pending, self._pending = self._pending, None
        pending.commit()

    def discard(self) -> None:
        """Leave no file."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        self.__dict__.pop("_stream", None)  # frees the encoder's threads and buffers
        self.__dict__.pop("_container", None)
        pending.discard()
