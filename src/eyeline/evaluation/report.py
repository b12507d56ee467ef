"""What an evaluation found, as JSON for programs and as Markdown and HTML tables for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from eyeline.evaluation.gaze_report import GazeReport, GazeResult, gaze_notes, gaze_tables
from eyeline.evaluation.metrics import LOWER_IS_BETTER, MEASURES
from eyeline.evaluation.statistics import Comparison, Estimate, difference_cells, estimate_cell
from eyeline.tables import Table, markdown_tables
from eyeline.tables import html_page as html_tables

SCHEMA_VERSION = 1
WORST = 12  # images listed as failures, by IoU

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
"""Numbers of a video and their heads; see `VideoScore`."""

NOTES: Final = (
    "Brackets hold 95 % bootstrap intervals over images. Frames of one video resemble each other: "
    "their intervals are too narrow.",
    "PySODMetrics min-max-normalises every map before F, E, S and MAE; IoU, PLCC and block IoU "
    "take the map as the model gives it, at 0.5.",
    "max F (dataset PR) is the maximum of F of the dataset-mean precision and recall, as papers of "
    "the U-2-Net line report; max F (mean curve) is the maximum of the mean of the images' F "
    "curves, as PySODMetrics does. They differ by a few hundredths: compare like with like.",
    "Images with an empty mask stay in every mean, with F and weighted F of 0, and an IoU of 1 where "
    "the map is empty too. PLCC leaves out images whose map or mask is constant.",
    "Parameters are those of the registry; of an unregistered file, the elements of its floating "
    "point initializers, with BatchNorm folded into them.",
    "Images are scaled to the size shown by {resample}; the model's I/O spec says the rest.",
    "ms is the median of one inference on one CPU thread at the size shown, without decoding and "
    "scaling; it depends on the machine and its load.",
)


RESAMPLE: Final[dict[str, str]] = {
    "area": "area, as video is",
    "bilinear": "plain bilinear interpolation, as papers of the U-2-Net line do",
}
"""How images shrink to the working size."""


@dataclass(frozen=True)
class VideoScore:
    """One video of a dataset: a folder of frames.

    Attributes:
        name: of the folder.
        frames: how many.
        iou: mean over frames.
        iou_std: standard deviation over frames.
        iou_change: mean absolute difference between successive frames' IoU: 0 is steady. None
            for a single frame.
        flicker: mean absolute difference of successive maps, 0..1; None for a single frame.
        truth_flicker: the same of the masks: a steady map has about as much.
    """

    name: str
    frames: int
    iou: float
    iou_std: float
    iou_change: float | None
    flicker: float | None
    truth_flicker: float | None


@dataclass(frozen=True)
class Result:
    """One model on one dataset.

    Attributes:
        model: its label: registry id, or file name.
        model_sha256: digest of its bytes.
        parameters: of its record, or of its floating point initializers.
        smoke: its numbers mean nothing.
        io: its I/O spec.
        dataset: name.
        dataset_digest: sha256 over names, images and masks.
        size: as asked for: lines, `WxH`, `native`, or `model` for what its I/O spec says.
        working_size: (width, height) that most images had, before padding.
        latency_ms: one-thread median at `working_size`.
        estimates: each of `MEASURES` with its interval.
        empty_masks: names of images without foreground.
        full_masks: names of images that are all foreground.
        without_plcc: images that have none.
        videos: where the dataset has folders of frames.
        images: each image's scalars.
    """

    model: str
    model_sha256: str
    parameters: int
    smoke: bool
    io: dict[str, Any]
    dataset: str
    dataset_digest: str
    size: int | str
    working_size: tuple[int, int]
    latency_ms: float
    estimates: dict[str, Estimate]
    empty_masks: list[str]
    full_masks: list[str]
    without_plcc: int
    videos: list[VideoScore]
    images: list[dict[str, Any]]

    @property
    def worst(self) -> list[str]:
        """Names of the images of the lowest IoU, worst first."""
        ranked = sorted(self.images, key=lambda row: (row["iou"], row["name"]))
        return [row["name"] for row in ranked[:WORST]]


@dataclass(frozen=True)
class Report:
    """Everything that an evaluation found.

    Attributes:
        results: datasets in turn, models within.
        comparisons: every two models, on every dataset; p-values are not corrected for their number.
        about: versions, machine, bootstrap.
        gaze: what was found on fixation sets.
    """

    results: list[Result]
    comparisons: list[Comparison]
    about: dict[str, Any]
    gaze: GazeReport = field(default_factory=GazeReport)

    def to_json(self) -> dict[str, Any]:
        """JSON values; None for a number that there is none of."""
        results = [asdict(r) | {"worst": r.worst} for r in self.results]
        fields = {
            "schema_version": SCHEMA_VERSION,
            "about": self.about,
            "measures": MEASURES,
            "lower_is_better": sorted(LOWER_IS_BETTER),
            "notes": notes(self),
            "results": results,
            "comparisons": [asdict(c) for c in self.comparisons],
        }
        if self.gaze.sets:
            fields["gaze"] = self.gaze.to_json()
        cleaned: dict[str, Any] = _finite(fields)
        return cleaned

    def dumps(self) -> str:
        """JSON text."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"

    def summary(self) -> str:
        """JSON text without the images' rows: small enough to stand beside a model card."""
        fields = self.to_json()
        for result in fields["results"]:
            result["image_count"] = len(result.pop("images"))
        for result in fields.get("gaze", {}).get("results", ()):
            result["stimulus_count"] = len(result.pop("stimuli"))
        return json.dumps(fields, indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tables(report: Report) -> Iterator[Table]:
    for dataset in dict.fromkeys(r.dataset_digest for r in report.results):
        results = [r for r in report.results if r.dataset_digest == dataset]
        first = results[0]
        empty = f", {len(first.empty_masks)} with an empty mask" if first.empty_masks else ""
        yield Table(
            f"{first.dataset}, {len(first.images)} images{empty}",
            ["model", "parameters", "size", "ms", *COLUMNS.values()],
            [_result_cells(r) for r in results],
        )
        compared = [c for c in report.comparisons if c.dataset == first.dataset]
        if compared:
            yield Table(
                f"{first.dataset}, differences (p)",
                ["model less other", *COLUMNS.values()],
                [
                    [f"{c.model} - {c.other}", *difference_cells(c.differences, COLUMNS)]
                    for c in compared
                ],
            )
        if first.videos:
            yield Table(
                f"{first.dataset}, videos",
                ["model", "video", "frames", *VIDEO_COLUMNS.values()],
                [
                    [r.model, v.name, str(v.frames), *_video_cells(v)]
                    for r in results
                    for v in r.videos
                ],
            )
    yield from gaze_tables(report.gaze)


def _video_cells(video: VideoScore) -> list[str]:
    values = (getattr(video, name) for name in VIDEO_COLUMNS)
    return ["-" if v is None else f"{v:.4f}" for v in values]


def _result_cells(r: Result) -> list[str]:
    return [
        f"{r.model} (smoke: numbers mean nothing)" if r.smoke else r.model,
        f"{r.parameters:,}",
        f"{r.working_size[0]}x{r.working_size[1]}",
        f"{r.latency_ms:.2f}",
        *(estimate_cell(r.estimates[name]) for name in COLUMNS),
    ]


def markdown(report: Report) -> str:
    """Tables for a document: one a dataset, one for its comparisons, and the notes they need."""
    lines = "".join(f"- {note}\n" for note in _all_notes(report))
    return f"{markdown_tables(_tables(report))}\n{lines}"


def html_page(report: Report) -> str:
    """The same tables as one page that needs nothing else."""
    return html_tables("Evaluation", _tables(report), _all_notes(report))


def _all_notes(report: Report) -> list[str]:
    return [*notes(report), *gaze_notes(report.gaze), _made_with(report)]


def notes(report: Report) -> list[str]:
    """What a reader of the tables must know."""
    if not report.results:
        return []
    return [n.replace("{resample}", RESAMPLE[report.about["resample"]]) for n in NOTES]


def _made_with(report: Report) -> str:
    made = ", ".join(f"{name} {version}" for name, version in report.about["versions"].items())
    results: list[Result | GazeResult] = [*report.results, *report.gaze.results]
    models = dict.fromkeys(
        f"{r.model} sha256 {r.model_sha256[:16]}" for r in results if r.model_sha256
    )
    sets = dict.fromkeys(f"{r.dataset} digest {r.dataset_digest[:16]}" for r in results)
    return f"Made with {made}. {'; '.join((*models, *sets))}."
