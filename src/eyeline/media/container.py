"""Read containers and elementary streams through FFmpeg; count damage and go on after it.

The files are untrusted. `open_container` lets FFmpeg open only the given file, and no file or address
in its content: playlists and scripts are refused before FFmpeg parses them. If a file cannot be opened,
the error says in one line why.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path

import av
import av.container
import av.error
from av.container import Flags
from av.format import Flags as FormatFlags
from av.stream import Disposition

from eyeline.errors import MediaError, SeekError
from eyeline.media._truncation import broken_at, cut_short
from eyeline.media.types import (
    DEFAULT_FPS,
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    READ_WHOLE,
    RESTART,
    ColourTags,
    DecodedFrame,
    DecodeReport,
    FrameIndex,
    FrameReader,
    check_size,
    truncated_error,
)
from eyeline.parallel import usable_cores

_FORBIDDEN = frozenset(
    {
        # Demuxers that open files and addresses which the file names.
        *("hls", "concat", "dash", "imf", "sdp", "rtsp", "rtp", "sap", "webm_dash_manifest"),
        *("image2", "mlv", "vobsub"),
        # Demuxers that run scripts and graphs.
        *("lavfi", "vapoursynth", "avisynth"),
        # Devices.
        *("fbdev", "kmsgrab", "video4linux2,v4l2", "x11grab", "alsa", "oss", "jack", "pulse"),
        # Demuxers that show any text as pictures.
        *("tty", "bin", "xbin", "adf", "idf"),
    }
)
"""Demuxers that an untrusted file must not reach."""

MAX_IMAGE_BYTES = 2**31
"""Largest still image that is read: `MAX_PIXELS` at 8 bytes each, uncompressed."""

_PLAYLISTS = (b"#EXTM3U", b"ffconcat version", b"<?xml", b"<MPD", b"v=0")


@cache
def _allowed() -> str:
    return ",".join(sorted(av.formats_available - _FORBIDDEN))


def open_container(path: str, *, image: bool = False) -> av.container.InputContainer:
    """Open a file with FFmpeg, and only that file.

    Args:
        path: a regular file or a named pipe.
        image: the file is a still image. FFmpeg gets only its bytes, because it takes names of images
            for patterns.

    Raises:
        MediaError: the file cannot be read, or is not a video.
    """
    limits = {
        "protocol_whitelist": "file",
        "format_whitelist": _allowed(),
        "max_pixels": str(MAX_PIXELS),
    }
    try:
        if not image:
            # The prefix makes a name such as `concat:a` a plain name.
            return av.open(f"file:{path}", options=limits)
        size = Path(path).stat().st_size
        if size > MAX_IMAGE_BYTES:
            raise MediaError(
                f"{path}: the image has {size:,} bytes; at most {MAX_IMAGE_BYTES:,} are allowed",
                "check that the file is an image",
            )
        data = Path(path).read_bytes()
        # FFmpeg rejects a JPEG with data behind it, such as the film of a phone's picture.
        kind = "jpeg_pipe" if data.startswith(b"\xff\xd8") else None
        return av.open(io.BytesIO(data), "r", kind, options=limits)
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        raise _opening_error(path, exc) from exc


def _opening_error(path: str, exc: Exception) -> MediaError:
    reason = getattr(exc, "strerror", None) or str(exc)
    if isinstance(exc, FileNotFoundError | PermissionError):
        return MediaError(f"{path}: can't be read: {reason}", "check the path and its permissions")
    if Path(path).is_file():  # a pipe cannot be read again
        with Path(path).open("rb") as f:
            head = f.read(64).lstrip(b"\xef\xbb\xbf \r\n")
        if head.startswith(_PLAYLISTS):
            return MediaError(
                f"{path}: the file is a playlist or manifest, not a video", "name the video itself"
            )
    if short := cut_short(path):
        return truncated_error(path, short)
    if isinstance(exc, OSError):
        return MediaError(f"{path}: can't be read: {reason}", "check the disk and the network")
    if isinstance(exc, av.error.EOFError):
        return MediaError(f"{path}: the file has no frames", "check that the video is complete")
    return MediaError(
        f"{path}: the file is not a video that FFmpeg reads: {reason}",
        "check that the file is a video",
    )


REORDERING_CODECS = ("h264", "hevc", "vvc")
"""Codecs for which only the decoder knows the order of the frames. For all other codecs FFmpeg's
demuxers derive presentation times from decoding times (`compute_pkt_fields` of libavformat/demux.c)."""


class FrameTimes:
    """Compute the presentation times of frames, which come in presentation order.

    A decoder gives a frame two times: the presentation time of its own packet, and the decoding time
    of the packet that brought it out. Both times should rise. As in FFmpeg, the kind of time that
    failed to rise less often is used (`guess_correct_pts` of libavcodec/decode.c). The time of a frame
    that has neither is the time of the frame before it plus that frame's duration
    (`video_frame_process` of fftools/ffmpeg_dec.c). `step` is the time between frames at the average
    frame rate, seconds.
    """

    def __init__(self, time_base: Fraction | None, step: float, codec: str) -> None:
        self._base = time_base
        self._step = step
        # A decoding time says when a frame leaves the decoder, which may be later than its
        # presentation time. So it does not replace a missing presentation time once other frames
        # have one.
        self._reorders = codec in REORDERING_CODECS
        self._states_pts = False
        self._pts: int | None = None  # presentation time of the last frame, in ticks
        self._dts: int | None = None
        self._pts_faults = 0
        self._dts_faults = 0
        self._ticks: int | None = None
        self._duration = 0
        self._seconds: float | None = None
        self._shift = 0.0

    def time_of(self, frame: av.VideoFrame) -> float:
        """Return the time of the next frame, seconds; it is larger than that of the frame before."""
        ticks = self._best_effort(frame.pts, frame.dts)
        if ticks is None and self._ticks is not None:
            ticks = self._ticks + self._duration
        if ticks is not None:
            passed = 0 if self._ticks is None else ticks - self._ticks
            # FFmpeg makes up a duration of 1 tick where the container states none.
            stated = frame.duration > 1 or (frame.duration == 1 and passed <= 2)
            self._duration = frame.duration if stated or passed <= 0 else passed
        self._ticks = ticks
        before = self._seconds
        if ticks is None or self._base is None:
            self._seconds = 0.0 if before is None else before + self._step
            return self._seconds
        seconds = float(ticks * self._base) + self._shift
        if before is not None and seconds < before - RESTART:
            self._shift += before + self._step - seconds
            seconds = before + self._step
        elif before is not None and seconds <= before:
            # Half a step leaves room for the times that follow.
            seconds = before + self._step / 2
        self._seconds = seconds
        return seconds

    def _best_effort(self, pts: int | None, dts: int | None) -> int | None:
        self._states_pts |= pts is not None
        if dts is not None:
            self._dts_faults += self._dts is not None and dts <= self._dts
        if pts is not None:
            self._pts_faults += self._pts is not None and pts <= self._pts
        if pts is not None or dts is not None:
            self._dts = pts if dts is None else dts
            self._pts = dts if pts is None else pts
        if pts is None and self._reorders and self._states_pts:
            return None
        if pts is not None and (dts is None or self._pts_faults <= self._dts_faults):
            return pts
        return dts


_LONG_BEFORE = 1 << 32
"""Ticks to seek before the start: some demuxers land after the requested time."""


class ContainerReader(FrameReader):
    """Frames of the video stream that FFmpeg finds best in a file.

    Frames are checked against `index`. Without an index the reader cannot seek.
    """

    def __init__(
        self, path: str, report: DecodeReport, threads: int, index: FrameIndex | None = None
    ) -> None:
        super().__init__(path, report)
        image = Path(path).suffix.lower() in IMAGE_SUFFIXES
        self._container = open_container(path, image=image)
        self.format = self._container.format.name  # FFmpeg's names of the container
        try:
            self.stream = self._pick()
        except MediaError:
            self._container.close()
            raise
        context = self.stream.codec_context
        if not (context.name in ("mpeg1video", "mpeg2video") and "mpeg" in self.format):
            # PyAV has FFmpeg generate missing presentation times from the decoding times. That is
            # right for MPEG-1 and MPEG-2 streams. Elsewhere, as for H.264 in AVI, the generated
            # times are in decoding order.
            self._container.flags &= ~Flags.gen_pts.value  # type: ignore[operator]
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_type = "AUTO"
        # FFmpeg's own choice is one thread more than cores, which is a tenth slower here.
        context.thread_count = threads or usable_cores()
        self.codec = context.name
        # An elementary stream may state no frame rate; FFmpeg's demuxer then reports 25.
        own = self._container.format.flags & FormatFlags.no_timestamps.value  # type: ignore[operator]
        stated = context.framerate if own else None
        self.fps = stated or self.stream.average_rate or self.stream.guessed_rate
        self.frames = self._expected_frames()
        if self.stream.duration is not None and self.stream.time_base is not None:
            self.duration = float(self.stream.duration * self.stream.time_base)
        elif self._container.duration is not None:
            self.duration = self._container.duration / av.time_base
        if self.duration is not None and self.duration <= 0:
            self.duration = None
        # Read this before the decoder runs, because some decoders clear the container's value.
        self.tags = ColourTags(
            matrix=int(context.colorspace),
            transfer=int(context.color_trc),
            color_range=int(context.color_range),
        )
        self._aspect = self.stream.sample_aspect_ratio or Fraction(1)
        self._coded_aspect = context.sample_aspect_ratio
        self._next = 0  # number of the next frame
        self._packets = 0
        self._flagged = 0  # damaged packets whose frames may still come
        self._gap: int | None = None  # the first frame after a hole in time
        self._end = 0.0  # seconds: frames are expected up to about here
        self._ending = ""  # evidence of a file that was cut off
        self._last_damage: int | None = None
        self._refusal = ""  # the decoder's last error
        self._frame_index = index
        self._resume: Iterator[av.Packet[av.VideoStream]] | None = None  # packets after a seek
        self._sought = False  # no frame came since the last seek
        self._settling = False  # the keyframe of the last seek has not come yet

    def _pick(self) -> av.VideoStream:
        candidates = [
            s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic
        ]
        best = self._container.streams.best("video")
        stream = best if best in candidates else next(iter(candidates), None)
        if stream is None:
            cover = " but a cover picture" if self._container.streams.video else ""
            raise self._refused(
                f"the file has no video stream{cover}", "give a video rather than an audio file"
            )
        assert isinstance(stream, av.VideoStream)  # noqa: S101 - asked for video
        if stream.codec_context is None:
            raise self._refused(
                "FFmpeg has no decoder for its video codec", "convert the video to another codec"
            )
        check_size(self.path, stream.width, stream.height)
        return stream

    def _refused(self, message: str, hint: str) -> MediaError:
        """Return the error for a file without a frame; the error says if the file was cut off."""
        if short := cut_short(self.path):
            return truncated_error(self.path, short)
        return MediaError(f"{self.path}: {message}", hint)

    def _indexed(self) -> int | None:
        """Return how many packets the index of an MP4 or MOV lists; edit lists are applied to it."""
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

    def read(self) -> Iterator[DecodedFrame]:
        """Yield frames in presentation order."""
        seconds: float | None = None
        step = float(1 / (self.fps or DEFAULT_FPS))
        times = self._frame_times(step)
        size: tuple[int, int] | None = None
        # The decoder is not kept in `self`, so that a closed video frees its threads at once.
        source = self._frames(self.packets())
        while (frame := next(source, None)) is not None:
            if self._frame_index is not None and not self._is_due(frame, self._frame_index):
                continue
            if size is not None and size != (frame.width, frame.height):
                # After a change of size the codec's own sample aspect ratio counts.
                coded = self.stream.codec_context.sample_aspect_ratio
                if coded and coded != self._coded_aspect:
                    self._aspect = coded
            size = frame.width, frame.height
            if frame.is_corrupt and self._flagged:
                self._flagged -= 1  # the damage was counted with its packet
            elif frame.is_corrupt:
                self._note_damage()
            if self._sought:
                seconds, self._sought = None, False
                times = self._frame_times(step)
            before, seconds = seconds, times.time_of(frame)
            if before is not None and seconds - before > 3 * step and self._gap is None:
                self._gap = self._next
            self._end = seconds + 3 * step
            self._next += 1  # before the frame is handed out: a seek may set another number
            yield DecodedFrame(self._next - 1, seconds, frame, self._aspect)
            if self._resume is not None:
                source, self._resume = self._frames(self._resume), None
        if self._next == 0:
            raise self._undecodable()
        if self._frame_index is not None and self._next < len(self._frame_index):
            raise self._misplaced(f"frame {self._next} of {len(self._frame_index)} is missing")
        self._look_for_lost_clusters()

    def _frame_times(self, step: float) -> FrameTimes:
        return FrameTimes(self.stream.time_base, step, self.stream.codec_context.name)

    def _is_due(self, frame: av.VideoFrame, index: FrameIndex) -> bool:
        """Check a frame against the index; False for one before the keyframe of a seek."""
        number = index.number(frame.pts)
        if number is not None and number < self._next and self._settling:
            return False
        if number != self._next:
            found = "an unknown frame" if number is None else f"frame {number}"
            raise self._misplaced(f"{found} comes where frame {self._next} is due")
        self._settling = False
        return True

    def _misplaced(self, what: str) -> SeekError:
        return SeekError(
            f"{self.path}: the frames are not where the index says: {what}", READ_WHOLE
        )

    def packets(self) -> Iterator[av.Packet[av.VideoStream]]:
        """Yield packets in the file's order, until its end or the first one that cannot be read."""
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
        """Decode packet by packet, because one invalid packet must not end the video."""
        held: av.Packet[av.VideoStream] | None = None
        for packet in packets:
            if packet.size == 0:
                # An empty packet is the demuxer's end mark, or a frame that was dropped when
                # recording. The decoder would take either for the end of the stream.
                continue
            if held is not None:
                self._flagged += 1
                self._note_damage()
                yield from self._decode(held)
                held = None
            if packet.is_corrupt:
                # The demuxer could not read it in full. If it is the file's last packet it is cut
                # off, and decoding it would break the whole frames that the decoder still holds.
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

    def _note_damage(self) -> None:
        if self._settling:
            return  # frames before the keyframe of a seek may lack their references
        self._last_damage = self._next
        self.report.count_damage(self._next)

    def _look_for_lost_clusters(self) -> None:
        """Where frames seem to be missing in Matroska, look whether its structure is broken.

        A gap in time alone is not damage: files of variable frame rate have gaps.
        """
        short = self._end < (self.duration or 0.0)
        if "matroska" not in self.format or not (short or self._gap is not None):
            return
        at = broken_at(self.path)
        if at is not None and self._gap is not None:
            self.report.count_damage(self._gap)
        elif at is not None and not self._ending:
            self._ending = f"its structure is broken at byte {at:,}"

    def _undecodable(self) -> MediaError:
        codec = self.stream.codec_context
        if codec.codec_tag in ("encv", "drmi"):  # ISO/IEC 23001-7; Apple's FairPlay
            return MediaError(f"{self.path}: the video is encrypted", "decrypt it first")
        if not self._packets:
            if reason := self.ended_early():
                return truncated_error(self.path, reason)
            return MediaError(f"{self.path}: the file has no frames", "check that it is complete")
        reason = f": {self._refusal}" if self._refusal else ""
        return self._refused(
            f"none of its {self._packets} {codec.name} packets could be decoded{reason}",
            "check whether the file is damaged or encrypted",
        )

    def seek(self, index: int) -> None:
        """Continue at the last keyframe before a frame; without a `FrameIndex`, do nothing."""
        if self._frame_index is None:
            return
        at = self._frame_index.last_keyframe(index)
        # Demuxers look up a time in presentation or in decoding order, or guess a byte. After a
        # seek that lands behind the frame, an earlier keyframe is tried.
        back = 0
        while at > 0:
            if self._land(self._frame_index, max(0, at - back), index):
                return
            if back >= at:
                raise self._misplaced(f"the container cannot seek to frame {index}")
            back = 2 * back + 1

    def _land(self, places: FrameIndex, at: int, index: int) -> bool:
        """Seek to keyframe `at`; return whether the next keyframe is at or before frame `index`."""
        # To reach the start, seek to a time far before it: some demuxers land behind the given time.
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
            self._resume = chain([packet], packets)
            self._next, self._settling, self._sought = number, True, True
            self._gap, self._flagged, self._ending = None, 0, ""
            return True
        return False

    def ended_early(self) -> str:
        """Return the evidence that the file was cut short, or an empty string."""
        indexed = self._indexed()
        if self._frame_index is not None:
            return self._ending  # a missing frame has already raised an error
        if indexed is not None:
            if self._packets < indexed:
                return f"the file has {self._packets} of its {indexed} packets"
            return ""
        if self._ending:
            return self._ending
        short = cut_short(self.path)
        # A transport stream may also end between two packets of a frame.
        if short is not None and (short or "mpegts" not in self.format):
            return short
        # Without lengths a cut shows only in the last frames, which reordering may have moved.
        waiting = 1 + max(2, self.stream.codec_context.has_b_frames)
        if self._last_damage is not None and self._last_damage >= self._next - waiting:
            return "its last frames are damaged"
        return ""

    def close(self) -> None:
        """Close the file."""
        self._container.close()
