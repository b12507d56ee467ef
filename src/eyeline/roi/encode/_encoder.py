"""One open encoder and the file it fills, over PyAV; and the probe that asks whether it obeys.

What travels with a picture: sound, subtitles, chapters and tags, copied without re-encoding.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import av
import av.container
import av.error
import av.logging
import av.video
import numpy as np

from eyeline.errors import EncoderError, OutputError
from eyeline.files import output_error
from eyeline.media.container import open_container
from eyeline.media.types import RESTART, VideoInfo
from eyeline.roi.encode._capabilities import Capability, parse_parameters
from eyeline.roi.encode._regions import Region, RegionWriter, find_side_data, forget_type

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


TICK = Fraction(1, 90000)
"""Time base of what has none of its own: raw video and images."""

MUXERS: Mapping[str, str] = MappingProxyType(
    {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
)
"""Suffix to FFmpeg's muxer."""


@dataclass(frozen=True)
class Rate:
    """What is asked of rate control: exactly one of them.

    Attributes:
        crf: constant quality, the encoder's own scale.
        bitrate: bits a second.
        qp: constant QP (kvazaar).
    """

    crf: float | None = None
    bitrate: int | None = None
    qp: int | None = None


@dataclass
class Settings:
    """An encoder's options, as FFmpeg takes them.

    Attributes:
        options: names to values.
        bitrate: bits a second, or 0.
    """

    options: dict[str, str] = field(default_factory=dict)
    bitrate: int = 0


def settings_of(
    row: Capability,
    rate: Rate,
    preset: str | None,
    extra: Mapping[str, str],
    *,
    run: int = 0,
    stats: str = "",
) -> Settings:
    """Options of an encode.

    Args:
        row: of the encoder.
        rate: what is asked for.
        preset: or the encoder's default.
        extra: the user's own options, checked by `capabilities.check_options`.
        run: 0 for a single pass, else 1 or 2.
        stats: path of the first pass's notes.
    """
    parameters = dict(row.fixed_parameters)
    given = dict(extra)
    if row.parameters and row.parameters in given:
        parameters |= parse_parameters(given.pop(row.parameters))
    options = row.fixed | given
    chosen = preset or row.default_preset
    if chosen:
        options[row.preset_option] = chosen
    settings = Settings(options)
    if rate.crf is not None:
        options["crf"] = f"{rate.crf:g}"
    if rate.bitrate is not None:
        settings.bitrate = rate.bitrate
        if row.library == "libx264" and run:
            options |= {"flags": f"+pass{run}", "stats": stats}
        elif row.library == "libx265" and run:
            parameters |= {"pass": str(run), "stats": stats}
    if row.parameters and parameters:
        options[row.parameters] = ":".join(f"{k}={v}" for k, v in parameters.items())
    return settings


def pixel_format(row: Capability, info: VideoInfo) -> str:
    """The format that is encoded: the source's own, or the first of its depth.

    Raises:
        EncoderError: RGB, or a depth that the encoder would cut down.
    """
    if info.pix_fmt in row.formats:
        return info.pix_fmt
    if info.pix_fmt.startswith(("rgb", "bgr", "gbr", "rgba", "argb", "abgr", "pal")):
        raise EncoderError(
            f"{info.path}: is RGB ({info.pix_fmt}), and {row.library} codes YUV here",
            "convert it to YUV first, with the matrix you mean",
        )
    deep = info.bit_depth > 8
    for name in row.formats:
        bits = av.VideoFormat(name).components[0].bits
        if (bits > 8) == deep and bits >= min(info.bit_depth, 10):
            return name
    raise EncoderError(
        f"{info.path}: {info.bit_depth} bits, and {row.library} codes {', '.join(row.formats)} here",
        "use x264 or x265, which take 10 bits",
    )


