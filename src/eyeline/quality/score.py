"""Score a video against its reference, weighted by where viewers look.

Both videos are decoded once. Each frame of the reference gets a saliency map, worker threads measure the
pairs of frames, and libvmaf runs in a separate process. Memory use does not grow with the length.

To add a metric, add its name to `METRICS`, add to `_ScoreRun.check` what it needs to run, and measure it
in `_measure.measure`.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eyeline._version import __version__
from eyeline.datasets.fixations import check_pixels_per_degree
from eyeline.errors import (
    DamagedMediaError,
    MediaError,
    MissingExtraError,
    QualityError,
    UsageError,
)
from eyeline.inference.session import Session
from eyeline.logs.base import Log
from eyeline.media import Video, open_video
from eyeline.media.colour import PlaneLayout, Planes
from eyeline.media.types import DecodeReport, VideoInfo, VideoOptions
from eyeline.parallel import Prefetch, map_in_threads, usable_cores
from eyeline.quality import psnr
from eyeline.quality._measure import (
    CROP_BIAS,
    MeasuredPair,
    Metrics,
    columns,
    crop,
    crop_size,
    measure,
    vmaf_columns,
)
from eyeline.quality._vmaf_features import opencv
from eyeline.quality.libvmaf import LibvmafRun, check_depth, find_ffmpeg
from eyeline.quality.pairs import (
    Aligner,
    PairOptions,
    TimedFrame,
    pair_by_index,
    pair_by_time,
    timed_frames,
)
from eyeline.quality.ssim import SMALLEST_MS, TAPS
from eyeline.quality.weights import (
    UNIFORM,
    RecordedGaze,
    ReferenceFrame,
    Weights,
    as_coded,
    from_files,
    from_gaze,
    from_masks,
    from_model,
    read_gaze,
    resample,
    uniform,
)
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model, resolve_model
from eyeline.saliency.pipeline import Extraction, ExtractOptions, FrameRange

if TYPE_CHECKING:
    from eyeline.quality.sw_vmaf import FramePart, SwVmaf

METRICS = ("psnr", "ssim", "ms_ssim", "sw_vmaf", "vmaf")
"""Names of the metrics; `vmaf` is the unweighted VMAF that libvmaf computes."""

GAZE_PREFIX = "ew_"
"""Prefix of columns that are weighted by recorded gaze, instead of `sw_`."""

PathLike = str | os.PathLike[str]
PlanePair = tuple[ReferenceFrame, Planes, Planes]


@dataclass(frozen=True)
class ScoreOptions:
    """Options of `score`.

    Attributes:
        metrics: names from `METRICS`; None = all metrics that the frame size, the bit depth and the
            installed extras allow. The log gives the reason for each missing metric under `left_out`.
        weight: strength of the map, from 0 (uniform weights) to 1 (weights from the map alone).
        pairs: how to pair the frames of the two videos.
        maps: path of maps written by `extract --maps`, used instead of a model.
        masks: path of a folder of ground-truth masks, used instead of a model.
        fixations: path of a fixation table or set, used instead of a model (see `weights.read_gaze`);
            weighted columns then begin with `ew_` instead of `sw_`.
        pixels_per_degree: pixels of the reference per degree of visual angle, for `fixations`;
            None if not known.
        method: `crop` also runs libvmaf on a window that follows the map (see `_measure`).
        vmaf_model: name or path of the VMAF model for `vmaf` and `sw_vmaf`.
        extract: how the saliency model reads the reference.
        workers: number of threads that measure; 0 = one per core.
    """

    metrics: tuple[str, ...] | None = None
    weight: float = 1.0
    pairs: PairOptions = field(default_factory=PairOptions)
    maps: str | None = None
    masks: str | None = None
    fixations: str | None = None
    pixels_per_degree: float | None = None
    method: Literal["crop"] | None = None
    vmaf_model: str = "vmaf_v0.6.1"
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    workers: int = 0

    def __post_init__(self) -> None:
        unknown = [m for m in self.metrics or () if m not in METRICS]
        if unknown or self.metrics == ():
            raise UsageError(
                f"--metrics names {', '.join(map(repr, unknown))}, which is not a metric"
                if unknown
                else "--metrics names no metric",
                f"choose from {', '.join(METRICS)}",
            )
        if not 0 <= self.weight <= 1:
            raise UsageError(
                f"--weight is {self.weight:g}; it must be between 0 and 1",
                "give 0 for uniform weights, 1 for the map alone, or a value between them",
            )
        given = [f"--{n}" for n in ("maps", "masks", "fixations") if getattr(self, n)]
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(given)} cannot be combined", "give only one of these options"
            )
        if self.fixations and self.weight == 0:
            raise UsageError("--fixations has no effect with --weight 0", "give a --weight above 0")
        if self.pixels_per_degree is not None:
            if not self.fixations:
                raise UsageError(
                    "--pixels-per-degree is given without --fixations",
                    "give --fixations, or leave out --pixels-per-degree",
                )
            check_pixels_per_degree(self.pixels_per_degree)
        if self.method not in (None, "crop"):
            raise UsageError(
                f"--method {self.method!r} is not supported", "give --method crop, or leave it out"
            )

    @property
    def needs_model(self) -> bool:
        """Whether the maps come from a model."""
        return self.weight > 0 and not (self.maps or self.masks or self.fixations)

    def for_model(self, io: IoSpec) -> ScoreOptions:
        """Return the options, with values that are left open taken from the model's I/O spec."""
        return replace(self, extract=self.extract.for_model(io))

    def extract_options(self) -> ExtractOptions:
        """Return how the model reads the scored frames of the reference."""
        return replace(self.extract, start=self.pairs.ref_offset, stop=None, keep_source=True)


