"""Models over datasets with ground truth: every image to a row, every dataset to a result.

`scoring` makes a row of an image, in worker processes; here rows become results and comparisons.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

import eyeline
from eyeline.datasets.files import file_digest
from eyeline.datasets.pairs import Pair, check_sizes, find_pairs, read_mask
from eyeline.digest import sha256_hex
from eyeline.errors import DatasetError, MissingExtraError, UsageError
from eyeline.evaluation.metrics import Scores, import_engine
from eyeline.evaluation.report import Comparison, Report, Result, VideoScore
from eyeline.evaluation.rows import Row, row_store
from eyeline.evaluation.scoring import Resample, ScorePair, Size, jobs, video_of
from eyeline.evaluation.statistics import DRAWS, SEED, Pooled, differences, estimates, pool
from eyeline.evaluation.workers import run_in_processes
from eyeline.models.registry import Model
from eyeline.saliency.preprocess import prepare
from eyeline.saliency.session import Session

LATENCY_RUNS = 31
LATENCY_WARM_UP = 3


@dataclass(frozen=True)
class Dataset:
    """A dataset that was checked.

    Attributes:
        name: of its folder or archive.
        pairs: sorted by name.
        digest: sha256 hex digest over names, images and masks.
    """

    name: str
    pairs: list[Pair]
    digest: str


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate.

    Attributes:
        size: see `Size`.
        resample: see `Resample`.
        workers: processes; 1 stays in this one, 0 is one per core. They start anew, so a script
            that asks for them needs its `if __name__ == "__main__":`.
        resume: folder for finished rows, see `eyeline.evaluation.rows`.
        draws: of the bootstrap.
        seed: of the bootstrap.
    """

    size: Size = None
    resample: Resample = "area"
    workers: int = 1
    resume: Path | None = None
    draws: int = DRAWS
    seed: int = SEED


def load_dataset(path: Path) -> Dataset:
    """Find and check a dataset before a model runs on it.

    Args:
        path: folder, .tar or .zip, see `eyeline.datasets.pairs`.

    Raises:
        DatasetError: see `find_pairs` and `check_sizes`; or the masks have one class only: no
            pixel of foreground, as when they hold 0 and 1, or none of background.
    """
    pairs = find_pairs(path)
    check_sizes(pairs)
    # Both stop at the first mask that will do: nearly always the first.
    if not any(np.asarray(read_mask(p.mask)).any() for p in pairs):
        raise DatasetError(
            f"{path}: no mask has a pixel above 127", "masks are 0 and 255; is it 0 and 1 here?"
        )
    if all(np.asarray(read_mask(p.mask)).all() for p in pairs):
        raise DatasetError(
            f"{path}: every mask is all foreground", "are these masks? 0 is background"
        )
    parts = [f"{p.name} {p.digest} {file_digest(p.mask)}" for p in pairs]
    name = path.resolve().name if path.is_dir() else path.stem
    return Dataset(name, pairs, sha256_hex("\n".join(parts).encode()))