def _mastering(frame: av.VideoFrame) -> dict[str, str]:
    """HDR10's static metadata in the notation that x264 and x265 share.

    Chromaticities count 0.00002, luminances 0.0001 cd/m2 (SMPTE ST 2086, as HEVC's SEI has them).
    """
    found = {}
    data = find_side_data(frame, "MASTERING_DISPLAY_METADATA")
    if data is not None and data.buffer_size == 88:
        v = struct.unpack("22i", bytes(data))  # AVMasteringDisplayMetadata: 10 rationals, 2 flags
        r = [Fraction(v[2 * i], v[2 * i + 1]) if v[2 * i + 1] else Fraction(0) for i in range(10)]
        if v[20] and v[21]:
            xy = [round(x * 50000) for x in r[:8]]
            lum = [round(x * 10000) for x in r[8:]]
            found["display"] = (
                f"G({xy[2]},{xy[3]})B({xy[4]},{xy[5]})R({xy[0]},{xy[1]})"
                f"WP({xy[6]},{xy[7]})L({lum[1]},{lum[0]})"
            )
    light = find_side_data(frame, "CONTENT_LIGHT_LEVEL")
    if light is not None and light.buffer_size == 8:
        found["light"] = "{},{}".format(*struct.unpack("2I", bytes(light)))
    return found


def add_hdr(row: Capability, settings: Settings, frame: av.VideoFrame) -> None:
    """Hand HDR10's static metadata of the first frame to an encoder that writes it."""
    names = {
        "libx264": {"display": "mastering-display", "light": "cll"},
        "libx265": {"display": "master-display", "light": "max-cll"},
    }.get(row.library)
    if names is None or row.parameters is None:
        return
    pairs = [f"{names[k]}={v}" for k, v in _mastering(frame).items()]
    before = settings.options.get(row.parameters)
    joined = ":".join([*([before] if before else []), *pairs])
    if joined:
        settings.options[row.parameters] = joined


class FileEncoder:
    """Encodes pictures into a file.

    Args:
        path: what is written; `os.devnull` for a first pass.
        container: FFmpeg's name of the muxer.
        row: of the encoder.
        settings: its options.
        first: the first picture: size and colour tags are taken from it.
        pix_fmt: what is encoded.
        fps: average frame rate.
        time_base: of the timestamps.
        aspect: width of a sample over its height.
        rotation: clockwise degrees that players apply.
        passengers: sound and tags, or None.
        threads: encoder threads; 0 = one per core.

    Raises:
        EncoderError: the encoder is absent from this build, or refuses the options.
        OutputError: the file can't be written.
    """

    def __init__(
        self,
        path: str | Path,
        container: str,
        row: Capability,
        settings: Settings,
        first: av.VideoFrame,
        pix_fmt: str,
        *,
        fps: Fraction | None = None,
        time_base: Fraction = TICK,
        aspect: Fraction | None = None,
        rotation: int = 0,
        passengers: Passengers | None = None,
        threads: int = 0,
    ) -> None:
        self._row, self._passengers, self._path = row, passengers, path
        self._time_base, self._pix_fmt = time_base, pix_fmt
        self._frames = 0
        bits = av.VideoFormat(pix_fmt).components[0].bits
        self._regions = RegionWriter(row.qp_range[bits])
        self._last: int | None = None
        self._target = av.open(
            str(path),
            "w",
            format=container,
            container_options={"movflags": "+faststart"} if container in ("mp4", "mov") else {},
        )
        try:
            stream = self._target.add_stream(row.library, fps or 25, options=settings.options)
        except (ValueError, av.error.FFmpegError) as exc:
            self._target.close()
            raise EncoderError(
                f"{row.library}: not in this build of PyAV",
                "install PyAV's own wheel: pip install av",
            ) from exc
        self._stream = cast(av.video.VideoStream, stream)
        c = self._stream.codec_context
        c.width, c.height, c.pix_fmt = first.width, first.height, pix_fmt
        c.time_base = time_base
        c.thread_count = threads
        if settings.bitrate:
            c.bit_rate = settings.bitrate
        if aspect:
            c.sample_aspect_ratio = aspect
        c.color_range = int(first.color_range)
        c.colorspace = int(first.colorspace)
        c.color_primaries = int(first.color_primaries)
        c.color_trc = int(first.color_trc)
        if rotation:
            self._stream.set_display_rotation(-rotation)  # FFmpeg counts counterclockwise
        level = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture():
                c.open()
        except (av.error.FFmpegError, ValueError) as exc:
            raise self._died(exc, "can't be opened") from exc
        finally:
            av.logging.set_level(level)
        if passengers is not None:
            passengers.board(self._target, self._stream)

    def _died(self, exc: Exception, what: str = "died") -> EncoderError | OutputError:
        """Its last words; the disk's, when it was the disk."""
        log = getattr(exc, "log", None)
        words = log[2].strip() if log else str(exc)
        even = self._stream.width % 2 or self._stream.height % 2
        hint = "4:2:0 needs an even width and height: crop or pad it" if even else ""
        if isinstance(exc, OSError) and exc.errno in (28, 5, 27):  # no space, I/O error, too large
            return output_error(self._path, exc)
        return EncoderError(f"{self._row.library}: {what} at frame {self._frames}: {words}", hint)

    def write(self, frame: av.VideoFrame, seconds: float, regions: Sequence[Region] | None) -> int:
        """Encode a picture.

        Args:
            frame: as decoded.
            seconds: presentation time.
            regions: see `RegionWriter`; None for a plain encode.

        Returns:
            Bytes that came out so far with this call (encoders hold frames back).

        Raises:
            EncoderError: the encoder died; its last words.
            OutputError: the disk is full.
        """
        if frame.format.name != self._pix_fmt:
            frame = frame.reformat(format=self._pix_fmt)  # depth and subsampling; never the matrix
        pts = round(seconds / self._time_base)
        if self._last is not None:
            pts = max(pts, self._last + 1)
        self._last = pts
        if frame.time_base is not None and frame.time_base != self._time_base:
            frame.duration = round(frame.duration * frame.time_base / self._time_base)
        frame.pts, frame.time_base = pts, self._time_base
        if regions is not None:
            frame = self._regions(frame, regions)
        forget_type(frame)
        size = self._send(frame)
        self._frames += 1
        if self._passengers is not None:
            self._passengers.ride(self._target, seconds)
        return size

    def _send(self, frame: av.VideoFrame | None) -> int:
        size = 0
        try:
            for packet in self._stream.encode(frame):
                size += packet.size
                self._target.mux(packet)
        except av.error.FFmpegError as exc:
            raise self._died(exc) from exc
        return size

    def finish(self) -> int:
        """Flush the encoder and close the file; bytes that came out."""
        size = self._send(None)
        try:
            if self._passengers is not None:
                self._passengers.ride(self._target, None)
            self._target.close()
        except av.error.FFmpegError as exc:
            raise self._died(exc) from exc
        return size

    def abandon(self) -> None:
        """Let go of the encoder without finishing the file."""
        self.__dict__.pop("_stream", None)
        self.__dict__.pop("_target", None)


