"""Read uncompressed video without FFmpeg's demuxers: raw YUV by options, Y4M from files and stdin.

This module reads the bytes itself and decodes them with FFmpeg's `rawvideo`. So it knows exactly where
a file ends early, and `seek` can jump to any frame of raw YUV.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Literal

import av
import av.error

from eyeline.errors import MediaError, UsageError
from eyeline.media.types import (
    DEFAULT_FPS,
    RAW_SUFFIXES,
    ColourTags,
    DecodedFrame,
    DecodeReport,
    FrameReader,
    VideoOptions,
    check_size,
)

Y4M_MAGIC = b"YUV4MPEG2 "

_Y4M_FORMATS = {
    **dict.fromkeys(("420", "420jpeg", "420mpeg2", "420paldv"), "yuv420p"),
    **{"411": "yuv411p", "422": "yuv422p", "444": "yuv444p", "444alpha": "yuva444p"},
    "mono": "gray",
}
"""FFmpeg's pixel format for each value of a Y4M header's C parameter (yuv4mpeg(5))."""

_LINE = 4096  # bytes: the longest header line that is read


def is_raw(path: str, options: VideoOptions) -> bool:
    """Return whether a path is read as raw YUV: by its suffix, or because its layout is given."""
    given = options.width is not None and options.height is not None and options.pix_fmt is not None
    return given or Path(path).suffix.lower() in RAW_SUFFIXES


class _UncompressedReader(FrameReader):
    """Read frames of one size and format; with `header`, a line that begins with FRAME precedes each."""

    aspect = Fraction(1)

    def __init__(
        self,
        path: str,
        report: DecodeReport,
        stream: BinaryIO,
        size: tuple[int, int],
        pix_fmt: str,
        fps: Fraction,
        *,
        header: bool,
    ) -> None:
        super().__init__(path, report)
        check_size(path, *size)
        self.fps: Fraction = fps
        self._stream, self._header = stream, header
        self._start = stream.tell() if stream.seekable() else None
        self._next = 0
        self._ending = ""
        self.frame_bytes = frame_bytes(pix_fmt, *size)
        self._decoder = _codec("r", pix_fmt, size)

    def _set_frames(self, count: int) -> None:
        self.frames, self.duration = count, float(count / self.fps)

    def read(self) -> Iterator[DecodedFrame]:
        while (data := self._read_samples()) is not None:
            packet = av.Packet(self.frame_bytes)
            packet.update(data)
            index = self._next
            self._next += 1
            for frame in self._decoder.decode(packet):
                yield DecodedFrame(index, float(index / self.fps), frame, self.aspect)

    def _read_samples(self) -> bytes | None:
        if self._header:
            line = self._stream.readline(_LINE)
            if not line:
                return None
            if not re.fullmatch(rb"FRAME( [^\n]*)?\n", line):
                cut = b"FRAME".startswith(line[:5]) and not line.endswith(b"\n")
                fault = "cut off" if cut else "missing"
                self._ending = f"the header of frame {self._next} is {fault}"
                return None
        data = self._stream.read(self.frame_bytes)
        if len(data) == self.frame_bytes:
            return data
        if data or self._header:
            self._ending = f"frame {self._next} has {len(data)} of {self.frame_bytes} bytes"
        return None

    def seek(self, index: int) -> None:
        # The headers of Y4M frames may vary in length, so only raw files allow seeking.
        if self._start is not None and not self._header:
            self._stream.seek(self._start + index * self.frame_bytes)
            self._next = index

    def ended_early(self) -> str:
        return self._ending

    def close(self) -> None:
        if self._stream is not sys.stdin.buffer:
            self._stream.close()


class RawReader(_UncompressedReader):
    """A file of samples whose layout is given by options."""

    def __init__(self, path: str, report: DecodeReport, options: VideoOptions) -> None:
        width, height, pix_fmt = options.width, options.height, options.pix_fmt
        if width is None or height is None or pix_fmt is None:
            names = {"--width": width, "--height": height, "--pix-fmt": pix_fmt}
            missing = ", ".join(name for name, value in names.items() if value is None)
            raise UsageError(
                f"{path}: raw video needs {missing}",
                "give them, because a raw file does not state its layout",
            )
        check_size(path, width, height)
        size, length = frame_bytes(pix_fmt, width, height), Path(path).stat().st_size
        count, rest = divmod(length, size)
        if length == 0 or rest:
            holds = f"{count} whole frames" + (f" and {rest:,} bytes" if rest else "")
            raise MediaError(
                f"{path}: its {length:,} bytes hold {holds} of {width}x{height} {pix_fmt} "
                f"({size:,} bytes each)",
                "check --width, --height and --pix-fmt",
            )
        stream = open_file(path)
        fps = options.fps or DEFAULT_FPS
        super().__init__(path, report, stream, (width, height), pix_fmt, fps, header=False)
        self._set_frames(count)


class Y4mReader(_UncompressedReader):
    """A YUV4MPEG2 stream in a file, a named pipe, or `-` for stdin."""

    def __init__(self, path: str, report: DecodeReport) -> None:
        stream = sys.stdin.buffer if path == "-" else open_file(path)
        try:
            line = stream.readline(_LINE)
            size, pix_fmt, fps, self.aspect = _y4m_layout(path, line)
            super().__init__(path, report, stream, size, pix_fmt, fps, header=True)
        except MediaError:
            if path != "-":
                stream.close()
            raise
        if b"XCOLORRANGE=FULL" in line:
            self.tags = ColourTags(color_range=2)
        elif b"XCOLORRANGE=LIMITED" in line:
            self.tags = ColourTags(color_range=1)
        if path != "-" and Path(path).is_file():
            # This assumes the shortest frame header; a longer header is rare and makes the count wrong.
            self._set_frames((Path(path).stat().st_size - len(line)) // (self.frame_bytes + 6))


def _y4m_layout(path: str, line: bytes) -> tuple[tuple[int, int], str, Fraction, Fraction]:
    """Return size, pixel format, frame rate and sample aspect ratio from a stream's header."""
    if not line.startswith(Y4M_MAGIC) or not line.endswith(b"\n"):
        raise MediaError(
            f"{path}: the stream is not Y4M" if line else f"{path}: the stream has no frames",
            "pipe it from: ffmpeg -i VIDEO -f yuv4mpegpipe -strict -1 -",
        )
    fields = {f[:1]: f[1:] for f in line.decode("ascii", "replace").split()[1:]}
    try:
        size = int(fields["W"]), int(fields["H"])
    except (KeyError, ValueError) as exc:
        raise MediaError(
            f"{path}: its Y4M header has no size", "check whether the file is damaged"
        ) from exc
    name = fields.get("C", "420")
    pix_fmt = _Y4M_FORMATS.get(name)
    if pix_fmt is None and (deep := re.fullmatch(r"(420|422|444)p(9|10|12|14|16)", name)):
        pix_fmt = f"yuv{deep[1]}p{deep[2]}le"
    elif pix_fmt is None and (deep := re.fullmatch(r"mono(9|10|12|14|16)", name)):
        pix_fmt = f"gray{deep[1]}le"
    if pix_fmt is None:
        raise MediaError(
            f"{path}: Y4M of {size[0]}x{size[1]} {name} can't be read",
            "convert it to a format such as 420jpeg or 420p10",
        )
    fps, aspect = _ratio(fields.get("F", "")), _ratio(fields.get("A", ""))
    return size, pix_fmt, fps or DEFAULT_FPS, aspect or Fraction(1)


