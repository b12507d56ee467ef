"""Open a video and hand out its frames: containers, raw YUV, Y4M, stdin and images, by one door.

`Video.frames` scales in FFmpeg's filter graph, plans again when the picture changes its size or
format, scores scene changes and says where damage was met. Memory stays constant: one decoded
frame, beside those that the decoder holds.

Times are the stream's own, as `ffprobe` prints them: one that begins at 1.48 s, as transport streams
do, is not moved to 0, so that rows match other tools' logs.

Folders and lists of still images as a video: natural order, one frame each.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error
import numpy as np
import numpy.typing as npt

from eyeline.errors import DamagedMediaError, MediaError, UsageError
from eyeline.media.colour import ColourTags, Scaler, read_colour
from eyeline.media.container import ContainerReader, open_container, shorter_than_stated
from eyeline.media.raw import Y4M_MAGIC, RawReader, Y4mReader, is_raw
from eyeline.media.reader import (
    Decoded,
    Facts,
    Reader,
    check_size,
    too_short,
)
from eyeline.media.types import (
    DEFAULT_FPS,
    IMAGE_SUFFIXES,
    Colour,
    DecodeReport,
    Frame,
    SizePlan,
    VideoInfo,
    VideoOptions,
)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p]


def list_images(folder: Path) -> list[str]:
    """The images of a folder, in natural order of their names.

    Raises:
        MediaError: there are none, or the folder can't be read.
    """
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    except OSError as exc:
        raise MediaError(
            f"{folder}: can't be read: {exc.strerror}", "check its permissions"
        ) from exc
    if not found:
        known = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise MediaError(f"{folder}: a folder without images", f"one of {known}")
    return [str(p) for p in sorted(found, key=lambda p: natural_order(p.name))]


class ImagesReader(Reader):
    """Still images, one frame each; one that can't be decoded is counted and left out.

    Args:
        path: named in errors: the folder, or the first image.
        report: where damage is counted.
        images: paths, in order.
        fps: frame rate; 25 when None.

    Raises:
        MediaError: the list is empty, or names what is not a file.
    """

    def __init__(
        self,
        path: str,
        report: DecodeReport,
        images: Sequence[str | os.PathLike[str]],
        fps: Fraction | None,
    ) -> None:
        super().__init__(path, report)
        self._images = [os.fspath(p) for p in images]
        self._fps = fps or DEFAULT_FPS
        self._next = 0
        self._codec = ""
        if not self._images:
            raise MediaError("the list of images is empty", "name at least one")
        for image in self._images:
            if not Path(image).is_file():
                raise MediaError(f"{image}: no such file", "check the list of images")

    @property
    def facts(self) -> Facts:
        """See `Reader`."""
        count = len(self._images)
        return Facts(self._codec, self._fps, count, float(count / self._fps), ColourTags())

    def read(self) -> Iterator[Decoded]:
        """See `Reader`."""
        found = False
        while self._next < len(self._images):
            index = self._next
            self._next += 1
            try:
                frame, aspect = self._decode(self._images[index])
            except MediaError:
                self.count_damage(index)
                if not found and self._next == len(self._images):
                    raise
                continue
            # FFmpeg fills the rest of a JPEG that was cut off with grey, without a word.
            if frame.is_corrupt or shorter_than_stated(self._images[index]):
                self.count_damage(index)
            found = True
            yield Decoded(index, float(index / self._fps), frame, aspect)

    def _decode(self, image: str) -> tuple[av.VideoFrame, Fraction]:
        with open_container(image, image=True) as container:
            if not container.streams.video:
                raise MediaError(f"{image}: not an image", "replace or remove it")
            stream = container.streams.video[0]
            check_size(image, stream.width, stream.height)
            try:
                for frame in container.decode(stream):
                    self._codec = self._codec or stream.codec_context.name
                    return frame, stream.sample_aspect_ratio or Fraction(1)
            except av.error.FFmpegError as exc:
                raise MediaError(
                    f"{image}: not a readable image: {exc.strerror}", "replace or remove it"
                ) from exc
        raise MediaError(f"{image}: holds no picture", "replace or remove it")

    def seek(self, index: int) -> None:
        """See `Reader`."""
        self._next = index

    def ended_early(self) -> str:
        """See `Reader`: a list has no end but its own."""
        return ""

    def close(self) -> None:
        """See `Reader`: each image is closed when it is decoded."""


def difference(plane: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Mean absolute difference of two planes of one size, percent of full scale.

    Args:
        plane: uint8 (h, w).
        other: the same.
    """
    gap: npt.NDArray[np.uint8] = np.maximum(plane, other) - np.minimum(plane, other)
    # NumPy adds 8-bit samples up five times faster in 32 bits, which hold 2^24 of them.
    total = gap.sum(dtype=np.uint32 if gap.size <= 1 << 24 else np.uint64)
    return float(total) / gap.size / 2.55


