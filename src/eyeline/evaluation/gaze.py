"""Evaluate models and three baselines on a fixation set, with one row per image or video.

The baselines are in every table: a uniform map, the centre prior fitted on other sets, and the density
of half of the viewers as a map for the other half. A model is useful if it is better than the centre
prior. The last baseline says how well viewers predict each other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from eyeline.datasets.density import sigma_of
from eyeline.datasets.fixations import FixationSet
from eyeline.digest import sha256_hex
from eyeline.evaluation.centre_prior import FittedPrior, combined, priors_for
from eyeline.evaluation.gaze_metrics import GAZE_MEASURES, UNIFORM_SHARE
from eyeline.evaluation.gaze_report import GazeResult, GazeSet
from eyeline.evaluation.gaze_scoring import (
    Baseline,
    GazeJudge,
    GazeOptions,
    GazeRow,
    ScoreBaseline,
    ScoreStimulus,
)
from eyeline.evaluation.rows import RowOptions, make_rows
from eyeline.evaluation.scoring import Resample, Size
from eyeline.evaluation.statistics import (
    Comparison,
    Means,
    Pooled,
    differences,
    estimates,
    pool,
)
from eyeline.saliency.session import Session

ROW_SCHEMA = 1  # rises with any change to what a row holds or how it is computed

BASELINES: tuple[Baseline, ...] = ("uniform", "centre prior", "inter-observer")


@dataclass(frozen=True)
class GazeRun:
    """Options that are the same for all models and fixation sets.

    Attributes:
        options: how maps are judged.
        size: see `Size`.
        resample: see `Resample`.
        priors: fits of the user's own sets; None for those that come with the package.
        rows: where rows are kept, and how many processes make them.
        draws: number of draws of the bootstrap.
        seed: seed of the bootstrap and of the halvings of viewers.
        versions: versions of the libraries that rows depend on.
    """

    options: GazeOptions
    size: Size
    resample: Resample
    priors: Sequence[FittedPrior] | None
    rows: RowOptions
    draws: int
    seed: int
    versions: dict[str, str]


def evaluate_set(
    dataset: FixationSet,
    models: Sequence[tuple[str, Session]],
    describe: Callable[[Session, tuple[int, int]], dict[str, Any]],
    run: GazeRun,
    report: Callable[[str, int, int], None],
) -> tuple[GazeSet, list[GazeResult], list[Comparison]]:
    """Evaluate models and baselines on one fixation set.

    Args:
        dataset: the set.
        models: label and session of each.
        describe: parameters and latency of a model at a working size.
        run: options of the evaluation.
        report: called with what is running, stimuli done, and stimuli in all.

    Returns:
        Facts of the set; models in their order, then the baselines; every two models compared, and
        each model with the centre prior.
    """
    stimuli = [s for s in dataset.stimuli if len(s.fixations)]
    priors = priors_for(dataset, run.priors)
    prior = combined(priors)
    judge = GazeJudge(dataset, prior, run.options)
    common = {
        "gaze_schema": ROW_SCHEMA,
        "dataset": dataset.digest,
        "options": asdict(run.options),
        "prior": asdict(prior),
        "versions": run.versions,
    }
    threads = max(1, run.rows.workers // max(1, len(stimuli)))
    results: list[GazeResult] = []
    pooled: dict[str, Pooled] = {}
    times: dict[str, tuple[float, ...]] = {}

    def told(label: str) -> Callable[[int], None]:
        return lambda done: report(f"{label} on {dataset.name}", done, len(stimuli))

    def add(result: GazeResult, rows: list[GazeRow]) -> None:
        columns = {m: np.array([row.mean(m) for row in rows]) for m in GAZE_MEASURES}
        pooled[result.model] = pool(Means(columns), run.draws, run.seed)
        shown = [_row_json(row, judge.videos) for row in rows]
        results.append(replace(result, estimates=estimates(pooled[result.model]), stimuli=shown))

    for label, session in models:
        model = session.model
        identity = {
            "model": model.sha256,
            "io": model.io.model_dump(),
            "size": run.size,
            "resample": run.resample,
        }
        rows = make_rows(
            GazeRow,
            common | identity,
            [(s.name, s) for s in stimuli],
            ScoreStimulus,
            (model, run.size, run.resample, judge, threads),
            run.rows,
            told(label),
        )
        size = Counter(row.working_size for row in rows if row.working_size).most_common(1)[0][0]
        times = {row.name: tuple(f.time_ms for f in row.frames) for row in rows}
        facts = describe(session, size)
        add(GazeResult(label, dataset.name, dataset.digest, working_size=size, **facts), rows)
    shown_at = sha256_hex(json.dumps(times).encode())
    for baseline in BASELINES:
        rows = make_rows(
            GazeRow,
            common | {"baseline": baseline, "seed": run.seed, "times": shown_at},
            [(s.name, (s, times[s.name])) for s in stimuli],
            ScoreBaseline,
            (baseline, judge, run.seed),
            run.rows if baseline == "inter-observer" else replace(run.rows, workers=1),
            told(baseline),
        )
        add(GazeResult(baseline, dataset.name, dataset.digest, baseline=True), rows)
    labels = [label for label, _ in models]
    pairs = [(a, b) for i, a in enumerate(labels) for b in labels[:i]]
    pairs += [(label, "centre prior") for label in labels]
    compared = [Comparison(dataset.name, a, b, differences(pooled[a], pooled[b])) for a, b in pairs]
    return _facts(dataset, run, priors, rows), results, compared


def _row_json(row: GazeRow, videos: bool) -> dict[str, Any]:
    """Return the numbers of an image or video, and for a video those of each judged frame."""
    means = replace(row.frames[0], values={m: row.mean(m) for m in GAZE_MEASURES}).to_json()
    if not videos:
        return {"name": row.name} | {k: v for k, v in means.items() if k != "time_ms"}
    means = {k: v for k, v in means.items() if k not in ("time_ms", "fixations")}
    return {"name": row.name} | means | {"frames": [f.to_json() for f in row.frames]}


def _facts(
    dataset: FixationSet, run: GazeRun, priors: list[FittedPrior], rows: list[GazeRow]
) -> GazeSet:
    """Return the facts of a set whose judged frames are those of `rows`."""
    frames = [frame for row in rows for frame in row.frames]
    degree = run.options.pixels_per_degree
    blur = (
        f"{sigma_of(1, None):.0%} of the width, since the viewing distance is not known"
        if degree is None
        else f"one degree of visual angle, {degree:g} pixels of the stimuli"
    )
    temporal = run.options.temporal if dataset.kind == "videos" else None
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
        longest_side=run.options.longest_side,
        uniform_share=UNIFORM_SHARE,
        splits=run.options.splits,
        fold=run.options.fold if dataset.kind == "images" else None,
    )
