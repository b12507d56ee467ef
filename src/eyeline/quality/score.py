"""Score a video against its reference where viewers look: decode, pair, weigh, measure, in order.

One decode of each video. The reference's frames come with their maps, pairs are measured on worker
threads, libvmaf runs beside in a process of its own. What is held is bounded, whatever the length.

Measure pairs on worker threads, with libvmaf beside, and gather their rows in order.

`score` opens and pairs the videos; what happens to a pair from there on happens here. To add a
metric, add it to `options.METRICS`, say in `Run.check` what it needs, and measure it in `measure`.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyeline._version import __version__
from eyeline.errors import DamagedMediaError, MediaError, MissingExtraError, QualityError
from eyeline.inference.session import Session
from eyeline.logs.base import Log
from eyeline.media import open_video
from eyeline.media.colour import PlaneLayout, Planes
from eyeline.media.types import VideoInfo, VideoOptions
from eyeline.parallel import usable_cores
from eyeline.quality import measure as methods
from eyeline.quality import options as maps_in
from eyeline.quality import psnr
from eyeline.quality.libvmaf import DEPTHS, LibvmafRun, find_ffmpeg
from eyeline.quality.measure import Measured, Metrics, columns, measure, vmaf_columns
from eyeline.quality.options import METRICS, ScoreOptions, ScoreResult, Seen, as_coded
from eyeline.quality.pairs import Aligner, Prefetch, Shown, pair_by_index, pair_by_time, shown
from eyeline.quality.ssim import SMALLEST_MS, TAPS
from eyeline.quality.vmaf_features import opencv
from eyeline.quality.weights import RecordedGaze, Weights, read_gaze, rename_columns, resample
from eyeline.registry.registry import Model, resolve_model
from eyeline.saliency.pipeline import Extraction, ExtractOptions, FrameRange

if TYPE_CHECKING:
    from eyeline.quality.sw_vmaf import FramePart, SwVmaf


class Run:
    """The machinery of one score: which metrics, worker threads, libvmaf beside.

    Args:
        options: see `ScoreOptions`.
        aligner: the common ground.
        info: of the reference.
    """

    def __init__(self, options: ScoreOptions, aligner: Aligner, info: VideoInfo) -> None:
        self._o, self._aligner, self._info = options, aligner, info
        self._workers = options.workers or usable_cores()
        self.left_out: dict[str, str] = {}
        self._engine: SwVmaf | None = None
        self._metrics = tuple(m for m in METRICS if self._wanted(m))
        self._libvmaf: dict[str, LibvmafRun] = {}

    def _wanted(self, name: str) -> bool:
        """Whether a metric is computed; a reason is noted where it is left out by default."""
        asked = self._o.metrics
        if asked is not None and name not in asked:
            return False
        try:
            self.check(name)
        except (MissingExtraError, QualityError) as exc:
            if asked is not None:
                raise
            self.left_out[name] = str(exc)
            return False
        return True

    def check(self, name: str) -> None:
        """Find what would fail at the first frame.

        Raises:
            MissingExtraError: the extra is not installed.
            QualityError: the picture is too small or too deep.
        """
        a = self._aligner
        least = {"ssim": TAPS, "ms_ssim": SMALLEST_MS}.get(name, 0)
        if name in ("vmaf", "sw_vmaf"):
            from eyeline.quality.sw_vmaf import SMALLEST

            least = SMALLEST
        if min(a.width, a.height) < least:
            raise QualityError(
                f"a picture of {a.width}x{a.height} is too small for {name}, which needs {least} a side",
                "leave it out of --metrics",
            )
        if name == "vmaf":
            find_ffmpeg()
            if a.depth not in DEPTHS:
                raise QualityError(f"libvmaf does not take {a.depth} bits", "leave out vmaf")
        if name == "sw_vmaf":
            from eyeline.quality.sw_vmaf import SwVmaf, load_model

            self._engine = SwVmaf(load_model(self._o.vmaf_model))

    def collect(
        self, pairs: Iterator[tuple[Seen, Any, Any]], on_frame: Callable[[], None]
    ) -> ScoreResult:
        """Run over all pairs and gather their rows."""
        o, a = self._o, self._aligner
        fps = float(self._info.fps) if self._info.fps else None
        result = ScoreResult(
            Log(columns(self._metrics, a.chroma == "grey"), self._provenance(), fps)
        )
        log = result.log
        with contextlib.ExitStack() as stack:
            self._open_libvmaf(stack)
            try:
                for seen, metrics in self._measured(pairs):
                    log.append(seen.index - o.pairs.ref_offset, seen.seconds, metrics)
                    on_frame()
            except (DamagedMediaError, KeyboardInterrupt) as exc:
                if not len(log):
                    raise
                result.stopped = exc
            if not len(log):
                raise MediaError(f"{self._info.path}: no frames to compare", "check the offsets")
            for column, run in self._libvmaf.items():
                values = run.finish()["vmaf"][: len(log)]
                log.columns.append(column)
                log.values[column] = array("d", values)
        log.provenance |= {"complete": result.stopped is None, "frames": len(log)}
        return result

    def _open_libvmaf(self, stack: contextlib.ExitStack) -> None:
        a, o = self._aligner, self._o
        jobs: list[tuple[str, int, int]] = []
        if "vmaf" in self._metrics:
            jobs.append(("vmaf", a.width, a.height))
        if o.method == "crop":
            jobs.append(("vmaf_crop", *methods.crop_size(a.width, a.height)))
        elif o.method == "mask":
            jobs.append(("vmaf_mask", a.width, a.height))
        for column, width, height in jobs:
            layout = PlaneLayout(a.chroma, a.depth)
            run = LibvmafRun(width, height, layout, o.vmaf_model, threads=self._workers)
            stack.callback(run.discard)
            self._libvmaf[column] = run

    def _feed_libvmaf(self, pair: Measured) -> None:
        for column, run in self._libvmaf.items():
            planes = pair.reference, pair.distorted
            if column == "vmaf_mask":
                planes = methods.mask(*planes, pair.weights)
            elif column == "vmaf_crop":
                planes = methods.crop(*planes, pair.weights)
            run.write(*planes)

    def _measured(self, pairs: Iterator[tuple[Seen, Any, Any]]) -> Iterator[tuple[Seen, Metrics]]:
        """Rows in order; a frame behind where VMAF's motion looks at the next one."""
        pool = ThreadPoolExecutor(self._workers, "eyeline-measure")
        running: deque[tuple[Seen, Future[tuple[Metrics, FramePart | None]]]] = deque()
        held: list[tuple[Seen, Metrics, FramePart]] = []

        def done() -> Iterator[tuple[Seen, Metrics]]:
            seen, future = running.popleft()
            metrics, part = future.result()
            if self._engine is None or part is None:
                yield seen, metrics
                return
            if held:
                before = held.pop()
                yield before[0], before[1] | vmaf_columns(self._engine.finish(before[2], part))
            held.append((seen, metrics, part))

        stopped: BaseException | None = None
        try:
            previous: Measured | None = None
            try:
                for seen, reference, distorted in pairs:
                    pair = Measured(reference, distorted, self._weights(seen))
                    self._feed_libvmaf(pair)
                    task = pool.submit(measure, pair, previous, self._metrics, self._engine)
                    running.append((replace(seen, frame=None, map=maps_in.UNIFORM), task))  # type: ignore[arg-type]
                    previous = pair if self._engine else None
                    if len(running) > self._workers + 1:
                        yield from done()
            except DamagedMediaError as exc:
                stopped = exc  # what came before it is still to be delivered
            while running:
                yield from done()
            if held and self._engine is not None:
                seen, metrics, part = held.pop()
                yield seen, metrics | vmaf_columns(self._engine.finish(part))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if stopped is not None:
            raise stopped

    def _weights(self, seen: Seen) -> Weights:
        m = as_coded(seen.map, self._info.rotation)
        crop = self._o.pairs.crop
        if crop is not None and m is not maps_in.UNIFORM:
            w, h, x, y = crop
            m = resample(m, *self._aligner.full)[y : y + h, x : x + w]
        return Weights(m, self._o.weight, f"frame {seen.index}")

    def _provenance(self) -> dict[str, Any]:
        o, a = self._o, self._aligner
        options = asdict(o)
        for name in ("workers", "extract", "maps", "masks", "fixations", "metrics"):
            options.pop(name)
        said: dict[str, Any] = {
            "eyeline": __version__,
            "metrics": list(self._metrics),
            "options": options,
            "compared_as": PlaneLayout(a.chroma, a.depth).pix_fmt,
            "compared_size": [a.width, a.height],
            "psnr_cap": psnr.cap(a.depth),
        }
        if self.left_out:
            said["left_out"] = self.left_out
        if self._engine is not None:
            m = self._engine.model
            said["vmaf_model"], said["vmaf_model_sha256"] = m.name, m.sha256
        if o.method is not None:
            said["method"] = {"name": o.method, "bias": methods.BIAS[o.method]}
        return said


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
    """The pairs that one of several runs over two videos measures (see `eyeline.quality.pair_segments`).

    Attributes:
        start: number of the first pair.
        stop: the one after the last; None = to the end.
        frames: what a model decodes and infers of the reference for their maps; None = all.
        look: called with each pair before it is measured.
    """

    start: int = 0
    stop: int | None = None
    frames: FrameRange | None = None
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
            extraction = _extraction(reference, model, registry, ref_options, o, part.frames)
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
    frames: FrameRange | None,
) -> Extraction:
    wanted = looking(o)
    session = Session(resolve_model(model, registry, use="score"), wanted.device)
    return Extraction(open_video(reference, ref_options), session, wanted, frames)


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