class SceneScore:
    """The scene score of consecutive frames.

    The formula is `scdet`'s: with d the mean absolute difference in percent of full scale, the score
    is min(d, |d - previous d|), so that steady motion scores low and a jump scores high. It is
    taken over the green plane at working size, where `scdet` takes all samples of the source.
    """

    def __init__(self) -> None:
        self._plane: npt.NDArray[np.uint8] | None = None
        self._difference = 0.0

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> float:
        """Score of a frame, 0..100.

        Args:
            rgb: uint8 (3, h, w); a change of size scores 100, the first frame 0.
        """
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
    """An open video; a context manager.

    Args:
        path: see `open_video`.
        options: how to read it.

    Attributes:
        info: facts of the stream.
        report: what went wrong so far; complete when `frames` ends.

    Raises:
        MediaError: it can't be read, or holds no picture.
        UsageError: raw video without its layout, or options that this kind of video can't honour.
    """

    def __init__(self, path: VideoPath, options: VideoOptions) -> None:
        self._options = options
        self.report = DecodeReport()
        reader = reader_of(path, options, self.report)
        self._reader: Reader | None = reader
        self._decoded = reader.read()
        try:
            # Looked at in advance: only a frame tells for sure what the stream is.
            first = _first_of(reader, self._decoded)
            self.info = self._describe(reader, first)
            self._first: Decoded | None = first
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and end the decoder; safe to call twice, not while a thread reads frames."""
        reader, self._reader = self._reader, None
        # The decoder's threads and pictures go with the last reference to them.
        self._decoded, self._first = iter(()), None
        if reader is not None:
            reader.close()

    def _opened(self) -> Reader:
        if self._reader is None:
            raise UsageError(f"{self.info.path}: was closed", "open it again")
        return self._reader

    def _describe(self, reader: Reader, first: Decoded) -> VideoInfo:
        frame, facts = first.frame, reader.facts
        width, height = _display_size(first)
        return VideoInfo(
            path=reader.path,
            codec=facts.codec,
            width=frame.width,
            height=frame.height,
            display_width=width,
            display_height=height,
            rotation=_clockwise(frame),
            pix_fmt=frame.format.name,
            bit_depth=max(component.bits for component in frame.format.components),
            fps=facts.fps,
            frames=facts.frames,
            duration=facts.duration,
            colour=self._colour(reader, frame, height),
            start=first.seconds,
        )

    def _colour(self, reader: Reader, frame: av.VideoFrame, lines: int) -> Colour:
        return read_colour(frame, self._options, reader.path, reader.facts.tags, lines)

    def frames(
        self, plan: SizePlan, start: int = 0, stop: int | None = None, keep_source: bool = False
    ) -> Iterator[Frame]:
        """Decode and scale, in presentation order; once.

        Args:
            plan: display (width, height) to the size of `Frame.rgb`; asked again when the
                resolution changes mid-stream.
            start: index of the first frame to hand out; those before are decoded, not scaled. With
                `VideoOptions.index` only those from the last keyframe on.
            stop: index after the last; None = to the end.
            keep_source: keep the decoded frame in `Frame.source`.

        Raises:
            DamagedMediaError: the file ends early; raised after its last frame.
            MediaError: a pixel format that can't be converted, or a picture too large.
            SeekError: frames are not where `VideoOptions.index` says.
            UsageError: there is no frame `start`, the frames were read before, or the video was closed.
        """
        return self._scaled(self.pictures(start, stop), plan, keep_source)

    def pictures(self, start: int = 0, stop: int | None = None) -> Iterator[Decoded]:
        """Decode without scaling, in presentation order; once: samples as they are in the file.

        Args:
            start: index of the first frame to hand out; those before are decoded only.
            stop: index after the last; None = to the end.

        Raises:
            DamagedMediaError: the file ends early; raised after its last frame.
            MediaError: a picture too large.
            SeekError: see `frames`.
            UsageError: there is no frame `start`, the frames were read before, or the video was closed.
        """
        path = self._opened().path
        first, self._first = self._first, None
        if first is None:
            raise UsageError(f"{path}: its frames were read already", "open it again")
        return self._walk(first, start, stop)

    def _walk(self, first: Decoded, start: int, stop: int | None) -> Iterator[Decoded]:
        pending: Decoded | None = first
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
        self._conclude(start, last)

    def _scaled(self, decoded: Iterator[Decoded], plan: SizePlan, keep: bool) -> Iterator[Frame]:
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

    def _conclude(self, start: int, last: tuple[int, float] | None) -> None:
        """After the last frame: was it the file's last."""
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
            raise UsageError(f"{path}: no frame {start}: the video has {count}", "the first is 0")


