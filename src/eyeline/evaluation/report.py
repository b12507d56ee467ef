"""The results of an evaluation as Markdown and HTML tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from eyeline import tables
from eyeline.evaluation.results import EvaluationReport, GazeReport, GazeResult, GazeSet, MaskResult
from eyeline.evaluation.statistics import ModelComparison, difference_cells, estimate_cell
from eyeline.tables import Table

COLUMNS: Final[dict[str, str]] = {
    "max_fmeasure_dataset": "max F (dataset PR)",
    "max_fmeasure_mean": "max F (mean curve)",
    "mae": "MAE",
    "iou": "IoU",
    "smeasure": "S",
    "mean_emeasure": "mean E",
    "weighted_fmeasure": "weighted F",
    "plcc": "PLCC",
    "block_iou_16": "block IoU 16",
    "block_iou_64": "block IoU 64",
}
"""Measures of the tables and their heads; the JSON has all of `MEASURES`."""

VIDEO_COLUMNS: Final[dict[str, str]] = {
    "iou": "IoU",
    "iou_std": "its standard deviation",
    "iou_change": "its change a frame",
    "flicker": "flicker",
    "truth_flicker": "flicker of the masks",
}
"""Numbers of a `VideoScore` and their heads."""

GAZE_COLUMNS: Final[dict[str, str]] = {
    "nss": "NSS",
    "cc": "CC",
    "sim": "SIM",
    "kl": "KL",
    "auc_judd": "AUC-Judd",
    "shuffled_auc": "shuffled AUC",
    "information_gain": "IG, bits",
}
"""Measures of the tables of fixation sets and their heads."""


def markdown(report: EvaluationReport) -> str:
    """Return one table per dataset, one for its comparisons, and the notes they need."""
    lines = "".join(f"- {note}\n" for note in _all_notes(report))
    return f"{tables.markdown_tables(_tables(report))}\n{lines}"


def html_page(report: EvaluationReport) -> str:
    """Return the same tables and notes as one self-contained HTML page."""
    return tables.html_page("Evaluation", _tables(report), _all_notes(report))


def _tables(report: EvaluationReport) -> Iterator[Table]:
    for dataset in dict.fromkeys(r.dataset_digest for r in report.results):
        results = [r for r in report.results if r.dataset_digest == dataset]
        first = results[0]
        empty = f", {len(first.empty_masks)} with an empty mask" if first.empty_masks else ""
        title = f"{first.dataset}, {len(first.images)} images{empty}"
        yield _result_table(title, results, COLUMNS)
        compared = [c for c in report.comparisons if c.dataset == first.dataset]
        if compared:
            yield _difference_table(f"{first.dataset}, differences (p)", compared, COLUMNS)
        if first.videos:
            heads = ["model", "video", "frames", *VIDEO_COLUMNS.values()]
            rows = []
            for r in results:
                for v in r.videos:
                    values = (getattr(v, name) for name in VIDEO_COLUMNS)
                    cells = ("-" if x is None else f"{x:.4f}" for x in values)
                    rows.append([r.model, v.name, str(v.frames), *cells])
            yield Table(f"{first.dataset}, videos", heads, rows)
    yield from _gaze_tables(report.gaze)


def _gaze_tables(report: GazeReport) -> Iterator[Table]:
    for s in report.sets:
        results = [r for r in report.results if r.dataset_digest == s.digest]
        compared = [c for c in report.comparisons if c.dataset == s.dataset]
        yield _result_table(_title(s), results, GAZE_COLUMNS)
        yield _difference_table(f"{s.dataset}, differences", compared, GAZE_COLUMNS)
        if s.problems:
            yield Table(
                f"{s.dataset}, problems in the data",
                ["problem", "count", "first"],
                [[p.kind, str(p.count), "; ".join(p.examples)] for p in s.problems],
            )


def _title(s: GazeSet) -> str:
    frames = f", {s.pictures} judged frames" if s.kind == "videos" else ""
    fold = f", fold {s.fold!r} of training" if s.fold else ""
    empty = f" ({s.empty} without a fixation)" if s.empty else ""
    return (
        f"{s.dataset}{fold}: {s.stimuli} {s.kind}{frames}{empty}, "
        f"{s.fixations:,} fixations of {s.viewers} viewers"
    )


def _result_table(
    title: str, results: Iterable[MaskResult | GazeResult], columns: dict[str, str]
) -> Table:
    rows = [
        [
            f"{r.model} (smoke: numbers mean nothing)" if r.smoke else r.model,
            "-" if r.parameters is None else f"{r.parameters:,}",
            f"{r.working_size[0]}x{r.working_size[1]}" if r.working_size else "-",
            "-" if r.latency_ms is None else f"{r.latency_ms:.2f}",
            *(estimate_cell(r.estimates[name]) for name in columns),
        ]
        for r in results
    ]
    return Table(title, ["model", "parameters", "size", "ms", *columns.values()], rows)


def _difference_table(
    title: str, comparisons: Iterable[ModelComparison], columns: dict[str, str]
) -> Table:
    rows = [
        [f"{c.model} - {c.other}", *difference_cells(c.differences, columns)] for c in comparisons
    ]
    return Table(title, ["model less other", *columns.values()], rows)


def _all_notes(report: EvaluationReport) -> list[str]:
    made = ", ".join(f"{name} {version}" for name, version in report.about["versions"].items())
    results: list[MaskResult | GazeResult] = [*report.results, *report.gaze.results]
    models = dict.fromkeys(
        f"{r.model} sha256 {r.model_sha256[:16]}" for r in results if r.model_sha256
    )
    sets = dict.fromkeys(f"{r.dataset} digest {r.dataset_digest[:16]}" for r in results)
    source = f"Made with {made}. {'; '.join((*models, *sets))}."
    return [*report.notes(), *report.gaze.notes(), source]
