"""Encode pictures with regions of interest to a file with PyAV.

`SideStreams` copies audio, subtitles, chapters and tags of the source without re-encoding.
`check_obeyed` encodes three small pictures to check that the encoder does not ignore regions.

`capabilities.toml` lists what each encoder does with regions. Options that make an encoder ignore regions
are errors.
"""

from __future__ import annotations

import errno
import os
import struct
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

import av
import av.container
import av.error
import av.logging
import av.video
import numpy as np
from pydantic import Field

from eyeline.errors import EncoderError, OutputError
from eyeline.files import output_error
from eyeline.media.container import open_container
from eyeline.media.types import RESTART, VideoInfo
from eyeline.roi.encode._regions import Region, RegionWriter, find_side_data, forget_type
from eyeline.validation import Strict


class Capability(Strict):
    """Capabilities of an encoder; the comment at the top of `capabilities.toml` describes the fields."""

    library: str
    route: Literal["sidedata", "mapfile"]
    block: int
    qp_range: dict[int, int]
    most_levels: int | None = None
    formats: tuple[str, ...]
    rates: tuple[Literal["crf", "bitrate", "qp"], ...]
    passes: int
    containers: tuple[str, ...]
    parameters: str | None = None
    separator: str = ":"
    presets: tuple[str, ...]
    preset_option: str = "preset"
    default_preset: str | None = None
    default_crf: float | None = None
    default_qp: int | None = None
    fixed: dict[str, str] = Field(default={})
    fixed_parameters: dict[str, str] = Field(default={})
    refused: dict[str, tuple[str, ...]] = Field(default={})
    reason: dict[str, str] = Field(default={})


@lru_cache(maxsize=1)
def _table() -> tuple[dict[str, Capability], dict[str, str]]:
    data = tomllib.loads(files(__package__).joinpath("capabilities.toml").read_text("utf-8"))
    rows = {name: Capability.model_validate(row) for name, row in data["encoder"].items()}
    return rows, data["ignores"]


def encoders() -> Mapping[str, Capability]:
    """Return the capabilities of all encoders, by their names for `--codec`."""
    return _table()[0]


def capability(codec: str) -> Capability:
    """Return the capabilities of an encoder by its name for `--codec` or its name in FFmpeg.

    Raises:
        EncoderError: the encoder ignores regions, or it is not in `capabilities.toml`.
    """
    rows, ignores = _table()
    for name, row in rows.items():
        if codec in (name, row.library):
            return row
    hint = f"use one of {', '.join(rows)}"
    if codec in ignores:
        raise EncoderError(f"{codec}: ignores regions, because {ignores[codec]}", hint)
    raise EncoderError(f"{codec}: is not an encoder that `roi encode` supports", hint)


def parse_parameters(text: str, separator: str = ":") -> dict[str, str]:
    """Parse encoder options of the form `a=1:b=2`; an option without a value gets the value 1."""
    pairs = (part.partition("=") for part in text.split(separator) if part)
    return {name.strip(): value if equals else "1" for name, equals, value in pairs}


def check_options(row: Capability, options: Mapping[str, str]) -> None:
    """Check that no option makes the encoder ignore regions.

    Raises:
        EncoderError: an option makes the encoder ignore regions, or the preset is not supported.
    """
    given = dict(options)
    if row.parameters and row.parameters in given:
        given |= parse_parameters(given.pop(row.parameters), row.separator)
    for name, value in given.items():
        values = row.refused.get(name, ())
        ignored = f"{row.library}: {name}={value} makes it ignore regions"
        if value in values or "*" in values:
            raise EncoderError(f"{ignored}, because {row.reason[name]}", f"leave out {name}")
        needed = row.fixed.get(name) or (row.fixed_parameters.get(name) if name == "gop" else None)
        if needed is not None and value != needed:
            raise EncoderError(ignored, f"leave out {name}, or give {name}={needed}")
    preset = given.get(row.preset_option)
    if preset is not None and preset not in row.presets:
        raise EncoderError(
            f"{row.library}: the {row.preset_option} {preset} is not supported",
            f"use one of {', '.join(row.presets)}",
        )


def check_container(row: Capability, path: Path) -> None:
    """Raise an OutputError if eyeline does not write the encoder's stream to files of this suffix."""
    suffix = path.suffix.lower()
    if suffix not in row.containers:
        raise OutputError(
            f"{path}: {suffix or 'a file without a suffix'} is not supported for {row.library}",
            f"give a file name with the suffix {' or '.join(row.containers)}",
        )


