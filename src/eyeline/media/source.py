"""Open a video and hand out its frames: containers, raw YUV, Y4M, stdin and images, by one door.

`Video.frames` decodes (threaded), scales in FFmpeg's filter graph, scores scene changes, counts
damage and survives it; memory stays constant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
from av.error import FFmpegError

from eyeline.errors import DamagedMediaError, MediaError
from eyeline.media.colour import read_colour
from eyeline.media.graph import Scaler, kind_of
from eyeline.media.images import IMAGE_SUFFIXES, decode_images, list_images
from eyeline.media.raw import DEFAULT_FPS, is_raw, raw_layout
from eyeline.media.scene import SceneScore
from eyeline.media.types import DecodeReport, Frame, SizePlan, VideoInfo, VideoOptions

MAX_SIDE = 16384
"""Largest side that is decoded, pixels: a header that claims more is a bomb, or a mistake."""

_SCRIPTS = frozenset({"hls", "concat", "dash", "imf", "vapoursynth", "lavfi"})
"""Demuxers that open what a file names: a video from elsewhere must not read other files."""

VideoPath = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Video:
    """An open video.

    Args:
        path: see `open_video`.
        options: how to read it.

    Attributes:
        info: facts of the stream.
        report: what went wrong so far; complete when `frames` ends.

    Raises:
        MediaError: it can't be read, or holds no picture.
        UsageError: raw video without its layout.
    """

    def __init__(self, path: VideoPath, options: VideoOptions) -> None:
        self._options = options
        self._container: av.container.InputContainer | None = None
        self._known: int | None = None
        self._packets = 0
        self._cut_off = False
        self._next_index = 0
        self.report = DecodeReport()
        self._images: list[Path] = []
        if not isinstance(path, (str, os.PathLike)):
            self._images = [Path(p) for p in path]
            self.path = os.fspath(path[0]) if path else "an empty list"
        else:
            self.path = os.fspath(path)
            if self.path != "-" and Path(self.path).is_dir():
                self._images = list_images(Path(self.path))
        try:
            self._decoder = self._open()
            first = next(self._decoder, None)
        except BaseException:
            self.close()
            raise
        if first is None:
            self.close()
            what = "damaged before its first frame" if self.report.corrupt else "no frames"
            raise MediaError(f"{self.path}: {what}", "is it a whole video?")
        self._first: av.VideoFrame | None = first
        try:
            self.info = self._describe(first)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._container is not None:
            self._container.close()
            self._container = None

    # Opening

    def _open(self) -> Iterator[av.VideoFrame]:
        if self._images:
            self._known = len(self._images)
            self._fps = self._options.fps or Fraction(DEFAULT_FPS)
            return decode_images(self._images)
        container = self._container = self._open_container()
        if container.format.name.split(",")[0] in _SCRIPTS:
            raise MediaError(
                f"{self.path}: a playlist or script ({container.format.name}), not a video",
                "name the video itself",
            )
        if not container.streams.video:
            raise MediaError(f"{self.path}: no video stream", "is it an audio file?")
        stream = container.streams.video[0]
        codec = stream.codec_context
        if codec is None:
            raise MediaError(f"{self.path}: no decoder for its video", "convert it")
        if max(stream.width, stream.height) > MAX_SIDE:
            raise MediaError(
                f"{self.path}: claims {stream.width}x{stream.height}, over {MAX_SIDE} a side",
                "is it a video?",
            )
        stream.thread_type = "AUTO"
        codec.thread_count = self._options.threads
        if self._known is None and stream.frames:
            self._known = stream.frames
        self._fps = stream.average_rate or stream.guessed_rate or Fraction(DEFAULT_FPS)
        return self._decode(container, stream)

    def _open_container(self) -> av.container.InputContainer:
        options = {"protocol_whitelist": "file"}
        target: Any = self.path
        form: str | None = None
        if self.path == "-":
            target, form = sys.stdin.buffer, "yuv4mpegpipe"
        else:
            place = Path(self.path)
            if not place.exists():
                raise MediaError(f"{self.path}: no such file", "check the path")
            if not place.is_file():
                raise MediaError(f"{self.path}: not a regular file", "name a video, or - for stdin")
            if is_raw(self.path, self._options):
                layout, self._known = raw_layout(self.path, self._options)
                options |= layout
                form = "rawvideo"
            elif place.stat().st_size == 0:
                raise MediaError(f"{self.path}: the file is empty", "is it a whole video?")
            elif place.suffix.lower() in IMAGE_SUFFIXES:
                form, options["pattern_type"] = "image2", "none"
        try:
            container: av.container.InputContainer = av.open(target, format=form, options=options)
        except (FFmpegError, OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            what = "not Y4M" if self.path == "-" else "can't be read as a video"
            raise MediaError(f"{self.path}: {what}: {reason}", "check the file") from exc
        return container

    def _decode(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[av.VideoFrame]:
        """Frames in presentation order; damage is counted, and what ends the file early remembered."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                self._cut_off = True
                return
            if packet is None:
                break
            if packet.size:
                self._packets += 1
            # Only a file's last packet is short: what follows a flagged one clears the flag.
            self._cut_off = bool(packet.is_corrupt) or (self._cut_off and not packet.size)
            try:
                yield from packet.decode()
            except FFmpegError:
                self._damaged()

    def _damaged(self) -> None:
        self.report.corrupt += 1
        if self.report.first_corrupt is None:
            self.report.first_corrupt = self._next_index

    # Facts

    def _describe(self, frame: av.VideoFrame) -> VideoInfo:
        rotation = _clockwise(frame)
        aspect = Fraction(1)
        codec, duration = "image", None
        fps = self._fps
        if self._container is not None:
            stream = self._container.streams.video[0]
            aspect = stream.sample_aspect_ratio or Fraction(1)
            codec = stream.codec_context.name
            if stream.duration is not None and stream.time_base is not None:
                duration = float(stream.duration * stream.time_base)
            elif self._container.duration is not None:
                duration = self._container.duration / 1e6
        self._aspect = aspect if aspect > 0 else Fraction(1)
        width, height = self._display_size(frame, rotation)
        return VideoInfo(
            path=self.path,
            codec=codec,
            width=frame.width,
            height=frame.height,
            display_width=width,
            display_height=height,
            rotation=rotation,
            pix_fmt=frame.format.name,
            bit_depth=max(c.bits for c in frame.format.components),
            fps=fps,
            frames=self._known,
            duration=duration,
            colour=read_colour(frame, self._options, self.path),
        )

    def _display_size(self, frame: av.VideoFrame, rotation: int) -> tuple[int, int]:
        """Upright size in square pixels: the width follows the sample aspect ratio."""
        width, height = max(1, round(frame.width * self._aspect)), frame.height
        return (width, height) if rotation in (0, 180) else (height, width)

    # Frames

    def frames(
        self, plan: SizePlan, start: int = 0, stop: int | None = None, keep_source: bool = False
    ) -> Iterator[Frame]:
        """Decode and scale, in presentation order; can be called once.

        Args:
            plan: display (width, height) to the size of `Frame.rgb`; asked again when the
                resolution changes mid-stream.
            start: index of the first frame to hand out.
            stop: index after the last; None = to the end.
            keep_source: keep the decoded frame in `Frame.source`.

        Raises:
            DamagedMediaError: the file ends early; raised after its last good frame.
            MediaError: a pixel format that can't be converted.
        """
        scaler: Scaler | None = None
        score = SceneScore()
        origin: float | None = None
        for frame in self._all_frames():
            index = self._next_index
            self._next_index += 1
            if frame.is_corrupt:
                self.report.corrupt += 1
                if self.report.first_corrupt is None:
                    self.report.first_corrupt = index
            if stop is not None and index >= stop:
                return
            time = self._time(frame, index)
            if index < start:
                continue
            rotation = self.info.rotation if self._container is not None else _clockwise(frame)
            if scaler is None or scaler.kind != kind_of(frame):
                if max(frame.width, frame.height) > MAX_SIDE:
                    raise MediaError(f"{self.path}: frame {index} is {frame.width}x{frame.height}")
                display = self._display_size(frame, rotation)
                if scaler is not None:
                    self.report.size_changes.append((index, display))
                colour = self.info.colour
                if frame.format.name != self.info.pix_fmt:
                    colour = replace(read_colour(frame, self._options, self.path), assumed=())
                scaler = Scaler(frame, plan(*display), colour, rotation)
            rgb = scaler(frame)
            origin = time if origin is None else origin
            self.report.delivered += 1
            yield Frame(
                index=index,
                pts_time=time,
                rgb=rgb,
                scene_score=score(rgb),
                display_size=display,
                source=frame if keep_source else None,
                rotation=rotation,
            )
        self._check_ending()

    def _all_frames(self) -> Iterator[av.VideoFrame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
            del first
        yield from self._decoder

    def _time(self, frame: av.VideoFrame, index: int) -> float:
        """Presentation time in seconds; by the frame rate where the stream has no timestamps."""
        if self._container is not None and frame.pts is not None and frame.time_base:
            self._last_time = float(frame.pts * frame.time_base)
        else:
            self._last_time = float(index / self._fps)
        return self._last_time

    def _check_ending(self) -> None:
        """Raise when the file ended before its header's promise."""
        if self._container is None:
            return
        missing = ""
        stream = self._container.streams.video[0]
        promised = _tagged_duration(stream.metadata.get("DURATION", ""))
        last = getattr(self, "_last_time", 0.0)
        if stream.frames and self._packets < stream.frames:
            missing = f"{self._packets} of {stream.frames} frames are there"
        elif self._cut_off:
            missing = "its last packet is cut off"
        elif promised is not None and last + 3 / float(self._fps) + 0.1 < promised:
            missing = f"its header promises {promised:.2f} s"
        if missing:
            raise DamagedMediaError(
                f"{self.path}: ends early after frame {self._next_index - 1} at {last:.2f} s: "
                f"{missing}",
                "the rows up to there are kept",
                frames=self.report.delivered,
            )


def _clockwise(frame: av.VideoFrame) -> int:
    """Clockwise degrees that make a frame upright, from its display matrix, in quarter turns."""
    return round(-frame.rotation / 90) * 90 % 360


def _tagged_duration(text: str) -> float | None:
    """Seconds of Matroska's per-track DURATION tag, `HH:MM:SS.nnnnnnnnn`."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def open_video(path: VideoPath, options: VideoOptions | None = None) -> Video:
    """Open a video.

    Args:
        path: a file that FFmpeg reads, raw YUV (with size and format in `options`), a folder of
            images, a list of images, or `-` for Y4M on stdin.
        options: how to read it; as the stream says when None.

    Raises:
        MediaError: it can't be read, holds no picture, or is HDR that is to be refused.
        UsageError: raw video without its layout.
    """
    return Video(path, options or VideoOptions())
