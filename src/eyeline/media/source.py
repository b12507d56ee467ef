"""Open a video and read its frames: containers, raw YUV, Y4M, stdin and still images.

`Video.frames` scales the frames, adapts when the picture changes its size or format, and scores
scene changes; `Video.report` counts damage. Memory use is constant: one decoded frame in addition to
those that the decoder holds.

Times are the stream's own, as `ffprobe` prints them, so that rows match the logs of other tools: a
transport stream that begins at 1.48 s is not moved to 0.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import av.error
import numpy as np
import numpy.typing as npt

from eyeline.errors import DamagedMediaError, MediaError, UsageError
from eyeline.media._raw import Y4M_MAGIC, RawReader, Y4mReader, is_raw, open_file
from eyeline.media._truncation import cut_short
from eyeline.media.colour import Scaler, read_colour
from eyeline.media.container import ContainerReader, open_container
from eyeline.media.types import (
    DEFAULT_FPS,
    IMAGE_SUFFIXES,
    Colour,
    DecodedFrame,
    DecodeReport,
    Frame,
    FrameReader,
    SizePlan,
    VideoInfo,
    VideoOptions,
    check_size,
    truncated_error,
)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Return the sort key under which frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p]


def list_images(folder: Path) -> list[str]:
    """List the images of a folder in natural order of their names; raise MediaError if it has none."""
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    except OSError as exc:
        raise MediaError(
            f"{folder}: can't be read: {exc.strerror}", "check its permissions"
        ) from exc
    if not found:
        known = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise MediaError(
            f"{folder}: the folder has no images", f"put images there, such as {known}"
        )
    return [str(p) for p in sorted(found, key=lambda p: natural_order(p.name))]


class ImagesReader(FrameReader):
    """Still images, one frame each; an image that cannot be decoded is counted and left out."""

    def __init__(
        self,
        path: str,
        report: DecodeReport,
        images: Sequence[str | os.PathLike[str]],
        fps: Fraction | None,
    ) -> None:
        super().__init__(path, report)
        self._images = [os.fspath(p) for p in images]
        self.fps: Fraction = fps or DEFAULT_FPS
        self.codec = ""  # the size of the first image, after it is decoded
        self.frames = len(self._images)
        self.duration = float(self.frames / self.fps)
        self._next = 0
        if not self._images:
            raise MediaError("the list of images is empty", "name at least one image")
        for image in self._images:
            if not Path(image).is_file():
                raise MediaError(f"{image}: no such file", "check the list of images")

    def read(self) -> Iterator[DecodedFrame]:
        """Yield one frame per image."""
        found = False
        while self._next < len(self._images):
            index = self._next
            self._next += 1
            try:
                frame, aspect = self._decode(self._images[index])
            except MediaError:
                self.report.count_damage(index)
                if not found and self._next == len(self._images):
                    raise
                continue
            # FFmpeg fills the rest of a JPEG that was cut off with grey, without an error.
            if frame.is_corrupt or cut_short(self._images[index]):
                self.report.count_damage(index)
            found = True
            yield DecodedFrame(index, float(index / self.fps), frame, aspect)

    def _decode(self, image: str) -> tuple[av.VideoFrame, Fraction]:
        hint = "replace or remove the image"
        with open_container(image, image=True) as container:
            if not container.streams.video:
                raise MediaError(f"{image}: the file is not an image", hint)
            stream = container.streams.video[0]
            check_size(image, stream.width, stream.height)
            try:
                for frame in container.decode(stream):
                    self.codec = self.codec or stream.codec_context.name
                    return frame, stream.sample_aspect_ratio or Fraction(1)
            except av.error.FFmpegError as exc:
                raise MediaError(
                    f"{image}: the image can't be decoded: {exc.strerror}", hint
                ) from exc
        raise MediaError(f"{image}: the file holds no picture", hint)

    def seek(self, index: int) -> None:
        """Continue at an image."""
        self._next = index


def difference(plane: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of two uint8 (h, w) planes, in percent of full scale."""
    gap: npt.NDArray[np.uint8] = np.maximum(plane, other) - np.minimum(plane, other)
    # NumPy sums 8-bit samples five times faster in 32 bits, which hold the sum of 2^24 of them.
    total = gap.sum(dtype=np.uint32 if gap.size <= 1 << 24 else np.uint64)
    return float(total) / gap.size / 2.55


class SceneScore:
    """Scene scores of consecutive frames by the formula of FFmpeg's filter `scdet`.

    With d the mean absolute difference in percent of full scale, the score is
    min(d, |d - previous d|), so that steady motion scores low and a jump scores high. The score uses
    the green plane at working size; `scdet` uses all samples of the source.
    """

    def __init__(self) -> None:
        self._plane: npt.NDArray[np.uint8] | None = None
        self._difference = 0.0

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> float:
        """Return the score, 0..100, of a uint8 (3, h, w) frame: 0 for the first, 100 for a new size."""
        plane, previous = rgb[1], self._plane
        self._plane = plane
        if previous is None:
            return 0.0
        if previous.shape != plane.shape:
            self._difference = 0.0
            return 100.0
        now = difference(plane, previous)
        score = min(now, abs(now - self._difference))
        self._difference = now
        return score