OWN_TAGS = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands", "duration"})
"""Tags that are not copied, because they describe the source file and not its content."""

TICK = Fraction(1, 90000)
"""Time base for sources without one, which are raw video and images."""

MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's muxer by file suffix."""


class SideStreams:
    """The audio and subtitle streams of a source, copied without re-encoding; none if `path` is None.

    Attributes:
        aspect: sample aspect ratio of the video stream (width / height); None if it is not known.
        time_base: time base of the video stream; None if it is not known.
    """

    def __init__(self, path: str | None) -> None:
        self._source = None if path is None else open_container(path)
        self._picture = None if self._source is None else self._source.streams.best("video")
        self.aspect: Fraction | None = getattr(self._picture, "sample_aspect_ratio", None) or None
        self.time_base = None if self._picture is None else self._picture.time_base
        self._routes: dict[int, Any] = {}
        self._packets: Iterator[Any] = iter(())
        self._waiting: Any = None
        self._out: Path | None = None

    def add_to(self, target: av.container.OutputContainer, picture: Any, out: Path) -> None:
        """Add the streams, chapters and tags to an output file before its header is written.

        Raises:
            OutputError: the container does not support a stream.
        """
        self._out = out
        if self._source is None:
            return
        target.metadata.update(_tags(self._source))
        if self._picture is not None:
            picture.metadata.update(_tags(self._picture))
        mp4 = target.format.name in ("mp4", "mov")
        for stream in self._source.streams:
            if stream.type not in ("audio", "subtitle"):
                continue
            name = stream.codec_context.name if stream.codec_context else "unknown"
            if stream.type == "subtitle" and mp4 != (name == "mov_text"):
                raise OutputError(
                    f"{out}: {'MP4' if mp4 else 'this container'} can't store {name} subtitles",
                    f"write {'.mkv' if mp4 else '.mp4'}, or remove the subtitles from the source",
                )
            try:
                copy = target.add_stream_from_template(stream)
            except (ValueError, av.error.FFmpegError) as exc:
                raise OutputError(
                    f"{out}: the container can't store the {stream.type} stream in {name}: {exc}",
                    f"{'write .mkv, or ' if mp4 else ''}convert the audio first, for example to AAC",
                ) from exc
            copy.metadata.update(stream.metadata)
            self._routes[stream.index] = copy
        if chapters := self._source.chapters():
            target.set_chapters(chapters)
        if self._routes:
            streams = [self._source.streams[i] for i in self._routes]
            self._packets = _joined(self._source.demux(streams))

    def copy_until(self, target: av.container.OutputContainer, until: float | None) -> None:
        """Copy all packets up to the time `until`, seconds; None copies all remaining packets.

        Raises:
            OutputError: the container rejects a packet, or the disk is full.
        """
        try:
            while True:
                packet, self._waiting = self._waiting or next(self._packets, None), None
                if packet is None:
                    return
                if until is not None and float(packet.dts * packet.time_base) > until:
                    self._waiting = packet
                    return
                packet.stream = self._routes[packet.stream.index]
                target.mux(packet)
        except av.error.FFmpegError as exc:
            raise self._refused(exc) from exc

    def _refused(self, exc: av.error.FFmpegError) -> OutputError:
        assert self._out is not None  # noqa: S101 - add_to was called
        return disk_error(self._out, exc) or OutputError(
            f"{self._out}: the audio or subtitles of the source can't be copied: {last_words(exc)}",
            "write .mkv, or repair the audio first: ffmpeg -i IN -c:v copy -c:a aac OUT",
        )

    def close(self) -> None:
        """Close the source."""
        self._packets = iter(())
        if self._source is not None:
            self._source.close()
            self._source = None


def _tags(holder: Any) -> dict[str, str]:
    return {k: v for k, v in holder.metadata.items() if k.lower() not in OWN_TAGS}


def _joined(packets: Iterator[Any]) -> Iterator[Any]:
    """Shift the timestamps of a stream after they jump back, as `open_video` does for pictures."""
    shifts: dict[int, int] = {}
    last: dict[int, tuple[int, int]] = {}  # decoding time and end of the previous packet
    for packet in packets:
        if packet.dts is None:
            continue  # the empty packet at the end of a stream
        index = packet.stream_index
        shift, (before, end) = shifts.get(index, 0), last.get(index, (packet.dts, packet.dts))
        if packet.dts + shift < before - RESTART / packet.time_base:
            shift = shifts[index] = end - packet.dts
        packet.dts += shift
        if packet.pts is not None:
            packet.pts += shift
        last[index] = packet.dts, packet.dts + (packet.duration or 0)
        yield packet