def count_parameters(model: Model) -> int:
    """Parameters of a model's record, or the elements of a file's floating point initializers.

    Of a quantised file, the integers that become weights and biases, not their scales.

    Raises:
        MissingExtraError: an unregistered model, and onnx is not installed.
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
    """Median time of one inference on one thread, milliseconds, without decoding and scaling.

    Args:
        session: on the CPU.
        width: columns before padding.
        height: rows before padding.
    """
    planes = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    x, times = prepare(planes, session.model.io), []
    for _ in range(LATENCY_WARM_UP + LATENCY_RUNS):
        start = time.perf_counter()
        session.run(x)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[LATENCY_WARM_UP:])


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {
        "eyeline": eyeline.__version__,
        **{n: metadata.version(n) for n in ("pysodmetrics", "numpy", "scipy", "pillow")},
    }


def evaluate(
    models: Sequence[Model],
    datasets: Sequence[Path],
    options: EvaluateOptions | None = None,
    on_image: Callable[[str, int, int], None] = lambda label, done, total: None,
) -> Report:
    """Evaluate models on datasets that none of them was trained on.

    Args:
        models: what to run.
        datasets: folders or archives.
        options: how.
        on_image: called with what is running, images done, and images in all.

    Returns:
        Results and comparisons; `Report.to_json` has everything.

    Raises:
        DatasetError: data that can't be used.
        ModelError: a model that can't be used.
        MissingExtraError: PySODMetrics is not installed.
        OutputError: rows that can't be kept.
        UsageError: the same model or dataset twice.
    """
    o = options or EvaluateOptions()
    import_engine()
    sessions = [Session(m, "cpu") for m in models]  # refuses what can't be used, first of all
    loaded = [load_dataset(path) for path in datasets]
    labels = _labels(models)
    if len({d.digest for d in loaded}) < len(loaded):
        raise UsageError("a dataset is named twice", "name each once")
    results: list[Result] = []
    comparisons: list[Comparison] = []
    for dataset in loaded:
        pooled: list[tuple[str, Pooled]] = []
        for label, session in zip(labels, sessions, strict=True):

            def report(done: int, label: str = label, dataset: Dataset = dataset) -> None:
                on_image(f"{label} on {dataset.name}", done, len(dataset.pairs))

            rows = _run(session, dataset, o, report)
            scores = pool(Scores([row.score for row in rows]), o.draws, o.seed)
            results.append(_result(label, session, dataset, o.size, rows, scores))
            comparisons += [
                Comparison(dataset.name, label, other, differences(scores, before))
                for other, before in pooled
            ]
            pooled.append((label, scores))
    about = {
        "versions": versions() | {"onnxruntime": sessions[0].runtime_version},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "resample": o.resample,
        "bootstrap": {"draws": o.draws, "seed": o.seed, "level": 0.95},
    }
    return Report(results, comparisons, about)


def _labels(models: Sequence[Model]) -> list[str]:
    """Registry ids, and file names of models that have none; made unique by their digest."""
    if len({(m.sha256, m.io) for m in models}) < len(models):
        raise UsageError("a model is named twice", "name each once")
    short = [m.id if m.record else m.path.stem for m in models]
    return [
        s if short.count(s) == 1 else f"{s}@{m.sha256[:8]}"
        for s, m in zip(short, models, strict=True)
    ]


def _run(
    session: Session, dataset: Dataset, o: EvaluateOptions, report: Callable[[int], None]
) -> list[Row]:
    """The rows of a dataset, in the order of its pairs."""
    model = session.model
    identity = {
        "model": model.sha256,
        "io": model.io.model_dump(),
        "dataset": dataset.digest,
        "size": o.size,
        "resample": o.resample,
        "versions": versions() | {"onnxruntime": session.runtime_version},
    }
    workers = o.workers or os.cpu_count() or 1
    with row_store(o.resume, identity) as (rows, keep):
        todo = [job for job in jobs(dataset.pairs) if job[0].name not in rows]
        report(len(rows))
        made: Iterator[Row]
        if workers == 1 or len(todo) < 2:
            made = map(ScorePair(model, o.size, o.resample), todo)
        else:
            made = run_in_processes(ScorePair, (model, o.size, o.resample), todo, workers)
        for row in made:
            keep(row)
            rows[row.name] = row
            report(len(rows))
    return [rows[p.name] for p in dataset.pairs]


def _result(
    label: str, session: Session, dataset: Dataset, size: Size, rows: list[Row], pooled: Pooled
) -> Result:
    model = session.model
    # The size that most images have: the first of the most frequent, so that it is repeatable.
    common = Counter(row.working_size for row in rows).most_common(1)[0][0]
    return Result(
        model=label,
        model_sha256=model.sha256,
        parameters=count_parameters(model),
        smoke=model.smoke,
        io=model.io.model_dump(),
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        size="x".join(map(str, size)) if isinstance(size, tuple) else size or "model",
        working_size=common,
        latency_ms=measure_latency(session, *common),
        estimates=estimates(pooled),
        empty_masks=[row.name for row in rows if row.foreground == 0],
        full_masks=[row.name for row in rows if row.foreground == 1],
        without_plcc=sum(not np.isfinite(row.score.values["plcc"]) for row in rows),
        videos=_videos(rows),
        images=[row.to_json() for row in rows],
    )


def _videos(rows: list[Row]) -> list[VideoScore]:
    """The videos of a dataset: images in folders of their own, in the order of their names."""
    frames: dict[str, list[Row]] = {}
    for row in rows:
        if video := video_of(row.name):
            frames.setdefault(video, []).append(row)
    return [_video_score(name, found) for name, found in frames.items()]


def _video_score(name: str, rows: list[Row]) -> VideoScore:
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
