"""What travels with a picture: sound, subtitles, chapters and tags, copied without re-encoding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import av.error

from eyeline.errors import OutputError
from eyeline.media.opening import open_container
from eyeline.media.times import RESTART

OWN_TAGS = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands", "duration"})
"""Tags that describe the old file rather than the work."""

_TEXT_IN_MP4 = "mov_text"


class Passengers:
    """The streams of a source beside its picture.

    Args:
        path: the source; anything but a regular file that FFmpeg opens has none.

    Attributes:
        aspect: width of a sample over its height, or None when the source does not say.
        time_base: of the picture's timestamps, or None.
    """

    def __init__(self, path: Any, *, container: bool) -> None:
        self._source: av.container.InputContainer | None = None
        self.aspect: Fraction | None = None
        self.time_base: Fraction | None = None
        self._routes: dict[int, Any] = {}
        self._packets: Iterator[Any] = iter(())
        self._waiting: Any = None
        if not container or not isinstance(path, str | os.PathLike) or not Path(path).is_file():
            return
        self._source = open_container(os.fspath(path))
        best = self._source.streams.best("video")
        if best is not None:
            self.time_base = best.time_base
            self.aspect = getattr(best, "sample_aspect_ratio", None) or None

    def board(self, target: av.container.OutputContainer, picture: Any) -> None:
        """Add the streams and tags to the output, before its header is written.

        Args:
            target: the output.
            picture: its video stream, which takes the tags of the old one.

        Raises:
            OutputError: a stream that the container can't hold.
        """
        if self._source is None:
            return
        for key, value in self._source.metadata.items():
            if key.lower() not in OWN_TAGS:
                target.metadata[key] = value
        best = self._source.streams.best("video")
        if best is not None:
            tags = {k: v for k, v in best.metadata.items() if k.lower() not in OWN_TAGS}
            picture.metadata.update(tags)
        mp4 = target.format.name in ("mp4", "mov")
        for stream in self._source.streams:
            name = stream.codec_context.name if stream.codec_context else ""
            if stream.type not in ("audio", "subtitle"):
                continue
            if stream.type == "subtitle" and mp4 != (name == _TEXT_IN_MP4):
                what = "MP4" if mp4 else "this container"
                raise OutputError(
                    f"{target.name}: {what} can't hold {name or 'those'} subtitles as they are",
                    "write .mkv" if mp4 else "write .mp4",
                )
            try:
                copy = target.add_stream_from_template(stream)
            except (ValueError, av.error.FFmpegError) as exc:
                raise OutputError(f"{target.name}: can't hold {name}: {exc}", "write .mkv") from exc
            copy.metadata.update(stream.metadata)
            self._routes[stream.index] = copy
        chapters = self._source.chapters()
        if chapters:
            target.set_chapters(chapters)
        if self._routes:
            streams = [self._source.streams[i] for i in self._routes]
            self._packets = self._joined(self._source.demux(streams))

    def _joined(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Let each stream go on where it was when its times run back, as those of pictures do."""
        shifts: dict[int, int] = {}
        last: dict[int, tuple[int, int]] = {}  # decoding time and end of the packet before
        for packet in packets:
            if packet.dts is None:
                continue  # the demuxer's last word
            index = packet.stream_index
            shift, (before, end) = shifts.get(index, 0), last.get(index, (packet.dts, packet.dts))
            if packet.dts + shift < before - RESTART / packet.time_base:
                shift = shifts[index] = end - packet.dts
            packet.dts += shift
            if packet.pts is not None:
                packet.pts += shift
            last[index] = packet.dts, packet.dts + (packet.duration or 0)
            yield packet

    def ride(self, target: av.container.OutputContainer, until: float | None) -> None:
        """Copy packets up to a time.

        Args:
            target: the output.
            until: seconds; None for all that is left.
        """
        while True:
            packet, self._waiting = self._waiting or next(self._packets, None), None
            if packet is None:
                return
            if until is not None and float(packet.dts * packet.time_base) > until:
                self._waiting = packet
                return
            packet.stream = self._routes[packet.stream.index]
            target.mux(packet)

    def close(self) -> None:
        """Close the source."""
        self._packets = iter(())
        if self._source is not None:
            self._source.close()
            self._source = None
