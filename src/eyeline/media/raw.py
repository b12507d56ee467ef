"""Uncompressed video without FFmpeg's demuxers: raw YUV by options, and Y4M from files and stdin.

Reading it here, and decoding by FFmpeg's `rawvideo`, shows exactly where a file ends early, and lets
`seek` jump to any frame.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import av.error

from eyeline.errors import MediaError, UsageError
from eyeline.media.colour import ColourTags
from eyeline.media.reader import Decoded, Facts, Reader, check_size
from eyeline.media.types import DEFAULT_FPS, RAW_SUFFIXES, DecodeReport, VideoOptions

Y4M_MAGIC = b"YUV4MPEG2 "

_Y4M_FORMATS = {
    "420": "yuv420p",
    "420jpeg": "yuv420p",
    "420mpeg2": "yuv420p",
    "420paldv": "yuv420p",
    "411": "yuv411p",
    "422": "yuv422p",
    "444": "yuv444p",
    "444alpha": "yuva444p",
    "mono": "gray",
}
"""Values of a Y4M header's C parameter (yuv4mpeg(5)) and FFmpeg's formats."""

_LINE = 4096  # bytes: the longest header line that is read


def is_raw(path: str, options: VideoOptions) -> bool:
    """Whether a path is to be read as raw YUV: by its suffix, or because its layout is given."""
    given = options.width is not None and options.height is not None and options.pix_fmt is not None
    return given or Path(path).suffix.lower() in RAW_SUFFIXES


class _UncompressedReader(Reader):
    """Frames of one size and format, one after the other, each behind a header or none.

    Args:
        path: named in errors.
        report: where damage is counted.
        stream: at the first frame.
        size: (width, height).
        pix_fmt: FFmpeg's pixel format.
        fps: frame rate.
        header: whether a line that begins with FRAME precedes each frame.
    """

    def __init__(
        self,
        path: str,
        report: DecodeReport,
        stream: BinaryIO,
        size: tuple[int, int],
        pix_fmt: str,
        fps: Fraction,
        header: bool,
    ) -> None:
        super().__init__(path, report)
        check_size(path, *size)
        self.aspect = Fraction(1)
        self.tags = ColourTags()
        self.frames: int | None = None
        self._stream, self._fps, self._header = stream, fps, header
        self._start = stream.tell() if stream.seekable() else None
        self._index = 0
        self._ending = ""
        self.frame_bytes = frame_bytes(pix_fmt, *size)
        self._decoder = av.CodecContext.create("rawvideo", "r")
        assert isinstance(self._decoder, av.VideoCodecContext)  # noqa: S101 - a video codec
        self._decoder.width, self._decoder.height = size
        self._decoder.pix_fmt = pix_fmt

    @property
    def facts(self) -> Facts:
        """See `Reader`."""
        duration = None if self.frames is None else float(self.frames / self._fps)
        return Facts("rawvideo", self._fps, self.frames, duration, self.tags)

    def read(self) -> Iterator[Decoded]:
        """See `Reader`."""
        while (data := self._next()) is not None:
            packet = av.Packet(self.frame_bytes)
            packet.update(data)
            index = self._index
            self._index += 1
            for frame in self._decoder.decode(packet):
                yield Decoded(index, float(index / self._fps), frame, self.aspect)

    def _next(self) -> bytes | None:
        """The samples of a frame; None at the end, whole or not."""
        if self._header:
            line = self._stream.readline(_LINE)
            if not line:
                return None
            if not re.fullmatch(rb"FRAME( [^\n]*)?\n", line):
                cut = b"FRAME".startswith(line[:5]) and not line.endswith(b"\n")
                self._ending = "a frame's header is " + ("cut off" if cut else "not there")
                return None
        data = self._stream.read(self.frame_bytes)
        if len(data) == self.frame_bytes:
            return data
        if data or self._header:
            self._ending = f"frame {self._index} has {len(data)} of {self.frame_bytes} bytes"
        return None

    def seek(self, index: int) -> None:
        """See `Reader`."""
        # The headers of Y4M frames may vary in length, so only raw files can be jumped in.
        if self._start is not None and not self._header:
            self._stream.seek(self._start + index * self.frame_bytes)
            self._index = index

    def ended_early(self) -> str:
        """See `Reader`."""
        return self._ending

    def close(self) -> None:
        """See `Reader`."""
        if self._stream is not sys.stdin.buffer:
            self._stream.close()


class RawReader(_UncompressedReader):
    """A file of samples, as `options` describe them.

    Args:
        path: a regular file.
        report: where damage is counted.
        options: `width`, `height`, `pix_fmt` and `fps`.

    Raises:
        UsageError: size or format is missing or unknown.
        MediaError: the length is not a whole number of frames, or zero of them.
    """

    def __init__(self, path: str, report: DecodeReport, options: VideoOptions) -> None:
        width, height, pix_fmt = options.width, options.height, options.pix_fmt
        if width is None or height is None or pix_fmt is None:
            names = {"--width": width, "--height": height, "--pix-fmt": pix_fmt}
            missing = ", ".join(name for name, value in names.items() if value is None)
            raise UsageError(f"{path}: raw video needs {missing}", "raw files don't say it")
        if width < 1 or height < 1:
            raise UsageError(f"{path}: {width}x{height} is no size", "give pixels")
        check_size(path, width, height)
        size, length = frame_bytes(pix_fmt, width, height), Path(path).stat().st_size
        count, rest = divmod(length, size)
        if length == 0 or rest:
            holds = f"{count} whole frames" + (f" and {rest:,} bytes" if rest else "")
            raise MediaError(
                f"{path}: its {length:,} bytes are {holds} of {width}x{height} {pix_fmt} "
                f"({size:,} bytes each)",
                "check --width, --height and --pix-fmt",
            )
        stream = open_file(path)
        fps = options.fps or DEFAULT_FPS
        super().__init__(path, report, stream, (width, height), pix_fmt, fps, header=False)
        self.frames = count


class Y4mReader(_UncompressedReader):
    """A YUV4MPEG2 stream.

    Args:
        path: a file or a named pipe; `-` for stdin.
        report: where damage is counted.

    Raises:
        MediaError: it can't be read, or its header is not one of Y4M.
    """

    def __init__(self, path: str, report: DecodeReport) -> None:
        stream = sys.stdin.buffer if path == "-" else open_file(path)
        try:
            line, fields = _y4m_header(path, stream)
            size, pix_fmt, fps = _y4m_layout(path, fields)
            super().__init__(path, report, stream, size, pix_fmt, fps, header=True)
        except MediaError:
            if path != "-":
                stream.close()
            raise
        self.aspect = _ratio(fields.get("A", "")) or Fraction(1)
        if b"XCOLORRANGE=FULL" in line:
            self.tags = ColourTags(color_range=2)
        elif b"XCOLORRANGE=LIMITED" in line:
            self.tags = ColourTags(color_range=1)
        if path != "-" and Path(path).is_file():
            # By the shortest header; those with parameters are rare, and only a guess suffers.
            self.frames = (Path(path).stat().st_size - len(line)) // (self.frame_bytes + 6)


def _y4m_header(path: str, stream: BinaryIO) -> tuple[bytes, dict[str, str]]:
    """The first line, and its parameters by their letter."""
    line = stream.readline(_LINE)
    if not line.startswith(Y4M_MAGIC) or not line.endswith(b"\n"):
        raise MediaError(
            f"{path}: not Y4M" if line else f"{path}: no frames",
            "pipe it from: ffmpeg -i VIDEO -f yuv4mpegpipe -strict -1 -",
        )
    return line, {f[:1]: f[1:] for f in line.decode("ascii", "replace").split()[1:]}


def _y4m_layout(path: str, fields: dict[str, str]) -> tuple[tuple[int, int], str, Fraction]:
    """Size, pixel format and frame rate from a header's parameters."""
    try:
        size = int(fields["W"]), int(fields["H"])
    except (KeyError, ValueError) as exc:
        raise MediaError(f"{path}: its Y4M header has no size", "is it damaged?") from exc
    name = fields.get("C", "420")
    pix_fmt = _Y4M_FORMATS.get(name)
    if pix_fmt is None and (deep := re.fullmatch(r"(420|422|444)p(9|10|12|14|16)", name)):
        pix_fmt = f"yuv{deep[1]}p{deep[2]}le"
    elif pix_fmt is None and (deep := re.fullmatch(r"mono(9|10|12|14|16)", name)):
        pix_fmt = f"gray{deep[1]}le"
    if pix_fmt is None or min(size) < 1:
        raise MediaError(
            f"{path}: Y4M of {size[0]}x{size[1]} {name} can't be read", "convert it to 420p10 or so"
        )
    return size, pix_fmt, _ratio(fields.get("F", "")) or DEFAULT_FPS


