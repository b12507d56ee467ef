"""Evaluate models and three baselines on a fixation set, with one row per image or video.

Every table has three baselines. "uniform" is a uniform map. "centre prior" is a Gaussian around the
centre, fitted on other sets; a useful model scores better. "inter-observer" uses the gaze density of half
of the viewers as a map for the other half, which shows how well viewers predict each other.

All maps are compared with fixations at one resolution, by default with a longest side of `LONGEST_SIDE`
pixels; area averaging scales them down. A model runs over a whole video with its temporal filter. Then
the maps of frames at regular intervals are compared with the fixations that are active at these frames.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from eyeline.datasets.files import local_path
from eyeline.datasets.fixations import (
    CentreGaussian,
    Fixations,
    FixationSet,
    Fold,
    Stimulus,
    check_pixels_per_degree,
    fold_of,
    load_fixation_set,
    sigma_of,
)
from eyeline.datasets.pairs import read_image
from eyeline.digests import sha256_hex
from eyeline.errors import DatasetError, UsageError
from eyeline.evaluation.gaze_metrics import (
    GAZE_MEASURES,
    UNIFORM_SHARE,
    FittedPrior,
    GazeTruth,
    combined,
    gaze_truth,
    map_density,
    pixels,
    priors_for,
    score_gaze,
)
from eyeline.evaluation.metrics import Map
from eyeline.evaluation.results import GazeResult, GazeSet
from eyeline.evaluation.rows import (
    GAZE_LIBRARIES,
    Resample,
    RowOptions,
    Size,
    make_rows,
    versions,
    working_map,
)
from eyeline.evaluation.statistics import (
    DRAWS,
    SEED,
    Floats,
    Means,
    ModelComparison,
    Pooled,
    differences,
    estimates,
    pool,
)
from eyeline.inference.session import Session
from eyeline.media import open_video
from eyeline.parallel import usable_cores
from eyeline.quality.weights import resample as scale_map
from eyeline.registry.registry import Model
from eyeline.saliency.pipeline import Extraction, ExtractOptions, FrameSaliency
from eyeline.saliency.temporal import TemporalFilter

LONGEST_SIDE = 160
"""Longest side in pixels at which maps are evaluated; one pixel is smaller than the fixation blur."""

FRAMES = 24
"""Default number of evaluated frames per video."""

SPLITS = 4
"""Number of random splits of the viewers into halves, each of which is evaluated against the other."""

Baseline = Literal["uniform", "centre prior", "inter-observer"]


@dataclass(frozen=True)
class GazeOptions:
    """How to evaluate maps against fixations.

    Attributes:
        frames: number of evaluated frames per video, at regular intervals.
        temporal: temporal filter of the maps of a video; `model` = the filter in the model's record.
        pixels_per_degree: pixels of the stimuli per degree of visual angle; None if the viewing
            distance is not known.
        longest_side: longest side of the maps at evaluation, in pixels.
        splits: number of random splits of the viewers for the inter-observer baseline.
        fold: evaluate only the images of this fold (see `eyeline.datasets.fixations.fold_of`). It does not
            apply to videos, because no training recipe uses videos.
    """

    frames: int = FRAMES
    temporal: TemporalFilter = "model"
    pixels_per_degree: float | None = None
    longest_side: int = LONGEST_SIDE
    splits: int = SPLITS
    fold: Fold | None = None

    def __post_init__(self) -> None:
        if self.fold is not None and self.fold not in get_args(Fold):
            raise UsageError(
                f"--fold {self.fold!r} is not a fold", f"choose one of: {', '.join(get_args(Fold))}"
            )
        if self.temporal not in get_args(TemporalFilter):
            raise UsageError(
                f"--temporal {self.temporal!r} is not a temporal filter",
                f"choose one of: {', '.join(get_args(TemporalFilter))}",
            )
        if self.frames < 1:
            raise UsageError(
                f"--frames is {self.frames}; it must be 1 or more",
                f"leave it out to use the default of {FRAMES}",
            )
        check_pixels_per_degree(self.pixels_per_degree)


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `evaluate`.

    Attributes:
        size: input size of the models (see `rows.Size`).
        resample: how images are scaled down (see `rows.Resample`).
        workers: number of processes; 1 = no worker processes, 0 = one per core. With several processes, a
            calling script needs `if __name__ == "__main__":`, because each process imports the script.
        resume: folder that stores finished rows, so that an interrupted run can continue.
        gaze: how to evaluate maps on fixation sets.
        prior: paths of the fixation sets on which the centre prior is fitted; None = the prior that
            comes with the package.
        draws: number of bootstrap resamples.
        seed: random seed of the bootstrap and of the splits of the viewers.
    """

    size: Size = None
    resample: Resample = "area"
    workers: int = 1
    resume: Path | None = None
    gaze: GazeOptions = field(default_factory=GazeOptions)
    prior: tuple[Path, ...] | None = None
    draws: int = DRAWS
    seed: int = SEED

    @property
    def rows(self) -> RowOptions:
        """The options for `make_rows`: the folder and the number of processes."""
        return RowOptions(self.resume, self.workers or usable_cores())


