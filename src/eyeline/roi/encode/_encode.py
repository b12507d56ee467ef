"""Encode a source with QP offsets by saliency, in one or two passes, to a playable file."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eyeline.errors import DamagedMediaError, MediaError, OutputError, UsageError
from eyeline.files import PendingFile
from eyeline.media import open_video
from eyeline.media.write import container_of
from eyeline.roi._footage import Footage, LevelStore, MapSource, Picture
from eyeline.roi.encode._debug_video import write_debug_video
from eyeline.roi.encode._encoder import (
    MUXERS,
    TICK,
    FileEncoder,
    add_hdr,
    check_container,
    check_obeyed,
    settings_of,
)
from eyeline.roi.encode._job import EncodeJob, EncodeOptions, EncodeProgress
from eyeline.roi.encode._kvazaar import encode_kvazaar
from eyeline.roi.encode._regions import MOST_REGIONS, rectangles


@dataclass(frozen=True)
class EncodeResult:
    """Result of an encode.

    Attributes:
        path: path of the encoded file.
        frames: number of encoded pictures.
        video_bytes: size of the video stream in bytes, without container and audio.
        seconds: wall-clock time of the encode.
        fps: average frame rate of the source; None if it is not known.
        provenance: options, model and versions as JSON values.
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
    on_frame: EncodeProgress | None = None,
) -> EncodeResult:
    """Encode a source with QP offsets by saliency.

    Args:
        source: path of a video, or another source that `eyeline.media.open_video` accepts.
        out: file to write, which is created only if the encode succeeds. If the source is damaged, the
            file has the frames before the damage.
        options: options of the encode.
        maps: saliency maps, see `eyeline.roi._footage.MapSource`; None runs the model.
        model: registry id, path or `Model`; None uses the default of the registry.
        registry: folder of the user's own registry.
        force: replace an existing file.
        debug: debug video to write, `.mp4` or `.mkv`; it shows the offsets and the QPs of the decoder.
        on_frame: called after each picture, see `EncodeProgress`.

    Raises:
        MediaError: the source or the maps cannot be read, or the maps do not fit the source.
        EncoderError: the encoder is not available, failed, or would ignore the regions.
        OutputError: the file exists and `force` is False, or it cannot be written.
        UsageError: the options contradict each other.
        ModelError: the model cannot be used.
        DamagedMediaError: the source is damaged; raised after the frames before the damage were written.
    """
    o = options or EncodeOptions()
    row, rate = o.checked()
    check_container(row, Path(out))
    _check_name(out, source, force=force)
    if debug is not None:
        container_of(Path(debug))
        if o.steer.strength == 0:
            raise UsageError(
                "the strength is 0, so the debug video has no offsets to show",
                "leave out --debug-video, or give a strength",
            )
        _check_name(debug, source, out, force=force)
    begin = time.perf_counter()
    footage = Footage(
        source, maps, o.steer, row.block, row.most_levels,
        video=o.video, extract_options=o.extract, model=model, registry=registry,
    )  # fmt: skip
    with footage:
        info = footage.info
        o = replace(o, steer=footage.steer)
        job = EncodeJob(source, out, o, footage, on_frame or (lambda run, done: None))
        if debug is not None:
            job.drawn = LevelStore(info.width, info.height, row.block)
        by_route = encode_kvazaar if row.route == "mapfile" else _encode_sidedata
        frames, size = by_route(job)
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
        write_debug_video(out, Path(debug), job.drawn, row.block, o.steer.span / 2)
        job.drawn.close()
    if job.damage is not None:
        raise job.damage
    return EncodeResult(str(out), frames, size, seconds, fps, provenance)


def _check_name(path: str | os.PathLike[str], *others: Any, force: bool) -> None:
    """Raise an error if an output is also one of `others`, or if it exists and `force` is False."""
    for other in others:
        named = isinstance(other, str | os.PathLike)
        if named and Path(path).resolve() == Path(other).resolve():
            raise UsageError(
                f"{path}: is also the input or another output", "give the output another name"
            )
    if Path(path).exists() and not force:
        raise OutputError(f"{path}: exists already", "add --force to replace it")


def _encode_sidedata(job: EncodeJob) -> tuple[int, int]:
    """Encode with the regions of each picture in FFmpeg's side data, for all encoders except kvazaar."""
    if job.options.steer.strength != 0:
        probe = settings_of(job.row, job.rate, job.options.preset, job.options.extra)
        check_obeyed(job.row, probe, job.pix_fmt)
    if job.rate.bitrate is None or job.row.passes != 2:
        return _pass(job, job.footage)
    if not isinstance(job.source, str | os.PathLike) or str(job.source) == "-":
        raise UsageError(
            "--bitrate needs two passes, but this source can be read only once",
            "give --crf, or give the source as a file",
        )
    store = LevelStore(job.info.width, job.info.height, job.row.block)
    try:
        with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
            stats = str(Path(folder) / "stats")
            _pass(job, job.footage, 1, stats, store)
            with open_video(job.source, job.options.video) as video:
                pictures = video.pictures(job.footage.start, job.footage.stop)
                again = (Picture(d.index, d.seconds, d.frame, None) for d in pictures)
                return _pass(job, again, 2, stats, store)
    finally:
        store.close()


def _pass(
    job: EncodeJob,
    pictures: Iterable[Picture],
    run: int = 0,
    stats: str = "",
    store: LevelStore | None = None,
) -> tuple[int, int]:
    """Run a pass; return the numbers of frames and bytes; `run` is 1 or 2, or 0 for a single pass."""
    o, i, row = job.options, job.info, job.row
    steered = o.steer.strength != 0
    replay = iter(store) if store is not None and run == 2 and steered else None
    pending = None if run == 1 else PendingFile(job.out)
    streams = job.side_streams()
    encoder: FileEncoder | None = None
    frames = size = 0
    try:
        try:
            for p in pictures:
                regions = None
                if steered:
                    levels = next(replay) if replay is not None else p.levels
                    assert levels is not None  # noqa: S101 - strength is not 0
                    regions = rectangles(levels, i.width, i.height, row.block, MOST_REGIONS)
                    if store is not None and run == 1:
                        store.append(levels)
                    if job.drawn is not None and run != 1:
                        job.drawn.append(levels)
                if encoder is None:
                    settings = settings_of(row, job.rate, o.preset, o.extra, run=run, stats=stats)
                    add_hdr(row, settings, p.frame)
                    encoder = FileEncoder(
                        os.devnull if pending is None else pending.temporary,
                        "null" if run == 1 else MUXERS[job.out.suffix.lower()],
                        row, settings, p.frame, job.pix_fmt,
                        fps=i.fps, time_base=streams.time_base or TICK,
                        aspect=job.aspect(streams), rotation=i.rotation,
                        streams=None if run == 1 else streams, threads=o.threads, out=job.out,
                    )  # fmt: skip
                size += encoder.write(p.frame, job.moment(p), regions)
                frames += 1
                job.on_frame(max(run, 1), frames)
        except DamagedMediaError as exc:
            if not frames or run == 1:
                raise
            job.damage = exc
        if encoder is None:
            raise MediaError(  # noqa: TRY301 - the open files are closed below
                f"{i.path}: has no frames in the given range", "correct --frames"
            )
        size += encoder.finish()
    except BaseException:
        if encoder is not None:
            encoder.abandon()
        if pending is not None:
            pending.discard()
        raise
    finally:
        streams.close()
    if pending is not None:
        pending.commit()
    return frames, size