def _ratio(text: str) -> Fraction | None:
    """`a:b`, or None where it is unknown (0:0) or nonsense."""
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    return Fraction(int(match[1]), int(match[2])) if match and int(match[2]) else None


def open_file(path: str) -> BinaryIO:
    """Open for reading.

    Raises:
        MediaError: it can't be.
    """
    try:
        return Path(path).open("rb")
    except OSError as exc:
        raise MediaError(
            f"{path}: can't be read: {exc.strerror}", "check the path and its permissions"
        ) from exc


def frame_bytes(pix_fmt: str, width: int, height: int) -> int:
    """Bytes of one frame as FFmpeg stores raw video: rows one after the other, without padding.

    Raises:
        UsageError: an unknown pixel format, or one that can't be raw video.
    """
    try:
        frame = av.VideoFrame(width, height, pix_fmt)
        encoder = av.CodecContext.create("rawvideo", "w")
        assert isinstance(encoder, av.VideoCodecContext)  # noqa: S101 - a video codec
        encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
        encoder.time_base = Fraction(1, 25)
        # Asked of FFmpeg's own encoder: packed formats and odd sizes have rules of their own.
        (packet,) = encoder.encode(frame)
    except (av.error.FFmpegError, ValueError) as exc:
        raise UsageError(
            f"pixel format {pix_fmt!r} can't be read", "for example yuv420p10le"
        ) from exc
    return packet.size
