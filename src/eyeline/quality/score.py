"""Score a video against its reference where viewers look: decode, pair, weigh, measure, in order.

One decode of each video. The reference's frames come with their maps, pairs are measured on worker
threads, libvmaf runs beside in a process of its own. What is held is bounded, whatever the length.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eyeline.cores import usable_cores
from eyeline.media import open_video
from eyeline.media.planes import Planes
from eyeline.media.types import VideoInfo, VideoOptions
from eyeline.models.registry import Model, resolve_model
from eyeline.quality import maps_in
from eyeline.quality.gaze import RecordedGaze, read_gaze, rename_columns
from eyeline.quality.kernels import opencv
from eyeline.quality.maps_in import Seen
from eyeline.quality.options import METRICS, ScoreOptions, ScoreResult
from eyeline.quality.pairs import Aligner, Prefetch, Shown, pair_by_index, pair_by_time, shown
from eyeline.quality.run import Run
from eyeline.saliency.pipeline import Extraction, ExtractOptions, Span
from eyeline.saliency.session import Session

__all__ = ["METRICS", "ScoreOptions", "ScoreResult", "score"]

Path_ = str | os.PathLike[str]


def score(
    reference: Path_,
    distorted: Path_,
    *,
    model: str | Model | None = None,
    registry: Path_ | None = None,
    options: ScoreOptions | None = None,
    ref_options: VideoOptions | None = None,
    dist_options: VideoOptions | None = None,
    on_start: Callable[[VideoInfo, VideoInfo], None] = lambda ref, dist: None,
    on_frame: Callable[[], None] = lambda: None,
) -> ScoreResult:
    """Score a video against its reference, whole and weighted by where viewers look.

    ::

        result = eyeline.score("ref.mp4", "dist.mp4")
        result.log.values["sw_psnr_y"][0]

    Args:
        reference: the pristine video, where the map is taken from; see `eyeline.extract` for kinds.
        distorted: the video to be scored.
        model: id, path or `Model` of the saliency model; the registry's default when None.
        registry: the user's own registry folder.
        options: see `ScoreOptions`.
        ref_options: how to read the reference.
        dist_options: how to read the other.
        on_start: called once both are open and found comparable.
        on_frame: called after each pair.

    Returns:
        The rows. `stopped` holds `DamagedMediaError` or `KeyboardInterrupt` of a run that ended
        part-way.

    Raises:
        QualityError: two videos that can't be compared as asked, or a map without weight.
        MediaError: a video or map that can't be read.
        DatasetError: fixations that can't be read, or are not of this reference.
        ModelError: a model that can't be used.
        MissingExtraError: OpenCV, or what a metric that was asked for needs, is not installed.
    """
    return score_part(
        reference,
        distorted,
        Part(),
        model=model,
        registry=registry,
        options=options,
        ref_options=ref_options,
        dist_options=dist_options,
        on_start=on_start,
        on_frame=on_frame,
    )


@dataclass(frozen=True)
class Part:
    """The pairs that one of several runs over two videos measures (see `eyeline.quality.segment`).

    Attributes:
        start: number of the first pair.
        stop: the one after the last; None = to the end.
        span: what of the reference a model looks at for their maps; None = all.
        look: called with each pair before it is measured.
    """

    start: int = 0
    stop: int | None = None
    span: Span | None = None
    look: Callable[[Seen, Planes, Planes], None] | None = None


def score_part(
    reference: Path_,
    distorted: Path_,
    part: Part,
    *,
    model: str | Model | None = None,
    registry: Path_ | None = None,
    options: ScoreOptions | None = None,
    ref_options: VideoOptions | None = None,
    dist_options: VideoOptions | None = None,
    on_start: Callable[[VideoInfo, VideoInfo], None] = lambda ref, dist: None,
    on_frame: Callable[[], None] = lambda: None,
) -> ScoreResult:
    """Score some pairs of two videos: as `score`, which takes them all."""
    opencv()  # all filter or interpolate with it: said before a video is opened
    o = options or ScoreOptions()
    ref_options, dist_options = _sharing(ref_options), _sharing(dist_options)
    with contextlib.ExitStack() as stack:
        dist = stack.enter_context(open_video(distorted, dist_options))
        start, stop = _shifted(part, o.pairs.ref_offset)
        seen: Iterator[Seen]
        gaze: RecordedGaze | None = None
        if not o.needs_model:
            ref = stack.enter_context(open_video(reference, ref_options))
            info, report, provenance = ref.info, ref.report, _given(o)
            aligner = Aligner(info, dist.info, o.pairs)
            if o.weight == 0:
                frames = maps_in.from_nothing(ref, start, stop)
            elif o.fixations:
                gaze = read_gaze(Path(o.fixations), info, o.pixels_per_degree)
                frames = maps_in.from_gaze(ref, gaze, start, stop)
            elif o.maps:
                frames = maps_in.from_files(ref, o.maps, start, stop)
            else:
                frames = maps_in.from_masks(ref, str(o.masks), start, stop)
            ahead = Prefetch(frames)
            stack.callback(ahead.close)
            seen = ahead
        else:
            extraction = _extraction(reference, model, registry, ref_options, o, part.span)
            stack.enter_context(extraction)
            info, report = extraction.info, extraction.report
            provenance = {"map": "model", "saliency": extraction.provenance}
            aligner = Aligner(info, dist.info, o.pairs)
            seen = maps_in.from_model(extraction, start)
        others = Prefetch(shown(dist, *_shifted(part, o.pairs.dist_offset)))
        stack.callback(others.close)
        if o.pairs.resample:
            pairs = pair_by_time(((s.seconds, s) for s in seen), others, aligner)
        else:
            pairs = pair_by_index(seen, others, aligner, part.start, part.stop)
        on_start(info, dist.info)
        run = Run(o, aligner, info)
        result = run.collect(_planes(pairs, aligner, part), on_frame)
    result.reports = report, dist.report
    if gaze is not None:
        rename_columns(result.log)
        provenance |= gaze.provenance()
        result.warnings += gaze.warnings(len(result.log))
    corrupt = dist.report.corrupt
    if corrupt:
        result.warnings.append(f"{dist.info.path}: {corrupt} corrupt frames")
    result.log.provenance |= provenance | {
        "reference": _facts(info),
        "distorted": _facts(dist.info) | {"corrupt_frames": corrupt},
    }
    return result


def _shifted(part: Part, offset: int) -> tuple[int, int | None]:
    """The frames of a video that are a part's, of which `offset` are left out at its start."""
    return part.start + offset, None if part.stop is None else part.stop + offset