@dataclass
class ScoreResult:
    """The result of `score`.

    Attributes:
        log: one row per pair of frames, and the provenance.
        stopped: the error that ended the run early; None if the run is complete.
        warnings: warnings to show to the user.
        reports: counts of damaged frames in the reference and in the distorted video.
    """

    log: Log
    stopped: BaseException | None = None
    warnings: list[str] = field(default_factory=list)
    reports: tuple[DecodeReport, DecodeReport] = field(
        default_factory=lambda: (DecodeReport(), DecodeReport())
    )


@dataclass(frozen=True)
class ScorePart:
    """The range of pairs that one segment measures, if `score` runs in segments.

    Attributes:
        start: number of the first pair.
        stop: number after the last pair; None = up to the end.
        frames: frames of the reference that the model reads for the maps of these pairs; None = all.
        look: function that is called with each pair before it is measured.
    """

    start: int = 0
    stop: int | None = None
    frames: FrameRange | None = None
    look: Callable[[ReferenceFrame, Planes, Planes], None] = lambda frame, reference, distorted: (
        None
    )

    def range_after(self, offset: int) -> tuple[int, int | None]:
        """Return `start` and `stop` as frame numbers of a video that skips its first `offset` frames."""
        return self.start + offset, None if self.stop is None else self.stop + offset


def score(
    reference: PathLike,
    distorted: PathLike,
    *,
    model: str | Model | None = None,
    registry: PathLike | None = None,
    options: ScoreOptions | None = None,
    ref_options: VideoOptions | None = None,
    dist_options: VideoOptions | None = None,
    on_start: Callable[[VideoInfo, VideoInfo], None] = lambda ref, dist: None,
    on_frame: Callable[[], None] = lambda: None,
    part: ScorePart | None = None,
) -> ScoreResult:
    """Score a video against its reference, unweighted and weighted by where viewers look.

    ::

        result = eyeline.score("ref.mp4", "dist.mp4")
        result.log.values["sw_psnr_y"][0]

    Args:
        reference: the original video, from which the maps are computed; `eyeline.extract` lists the
            kinds of input.
        distorted: the video to score.
        model: id, path or `Model` of the saliency model; None = the default of the registry.
        registry: path of the user's registry folder.
        options: options of the run.
        ref_options: how to read the reference.
        dist_options: how to read the distorted video.
        on_start: function that is called once both videos are open and can be compared.
        on_frame: function that is called after each pair.
        part: the range of pairs to measure; None = all.

    Returns:
        The scores. `stopped` is the `DamagedMediaError` or `KeyboardInterrupt` if the run ended early.

    Raises:
        QualityError: the videos cannot be compared with these options, or a map is zero everywhere.
        MediaError: a video or map cannot be read.
        DatasetError: the fixations cannot be read, or belong to another reference.
        ModelError: the model cannot be used.
        MissingExtraError: OpenCV, or an extra that a named metric needs, is not installed.
    """
    opencv()  # fail before a video is opened if OpenCV is missing
    o, part = options or ScoreOptions(), part or ScorePart()
    ref_options, dist_options = _share_cores(ref_options), _share_cores(dist_options)
    with contextlib.ExitStack() as stack:
        dist = stack.enter_context(open_video(distorted, dist_options))
        gaze: RecordedGaze | None = None
        frames: Iterator[ReferenceFrame]
        if o.needs_model:
            session = Session(resolve_model(model, registry, use="score"), o.extract.device)
            video = open_video(reference, ref_options)
            extraction = Extraction(video, session, o.extract_options(), part.frames)
            stack.enter_context(extraction)
            info, report = extraction.info, extraction.report
            provenance = {"map": "model", "saliency": extraction.provenance}
            frames = from_model(extraction, part.range_after(o.pairs.ref_offset)[0])
        else:
            ref = stack.enter_context(open_video(reference, ref_options))
            info, report = ref.info, ref.report
        aligner = Aligner(info, dist.info, o.pairs)
        if not o.needs_model:
            if o.fixations:
                gaze = read_gaze(Path(o.fixations), info, o.pixels_per_degree)
            given, provenance = _given_maps(o, ref, gaze, *part.range_after(o.pairs.ref_offset))
            frames = ahead = Prefetch(given)
            stack.callback(ahead.close)
        others = Prefetch(timed_frames(dist, *part.range_after(o.pairs.dist_offset)))
        stack.callback(others.close)
        if o.pairs.resample:
            pairs = pair_by_time(((f.seconds, f) for f in frames), others, aligner)
        else:
            pairs = pair_by_index(frames, others, aligner, part.start, part.stop)
        on_start(info, dist.info)
        run = _ScoreRun(o, aligner, info)
        result = run.collect(_planes(pairs, aligner, part), on_frame)
    result.reports = report, dist.report
    if gaze is not None:
        _rename_columns(result.log)
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


