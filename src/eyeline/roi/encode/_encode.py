"""From a source to a playable file whose bits follow the eye.

::

    from eyeline.roi.encode import EncodeOptions, encode

    result = encode("clip.mp4", "out.mp4", EncodeOptions("x264", crf=26))

`SteerOptions(strength=0)` runs the very same pipeline without regions, to compare with. What is not
obeyed is an error: options that make an encoder drop regions are refused by name, and three small
pictures are encoded with the options given to see that regions change what comes out.

Encodes whose regions travel as FFmpeg's side data: all encoders but kvazaar.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eyeline.errors import DamagedMediaError, MediaError, OutputError, UsageError
from eyeline.files import PendingFile
from eyeline.media import open_video
from eyeline.media.write import container_of
from eyeline.roi._footage import Footage, LevelStore, MapSource, Picture
from eyeline.roi.encode._capabilities import Capability, check_container
from eyeline.roi.encode._encoder import (
    MUXERS,
    TICK,
    FileEncoder,
    add_hdr,
    check_obeyed,
    settings_of,
)
from eyeline.roi.encode._job import EncodeJob, EncodeOptions, Progress
from eyeline.roi.encode._regions import MOST_REGIONS, rectangles
from eyeline.roi.steering import SteerOptions


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
        maps: see `eyeline.roi._footage.MapSource`; None asks the model.
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
        o = replace(o, steer=footage.steer)
        job = EncodeJob(source, out, o, row, rate, footage, advance)
        if debug is not None:
            job.drawn = LevelStore(footage.info.width, footage.info.height, row.block)
        if row.route == "mapfile":
            from eyeline.roi.encode._kvazaar import encode_kvazaar

            frames, size = encode_kvazaar(job)
        else:
            frames, size = encode_sidedata(job)
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
        from eyeline.roi.encode._debug_video import write_debug_video

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


__all__ = ["EncodeOptions", "EncodeResult", "SteerOptions", "encode"]


def encode_sidedata(job: EncodeJob) -> tuple[int, int]:
    """Encode with each picture's regions beside it; frames and bytes of the picture stream."""
    two = job.rate.bitrate is not None and job.row.passes == 2
    if job.options.steer.strength != 0:
        probe = settings_of(job.row, job.rate, job.options.preset, job.options.extra)
        check_obeyed(job.row, probe, job.pix_fmt)
    if not two:
        return _pass(job, job.footage, 0, "", None, None)
    if not isinstance(job.source, str | os.PathLike) or str(job.source) == "-":
        raise UsageError("a bitrate takes two passes over a file", "give --crf, or a file")
    i = job.info
    store = LevelStore(i.width, i.height, job.row.block)
    try:
        with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
            stats = str(Path(folder) / "stats")
            _pass(job, job.footage, 1, stats, None, store)
            with open_video(job.source, job.options.video) as video:
                pictures = video.pictures(job.footage.start, job.footage.stop)
                again = (Picture(d.index, d.seconds, d.frame, None) for d in pictures)
                return _pass(job, again, 2, stats, store, None)
    finally:
        store.close()


def _pass(
    job: EncodeJob,
    pictures: Any,
    run: int,
    stats: str,
    known: LevelStore | None,
    keep: LevelStore | None,
) -> tuple[int, int]:
    """One pass over the pictures.

    Args:
        job: the encode.
        pictures: to encode.
        run: 0 for the only pass, else 1 or 2.
        stats: the first pass's notes.
        known: levels of the first pass.
        keep: where to keep levels for the second.
    """
    o, i = job.options, job.info
    steered = o.steer.strength != 0
    replay = iter(known) if known is not None and steered else None
    pending = None if run == 1 else PendingFile(job.out)
    passengers = job.passengers()
    encoder: FileEncoder | None = None
    frames = size = 0
    try:
        try:
            for p in pictures:
                levels = next(replay) if replay is not None else p.levels
                regions = None
                if steered:
                    assert levels is not None  # noqa: S101 - strength is not 0
                    regions = rectangles(levels, i.width, i.height, job.row.block, MOST_REGIONS)
                    if keep is not None:
                        keep.append(levels)
                    if job.drawn is not None and run != 1:
                        job.drawn.append(levels)
                if encoder is None:
                    settings = settings_of(
                        job.row, job.rate, o.preset, o.extra, run=run, stats=stats
                    )
                    add_hdr(job.row, settings, p.frame)
                    muxer = "null" if run == 1 else MUXERS[job.out.suffix.lower()]
                    encoder = FileEncoder(
                        os.devnull if pending is None else pending.temporary,
                        muxer, job.row, settings, p.frame, job.pix_fmt,
                        fps=i.fps, time_base=passengers.time_base or TICK,
                        aspect=job.aspect(passengers), rotation=i.rotation,
                        passengers=None if run == 1 else passengers, threads=o.threads,
                    )  # fmt: skip
                size += encoder.write(p.frame, job.moment(p), regions)
                frames += 1
                job.advance(max(run, 1), frames)
        except DamagedMediaError as exc:
            if not frames or run == 1:
                raise
            job.damage = exc
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