def check_obeyed(row: Capability, settings: Settings, pix_fmt: str, threads: int = 1) -> None:
    """Encode three small pictures with and without a region: an encoder that ignores it is refused.

    Args:
        row: of the encoder.
        settings: of the encode that is to follow; a second pass is probed as a single one.
        pix_fmt: what is encoded.
        threads: encoder threads.

    Raises:
        EncoderError: the same bytes came out.
    """
    noise = np.random.default_rng(0).integers(0, 256, (128, 128 + 8, 3), np.uint8)
    options = {k: v for k, v in settings.options.items() if k not in ("flags", "stats")}
    if row.parameters and row.parameters in options:
        pairs = parse_parameters(options[row.parameters])
        kept = {k: v for k, v in pairs.items() if k not in ("pass", "stats")}
        options[row.parameters] = ":".join(f"{k}={v}" for k, v in kept.items())
    sizes = []
    for regions in ([], [Region(32, 96, 32, 96, -8)], [Region(32, 96, 32, 96, 8)]):
        total = 0
        encoder: FileEncoder | None = None
        for i in range(3):
            rgb = np.ascontiguousarray(noise[:, 4 * i // 2 : 4 * i // 2 + 128])
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
            if encoder is None:
                encoder = FileEncoder(
                    os.devnull, "null", row, Settings(options, settings.bitrate), frame, pix_fmt,
                    threads=threads,
                )  # fmt: skip
            total += encoder.write(frame, i / 25, regions)
        assert encoder is not None  # noqa: S101
        sizes.append(total + encoder.finish())
    if len(set(sizes)) == 1:
        raise EncoderError(
            f"{row.library}: ignores regions with these options", "leave out options of your own"
        )