def _planes(
    pairs: Iterator[tuple[Seen, Shown]], aligner: Aligner, part: Part
) -> Iterator[tuple[Seen, Planes, Planes]]:
    for s, d in pairs:
        planes = aligner.planes(0, s.frame), aligner.planes(1, d.frame)
        if part.look is not None:
            part.look(s, *planes)
        yield s, *planes


def _sharing(options: VideoOptions | None) -> VideoOptions:
    """Half the cores for each decoder: more threads than cores would cost an eighth more CPU."""
    o = options or VideoOptions()
    return o if o.threads else replace(o, threads=max(1, usable_cores() // 2))


def looking(o: ScoreOptions) -> ExtractOptions:
    """How a model looks at the reference."""
    return replace(o.extract, start=o.pairs.ref_offset, stop=None, keep_source=True)


def _extraction(
    reference: Path_,
    model: str | Model | None,
    registry: Path_ | None,
    ref_options: VideoOptions,
    o: ScoreOptions,
    span: Span | None,
) -> Extraction:
    wanted = looking(o)
    session = Session(resolve_model(model, registry, use="score"), wanted.device)
    return Extraction(open_video(reference, ref_options), session, wanted, span)


def _given(o: ScoreOptions) -> dict[str, Any]:
    if o.weight == 0:
        return {"map": "uniform"}
    if o.fixations:
        return {"map": "recorded gaze"}
    return maps_in.describe("maps", o.maps) if o.maps else maps_in.describe("masks", str(o.masks))


def _facts(info: VideoInfo) -> dict[str, Any]:
    return {
        "name": Path(info.path).name,
        "codec": info.codec,
        "size": [info.width, info.height],
        "display_size": [info.display_width, info.display_height],
        "pix_fmt": info.pix_fmt,
        "fps": None if info.fps is None else float(info.fps),
        "colour": asdict(info.colour),
    }
