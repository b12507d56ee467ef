"""From a source to a playable file whose bits follow the eye.

::

    from eyeline.roi.encode.encode import EncodeOptions, encode

    result = encode("clip.mp4", "out.mp4", EncodeOptions("x264", crf=26))

`SteerOptions(strength=0)` runs the very same pipeline without regions, to compare with. What is not
obeyed is an error: options that make an encoder drop regions are refused by name, and three small
pictures are encoded with the options given to see that regions change what comes out.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eyeline.errors import OutputError, UsageError
from eyeline.media.write import container_of
from eyeline.roi.encode.capabilities import Capability, check_container
from eyeline.roi.encode.job import EncodeJob, EncodeOptions, Progress
from eyeline.roi.encode.passes import encode_sidedata
from eyeline.roi.steering.footage import Footage, LevelStore, MapSource
from eyeline.roi.steering.levels import SteerOptions


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
        maps: see `eyeline.roi.steering.footage.MapSource`; None asks the model.
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
            from eyeline.roi.encode.kvazaar import encode_kvazaar

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
        from eyeline.roi.maps.debug import write_debug_video

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
