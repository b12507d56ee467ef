"""Containers and elementary streams through FFmpeg: threaded decode, damage counted and survived.

Matroska and WebM, as far as damage needs it: where the file should end, where it is broken.

FFmpeg skips what it can't parse without a word, and a whole cluster of frames may go with it; so
where frames are missing, `broken_at` looks at the headers of all elements.

Whether a file is as long as its container says: the surest sign of a cut-off copy or download.

What tells: boxes in MP4 and MOV, EBML elements in Matroska and WebM, RIFF chunks in AVI and WebP,
tags in FLV, packets of one length in MPEG-TS, and what ends a GIF or a JPEG. Anything else is not
judged.

What FFmpeg may open: the file that was named and nothing else, whatever that file says.

Files come from anywhere. Playlists and scripts are refused before they are parsed, and so are
pictures of absurd size; a file that does not open gets one line that says why.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import av.container
import av.error
from av.container import Flags
from av.format import Flags as FormatFlags
from av.stream import Disposition

from eyeline.errors import MediaError, SeekError
from eyeline.media.colour import ColourTags
from eyeline.media.reader import (
    MAX_PIXELS,
    Decoded,
    Facts,
    FrameTimes,
    Reader,
    check_size,
    too_short,
)
from eyeline.media.types import DEFAULT_FPS, IMAGE_SUFFIXES, READ_WHOLE, DecodeReport, FrameIndex
from eyeline.parallel import usable_cores

EBML = bytes.fromhex("1a45dfa3")  # RFC 8794: every file begins with it
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
# RFC 9559, section 5: what stands in a segment, then in a cluster; Void and CRC-32 may be anywhere.
_ANYWHERE = frozenset({0xEC, 0xBF})
_IN_SEGMENT = _ANYWHERE | {
    *(0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER),  # SeekHead, Info, Tracks
    *(0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367),  # Cues, Attachments, Chapters, Tags
}
_IN_CLUSTER = _ANYWHERE | {
    *(0xE7, 0xA3, 0xA0, 0xA7, 0xAB),  # Timestamp, SimpleBlock, BlockGroup, Position, PrevSize
    *(0x5854, 0xAF),  # SilentTracks, EncryptedBlock
}


class _Element(NamedTuple):
    """A header: its ID, and where the element begins, its content begins, and it ends (or None)."""

    id: int
    start: int
    content: int
    end: int | None


def _number(f: BinaryIO, keep_marker: bool) -> int | None:
    """A number as RFC 8794 section 4 codes it; None at the end of the file or where it is invalid."""
    first = f.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    rest = f.read(width - 1)
    if len(rest) < width - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    return value if keep_marker else value - (1 << 7 * width)


def _element(f: BinaryIO, at: int) -> _Element | None:
    """The header at an offset, or None where there is none."""
    f.seek(at)
    id_ = _number(f, keep_marker=True)
    before = f.tell()
    size = _number(f, keep_marker=False)
    if id_ is None or size is None:
        return None
    content = f.tell()
    unknown = size == (1 << 7 * (content - before)) - 1  # live streams leave lengths open
    return _Element(id_, at, content, None if unknown else content + size)


def _segment(f: BinaryIO) -> _Element | None:
    header = _element(f, 0)
    segment = None if header is None or header.end is None else _element(f, header.end)
    return segment if segment is not None and segment.id == _SEGMENT else None


def segment_end(f: BinaryIO, length: int) -> int:
    """Where the segment, which holds everything, says that it ends; 0 when it doesn't.

    Args:
        f: a file of `length` bytes that begins with `EBML`.
        length: bytes.
    """
    segment = _segment(f)
    if segment is None:
        return 0
    if segment.end is not None:
        return segment.end
    at = segment.content
    while at < length:  # an open segment: its last element with a length
        element = _element(f, at)
        if element is None or element.id not in _IN_SEGMENT or element.end is None:
            return at
        at = element.end
    return at


def broken_at(path: str) -> int | None:
    """Find the first place where a file does not follow Matroska's structure.

    Args:
        path: a regular file.

    Returns:
        Its offset in bytes; None when there is none, or it is no Matroska.

    Raises:
        OSError: the file can't be read.
    """
    with Path(path).open("rb") as f:
        length = f.seek(0, 2)
        f.seek(0)
        segment = _segment(f) if f.read(4) == EBML else None
        if segment is None:
            return None
        at, cluster_end = segment.content, None
        end = length if segment.end is None else min(segment.end, length)
        while at < end:
            element = _element(f, at)
            inside = cluster_end is not None and at < cluster_end
            # A cluster without a length ends where another element of the segment begins.
            allowed = _IN_CLUSTER | _IN_SEGMENT if inside else _IN_SEGMENT
            if element is None or element.id not in allowed:
                return at
            if element.end is None:
                if element.id != _CLUSTER:
                    return at
                at, cluster_end = element.content, end
            elif element.id == _CLUSTER:
                at, cluster_end = element.content, element.end
            else:
                at = element.end
                if inside and cluster_end is not None and at > cluster_end:
                    return element.start
    return None


_BOXES = frozenset(
    {
        *(b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx"),
        *(b"ssix", b"mfra", b"uuid", b"meta", b"udta", b"emsg", b"prft", b"pnot", b"PICT"),
    }
)
"""Top-level boxes of ISO/IEC 14496-12 and QuickTime; at another name the walk ends, unjudged."""


# What ends the coded samples of a JPEG: a marker other than a stuffed zero or a restart (T.81, B.1.1).
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


def cut_short(path: str) -> str | None:
    """Say how a file is shorter than its container states.

    Args:
        path: a regular file.

    Returns:
        One clause such as "its mdat box goes on for 1,234 bytes more", an empty string for a file
        that is whole, None for a container that is not judged.

    Raises:
        OSError: the file can't be read.
    """
    with Path(path).open("rb") as f:
        length = f.seek(0, 2)
        f.seek(0)
        head = f.read(400)
        f.seek(0)
        if head.startswith(b"GIF8"):
            return _gif_end(f)
        # By its suffix: a stream of motion JPEG begins like a picture.
        if head.startswith(b"\xff\xd8") and Path(path).suffix.lower() in (".jpg", ".jpeg"):
            return _jpeg_end(f.read())
        if head[4:8] in _BOXES:
            what, end = _last_box(f, length)
        elif head[:4] == EBML:
            what, end = "segment", segment_end(f, length)
        elif head[:4] == b"RIFF":
            what, end = _last_chunk(f, length)
        elif head[:3] == b"FLV":
            what, end = _last_tag(f, length)
        elif head[0:189:188] == b"GG":  # sync bytes of ISO/IEC 13818-1
            what, end = "last transport packet", -(-length // 188) * 188
        elif head[4:197:192] == b"GG":  # the same behind time codes, of Blu-ray and cameras
            what, end = "last transport packet", -(-length // 192) * 192
        else:
            return None
    return f"its {what} goes on for {end - length:,} bytes more" if end > length else ""


def _last_box(f: BinaryIO, length: int) -> tuple[str, int]:
    """Name and end of the last top-level box."""
    name, end = "first box", 0
    while end + 8 <= length:
        f.seek(end)
        size, kind = struct.unpack(">I4s", f.read(8))
        if kind not in _BOXES or size == 0:  # 0: up to the end of the file
            break
        header = 8
        if size == 1:
            wide = f.read(8)
            if len(wide) < 8:
                break
            (size,), header = struct.unpack(">Q", wide), 16
        if size < header:
            break
        name, end = f"{kind.decode()} box", end + size
    return name, end


def _last_chunk(f: BinaryIO, length: int) -> tuple[str, int]:
    """Name and end of the last RIFF chunk (OpenDML strings several of them together)."""
    end = 0
    while end + 8 <= length:
        f.seek(end)
        kind, size = struct.unpack("<4sI", f.read(8))
        if kind != b"RIFF" or size in (0, 0xFFFFFFFF):  # not filled in: a capture, not judged
            break
        end += 8 + size
    return "RIFF chunk", end


def _last_tag(f: BinaryIO, length: int) -> tuple[str, int]:
    """End of the last FLV tag (Adobe's FLV specification 10.1, annex E)."""
    header = f.read(9)
    at = end = int.from_bytes(header[5:], "big") + 4  # behind a length of the tag before, none
    while len(header) == 9 and at < length:
        f.seek(at)
        tag = f.read(11)
        if tag[0] & 0x1F not in (8, 9, 18):  # neither sound, picture nor data: not judged
            break
        end = at + 11 + int.from_bytes(tag[1:4], "big")
        at = end + 4
    return "last tag", end


def _gif_end(f: BinaryIO) -> str | None:
    """Walk the blocks of a GIF89a up to its trailer."""

    def skip_colours(flags: int) -> None:
        if flags & 0x80:
            f.seek(3 << (flags & 7) + 1, 1)

    def skip_blocks() -> None:
        while size := f.read(1):
            if size == b"\0":
                return
            f.seek(size[0], 1)

    screen = f.read(13)
    if len(screen) == 13:
        skip_colours(screen[10])
    while kind := f.read(1):
        if kind == b";":
            return ""
        if kind == b"!":  # an extension: its label, then blocks
            f.seek(1, 1)
        elif kind == b",":  # a picture: its descriptor, colours, code size, then blocks
            descriptor = f.read(9)
            skip_colours(descriptor[8] if len(descriptor) == 9 else 0)
            f.seek(1, 1)
        else:
            return None
        skip_blocks()
    return "its last block is not there"


def _jpeg_end(data: bytes) -> str | None:
    """Walk the segments of a JPEG (ITU-T T.81, annex B) up to the end of its picture."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == 0xD9:
            return ""
        at += int.from_bytes(data[at : at + 2], "big")
    return "its picture has no end"


_FORBIDDEN = frozenset(
    {
        # What opens files and addresses that the file names.
        *("hls", "concat", "dash", "imf", "sdp", "rtsp", "rtp", "sap", "webm_dash_manifest"),
        *("image2", "mlv", "vobsub"),
        # What runs scripts and graphs.
        *("lavfi", "vapoursynth", "avisynth"),
        # Devices.
        *("fbdev", "kmsgrab", "video4linux2,v4l2", "x11grab", "alsa", "oss", "jack", "pulse"),
        # What shows any text as pictures.
        *("tty", "bin", "xbin", "adf", "idf"),
    }
)
"""Demuxers that an untrusted file must not reach."""

MAX_IMAGE_BYTES = 2**31
"""Largest still image that is read: `MAX_PIXELS` at 8 bytes, uncompressed."""

_PLAYLISTS = (b"#EXTM3U", b"ffconcat version", b"<?xml", b"<MPD", b"v=0")


@cache
def _allowed() -> str:
    return ",".join(sorted(av.formats_available - _FORBIDDEN))


def open_container(path: str, *, image: bool = False) -> av.container.InputContainer:
    """Open a file with FFmpeg, and only that file.

    Args:
        path: a regular file or a named pipe.
        image: a still image, whose name FFmpeg must not see: it takes such names for patterns.

    Raises:
        MediaError: it can't be read, or is no video.
    """
    limits = {
        "protocol_whitelist": "file",
        "format_whitelist": _allowed(),
        "max_pixels": str(MAX_PIXELS),
    }
    try:
        if image:
            data = _read_image(path)
            # FFmpeg doubts a JPEG with something behind it, such as the film of a phone's picture.
            kind = "jpeg_pipe" if data.startswith(b"\xff\xd8") else None
            return av.open(io.BytesIO(data), "r", kind, options=limits)
        # The prefix keeps a name such as `concat:a` a name.
        return av.open(f"file:{path}", options=limits)
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        raise MediaError(*_why_not(path, exc)) from exc


def _read_image(path: str) -> bytes:
    size = Path(path).stat().st_size
    if size > MAX_IMAGE_BYTES:
        raise MediaError(f"{path}: {size:,} bytes are too large for an image", "is it an image?")
    return Path(path).read_bytes()


def _why_not(path: str, exc: Exception) -> tuple[str, str]:
    """Message and hint for a file that FFmpeg did not open."""
    reason = getattr(exc, "strerror", None) or str(exc)
    if isinstance(exc, FileNotFoundError | PermissionError):
        return f"{path}: can't be read: {reason}", "check the path and its permissions"
    if Path(path).is_file():  # a pipe can't be read again
        with Path(path).open("rb") as f:
            head = f.read(64).lstrip(b"\xef\xbb\xbf \r\n")
        if head.startswith(_PLAYLISTS):
            return f"{path}: a playlist or manifest, not a video", "name the video itself"
    if short := shorter_than_stated(path):
        return too_short(path, short)
    if isinstance(exc, OSError):
        return f"{path}: can't be read: {reason}", "is the disk or the network at fault?"
    if isinstance(exc, av.error.EOFError):
        return f"{path}: no frames", "is it a whole video?"
    return f"{path}: not a video that FFmpeg reads: {reason}", "is it a video?"


def shorter_than_stated(path: str) -> str:
    """What shows that a file was cut off (see `length.cut_short`), or an empty string."""
    return (cut_short(path) or "") if Path(path).is_file() else ""


_LONG_BEFORE = 1 << 32
"""Ticks of any time base."""


class ContainerReader(Reader):
    """Frames of a file's best video stream.

    Args:
        path: a file or a named pipe.
        report: where damage is counted.
        threads: decoder threads; 0 = one per core.
        index: where its frames are, when that is known: they are held to it.

    Raises:
        MediaError: it can't be read, has no video, or no decoder.
    """

    def __init__(
        self, path: str, report: DecodeReport, threads: int, index: FrameIndex | None = None
    ) -> None:
        super().__init__(path, report)
        image = Path(path).suffix.lower() in IMAGE_SUFFIXES
        self._container = open_container(path, image=image)
        try:
            self.stream = self._pick()
        except MediaError:
            self._container.close()
            raise
        context = self.stream.codec_context
        if not (context.name in ("mpeg1video", "mpeg2video") and "mpeg" in self.format):
            # PyAV has FFmpeg generate the presentation times that a container does not state, from
            # its decoding times. That is right for MPEG-1 and MPEG-2 streams. Elsewhere, as for
            # H.264 in AVI, the generated times are in decoding order.
            self._container.flags &= ~Flags.gen_pts.value  # type: ignore[operator]
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_type = "AUTO"
        # FFmpeg's own choice is one thread more than cores: slower here by a tenth.
        context.thread_count = threads or usable_cores()
        # Read before the decoder runs: some decoders clear what the container says.
        self._tags = ColourTags(
            matrix=int(context.colorspace),
            transfer=int(context.color_trc),
            color_range=int(context.color_range),
        )
        self._aspect = self.stream.sample_aspect_ratio or Fraction(1)
        self._coded_aspect = context.sample_aspect_ratio
        self._index = 0
        self._packets = 0
        self._flagged = 0  # damaged packets whose frames may still come
        self._gap: int | None = None  # the first frame after a hole in time
        self._end = 0.0  # seconds: frames are expected up to about here
        self._ending = ""
        self._last_damage: int | None = None
        self._refusal = ""
        self._places = index
        self._jump: Iterator[av.Packet[av.VideoStream]] | None = None  # where a seek landed
        self._sought = False  # no frame came since the last seek
        self._settling = False  # nor the keyframe that it landed on

    def _pick(self) -> av.VideoStream:
        candidates = [
            s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic
        ]
        best = self._container.streams.best("video")
        stream = best if best in candidates else next(iter(candidates), None)
        if stream is None:
            cover = " but a cover picture" if self._container.streams.video else ""
            raise self._refused(f"no video stream{cover}", "is it an audio file?")
        assert isinstance(stream, av.VideoStream)  # noqa: S101 - asked for video
        if stream.codec_context is None:
            raise self._refused(
                "no decoder for its video codec", "convert it with a tool that has one"
            )
        check_size(self.path, stream.width, stream.height)
        return stream

    def _refused(self, message: str, hint: str) -> MediaError:
        """The error for a file that holds no picture; where it was cut off, that is the reason."""
        if short := shorter_than_stated(self.path):
            return MediaError(*too_short(self.path, short))
        return MediaError(f"{self.path}: {message}", hint)

    @property
    def facts(self) -> Facts:
        """See `Reader`."""
        stream, duration = self.stream, None
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        elif self._container.duration is not None:
            duration = self._container.duration / av.time_base
        return Facts(
            codec=stream.codec_context.name,
            fps=self._frame_rate(),
            frames=self._expected_frames(),
            duration=duration if duration and duration > 0 else None,
            tags=self._tags,
        )

    def _frame_rate(self) -> Fraction | None:
        stream = self.stream
        # An elementary stream states its rate itself, or not at all: FFmpeg's demuxer says 25.
        own = self._container.format.flags & FormatFlags.no_timestamps.value  # type: ignore[operator]
        rate = stream.codec_context.framerate if own else None
        return rate or stream.average_rate or stream.guessed_rate

    @property
    def format(self) -> str:
        """FFmpeg's names of the container."""
        return self._container.format.name

    def _indexed(self) -> int | None:
        """Packets that MP4's and MOV's index lists; an edit list is already applied to it."""
        if "mp4" not in self.format or not self.stream.frames:
            return None
        return len(self.stream.index_entries)

    def _expected_frames(self) -> int | None:
        indexed = self._indexed()
        if indexed is None:
            return self.stream.frames or None
        # An edit list hides packets at either end, which must still be decoded.
        entries = self.stream.index_entries
        if indexed and (entries[0].is_discard or entries[-1].is_discard):
            return sum(not entry.is_discard for entry in entries)
        return indexed

    def read(self) -> Iterator[Decoded]:
        """See `Reader`."""
        seconds: float | None = None
        step = float(1 / (self.facts.fps or DEFAULT_FPS))
        times = self._frame_times(step)
        size: tuple[int, int] | None = None
        # Not kept in `self`, so that what is dropped goes at once, with the decoder's threads.
        source = self._frames(self.packets())
        while (frame := next(source, None)) is not None:
            if self._places is not None and not self._in_place(frame, self._places):
                continue
            if size is not None and size != (frame.width, frame.height):
                self._update_aspect()
            size = frame.width, frame.height
            if frame.is_corrupt and self._flagged:
                self._flagged -= 1  # its packet was counted
            elif frame.is_corrupt:
                self._note_damage()
            if self._sought:
                seconds, self._sought = None, False
                times = self._frame_times(step)
            before, seconds = seconds, times.time_of(frame)
            if before is not None and seconds - before > 3 * step and self._gap is None:
                self._gap = self._index
            self._end = seconds + 3 * step
            self._index += 1  # before the frame is handed out: a seek may set another
            yield Decoded(self._index - 1, seconds, frame, self._aspect)
            if self._jump is not None:
                source, self._jump = self._frames(self._jump), None
        if self._index == 0:
            raise self._undecodable()
        if self._places is not None and self._index < len(self._places):
            raise self._misplaced(f"frame {self._index} is its last, of {len(self._places)}")
        self._look_for_lost_clusters()

    def _frame_times(self, step: float) -> FrameTimes:
        return FrameTimes(self.stream.time_base, step, self.stream.codec_context.name)

    def _in_place(self, frame: av.VideoFrame, places: FrameIndex) -> bool:
        """Hold a frame to the index; False for one that leads the frame that was sought."""
        number = places.number(frame.pts)
        if number is not None and number < self._index and self._settling:
            return False
        if number != self._index:
            what = "an unknown one" if number is None else f"frame {number}"
            raise self._misplaced(f"{what} comes where frame {self._index} is due")
        self._settling = False
        return True

    def _misplaced(self, what: str) -> SeekError:
        return SeekError(f"{self.path}: frames are not where its packets say: {what}", READ_WHOLE)

    def packets(self) -> Iterator[av.Packet[av.VideoStream]]:
        """Packets in the file's order, up to its end or to where it can't be read any further."""
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as exc:
                self._ending = f"reading on fails: {exc.strerror}"
                return
            if packet is None:
                return
            self._packets += packet.size > 0 or packet.dts is not None
            yield packet

    def _frames(self, packets: Iterable[av.Packet[av.VideoStream]]) -> Iterator[av.VideoFrame]:
        """Decode packet by packet, since one that is refused must not end the video."""
        held: av.Packet[av.VideoStream] | None = None
        for packet in packets:
            if packet.size == 0:
                # The demuxer's last word, or a frame that was dropped when recording: to the
                # decoder it would mean the end.
                continue
            if held is not None:
                self._flagged += 1
                self._note_damage()
                yield from self._decode(held)
                held = None
            if packet.is_corrupt:
                # The demuxer could not read it in full. As the file's last it is cut off and not
                # decoded, since what it would break are the whole frames that wait before it.
                held = packet
                continue
            yield from self._decode(packet)
        if held is not None:
            self._packets -= 1
            self._ending = self._ending or "its last packet is cut off"
        yield from self._decode(None)

    def _decode(self, packet: av.Packet[av.VideoStream] | None) -> list[av.VideoFrame]:
        try:
            return self.stream.codec_context.decode(packet)
        except av.error.EOFError:
            return []  # the decoder was flushed already
        except av.error.FFmpegError as exc:
            self._refusal = exc.strerror or str(exc)
            self._note_damage()
            return []

    def _look_for_lost_clusters(self) -> None:
        """Where frames seem to be missing in Matroska, look whether its structure is broken.

        A gap in time alone is no damage: a variable frame rate has them.
        """
        duration = self.facts.duration or 0.0
        short = self._end < duration
        if "matroska" not in self.format or not (short or self._gap is not None):
            return
        at = broken_at(self.path) if Path(self.path).is_file() else None
        if at is not None and self._gap is not None:
            self.count_damage(self._gap)
        elif at is not None and not self._ending:
            self._ending = f"its structure is broken at byte {at:,}"

    def _note_damage(self) -> None:
        if self._settling:
            return  # what leads the frame that was sought may lack what it refers to
        self._last_damage = self._index
        self.count_damage(self._index)

    def _update_aspect(self) -> None:
        """After a change of size, a sample aspect ratio of the codec's own counts."""
        coded = self.stream.codec_context.sample_aspect_ratio
        if coded and coded != self._coded_aspect:
            self._aspect = coded

    def _undecodable(self) -> MediaError:
        tag = self.stream.codec_context.codec_tag
        if tag in ("encv", "drmi"):  # ISO/IEC 23001-7; Apple's FairPlay
            return MediaError(f"{self.path}: the video is encrypted", "decrypt it first")
        if not self._packets:
            reason = self.ended_early()
            if reason:
                return MediaError(*too_short(self.path, reason))
            return MediaError(f"{self.path}: no frames", "is it a whole video?")
        reason = f": {self._refusal}" if self._refusal else ""
        return self._refused(
            f"none of its {self._packets} {self.stream.codec_context.name} packets "
            f"could be decoded{reason}",
            "is it damaged or encrypted?",
        )

    def seek(self, index: int) -> None:
        """See `Reader`: without an index of its frames a container is decoded from its start.

        Raises:
            SeekError: the keyframe before is not where the index says.
        """
        if self._places is None:
            return
        at = self._places.last_keyframe(index)
        # Demuxers look a time up in presentation or in decoding order, or guess a byte: one that
        # lands behind the frame is sent to an earlier keyframe.
        back = 0
        while at > 0:
            if self._land(self._places, max(0, at - back), index):
                return
            if back >= at:
                raise self._misplaced(f"frame {index} can't be sought")
            back = 2 * back + 1

    def _land(self, places: FrameIndex, at: int, index: int) -> bool:
        """Go on at a keyframe, or another one that is not behind the frame `index`, if there is one."""
        # To the start by a time far before it: some land behind the frame whose time they are given.
        time = int(places.pts[places.keyframes[at]]) - (0 if at else _LONG_BEFORE)
        try:
            self._container.seek(time, stream=self.stream)
        except av.error.FFmpegError as exc:
            raise self._misplaced(f"seeking fails: {exc.strerror}") from exc
        packets = self.packets()
        for packet in packets:
            number = places.number(packet.pts) if packet.is_keyframe else None
            if number is None or number != places.keyframes[places.last_keyframe(number)]:
                continue
            if number > index:
                return False
            self._jump = chain([packet], packets)
            self._index, self._settling, self._sought = number, True, True
            self._gap, self._flagged, self._ending = None, 0, ""
            return True
        return False

    def ended_early(self) -> str:
        """See `Reader`."""
        indexed = self._indexed()
        if self._places is not None:
            return self._ending  # all frames came, or that was an error
        if indexed is not None:
            if self._packets < indexed:
                return f"{self._packets} of its {indexed} packets are there"
            return ""
        if self._ending:
            return self._ending
        short = cut_short(self.path) if Path(self.path).is_file() else None
        # A transport stream may also end between two packets of a frame.
        if short is not None and (short or "mpegts" not in self.format):
            return short
        # Without lengths a cut shows only in the last frames, which reordering may have moved.
        waiting = 1 + max(2, self.stream.codec_context.has_b_frames)
        if self._last_damage is not None and self._last_damage >= self._index - waiting:
            return "its last frames are damaged"
        return ""

    def close(self) -> None:
        """See `Reader`."""
        self._container.close()
