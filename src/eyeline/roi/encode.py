"""From a source to a playable file whose bits follow the eye.

::

    from eyeline.roi.encode import EncodeOptions, encode

    result = encode("clip.mp4", "out.mp4", EncodeOptions("x264", crf=26))

`SteerOptions(strength=0)` runs the very same pipeline without regions, to compare with. What is not
obeyed is an error: options that make an encoder drop regions are refused by name, and three small
pictures are encoded with the options given to see that regions change what comes out.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from eyeline.errors import DamagedMediaError, MediaError, OutputError, UsageError
from eyeline.media import open_video
from eyeline.media.types import VideoInfo, VideoOptions
from eyeline.media.write import container_of
from eyeline.output import PendingFile
from eyeline.roi.capabilities import Capability, capability, check_container, check_options
from eyeline.roi.encoder import (
    MUXERS,
    TICK,
    FileEncoder,
    Rate,
    add_hdr,
    check_obeyed,
    pixel_format,
    settings_of,
)
from eyeline.roi.footage import Footage, LevelStore, MapSource, Picture
from eyeline.roi.regions import rectangles
from eyeline.roi.remux import Passengers
from eyeline.roi.sidedata import MOST_REGIONS
from eyeline.roi.steer import SteerOptions
from eyeline.saliency.pipeline import Extraction, ExtractOptions

Progress = Callable[[int, int], None]
"""Called after each picture with the pass (1 or 2) and the pictures done in it."""


@dataclass(frozen=True)
class EncodeOptions:
    """How a source is encoded.

    Attributes:
        codec: a row of `capabilities.toml`.
        crf: constant quality on the encoder's scale; the encoder's default if no rate is given.
        bitrate: bits a second, in two passes where the encoder has them.
        qp: constant QP, kvazaar only.
        preset: the encoder's own name.
        steer: how maps become offsets; strength 0 encodes plainly.
        extra: the encoder's own options by FFmpeg's names; checked, see `check_options`.
        extract: how the model is run; its `start` and `stop` choose frames for every kind of map.
        video: how the source is read.
        threads: encoder threads; 0 = the encoder's choice.
    """

    codec: str = "x264"
    crf: float | None = None
    bitrate: int | None = None
    qp: int | None = None
    preset: str | None = None
    steer: SteerOptions = field(default_factory=SteerOptions)
    extra: Mapping[str, str] = field(default_factory=dict)
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    threads: int = 0

    def checked(self) -> tuple[Capability, Rate]:
        """The encoder's row and what rate control is asked for.

        Raises:
            EncoderError: an encoder or an option that does not go with regions.
            UsageError: two rates, or one that the encoder does not have.
        """
        row = capability(self.codec)
        given = {
            k: v
            for k, v in (("crf", self.crf), ("bitrate", self.bitrate), ("qp", self.qp))
            if v is not None
        }
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} together", "give one of them")
        for name, value in given.items():
            if name not in row.rates:
                if name == "qp":
                    check_options(row, {"qp": str(value)})
                raise UsageError(
                    f"{self.codec}: has no {name}", f"give one of {', '.join(row.rates)}"
                )
        if self.bitrate is not None and self.bitrate < 1000:
            raise UsageError(
                f"bitrate is {self.bitrate} bits/s", "1000 at the least; as 800k or 2M"
            )
        top = 51 if row.library != "libvpx-vp9" else 63
        if self.crf is not None and not 0 < self.crf <= top:
            raise UsageError(f"crf is {self.crf:g}", f"give more than 0, up to {top}")
        if self.qp is not None and not 1 <= self.qp <= 51:
            raise UsageError(f"qp is {self.qp}", "give 1..51")
        options = dict(self.extra)
        if self.preset is not None:
            options[row.preset_option] = self.preset
        check_options(row, options)
        if not given:
            return row, Rate(crf=row.default_crf, qp=row.default_qp)
        return row, Rate(self.crf, self.bitrate, self.qp)


@dataclass(frozen=True)
class EncodeResult:
    """What an encode made.

    Attributes:
        path: the file.
        frames: pictures in it.
        video_bytes: bytes of its picture stream, without container and sound.
        seconds: wall time.
        fps: average frame rate of the source, or None.
        provenance: options, model and versions, JSON values.
    """

    path: str
    frames: int
    video_bytes: int
    seconds: float
    fps: float | None
    provenance: dict[str, Any]


def encode(
    source: Any,
    out: str | os.PathLike[str],
    options: EncodeOptions | None = None,
    maps: MapSource | None = None,
    *,
    model: Any = None,
    registry: str | os.PathLike[str] | None = None,
    force: bool = True,
    debug: str | os.PathLike[str] | None = None,
    on_frame: Progress | None = None,
) -> EncodeResult:
    """Encode a source with regions of interest.

    Args:
        source: path of a video, or what `eyeline.media.open_video` takes.
        out: the file; it appears whole or not at all. Of a source that is damaged part-way what
            came before the damage is kept.
        options: see `EncodeOptions`.
        maps: see `eyeline.roi.footage.MapSource`; None asks the model.
        model: registry id, path or `Model`; the registry's default when None.
        registry: the user's own registry folder.
        force: replace a file of that name.
        debug: a video of the offsets and the decoder's QPs, `.mp4` or `.mkv`; see `debug`.
        on_frame: progress.

    Raises:
        MediaError: the source or the maps can't be read, or do not belong together.
        EncoderError: an encoder that is absent, died, or would ignore the regions.
        OutputError: the file exists and `force` is False, or can't be written.
        UsageError: options that contradict each other.
        ModelError: a model that can't be used.
        DamagedMediaError: the source ends early; after what was decoded was written.
    """
    o = options or EncodeOptions()
    row, rate = o.checked()
    check_output(source, out, row, force=force)
    if debug is not None:
        container_of(Path(debug))
        if o.steer.strength == 0:
            raise UsageError("a plain encode has no offsets to draw", "leave out the debug video")
        if Path(debug).resolve() in (Path(out).resolve(), Path(str(source)).resolve()):
            raise UsageError(f"{debug}: is the input or the output", "give it another name")
        if Path(debug).exists() and not force:
            raise OutputError(f"{debug}: exists", "add --force to replace it")
    begin = time.perf_counter()
    advance = on_frame or (lambda run, done: None)
    footage = Footage(
        source, maps, o.steer, row.block, row.most_levels,
        video=o.video, extract_options=o.extract, model=model, registry=registry,
    )  # fmt: skip
    with footage:
        job = _Job(source, out, o, row, rate, footage, advance)
        if debug is not None:
            job.drawn = LevelStore(footage.info.width, footage.info.height, row.block)
        if row.route == "mapfile":
            from eyeline.roi.kvazaar import encode_kvazaar

            frames, size = encode_kvazaar(job)
        else:
            frames, size = job.run()
        info = footage.info
        provenance = footage.provenance | {
            "encoder": row.library,
            "rate": {k: v for k, v in asdict(rate).items() if v is not None},
            "preset": o.preset,
            "extra": dict(o.extra),
            "steer": asdict(o.steer),
        }
    fps = float(info.fps) if info.fps else None
    seconds = time.perf_counter() - begin
    if debug is not None and job.drawn is not None:
        from eyeline.roi.debug import write_debug_video

        write_debug_video(out, Path(debug), job.drawn, row.block, o.steer.span / 2)
        job.drawn.close()
    if job.damage is not None:
        raise job.damage
    return EncodeResult(str(out), frames, size, seconds, fps, provenance)


def check_output(source: Any, out: str | os.PathLike[str], row: Capability, *, force: bool) -> None:
    """Find what would fail at the end before the work begins.

    Raises:
        OutputError: the file exists and `force` is False, or its suffix can't hold the stream.
        UsageError: it is the source.
    """
    check_container(row, Path(out))
    named = isinstance(source, str | os.PathLike)
    if named and Path(source).exists() and Path(out).resolve() == Path(source).resolve():
        raise UsageError(f"{out}: is the input", "give the output another name")
    if Path(out).exists() and not force:
        raise OutputError(f"{out}: exists", "add --force to replace it")


class _Job:
    """One encode: what its passes share."""

    def __init__(
        self,
        source: Any,
        out: str | os.PathLike[str],
        options: EncodeOptions,
        row: Capability,
        rate: Rate,
        footage: Footage,
        advance: Progress,
    ) -> None:
        self.source, self.out, self.options = source, Path(out), options
        self.row, self.rate, self.footage, self.advance = row, rate, footage, advance
        self.pix_fmt = pixel_format(row, footage.info)
        self.damage: DamagedMediaError | None = None
        self.drawn: LevelStore | None = None
        self.start_seconds: float | None = None
        """Time of the first picture, which becomes 0 where only a part is encoded."""

    @property
    def info(self) -> VideoInfo:
        """Facts of the source."""
        return self.footage.info

    @property
    def whole(self) -> bool:
        """Whether all frames of the source are encoded."""
        return self.footage.start == 0 and self.footage.stop is None

    def passengers(self) -> Passengers:
        """The source's other streams; a part of a source goes without."""
        kind = self.info.codec not in ("rawvideo", "wrapped_avframe")
        return Passengers(self.source, container=kind and self.whole and not self._image())

    def _image(self) -> bool:
        from eyeline.media.reader import IMAGE_SUFFIXES

        path = self.source
        if not isinstance(path, str | os.PathLike):
            return True
        return Path(path).suffix.lower() in IMAGE_SUFFIXES or not Path(path).is_file()

    def aspect(self, passengers: Passengers) -> Fraction:
        """Width of a sample over its height: as stated, or as the display size implies."""
        if passengers.aspect:
            return passengers.aspect
        i = self.info
        shown = i.display_height if i.rotation in (90, 270) else i.display_width
        return Fraction(shown, i.width).limit_denominator(255)

    def moment(self, picture: Picture) -> float:
        """When a picture is shown in the output, seconds."""
        if self.start_seconds is None:
            self.start_seconds = 0.0 if self.whole else picture.seconds
        return picture.seconds - self.start_seconds

    def run(self) -> tuple[int, int]:
        """Encode through side data; frames and bytes of the picture stream."""
        two = self.rate.bitrate is not None and self.row.passes == 2
        if self.options.steer.strength:
            probe = settings_of(self.row, self.rate, self.options.preset, self.options.extra)
            check_obeyed(self.row, probe, self.pix_fmt)
        if not two:
            return self._pass(self.footage, 0, "", None, None)
        if not isinstance(self.source, str | os.PathLike) or str(self.source) == "-":
            raise UsageError("a bitrate takes two passes over a file", "give --crf, or a file")
        i = self.info
        store = LevelStore(i.width, i.height, self.row.block)
        try:
            with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
                stats = str(Path(folder) / "stats")
                self._pass(self.footage, 1, stats, None, store)
                with open_video(self.source, self.options.video) as video:
                    pictures = video.pictures(self.footage.start, self.footage.stop)
                    again = (Picture(d.index, d.seconds, d.frame, None) for d in pictures)
                    return self._pass(again, 2, stats, store, None)
        finally:
            store.close()

    def _pass(
        self, pictures: Any, run: int, stats: str, known: LevelStore | None, keep: LevelStore | None
    ) -> tuple[int, int]:
        """One pass over the pictures.

        Args:
            pictures: to encode.
            run: 0 for the only pass, else 1 or 2.
            stats: the first pass's notes.
            known: levels of the first pass.
            keep: where to keep levels for the second.
        """
        o, i = self.options, self.info
        steered = o.steer.strength > 0
        replay = iter(known) if known is not None and steered else None
        pending = None if run == 1 else PendingFile(self.out)
        passengers = self.passengers()
        encoder: FileEncoder | None = None
        frames = size = 0
        try:
            try:
                for p in pictures:
                    levels = next(replay) if replay is not None else p.levels
                    regions = None
                    if steered:
                        assert levels is not None  # noqa: S101 - strength is not 0
                        regions = rectangles(
                            levels, i.width, i.height, self.row.block, MOST_REGIONS
                        )
                        if keep is not None:
                            keep.append(levels)
                        if self.drawn is not None and run != 1:
                            self.drawn.append(levels)
                    if encoder is None:
                        settings = settings_of(
                            self.row, self.rate, o.preset, o.extra, run=run, stats=stats
                        )
                        add_hdr(self.row, settings, p.frame)
                        muxer = "null" if run == 1 else MUXERS[self.out.suffix.lower()]
                        encoder = FileEncoder(
                            os.devnull if pending is None else pending.temporary,
                            muxer, self.row, settings, p.frame, self.pix_fmt,
                            fps=i.fps, time_base=passengers.time_base or TICK,
                            aspect=self.aspect(passengers), rotation=i.rotation,
                            passengers=None if run == 1 else passengers, threads=o.threads,
                        )  # fmt: skip
                    size += encoder.write(p.frame, self.moment(p), regions)
                    frames += 1
                    self.advance(max(run, 1), frames)
            except DamagedMediaError as exc:
                if not frames or run == 1:
                    raise
                self.damage = exc
            if encoder is None:
                raise MediaError(  # noqa: TRY301 - what was opened is let go of below
                    f"{i.path}: no frames in the range asked for", "check --frames"
                )
            size += encoder.finish()
        except BaseException:
            if encoder is not None:
                encoder.abandon()
            if pending is not None:
                pending.discard()
            raise
        finally:
            passengers.close()
        if pending is not None:
            pending.commit()
        return frames, size


__all__ = ["EncodeOptions", "EncodeResult", "Extraction", "SteerOptions", "encode"]
