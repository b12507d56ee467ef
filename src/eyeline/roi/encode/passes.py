"""Encodes whose regions travel as FFmpeg's side data: all encoders but kvazaar."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from eyeline.errors import DamagedMediaError, MediaError, UsageError
from eyeline.files import PendingFile
from eyeline.media import open_video
from eyeline.roi.encode.encoder import MUXERS, TICK, FileEncoder, add_hdr, check_obeyed, settings_of
from eyeline.roi.encode.job import EncodeJob
from eyeline.roi.encode.regions import MOST_REGIONS, rectangles
from eyeline.roi.steering.footage import LevelStore, Picture


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