def disk_error(out: Path, exc: Exception) -> OutputError | None:
    """Return an OutputError if a write failed because of the disk or the file size, else None."""
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG):
        return output_error(out, exc)
    return None


def last_words(exc: Exception) -> str:
    """Return the last log line of FFmpeg for an error; without a log, return the error's message."""
    log = getattr(exc, "log", None)
    return log[2].strip() if log else getattr(exc, "strerror", None) or str(exc)


@dataclass(frozen=True)
class RateTarget:
    """The target of rate control; exactly one attribute is not None.

    Attributes:
        crf: constant quality on the scale of the encoder.
        bitrate: bit rate in bits per second.
        qp: constant QP, for kvazaar only.
    """

    crf: float | None = None
    bitrate: int | None = None
    qp: int | None = None


@dataclass
class Settings:
    """Options of an encoder in FFmpeg.

    Attributes:
        options: values by FFmpeg's option names.
        bitrate: bit rate in bits per second; 0 if the target is not a bit rate.
    """

    options: dict[str, str] = field(default_factory=dict)
    bitrate: int = 0


def settings_of(
    row: Capability,
    rate: RateTarget,
    preset: str | None,
    extra: Mapping[str, str],
    *,
    run: int = 0,
    stats: str = "",
) -> Settings:
    """Return the encoder's options for a single pass (`run` 0), or for pass 1 or 2 with a `stats` file."""
    parameters = dict(row.fixed_parameters)
    given = dict(extra)
    if row.parameters and row.parameters in given:
        parameters |= parse_parameters(given.pop(row.parameters))
    options = row.fixed | given
    if chosen := preset or row.default_preset:
        options[row.preset_option] = chosen
    if rate.crf is not None:
        options["crf"] = f"{rate.crf:g}"
    if rate.bitrate is not None and run:
        if row.library == "libx264":
            options |= {"flags": f"+pass{run}", "stats": stats}
        elif row.library == "libx265":
            parameters |= {"pass": str(run), "stats": stats}
    if row.parameters and parameters:
        options[row.parameters] = ":".join(f"{k}={v}" for k, v in parameters.items())
    return Settings(options, rate.bitrate or 0)


def pixel_format(row: Capability, info: VideoInfo) -> str:
    """Return the pixel format to encode: that of the source, or the first one of the same bit depth.

    Raises:
        EncoderError: the source is RGB, or the encoder would reduce its bit depth.
    """
    if info.pix_fmt in row.formats:
        return info.pix_fmt
    if info.pix_fmt.startswith(("rgb", "bgr", "gbr", "rgba", "argb", "abgr", "pal")):
        raise EncoderError(
            f"{info.path}: is RGB ({info.pix_fmt}), but eyeline gives {row.library} only YUV",
            "convert the source to YUV first, with a colour matrix of your choice",
        )
    deep = info.bit_depth > 8
    for name in row.formats:
        bits = av.VideoFormat(name).components[0].bits
        if (bits > 8) == deep and bits >= min(info.bit_depth, 10):
            return name
    raise EncoderError(
        f"{info.path}: has {info.bit_depth} bits per sample, but eyeline gives {row.library} only "
        f"{', '.join(row.formats)}",
        "use x264 or x265, which encode up to 10 bits",
    )