def _first_of(reader: Reader, decoded: Iterator[Decoded]) -> Decoded:
    first = next(decoded, None)
    if first is not None:
        return first
    if reason := reader.ended_early():
        raise MediaError(*too_short(reader.path, reason))
    raise MediaError(f"{reader.path}: no frames", "is it a whole video?")


def reader_of(path: VideoPath, options: VideoOptions, report: DecodeReport) -> Reader:
    """The reader for what `path` is."""
    if not isinstance(path, str | os.PathLike):
        _refuse_layout("a list of images", options, fps=True)
        name = os.fspath(path[0]) if len(path) else "images"
        return ImagesReader(name, report, path, options.fps)
    name = os.fspath(path)
    if name == "-":
        _refuse_layout("Y4M on stdin", options)
        return Y4mReader(name, report)
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError) as exc:
        reason = "no such file" if isinstance(exc, FileNotFoundError) else str(exc)
        raise MediaError(f"{name}: can't be read: {reason}", "check the path") from exc
    if stat.S_ISDIR(mode):
        _refuse_layout(name, options, fps=True)
        return ImagesReader(name, report, list_images(Path(name)), options.fps)
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise MediaError(f"{name}: not a file", "name a video, a folder of images, or - for stdin")
    if stat.S_ISREG(mode):
        if is_raw(name, options):
            return RawReader(name, report, options)
        if Path(name).stat().st_size == 0:
            raise MediaError(f"{name}: the file is empty", "is it a whole video?")
        if Path(name).suffix.lower() in (".jpg", ".jpeg"):
            # One picture, although phones append gain maps and films to it.
            _refuse_layout(name, options, fps=True)
            return ImagesReader(name, report, [name], options.fps)
    elif is_raw(name, options):
        raise UsageError(f"{name}: raw video can't be read from a pipe", "pipe it as Y4M")
    _refuse_layout(name, options)
    if _is_y4m(name, mode):
        return Y4mReader(name, report)
    return ContainerReader(name, report, options.threads, options.index)


def _is_y4m(name: str, mode: int) -> bool:
    """By its first bytes; of a pipe by its suffix, since what is read of it is gone."""
    if stat.S_ISFIFO(mode):
        return Path(name).suffix.lower() == ".y4m"
    try:
        with Path(name).open("rb") as f:
            return f.read(len(Y4M_MAGIC)) == Y4M_MAGIC
    except OSError as exc:
        raise MediaError(f"{name}: can't be read: {exc.strerror}", "check its permissions") from exc


def _refuse_layout(name: str, options: VideoOptions, *, fps: bool = False) -> None:
    """Options of raw video on what says its own layout: nobody should think that they count.

    Raises:
        UsageError: one of them is given.
    """
    values = {"--width": options.width, "--height": options.height, "--pix-fmt": options.pix_fmt}
    names = [option for option, value in values.items() if value is not None]
    if options.fps is not None and not fps:
        names.append("--fps")
    given = ", ".join(names)
    if given:
        raise UsageError(
            f"{name}: says its own layout, so {given} would change nothing",
            "raw video needs --width, --height and --pix-fmt together",
        )


def _kind(decoded: Decoded) -> tuple[object, ...]:
    """What a scaler is made for; when it changes, another one is needed."""
    f = decoded.frame
    tags = int(f.colorspace), int(f.color_range), int(f.color_trc)
    return f.width, f.height, f.format.name, f.rotation, decoded.aspect, tags


def _clockwise(frame: av.VideoFrame) -> int:
    """Clockwise degrees that make a frame upright, from its display matrix, in quarter turns.

    FFmpeg gives the angle counterclockwise. A mirror in the matrix is not applied.
    """
    return round(-frame.rotation / 90) * 90 % 360


def _display_size(decoded: Decoded) -> tuple[int, int]:
    """Upright size in square pixels: lines stay, the width follows the sample aspect ratio."""
    frame = decoded.frame
    width, height = max(1, round(frame.width * decoded.aspect)), frame.height
    return (height, width) if _clockwise(frame) in (90, 270) else (width, height)


def open_video(path: VideoPath, options: VideoOptions | None = None) -> Video:
    """Open a video.

    Args:
        path: a file that FFmpeg reads, raw YUV (suffix .yuv or .raw, or `width`, `height` and
            `pix_fmt` in `options`), Y4M, a folder or a list of images, or `-` for Y4M on stdin.
        options: how to read it; as the stream says when None.

    Raises:
        MediaError: it can't be read, holds no picture, or is HDR that is to be refused.
        UsageError: raw video without its layout, or a layout for what has its own.
    """
    return Video(path, options or VideoOptions())