def _share_cores(options: VideoOptions | None) -> VideoOptions:
    """Give each decoder half of the cores, because more threads than cores cost 12 % more CPU time."""
    o = options or VideoOptions()
    return o if o.threads else replace(o, threads=max(1, usable_cores() // 2))


def _given_maps(
    o: ScoreOptions, ref: Video, gaze: RecordedGaze | None, start: int, stop: int | None
) -> tuple[Iterator[ReferenceFrame], dict[str, Any]]:
    """Return the reference's frames with maps that no model computes, and the maps' provenance."""
    if gaze is not None:
        return from_gaze(ref, gaze, start, stop), {"map": "recorded gaze"}
    if o.weight == 0:
        return uniform(ref, start, stop), {"map": "uniform"}
    read, kind, path = (from_files, "maps", o.maps) if o.maps else (from_masks, "masks", o.masks)
    return read(ref, str(path), start, stop), {"map": kind, "map_path": Path(str(path)).name}


def _planes(
    pairs: Iterator[tuple[ReferenceFrame, TimedFrame]], aligner: Aligner, part: ScorePart
) -> Iterator[PlanePair]:
    for r, d in pairs:
        planes = aligner.planes(0, r.frame), aligner.planes(1, d.frame)
        part.look(r, *planes)
        yield r, *planes


def _rename_columns(log: Log) -> None:
    """Replace the prefix `sw_` of column names by the prefix for recorded gaze."""
    names = {
        c: GAZE_PREFIX + c.removeprefix("sw_") if c.startswith("sw_") else c for c in log.columns
    }
    log.columns = list(names.values())
    log.values = {names[c]: values for c, values in log.values.items()}


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


@dataclass(frozen=True)
class _Job:
    """A pair of planes for a worker thread; it does not keep the decoded frames in memory."""

    index: int
    seconds: float
    pair: MeasuredPair
    previous: MeasuredPair | None


class _ScoreRun:
    """Measure pairs on worker threads and with libvmaf, and collect the rows in order."""

    def __init__(self, options: ScoreOptions, aligner: Aligner, info: VideoInfo) -> None:
        self._o, self._aligner, self._info = options, aligner, info
        self._workers = options.workers or usable_cores()
        self._left_out: dict[str, str] = {}
        self._engine: SwVmaf | None = None
        self._metrics = tuple(m for m in METRICS if self._wanted(m))
        self._libvmaf: dict[str, LibvmafRun] = {}

    def _wanted(self, name: str) -> bool:
        asked = self._o.metrics
        if asked is not None and name not in asked:
            return False
        try:
            self.check(name)
            if name == "sw_vmaf":
                from eyeline.quality.sw_vmaf import SwVmaf, load_model

                self._engine = SwVmaf(load_model(self._o.vmaf_model))
        except (MissingExtraError, QualityError) as exc:
            if asked is not None:
                raise
            self._left_out[name] = str(exc)
            return False
        return True

    def check(self, name: str) -> None:
        """Check that a metric can be measured.

        Raises:
            MissingExtraError: the extra that the metric needs is not installed.
            QualityError: the frames are too small, or libvmaf does not support their bit depth.
        """
        a = self._aligner
        least = {"ssim": TAPS, "ms_ssim": SMALLEST_MS}.get(name, 0)
        if name in ("vmaf", "sw_vmaf"):
            from eyeline.quality.sw_vmaf import SMALLEST

            least = SMALLEST
        if min(a.width, a.height) < least:
            raise QualityError(
                f"frames of {a.width}x{a.height} are too small for {name}, which needs at least "
                f"{least}x{least}",
                f"leave {name} out of --metrics",
            )
        if name == "vmaf":
            find_ffmpeg()
            check_depth(a.depth)

    def collect(self, pairs: Iterator[PlanePair], on_frame: Callable[[], None]) -> ScoreResult:
        """Measure all pairs and return the scores."""
        o, a = self._o, self._aligner
        fps = float(self._info.fps) if self._info.fps else None
        names = columns(self._metrics, grey=a.chroma == "grey")
        result = ScoreResult(Log(names, self._provenance(), fps))
        log = result.log
        with contextlib.ExitStack() as stack:
            self._open_libvmaf(stack)
            try:
                with contextlib.closing(self._rows(pairs)) as rows:
                    for job, metrics in rows:
                        log.append(job.index - o.pairs.ref_offset, job.seconds, metrics)
                        on_frame()
            except (DamagedMediaError, KeyboardInterrupt) as exc:
                if not len(log):
                    raise
                result.stopped = exc
            if not len(log):
                raise MediaError(
                    f"{self._info.path}: no frame pairs are left to compare",
                    "check --ref-offset and --dist-offset",
                )
            for column, run in self._libvmaf.items():
                values = run.finish()["vmaf"][: len(log)]
                log.columns.append(column)
                log.values[column] = array("d", values)
        log.provenance |= {"complete": result.stopped is None, "frames": len(log)}
        return result

    def _open_libvmaf(self, stack: contextlib.ExitStack) -> None:
        a, o = self._aligner, self._o
        sizes: dict[str, tuple[int, int]] = {}
        if "vmaf" in self._metrics:
            sizes["vmaf"] = a.width, a.height
        if o.method == "crop":
            sizes["vmaf_crop"] = crop_size(a.width, a.height)
        for column, size in sizes.items():
            layout = PlaneLayout(a.chroma, a.depth)
            run = LibvmafRun(*size, layout, o.vmaf_model, threads=self._workers)
            stack.callback(run.discard)
            self._libvmaf[column] = run

    def _jobs(self, pairs: Iterator[PlanePair]) -> Iterator[_Job]:
        previous: MeasuredPair | None = None
        for frame, reference, distorted in pairs:
            pair = MeasuredPair(reference, distorted, self._weights(frame))
            for column, run in self._libvmaf.items():
                run.write(*(crop(pair) if column == "vmaf_crop" else (reference, distorted)))
            yield _Job(frame.index, frame.seconds, pair, previous)
            previous = pair if self._engine else None

    def _rows(self, pairs: Iterator[PlanePair]) -> Generator[tuple[_Job, Metrics]]:
        """Yield rows in order, with `sw_vmaf` one pair late, because VMAF's motion needs the next frame."""
        held: tuple[_Job, Metrics, FramePart] | None = None

        def finish(following: FramePart | None) -> Iterator[tuple[_Job, Metrics]]:
            if held is not None and self._engine is not None:
                job, metrics, part = held
                yield job, metrics | vmaf_columns(self._engine.finish(part, following))

        def work(job: _Job) -> tuple[_Job, Metrics, FramePart | None]:
            return job, *measure(job.pair, job.previous, self._metrics, self._engine)

        measured = map_in_threads(
            work, self._jobs(pairs), self._workers, ahead=self._workers, name="eyeline-measure"
        )
        with contextlib.closing(measured):
            try:
                for job, metrics, part in measured:
                    if part is None:
                        yield job, metrics
                        continue
                    yield from finish(part)
                    held = job, metrics, part
            except DamagedMediaError:
                yield from finish(None)  # keep the row of the last pair before the damage
                raise
            yield from finish(None)

    def _weights(self, frame: ReferenceFrame) -> Weights:
        m = as_coded(frame.map, self._info.rotation)
        window = self._o.pairs.crop
        if window is not None and m is not UNIFORM:
            w, h, x, y = window
            m = resample(m, *self._aligner.full)[y : y + h, x : x + w]
        return Weights(m, self._o.weight, f"frame {frame.index}")

    def _provenance(self) -> dict[str, Any]:
        o, a = self._o, self._aligner
        options = asdict(o)
        for name in ("workers", "extract", "maps", "masks", "fixations", "metrics"):
            options.pop(name)
        facts: dict[str, Any] = {
            "eyeline": __version__,
            "metrics": list(self._metrics),
            "options": options,
            "compared_as": PlaneLayout(a.chroma, a.depth).pix_fmt,
            "compared_size": [a.width, a.height],
            "psnr_cap": psnr.cap(a.depth),
        }
        if self._left_out:
            facts["left_out"] = self._left_out
        if self._engine is not None:
            m = self._engine.model
            facts["vmaf_model"], facts["vmaf_model_sha256"] = m.name, m.sha256
        if o.method is not None:
            facts["method"] = {"name": o.method, "bias": CROP_BIAS}
        return facts