def _mastering(frame: av.VideoFrame) -> dict[str, str]:
    """Return the static HDR10 metadata of a frame in the option syntax of x264 and x265.

    Chromaticities are in units of 0.00002 and luminances in units of 0.0001 cd/m2 (SMPTE ST 2086, as in the
    SEI of HEVC).
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
    """Add the static HDR10 metadata of the first frame to the options of x264 or x265."""
    names = {
        "libx264": {"display": "mastering-display", "light": "cll"},
        "libx265": {"display": "master-display", "light": "max-cll"},
    }.get(row.library)
    if names is None or row.parameters is None:
        return
    before = settings.options.get(row.parameters)
    pairs = [f"{names[k]}={v}" for k, v in _mastering(frame).items()]
    if joined := ":".join([*([before] if before else []), *pairs]):
        settings.options[row.parameters] = joined


class FileEncoder:
    """Encode pictures to a file; `out` is its name in errors if `path` is a temporary file.

    Raises:
        EncoderError: PyAV does not have the encoder, or the encoder rejects the options.
        OutputError: the container does not support a stream, or the disk is full.
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
        streams: SideStreams | None = None,
        threads: int = 0,
        out: Path | None = None,
    ) -> None:
        self._row, self._streams, self._out = row, streams, out or Path(path)
        self._time_base, self._pix_fmt = time_base, pix_fmt
        self._frames = 0
        self._regions = RegionWriter(row.qp_range[av.VideoFormat(pix_fmt).components[0].bits])
        self._last: int | None = None
        faststart = {"movflags": "+faststart"} if container in ("mp4", "mov") else {}
        self._target = av.open(str(path), "w", format=container, container_options=faststart)
        try:
            stream = self._target.add_stream(row.library, fps or 25, options=settings.options)
        except (ValueError, av.error.FFmpegError) as exc:
            self._target.close()
            raise EncoderError(
                f"{row.library}: the installed PyAV does not have this encoder",
                "install PyAV from its wheel: pip install av",
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
            self._stream.set_display_rotation(-rotation)  # FFmpeg's angle is counterclockwise
        level = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture():
                c.open()
        except (av.error.FFmpegError, ValueError) as exc:
            raise self._died(exc, "can't be opened") from exc
        finally:
            av.logging.set_level(level)
        if streams is not None:
            streams.add_to(self._target, self._stream, self._out)

    def _died(self, exc: Exception, what: str = "failed") -> EncoderError | OutputError:
        odd = self._stream.width % 2 or self._stream.height % 2
        hint = "crop or pad the video: 4:2:0 needs an even width and height" if odd else ""
        message = f"{self._row.library}: {what} at frame {self._frames}: {last_words(exc)}"
        return disk_error(self._out, exc) or EncoderError(message, hint)

    def write(self, frame: av.VideoFrame, seconds: float, regions: Sequence[Region] | None) -> int:
        """Encode a picture.

        Returns:
            Number of bytes that the encoder returned in this call; encoders delay frames.

        Raises:
            EncoderError: the encoder failed.
            OutputError: the container rejects a packet, or the disk is full.
        """
        if frame.format.name != self._pix_fmt:
            frame = frame.reformat(
                format=self._pix_fmt
            )  # changes bit depth and chroma subsampling, but not the colour matrix
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
        if self._streams is not None:
            self._streams.copy_until(self._target, seconds)
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
        """Flush the encoder, close the file, and return the number of bytes that were flushed."""
        size = self._send(None)
        if self._streams is not None:
            self._streams.copy_until(self._target, None)
        try:
            self._target.close()
        except av.error.FFmpegError as exc:
            raise self._died(exc) from exc
        return size

    def abandon(self) -> None:
        """Release the encoder without finishing the file."""
        self.__dict__.pop("_stream", None)
        self.__dict__.pop("_target", None)


def check_obeyed(row: Capability, settings: Settings, pix_fmt: str, threads: int = 1) -> None:
    """Encode three small pictures with and without a region, to check that the encoder does not ignore it.

    Raises:
        EncoderError: the encoded size is the same with and without a region.
    """
    noise = np.random.default_rng(0).integers(0, 256, (128, 128 + 8, 3), np.uint8)
    options = {k: v for k, v in settings.options.items() if k not in ("flags", "stats")}
    if row.parameters and row.parameters in options:
        pairs = parse_parameters(options[row.parameters])
        kept = (f"{k}={v}" for k, v in pairs.items() if k not in ("pass", "stats"))
        options[row.parameters] = ":".join(kept)
    sizes = set()
    for regions in ([], [Region(32, 96, 32, 96, -8)], [Region(32, 96, 32, 96, 8)]):
        total = 0
        encoder: FileEncoder | None = None
        for i in range(3):
            rgb = np.ascontiguousarray(noise[:, 2 * i : 2 * i + 128])
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
            if encoder is None:
                encoder = FileEncoder(
                    os.devnull, "null", row, Settings(options, settings.bitrate), frame, pix_fmt,
                    threads=threads,
                )  # fmt: skip
            total += encoder.write(frame, i / 25, regions)
        assert encoder is not None  # noqa: S101
        sizes.add(total + encoder.finish())
    if len(sizes) == 1:
        raise EncoderError(
            f"{row.library}: ignores regions with the given options",
            "leave out --codec-option and --preset",
        )