def _ratio(text: str) -> Fraction | None:
    """Parse the ratio `a:b`; return None if it is unknown (0:0) or invalid."""
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    return Fraction(int(match[1]), int(match[2])) if match and int(match[2]) else None


def open_file(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as exc:
        raise MediaError(
            f"{path}: can't be read: {exc.strerror}", "check the path and its permissions"
        ) from exc


def _codec(mode: Literal["r", "w"], pix_fmt: str, size: tuple[int, int]) -> av.VideoCodecContext:
    codec = av.CodecContext.create("rawvideo", mode)
    assert isinstance(codec, av.VideoCodecContext)  # noqa: S101 - a video codec
    codec.width, codec.height = size
    codec.pix_fmt = pix_fmt
    return codec


def frame_bytes(pix_fmt: str, width: int, height: int) -> int:
    """Return the size of one frame in bytes, as FFmpeg stores raw video: rows without padding."""
    try:
        # FFmpeg's encoder tells the size: packed formats and odd sizes have special rules.
        codec = _codec("w", pix_fmt, (width, height))
        codec.time_base = Fraction(1, 25)
        (packet,) = codec.encode(av.VideoFrame(width, height, pix_fmt))
    except (av.error.FFmpegError, ValueError) as exc:
        raise UsageError(
            f"pixel format {pix_fmt!r} can't be read as raw video",
            "use a pixel format of FFmpeg such as yuv420p10le",
        ) from exc
    return packet.size
