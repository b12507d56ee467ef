"""Containers and elementary streams through FFmpeg: threaded decode, damage counted and survived."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.container
import av.error
from av.container import Flags
from av.format import Flags as FormatFlags
from av.stream import Disposition

from eyeline.cores import usable_cores
from eyeline.errors import MediaError, SeekError
from eyeline.media.colour import Tags
from eyeline.media.length import cut_short
from eyeline.media.matroska import broken_at
from eyeline.media.opening import open_container, shorter_than_stated
from eyeline.media.reader import (
    DEFAULT_FPS,
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    READ_WHOLE,
    Decoded,
    Facts,
    Reader,
    check_size,
    too_short,
)
from eyeline.media.times import FrameTimes
from eyeline.media.types import DecodeReport, FrameIndex

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
        self._tags = Tags(
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

    def _refused(self, message: str, mend: str) -> MediaError:
        """The error for a file that holds no picture; where it was cut off, that is the reason."""
        if short := shorter_than_stated(self.path):
            return MediaError(*too_short(self.path, short))
        return MediaError(f"{self.path}: {message}", mend)

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
