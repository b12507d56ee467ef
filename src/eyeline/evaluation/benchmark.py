"""Evaluate models on datasets with ground truth, with one result per model and dataset.

`rows` computes one row of scores per image in worker processes. This module computes results and
comparisons from the rows. `gaze` evaluates fixation sets.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eyeline.datasets.files import file_digest
from eyeline.datasets.fixations import FixationSet, is_fixation_set, load_fixation_set
from eyeline.datasets.pairs import Pair, check_sizes, find_pairs, read_mask
from eyeline.digests import sha256_hex
from eyeline.errors import DatasetError, MissingExtraError, UsageError
from eyeline.evaluation.gaze import EvaluateOptions, GazeOptions, evaluate_set, load_judged_set
from eyeline.evaluation.gaze_metrics import fit_prior
from eyeline.evaluation.metrics import Scores, import_engine
from eyeline.evaluation.results import EvaluationReport, GazeReport, MaskResult, VideoScore
from eyeline.evaluation.rows import (
    GAZE_LIBRARIES,
    MASK_LIBRARIES,
    ImageRow,
    ScorePair,
    jobs,
    make_rows,
    versions,
    video_of,
)
from eyeline.evaluation.statistics import (
    ModelComparison,
    Pooled,
    differences,
    estimates,
    pool,
)
from eyeline.inference import Session, prepare
from eyeline.registry.registry import Model

LATENCY_RUNS = 31
LATENCY_WARM_UP = 3


@dataclass(frozen=True)
class MaskDataset:
    """A dataset with masks: pairs of image and mask, sorted by name, and a SHA-256 of all content."""

    name: str
    pairs: list[Pair]
    digest: str


def load_dataset(path: Path) -> MaskDataset:
    """Read and check a dataset with masks, a folder, .tar or .zip (see `eyeline.datasets.pairs`).

    Raises:
        DatasetError: `find_pairs` or `check_sizes` fails; or no mask has foreground (for example, masks
            with values 0 and 1), or no mask has background.
    """
    pairs = find_pairs(path)
    check_sizes(pairs)
    # `any` and `all` stop at the first mask with foreground or background, so they read few masks.
    if not any(np.asarray(read_mask(p.mask)).any() for p in pairs):
        raise DatasetError(
            f"{path}: no mask has a pixel above 127",
            "multiply masks with values 0 and 1 by 255",
        )
    if all(np.asarray(read_mask(p.mask)).all() for p in pairs):
        raise DatasetError(
            f"{path}: every mask is all foreground", "check the masks; background must be 0"
        )
    parts = [f"{p.name} {p.digest} {file_digest(p.mask)}" for p in pairs]
    name = path.resolve().name if path.is_dir() else path.stem
    return MaskDataset(name, pairs, sha256_hex("\n".join(parts).encode()))


def count_parameters(model: Model) -> int:
    """Return the parameter count in a model's record, or else count the file's floating-point initializers.

    In a quantised file, integer weights and biases are counted, but their scales are not.

    Raises:
        MissingExtraError: onnx is not installed, and the model is not registered.
    """
    if model.record is not None:
        return model.record.parameters
    try:
        import onnx
    except ModuleNotFoundError as exc:
        raise MissingExtraError("onnx", "eval") from exc
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    graph = onnx.load_from_string(model.data).graph
    rounding = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {n.input[1] for n in rounding}
    stored = {n.input[0] for n in rounding}
    return sum(
        math.prod(t.dims)
        for t in graph.initializer
        if t.name in stored or (t.data_type in floats and t.name not in scales)
    )


def measure_latency(session: Session, width: int, height: int) -> float:
    """Return the median time in ms of one inference on one CPU thread, without decoding and scaling.

    `width` and `height` give the size of the input before padding.
    """
    planes = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    x, times = prepare(planes, session.model.io), []
    for _ in range(LATENCY_WARM_UP + LATENCY_RUNS):
        start = time.perf_counter()
        session.run(x)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[LATENCY_WARM_UP:])


def evaluate(
    models: Sequence[Model],
    datasets: Sequence[Path],
    options: EvaluateOptions | None = None,
    on_image: Callable[[str, int, int], None] = lambda label, done, total: None,
) -> EvaluationReport:
    """Evaluate models on datasets; no model should have been trained on any of these datasets.

    Args:
        models: the models to evaluate.
        datasets: paths of folders or archives with masks or with fixations.
        options: options of the evaluation.
        on_image: called with a label, the number of finished images and the total number.

    Raises:
        DatasetError: a dataset cannot be used.
        ModelError: a model cannot be used.
        MissingExtraError: PySODMetrics is not installed.
        OutputError: the rows cannot be stored.
        UsageError: a model or dataset is given twice, or an option has no effect.
    """
    o = options or EvaluateOptions()
    gaze_paths = [path for path in datasets if is_fixation_set(path)]
    mask_paths = [path for path in datasets if path not in gaze_paths]
    if not gaze_paths:
        _check_unused(o)
    if mask_paths:
        import_engine()
    sessions = [Session(m, "cpu") for m in models]  # fails if a model cannot be used
    labels = _labels(models)
    loaded = [load_dataset(path) for path in mask_paths]
    gaze_sets = [
        load_judged_set(path, o.gaze, partial(on_image, f"checking {path.name}"))
        for path in gaze_paths
    ]
    digests = [*(d.digest for d in loaded), *(s.digest for s in gaze_sets)]
    if len(set(digests)) < len(digests):
        raise UsageError("--data names a dataset twice", "give each dataset once")
    results: list[MaskResult] = []
    comparisons: list[ModelComparison] = []
    for dataset in loaded:
        pooled: list[tuple[str, Pooled]] = []
        for label, session in zip(labels, sessions, strict=True):

            def report(done: int, label: str = label, dataset: MaskDataset = dataset) -> None:
                on_image(f"{label} on {dataset.name}", done, len(dataset.pairs))

            rows = _run(session, dataset, o, report)
            scores = pool(Scores([row.score for row in rows]), o.draws, o.seed)
            results.append(_result(label, session, dataset, o, rows, scores))
            comparisons += [
                ModelComparison(dataset.name, label, other, differences(scores, before))
                for other, before in pooled
            ]
            pooled.append((label, scores))
    libraries = dict.fromkeys(
        (*(MASK_LIBRARIES if loaded else ()), *(GAZE_LIBRARIES if gaze_sets else ()))
    )
    about = {
        "versions": versions(libraries, sessions[0]),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "resample": o.resample,
        "bootstrap": {"draws": o.draws, "seed": o.seed, "level": 0.95},
    }
    gaze = _evaluate_gaze(list(zip(labels, sessions, strict=True)), gaze_sets, o, on_image)
    return EvaluationReport(results, comparisons, about, gaze)


def _check_unused(o: EvaluateOptions) -> None:
    """Check that no option of fixation sets is set, because all datasets have masks."""
    changed = [f.name for f in fields(GazeOptions) if getattr(o.gaze, f.name) != f.default]
    if o.prior is not None:
        changed.append("prior")
    if changed:
        raise UsageError(
            f"--{changed[0].replace('_', '-')} has no effect without a fixation set",
            "leave the option out, or add a fixation set with --data",
        )


def _evaluate_gaze(
    models: list[tuple[str, Session]],
    sets: list[FixationSet],
    o: EvaluateOptions,
    on_image: Callable[[str, int, int], None],
) -> GazeReport:
    report = GazeReport()
    own_priors = [fit_prior(load_fixation_set(p)) for p in o.prior or ()] if sets else []

    def describe(session: Session, size: tuple[int, int]) -> dict[str, Any]:
        return _model_facts(session, size, o)

    for dataset in sets:
        facts, results, comparisons = evaluate_set(
            dataset, models, describe, o, own_priors or None, on_image
        )
        report.sets.append(facts)
        report.results.extend(results)
        report.comparisons.extend(comparisons)
    return report


def _model_facts(
    session: Session, working_size: tuple[int, int], o: EvaluateOptions
) -> dict[str, Any]:
    """Return the model properties that results on masks and results on fixations both store."""
    size = o.size
    return {
        "model_sha256": session.model.sha256,
        "parameters": count_parameters(session.model),
        "smoke": session.model.smoke,
        "io": session.model.io.model_dump(),
        "size": "x".join(map(str, size)) if isinstance(size, tuple) else size or "model",
        "working_size": working_size,
        "latency_ms": measure_latency(session, *working_size),
    }


def _labels(models: Sequence[Model]) -> list[str]:
    """Return registry ids or file names as labels, with a digest added where names are equal."""
    if len({(m.sha256, m.io) for m in models}) < len(models):
        raise UsageError("--model names a model twice", "give each model once")
    short = [m.id if m.record else m.path.stem for m in models]
    return [
        s if short.count(s) == 1 else f"{s}@{m.sha256[:8]}"
        for s, m in zip(short, models, strict=True)
    ]


def _run(
    session: Session, dataset: MaskDataset, o: EvaluateOptions, report: Callable[[int], None]
) -> list[ImageRow]:
    model = session.model
    identity = {
        "model": model.sha256,
        "io": model.io.model_dump(),
        "dataset": dataset.digest,
        "size": o.size,
        "resample": o.resample,
        "versions": versions(MASK_LIBRARIES, session),
    }
    return make_rows(
        ImageRow,
        identity,
        [(job[0].name, job) for job in jobs(dataset.pairs)],
        ScorePair,
        (model, o.size, o.resample),
        o.rows,
        report,
    )


def _result(
    label: str,
    session: Session,
    dataset: MaskDataset,
    o: EvaluateOptions,
    rows: list[ImageRow],
    pooled: Pooled,
) -> MaskResult:
    # If two sizes are equally frequent, the earlier one is used, so results are reproducible.
    common = Counter(row.working_size for row in rows).most_common(1)[0][0]
    return MaskResult(
        model=label,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        estimates=estimates(pooled),
        empty_masks=[row.name for row in rows if row.foreground == 0],
        full_masks=[row.name for row in rows if row.foreground == 1],
        without_plcc=sum(not np.isfinite(row.score.values["plcc"]) for row in rows),
        videos=_videos(rows),
        images=[row.to_json() for row in rows],
        **_model_facts(session, common, o),
    )


def _videos(rows: list[ImageRow]) -> list[VideoScore]:
    """Score each video of a dataset; a video is a folder of images in the order of their names."""
    frames: dict[str, list[ImageRow]] = {}
    for row in rows:
        if video := video_of(row.name):
            frames.setdefault(video, []).append(row)
    return [_video_score(name, found) for name, found in frames.items()]


def _video_score(name: str, rows: list[ImageRow]) -> VideoScore:
    ious = [row.score.values["iou"] for row in rows]
    moves = [row.motion for row in rows if row.motion]
    return VideoScore(
        name=name,
        frames=len(rows),
        iou=float(np.mean(ious)),
        iou_std=float(np.std(ious)),
        iou_change=float(np.abs(np.diff(ious)).mean()) if len(ious) > 1 else None,
        flicker=float(np.mean([m.saliency for m in moves])) if moves else None,
        truth_flicker=float(np.mean([m.truth for m in moves])) if moves else None,
    )