def load_judged_set(
    root: Path,
    options: GazeOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> FixationSet:
    """Read a fixation set, with only the images of the fold if `options` names one.

    Raises:
        DatasetError: `load_fixation_set` fails; or no image is in the fold.
    """
    dataset = load_fixation_set(root, on_progress)
    if options.fold is None or dataset.kind == "videos":
        return dataset
    kept = tuple(s for s in dataset.stimuli if fold_of(s.digest) == options.fold)
    if not kept:
        raise DatasetError(
            f"{root}: none of the {len(dataset.stimuli)} {dataset.kind} is in the fold "
            f"{options.fold!r}",
            "choose another --fold, or leave it out",
        )
    return replace(dataset, stimuli=kept)


@dataclass(frozen=True)
class FrameScore:
    """The scores of the map of an image or of one frame of a video.

    Attributes:
        time_ms: time since the first frame in milliseconds; 0 for an image.
        fixations: number of fixations that the map was compared with.
        values: value of each of `GAZE_MEASURES`; NaN if a measure has no value.
    """

    time_ms: float
    fixations: int
    values: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, with None in place of NaN."""
        values = {k: v if math.isfinite(v) else None for k, v in self.values.items()}
        return {"time_ms": self.time_ms, "fixations": self.fixations} | values


@dataclass(frozen=True)
class GazeRow:
    """The scores of one image or video of a fixation set; an image counts as one frame.

    `working_size` is the (width, height) of the model's input in pixels; None for a baseline.
    """

    name: str
    working_size: tuple[int, int] | None
    frames: tuple[FrameScore, ...]

    def mean(self, measure: str) -> float:
        """Return the mean of a measure over the frames with a value; NaN if no frame has one."""
        known = [v for f in self.frames if math.isfinite(v := f.values[measure])]
        return sum(known) / len(known) if known else float("nan")

    def to_fields(self) -> dict[str, Any]:
        """Return the complete row as JSON values."""
        frames = [f.to_json() for f in self.frames]
        return {"name": self.name, "working_size": self.working_size, "frames": frames}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Create a row from the result of `to_fields`."""
        frames = tuple(
            FrameScore(
                f["time_ms"],
                f["fixations"],
                {k: float("nan") if f[k] is None else float(f[k]) for k in GAZE_MEASURES},
            )
            for f in fields["frames"]
        )
        size = fields["working_size"]
        return cls(fields["name"], tuple(size) if size else None, frames)


class GazeJudge:
    """Compare maps with fixations at one resolution; `videos` is true if the set holds videos."""

    def __init__(self, dataset: FixationSet, prior: CentreGaussian, options: GazeOptions) -> None:
        self.options, self.videos, self._prior = options, dataset.kind == "videos", prior
        self._everybody = [s.fixations for s in dataset.stimuli]
        self._totals: dict[tuple[int, int], Floats] = {}
        self._priors: dict[tuple[int, int], Floats] = {}

    def grid(self, stimulus: Stimulus) -> tuple[int, int]:
        """Return the (width, height) at which maps of a stimulus are compared with fixations."""
        width, height = stimulus.size
        scale = self.options.longest_side / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def truth(self, stimulus: Stimulus, fixations: Fixations) -> GazeTruth:
        """Return the ground truth that one or more fixations on an image or video frame give."""
        grid = self.grid(stimulus)
        if grid not in self._totals:
            self._totals[grid] = sum(
                (_histogram(f, grid) for f in self._everybody), np.zeros(grid[::-1])
            )
            self._priors[grid] = map_density(self.prior(stimulus))
        others = self._totals[grid] - _histogram(stimulus.fixations, grid)
        sigma = sigma_of(stimulus.size[0], self.options.pixels_per_degree)
        return gaze_truth(fixations, others, self._priors[grid], sigma)

    def prior(self, stimulus: Stimulus) -> Floats:
        """Return the centre prior as a map, float64 (h, w)."""
        return self._prior.density(*self.grid(stimulus))

    def fixations(self, stimulus: Stimulus, time_ms: float) -> Fixations:
        """Return the fixations on a video at the time of a frame, or all fixations on an image."""
        return stimulus.fixations.active_at(time_ms) if self.videos else stimulus.fixations

    def score(
        self, stimulus: Stimulus, saliency: npt.NDArray[np.floating], time_ms: float
    ) -> FrameScore:
        """Score a map of any size against the fixations at a time; without any, all values are NaN."""
        fixations = self.fixations(stimulus, time_ms)
        if not len(fixations):
            return FrameScore(time_ms, 0, dict.fromkeys(GAZE_MEASURES, float("nan")))
        truth = self.truth(stimulus, fixations)
        if saliency.shape != truth.density.shape:
            height, width = truth.density.shape
            saliency = scale_map(saliency.astype(np.float32, copy=False), width, height)
        return FrameScore(time_ms, len(fixations), score_gaze(saliency, truth))


def _histogram(fixations: Fixations, grid: tuple[int, int]) -> Floats:
    """Return the number of fixations on each pixel, float64 (h, w)."""
    width, height = grid
    rows, columns = pixels(fixations, width, height)
    counts = np.bincount(rows * width + columns, minlength=width * height)
    return counts.reshape(height, width).astype(np.float64)


def judged_frames(total: int, count: int) -> list[int]:
    """Divide `total` frames into `count` equal parts and return the index of the middle frame of each."""
    return sorted({int((k + 0.5) * total / count) for k in range(count)})


class ScoreStimulus:
    """Compute the row of an image or video with a model; arguments are those of `judged_maps`."""

    def __init__(
        self, model: Model, size: Size, resample: Resample, judge: GazeJudge, threads: int
    ) -> None:
        self._session = Session(model, "cpu")
        self._size, self._resample, self._judge = size, resample, judge
        self._threads = threads

    def __call__(self, stimulus: Stimulus) -> GazeRow:
        """Return the row of a stimulus. Errors are those of `judged_maps`."""
        size = (0, 0)
        scores = []
        for time_ms, _, saliency in judged_maps(
            self._session, stimulus, self._size, self._resample, self._judge, self._threads
        ):
            size = (saliency.shape[1], saliency.shape[0])
            scores.append(self._judge.score(stimulus, saliency, time_ms))
        return GazeRow(stimulus.name, size, tuple(scores))


def judged_maps(
    session: Session,
    stimulus: Stimulus,
    size: Size,
    resample: Resample,
    judge: GazeJudge,
    threads: int,
) -> Iterator[tuple[float, Image.Image, Map]]:
    """Yield the map of an image, or the maps of the evaluated frames of a video, at the model's size.

    Args:
        session: session of the model.
        stimulus: the image or video.
        size: input size (see `Size`); an exact (width, height) is not allowed for videos.
        resample: how images are scaled down; videos always use area averaging.
        judge: the `GazeJudge` of the fixation set; it also holds the options.
        threads: number of inference threads for a video.

    Yields:
        The time since the first frame in milliseconds, the image or frame as 8-bit RGB, and its map.

    Raises:
        DatasetError: an image cannot be read, or a video has fewer frames than its header states.
        MediaError: a video cannot be read.
        ModelError: the model fails.
        UsageError: the size is not allowed for videos.
    """
    if not judge.videos:
        image = read_image(stimulus.source)
        yield 0.0, image, working_map(session, image, size, resample)
        return
    for time_ms, frame in _video_maps(session, stimulus, size, judge.options, threads):
        yield time_ms, Image.fromarray(frame.frame.rgb.transpose(1, 2, 0)), frame.map


def _video_maps(
    session: Session, stimulus: Stimulus, size: Size, options: GazeOptions, threads: int
) -> Iterator[tuple[float, FrameSaliency]]:
    """Run a model over a whole video and yield the evaluated frames with their times."""
    if isinstance(size, tuple):
        raise UsageError(
            f"--size {size[0]}x{size[1]} may change the aspect ratio, which is not supported for videos",
            "give the number of lines of the short side, or leave --size out",
        )
    extract = ExtractOptions(lines=size, workers=threads, temporal=options.temporal)
    with local_path(stimulus.source) as path:
        video = open_video(path)
        total = video.info.expected_frames
        if total is None:
            with open_video(path) as counted:
                total = sum(1 for _ in counted.pictures())
        wanted = set(judged_frames(total, options.frames))
        found = 0
        with Extraction(video, session, extract) as frames:
            first: float | None = None
            for frame in frames:
                first = frame.pts_time if first is None else first
                if frame.index in wanted:
                    found += 1
                    yield (frame.pts_time - first) * 1000, frame
    if not found:
        raise DatasetError(
            f"{stimulus.source}: the header states {total} frames, but the frames to evaluate are missing",
            "remux the video, for example with ffmpeg -c copy",
        )


class ScoreBaseline:
    """Compute the row of an image or video with a baseline; `seed` determines the random splits."""

    def __init__(self, baseline: Baseline, judge: GazeJudge, seed: int) -> None:
        self._baseline, self._judge, self._seed = baseline, judge, seed

    def __call__(self, job: tuple[Stimulus, tuple[float, ...]]) -> GazeRow:
        """Return the row of a stimulus; `job` holds the stimulus and the times of its frames in ms."""
        stimulus, times = job
        if self._baseline == "inter-observer":
            scores = self._halves(stimulus, times)
        else:
            width, height = self._judge.grid(stimulus)
            flat = self._baseline == "uniform"
            m = np.ones((height, width)) if flat else self._judge.prior(stimulus)
            scores = [self._judge.score(stimulus, m, t) for t in times]
        return GazeRow(stimulus.name, None, tuple(scores))

    def _halves(self, stimulus: Stimulus, times: tuple[float, ...]) -> list[FrameScore]:
        """Score the density of each half of the viewers against the other half; average over splits."""
        # The seed includes the stimulus's digest, so its splits do not depend on the other stimuli.
        rng = np.random.default_rng([self._seed, int(stimulus.digest[:12], 16)])
        viewers = np.unique(stimulus.fixations.viewer)
        splits = [
            rng.permutation(viewers)[: len(viewers) // 2] for _ in range(self._judge.options.splits)
        ]
        scores = []
        for time_ms in times:
            fixations = self._judge.fixations(stimulus, time_ms)
            values: list[dict[str, float]] = []
            for half in splits:
                chosen = np.isin(fixations.viewer, half)
                parts = fixations.select(chosen), fixations.select(~chosen)
                if not all(map(len, parts)):
                    continue
                a, b = (self._judge.truth(stimulus, part) for part in parts)
                values += [score_gaze(a.density, b), score_gaze(b.density, a)]
            mean = {
                k: float(np.mean([v[k] for v in values])) if values else float("nan")
                for k in GAZE_MEASURES
            }
            scores.append(FrameScore(time_ms, len(fixations), mean))
        return scores


ROW_SCHEMA = 1  # increase this number when a row's content or computation changes

BASELINES: tuple[Baseline, ...] = ("uniform", "centre prior", "inter-observer")


def evaluate_set(
    dataset: FixationSet,
    models: Sequence[tuple[str, Session]],
    describe: Callable[[Session, tuple[int, int]], dict[str, Any]],
    o: EvaluateOptions,
    own_priors: Sequence[FittedPrior] | None,
    report: Callable[[str, int, int], None],
) -> tuple[GazeSet, list[GazeResult], list[ModelComparison]]:
    """Evaluate models and baselines on one fixation set.

    Args:
        dataset: the fixation set.
        models: label and session of each model.
        describe: returns the properties of a model at an input size, for its `GazeResult`.
        o: options of the evaluation.
        own_priors: priors fitted on the user's sets; None = those that come with the package.
        report: called with a label, the number of finished stimuli and the total number.

    Returns:
        The properties of the set; the results of the models in their order and then of the baselines;
        the comparisons of each pair of models, and of each model with the centre prior.
    """
    stimuli = [s for s in dataset.stimuli if len(s.fixations)]
    priors = priors_for(dataset, own_priors)
    prior = combined(priors)
    judge = GazeJudge(dataset, prior, o.gaze)
    common = {
        "gaze_schema": ROW_SCHEMA,
        "dataset": dataset.digest,
        "options": asdict(o.gaze),
        "prior": asdict(prior),
        "versions": versions(GAZE_LIBRARIES, models[0][1]),
    }
    threads = max(1, o.rows.workers // max(1, len(stimuli)))
    results: list[GazeResult] = []
    pooled: dict[str, Pooled] = {}
    times: dict[str, tuple[float, ...]] = {}

    def on_rows(label: str) -> Callable[[int], None]:
        return lambda done: report(f"{label} on {dataset.name}", done, len(stimuli))

    def add(result: GazeResult, rows: list[GazeRow]) -> None:
        columns = {m: np.array([row.mean(m) for row in rows]) for m in GAZE_MEASURES}
        pooled[result.model] = pool(Means(columns), o.draws, o.seed)
        shown = [_row_json(row, judge.videos) for row in rows]
        results.append(replace(result, estimates=estimates(pooled[result.model]), stimuli=shown))

    for label, session in models:
        model = session.model
        identity = {
            "model": model.sha256,
            "io": model.io.model_dump(),
            "size": o.size,
            "resample": o.resample,
        }
        rows = make_rows(
            GazeRow,
            common | identity,
            [(s.name, s) for s in stimuli],
            ScoreStimulus,
            (model, o.size, o.resample, judge, threads),
            o.rows,
            on_rows(label),
        )
        size = Counter(row.working_size for row in rows if row.working_size).most_common(1)[0][0]
        times = {row.name: tuple(f.time_ms for f in row.frames) for row in rows}
        facts = describe(session, size)
        add(GazeResult(label, dataset.name, dataset.digest, **facts), rows)
    times_digest = sha256_hex(json.dumps(times).encode())
    for baseline in BASELINES:
        rows = make_rows(
            GazeRow,
            common | {"baseline": baseline, "seed": o.seed, "times": times_digest},
            [(s.name, (s, times[s.name])) for s in stimuli],
            ScoreBaseline,
            (baseline, judge, o.seed),
            o.rows if baseline == "inter-observer" else replace(o.rows, workers=1),
            on_rows(baseline),
        )
        add(GazeResult(baseline, dataset.name, dataset.digest, baseline=True), rows)
    labels = [label for label, _ in models]
    pairs = [(a, b) for i, a in enumerate(labels) for b in labels[:i]]
    pairs += [(label, "centre prior") for label in labels]
    compared = [
        ModelComparison(dataset.name, a, b, differences(pooled[a], pooled[b])) for a, b in pairs
    ]
    return _facts(dataset, o.gaze, priors, rows), results, compared


def _row_json(row: GazeRow, videos: bool) -> dict[str, Any]:
    """Return the scores of an image or video as JSON values, for a video also those of each frame."""
    means = replace(row.frames[0], values={m: row.mean(m) for m in GAZE_MEASURES}).to_json()
    if not videos:
        return {"name": row.name} | {k: v for k, v in means.items() if k != "time_ms"}
    means = {k: v for k, v in means.items() if k not in ("time_ms", "fixations")}
    return {"name": row.name} | means | {"frames": [f.to_json() for f in row.frames]}


def _facts(
    dataset: FixationSet, options: GazeOptions, priors: list[FittedPrior], rows: list[GazeRow]
) -> GazeSet:
    """Return the properties of a set whose evaluated frames are in `rows`."""
    frames = [frame for row in rows for frame in row.frames]
    degree = options.pixels_per_degree
    blur = (
        f"{sigma_of(1, None):.0%} of the width, since the viewing distance is not known"
        if degree is None
        else f"one degree of visual angle, {degree:g} pixels of the stimuli"
    )
    temporal = options.temporal if dataset.kind == "videos" else None
    return GazeSet(
        dataset=dataset.name,
        digest=dataset.digest,
        kind=dataset.kind,
        stimuli=len(rows),
        viewers=len(dataset.viewers),
        fixations=sum(len(s.fixations) for s in dataset.stimuli),
        pictures=len(frames),
        empty=sum(frame.fixations == 0 for frame in frames),
        problems=dataset.problems,
        blur=blur,
        prior=combined(priors),
        prior_sets=tuple(priors),
        temporal=temporal,
        longest_side=options.longest_side,
        uniform_share=UNIFORM_SHARE,
        splits=options.splits,
        fold=options.fold if dataset.kind == "images" else None,
    )