VideoPath = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Video:
    """An open video, made by `open_video`; a context manager.

    Attributes:
        info: facts about the stream.
        report: faults met so far; complete when `frames` ends.
    """

    def __init__(self, path: VideoPath, options: VideoOptions) -> None:
        self._options = options
        self.report = DecodeReport()
        reader = reader_of(path, options, self.report)
        self._reader: FrameReader | None = reader
        self._decoded = reader.read()
        try:
            # The first frame is decoded now, because only a frame tells its size and format for sure.
            self._first = next(self._decoded, None)
            self.info = self._describe(reader, self._first)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and end the decoder; may be called twice, not while a thread reads frames."""
        reader, self._reader = self._reader, None
        # Deleting the last reference frees the decoder's threads and pictures.
        self._decoded, self._first = iter(()), None
        if reader is not None:
            reader.close()

    def _opened(self) -> FrameReader:
        if self._reader is None:
            raise UsageError(f"{self.info.path}: the video was closed", "open it again")
        return self._reader

    def _describe(self, reader: FrameReader, first: DecodedFrame | None) -> VideoInfo:
        if first is None:
            if reason := reader.ended_early():
                raise truncated_error(reader.path, reason)
            raise MediaError(f"{reader.path}: the video has no frames", "check that it is complete")
        frame = first.frame
        width, height = _display_size(first)
        return VideoInfo(
            path=reader.path,
            codec=reader.codec,
            width=frame.width,
            height=frame.height,
            display_width=width,
            display_height=height,
            rotation=_clockwise(frame),
            pix_fmt=frame.format.name,
            bit_depth=max(component.bits for component in frame.format.components),
            fps=reader.fps,
            frames=reader.frames,
            duration=reader.duration,
            colour=self._colour(reader, frame, height),
            start=first.seconds,
        )

    def _colour(self, reader: FrameReader, frame: av.VideoFrame, lines: int) -> Colour:
        return read_colour(frame, self._options, reader.path, reader.tags, lines)

    def frames(
        self, plan: SizePlan, start: int = 0, stop: int | None = None, *, keep_source: bool = False
    ) -> Iterator[Frame]:
        """Decode and scale, in presentation order; may be called once.

        Args:
            plan: function from the display (width, height) to the size of `Frame.rgb`; called again
                when the resolution changes.
            start: index of the first frame to return. Earlier frames are decoded but not scaled; with
                `VideoOptions.index`, decoding begins at the last keyframe before `start`.
            stop: index after the last frame; None = to the end.
            keep_source: keep the decoded frame in `Frame.source`.

        Raises:
            DamagedMediaError: the file ends early; raised after its last frame.
            MediaError: a pixel format cannot be converted, or a picture is too large.
            SeekError: frames are not where `VideoOptions.index` says.
            UsageError: there is no frame `start`, the frames were read before, or the video was closed.
        """
        return self._scaled(self.pictures(start, stop), plan, keep_source)

    def pictures(self, start: int = 0, stop: int | None = None) -> Iterator[DecodedFrame]:
        """Decode without scaling; arguments and errors as in `frames`."""
        path = self._opened().path
        first, self._first = self._first, None
        if first is None:
            raise UsageError(f"{path}: its frames were read already", "open it again")
        return self._walk(first, start, stop)

    def _walk(self, first: DecodedFrame, start: int, stop: int | None) -> Iterator[DecodedFrame]:
        pending: DecodedFrame | None = first
        if start > 0:
            self._opened().seek(start)
        size = (self.info.width, self.info.height)
        last: tuple[int, float] | None = None
        while True:
            decoded, pending = pending or next(self._decoded, None), None
            if decoded is None:
                break
            index, frame = decoded.index, decoded.frame
            if stop is not None and index >= stop:
                return
            last = index, decoded.seconds
            if (frame.width, frame.height) != size:
                check_size(self.info.path, frame.width, frame.height)
                size = (frame.width, frame.height)
                self.report.size_changes.append((index, size))
            if index < start:
                continue
            self.report.delivered += 1
            yield decoded
            if stop is not None and index + 1 >= stop:
                return
        self._check_end(start, last)

    def _check_end(self, start: int, last: tuple[int, float] | None) -> None:
        """Check that no frame is missing after the last one, which is given by index and time."""
        path, reason = self.info.path, self._opened().ended_early()
        if reason:
            where = "" if last is None else f" after frame {last[0]} at {last[1]:.3f} s"
            raise DamagedMediaError(
                f"{path}: truncated{where}: {reason}",
                "the frames up to there are kept",
                frames=self.report.delivered,
            )
        if self.report.delivered == 0 and start > 0:
            count = self.info.frames or (0 if last is None else last[0] + 1)
            raise UsageError(
                f"{path}: no frame {start}: the video has {count} frames", "the first frame is 0"
            )

    def _scaled(
        self, decoded: Iterator[DecodedFrame], plan: SizePlan, keep: bool
    ) -> Iterator[Frame]:
        scaler: Scaler | None = None
        kind: tuple[object, ...] = ()
        display, rotation = (0, 0), 0
        score = SceneScore()
        for d in decoded:
            if scaler is None or _kind(d) != kind:
                kind, display, rotation = _kind(d), _display_size(d), _clockwise(d.frame)
                # An untagged stream keeps the default of its first frame at every size.
                colour = self._colour(self._opened(), d.frame, self.info.display_height)
                scaler = Scaler(d.frame, plan(*display), colour, rotation)
            rgb = scaler(d.frame)
            source = d.frame if keep else None
            yield Frame(d.index, d.seconds, rgb, score(rgb), display, source, rotation)


def _kind(decoded: DecodedFrame) -> tuple[object, ...]:
    """Return the properties that a scaler depends on."""
    f = decoded.frame
    tags = int(f.colorspace), int(f.color_range), int(f.color_trc)
    return f.width, f.height, f.format.name, f.rotation, decoded.aspect, tags


def _clockwise(frame: av.VideoFrame) -> int:
    """Return the clockwise quarter turns, degrees, that make a frame upright; mirrors are ignored."""
    return round(-frame.rotation / 90) * 90 % 360


def _display_size(decoded: DecodedFrame) -> tuple[int, int]:
    """Return the upright size in square pixels: lines stay, the width follows the aspect ratio."""
    frame = decoded.frame
    width, height = max(1, round(frame.width * decoded.aspect)), frame.height
    return (height, width) if _clockwise(frame) in (90, 270) else (width, height)


def reader_of(path: VideoPath, options: VideoOptions, report: DecodeReport) -> FrameReader:
    """Open the reader for a path; arguments and errors as in `open_video`."""
    if not isinstance(path, str | os.PathLike):
        _refuse_layout("a list of images", options, fps=True)
        name = os.fspath(path[0]) if len(path) else "images"
        return ImagesReader(name, report, path, options.fps)
    name = os.fspath(path)
    if name == "-":
        _refuse_layout("Y4M on stdin", options)
        return Y4mReader(name, report)
    try:
        status = Path(name).stat()
    except (OSError, ValueError) as exc:
        reason = "no such file" if isinstance(exc, FileNotFoundError) else str(exc)
        raise MediaError(f"{name}: can't be read: {reason}", "check the path") from exc
    pipe = stat.S_ISFIFO(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        _refuse_layout(name, options, fps=True)
        return ImagesReader(name, report, list_images(Path(name)), options.fps)
    if not (pipe or stat.S_ISREG(status.st_mode)):
        raise MediaError(
            f"{name}: the path is not a file", "name a video, a folder of images, or - for stdin"
        )
    if is_raw(name, options):
        if pipe:
            raise UsageError(f"{name}: raw video can't be read from a pipe", "pipe it as Y4M")
        return RawReader(name, report, options)
    if not pipe and status.st_size == 0:
        raise MediaError(f"{name}: the file is empty", "check that the video is complete")
    if not pipe and Path(name).suffix.lower() in (".jpg", ".jpeg"):
        # Read only the first picture, because phones append gain maps and films to the file.
        _refuse_layout(name, options, fps=True)
        return ImagesReader(name, report, [name], options.fps)
    _refuse_layout(name, options)
    if _is_y4m(name, pipe=pipe):
        return Y4mReader(name, report)
    return ContainerReader(name, report, options.threads, options.index)


def _is_y4m(name: str, *, pipe: bool) -> bool:
    if pipe:  # bytes that were read from a pipe cannot be read again
        return Path(name).suffix.lower() == ".y4m"
    with open_file(name) as f:
        return f.read(len(Y4M_MAGIC)) == Y4M_MAGIC


def _refuse_layout(name: str, options: VideoOptions, *, fps: bool = False) -> None:
    """Refuse options of raw video for an input that states its own layout; `fps`: --fps is allowed."""
    values = {"--width": options.width, "--height": options.height, "--pix-fmt": options.pix_fmt}
    names = [option for option, value in values.items() if value is not None]
    if options.fps is not None and not fps:
        names.append("--fps")
    if names:
        raise UsageError(
            f"{name}: the input states its own layout, so {', '.join(names)} would change nothing",
            "leave them out; only raw video needs --width, --height and --pix-fmt",
        )


def open_video(path: VideoPath, options: VideoOptions | None = None) -> Video:
    """Open a video.

    Args:
        path: a file that FFmpeg reads, raw YUV (suffix .yuv or .raw, or `width`, `height` and
            `pix_fmt` in `options`), Y4M, a folder or a list of images, or `-` for Y4M on stdin.
        options: how to read the video; None = as the stream says.

    Raises:
        MediaError: the video cannot be read, holds no picture, or is HDR and `options.hdr` is `refuse`.
        UsageError: raw video without its layout, or a layout for an input that states its own.
    """
    return Video(path, options or VideoOptions())
