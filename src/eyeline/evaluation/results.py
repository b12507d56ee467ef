"""The results of an evaluation as dataclasses, and functions that write and read them as JSON.

`evaluate` returns an `EvaluationReport`, whose `dumps` and `summary` return JSON. `read_evaluation` reads
the fields of this JSON that other packages need.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eyeline.datasets.fixations import CentreGaussian, FixationProblem, Fold, Kind
from eyeline.digests import sha256_hex
from eyeline.errors import RegistryError
from eyeline.evaluation.gaze_metrics import GAZE_LOWER_IS_BETTER, GAZE_MEASURES, FittedPrior
from eyeline.evaluation.metrics import LOWER_IS_BETTER, MEASURES
from eyeline.evaluation.statistics import Estimate, ModelComparison
from eyeline.files import read_regular_file
from eyeline.registry.records import Digest, Task

SCHEMA_VERSION = 1
WORST = 12  # number of images or frames listed as the worst

MAX_BYTES = 256 * 1024 * 1024
"""Size limit of an evaluation's JSON in bytes; it may hold the scores of many thousand images."""

NOTES: Final = (
    "Brackets hold 95 % bootstrap intervals over images. Frames of one video resemble each other, so "
    "their intervals are too narrow.",
    "PySODMetrics stretches every map to [0, 1] before it computes F, E, S and MAE. IoU, PLCC and "
    "block IoU use the map as the model gives it; the threshold of IoU and block IoU is 0.5.",
    "max F (dataset PR) is the maximum of F of the dataset's mean precision and recall, as in papers "
    "of the U-2-Net line. max F (mean curve) is the maximum of the mean of the images' F curves, as "
    "in PySODMetrics. The two differ by a few hundredths, so compare only values of one kind.",
    "Images with an empty mask count in every mean. Their F and weighted F are 0, and their IoU is 1 "
    "if the map is empty, too. PLCC leaves out images whose map or mask is constant.",
    "The number of parameters comes from the registry. For an unregistered file it is the number of "
    "elements of its floating-point initializers, with BatchNorm folded into them.",
    "Images are scaled to the size shown by {resample}. The model's I/O spec defines the rest of the "
    "preprocessing.",
    "ms is the median time of one inference on one CPU thread at the size shown, without decoding "
    "and scaling. It depends on the machine and its load.",
)

RESAMPLE: Final[dict[str, str]] = {
    "area": "area averaging, as frames of a video are",
    "bilinear": "plain bilinear interpolation, as in papers of the U-2-Net line",
}
"""Descriptions of `EvaluateOptions.resample` for `NOTES`."""


@dataclass(frozen=True)
class VideoScore:
    """The scores of one video (a folder of frames) of a dataset with masks.

    Attributes:
        iou, iou_std: mean and standard deviation of the IoU over frames.
        iou_change: mean absolute difference of the IoU of successive frames; None for a single frame.
        flicker: mean absolute difference of successive maps, 0 to 1; None for a single frame.
        truth_flicker: `flicker` of the masks; a stable map has a similar value.
    """

    name: str
    frames: int
    iou: float
    iou_std: float
    iou_change: float | None
    flicker: float | None
    truth_flicker: float | None


@dataclass(frozen=True)
class MaskResult:
    """The result of one model on one dataset with masks.

    Attributes:
        model: registry id or file name.
        parameters: number of parameters, from `count_parameters`.
        smoke: whether the model is a smoke-test model, whose scores have no meaning.
        dataset_digest: SHA-256 of all names, images and masks.
        size: the size option: lines of the short side, `WxH`, `native`, or `model` for the size in the
            model's I/O spec.
        working_size: most frequent (width, height) of the model's input, before padding.
        latency_ms: median inference time at `working_size` on one thread.
        estimates: each of `MEASURES` with its confidence interval.
        empty_masks, full_masks: names of images without foreground and without background.
        without_plcc: number of images for which PLCC has no value.
        images: the scalar measures of each image.
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
        """Names of the images with the lowest IoU, worst first."""
        ranked = sorted(self.images, key=lambda row: (row["iou"], row["name"]))
        return [row["name"] for row in ranked[:WORST]]


@dataclass(frozen=True)
class GazeResult:
    """The result of one model or baseline on one fixation set.

    Attributes:
        model: registry id, file name, or name of the baseline.
        baseline: whether this is the result of a baseline.
        model_sha256, parameters, smoke, io, size, working_size, latency_ms: see `MaskResult`; a baseline
            has the default values.
        estimates: each of `GAZE_MEASURES` with its confidence interval.
        stimuli: the scores of each image or video, and of each evaluated frame of a video.
    """

    model: str
    dataset: str
    dataset_digest: str
    baseline: bool = False
    model_sha256: str | None = None
    parameters: int | None = None
    smoke: bool = False
    io: dict[str, Any] | None = None
    size: int | str | None = None
    working_size: tuple[int, int] | None = None
    latency_ms: float | None = None
    estimates: dict[str, Estimate] = field(default_factory=dict)
    stimuli: list[dict[str, Any]] = field(default_factory=list)

    @property
    def worst(self) -> list[tuple[float, str, float]]:
        """NSS, name and time in ms of the images or frames with the lowest NSS, worst first.

        The number of frames per video is limited, so that one bad scene does not fill the list.
        """
        each = max(1, -(-WORST // max(1, len(self.stimuli))))
        ranked = []
        for row in self.stimuli:
            frames = row.get("frames") or [row | {"time_ms": 0.0}]
            known = [(f["nss"], row["name"], f["time_ms"]) for f in frames if f["nss"] is not None]
            ranked += sorted(known)[:each]
        return sorted(ranked)[:WORST]


@dataclass(frozen=True)
class GazeSet:
    """Properties of a fixation set, and how maps were evaluated on it.

    Attributes:
        stimuli: number of evaluated images or videos.
        fixations: number of valid fixations in these stimuli.
        pictures: number of evaluated images or frames.
        empty: number of evaluated frames without an active fixation; they have no score.
        blur: text that states the standard deviation of the Gaussians in the recorded density.
        prior, prior_sets: the centre prior, and the priors of the sets on which it was fitted.
        temporal: option for the temporal filter of videos (`model` = the filter in each model's
            record); None for images.
        longest_side: longest side of the maps at evaluation, in pixels.
        uniform_share: share of the uniform density in the density of a map.
        splits: number of random splits of the viewers into halves.
        fold: training fold of the images; None if the whole set was evaluated.
    """

    dataset: str
    digest: str
    kind: Kind
    stimuli: int
    viewers: int
    fixations: int
    pictures: int
    empty: int
    problems: tuple[FixationProblem, ...]
    blur: str
    prior: CentreGaussian
    prior_sets: tuple[FittedPrior, ...]
    temporal: str | None
    longest_side: int
    uniform_share: float
    splits: int
    fold: Fold | None = None


@dataclass(frozen=True)
class GazeReport:
    """All results on fixation sets.

    Attributes:
        sets: properties of each set.
        results: results of the models, then of the baselines, on each set.
        comparisons: comparisons of each pair of models, and of each model with the centre prior, on
            each set.
    """

    sets: list[GazeSet] = field(default_factory=list)
    results: list[GazeResult] = field(default_factory=list)
    comparisons: list[ModelComparison] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return notes that explain the tables of fixation sets."""
        if not self.sets:
            return []
        first = self.sets[0]
        notes = [
            "Brackets hold 95 % bootstrap intervals over images, or over whole videos, because the "
            "frames of one video are not independent. The score of a video is the mean over its "
            "judged frames.",
            "NSS, CC, SIM, AUC and information gain (IG) rise with quality; KL falls. A uniform map has "
            "an NSS and a CC of 0, and AUCs of 0.5. IG is in bits per fixation above the centre prior, "
            "KL in nats.",
            "inter-observer: the density of half of the viewers is judged as a map for the other half, "
            f"in both directions. The score is the mean over {first.splits} random splits.",
            f"Maps are judged at a longest side of {first.longest_side} pixels. For SIM, KL and IG a "
            f"map is divided by its sum and mixed with {first.uniform_share:.0%} of the uniform "
            "density.",
        ]
        for s in self.sets:
            fitted = ", ".join(p.name for p in s.prior_sets)
            p = s.prior
            notes.append(
                f"{s.dataset}: the recorded density is blurred by a Gaussian with a standard deviation "
                f"of {s.blur}. The centre prior was fitted on {fitted}: mean ({p.x:.3f}, {p.y:.3f}), "
                f"standard deviation ({p.std_x:.3f}, {p.std_y:.3f}) of width and height."
            )
            if s.temporal:
                own = "each model's own temporal filter"
                used = own if s.temporal == "model" else f"the temporal filter {s.temporal}"
                notes.append(f"{s.dataset}: models ran on whole videos, with {used}.")
        return notes


@dataclass(frozen=True)
class EvaluationReport:
    """All results of an evaluation.

    Attributes:
        results: results of all models on each dataset with masks.
        comparisons: comparisons of each pair of models on each dataset; the p-values are not corrected
            for multiple comparisons.
        about: versions, machine and bootstrap settings.
        gaze: results on fixation sets.
    """

    results: list[MaskResult]
    comparisons: list[ModelComparison]
    about: dict[str, Any]
    gaze: GazeReport = field(default_factory=GazeReport)

    def notes(self) -> list[str]:
        """Return notes that explain the tables of datasets with masks."""
        if not self.results:
            return []
        return [n.replace("{resample}", RESAMPLE[self.about["resample"]]) for n in NOTES]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, with None in place of NaN."""
        fields = {
            "schema_version": SCHEMA_VERSION,
            "about": self.about,
            "measures": MEASURES,
            "lower_is_better": sorted(LOWER_IS_BETTER),
            "notes": self.notes(),
            "results": [asdict(r) | {"worst": r.worst} for r in self.results],
            "comparisons": [asdict(c) for c in self.comparisons],
        }
        if self.gaze.sets:
            fields["gaze"] = {
                "measures": GAZE_MEASURES,
                "lower_is_better": sorted(GAZE_LOWER_IS_BETTER),
                "notes": self.gaze.notes(),
                **asdict(self.gaze),
            }
        finite: dict[str, Any] = _finite(fields)
        return finite

    def dumps(self) -> str:
        """Return JSON text."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"

    def summary(self) -> str:
        """Return JSON text without the scores of each image, small enough to publish with a model card."""
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


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class EvaluationRow(_Part):
    """A result of one model or baseline, read from JSON; a baseline has no digest, size or latency."""

    model: str
    baseline: bool = False
    model_sha256: Digest | None
    parameters: int | None
    smoke: bool
    io: dict[str, Any] | None
    dataset: str
    dataset_digest: Digest
    size: int | str | None
    working_size: tuple[int, int] | None
    latency_ms: float | None = Field(gt=0, allow_inf_nan=False)
    estimates: dict[str, Estimate]
    image_count: int | None = None  # None for fixation sets

    @model_validator(mode="before")
    @classmethod
    def _count_images(cls, fields: Any) -> Any:
        """Set `image_count` if the file lists all images; a summary file already has this field."""
        if isinstance(fields, dict) and isinstance(fields.get("images"), list):
            return fields | {"image_count": len(fields["images"])}
        return fields


class EvaluationTables(_Part):
    """All results on datasets with masks, or all results on fixation sets, read from JSON."""

    lower_is_better: tuple[str, ...]
    notes: tuple[str, ...]
    results: tuple[EvaluationRow, ...]
    comparisons: tuple[ModelComparison, ...]


class EvaluatedSet(_Part):
    """Properties of a fixation set, read from JSON; see `GazeSet`."""

    dataset: str
    digest: Digest
    kind: str
    stimuli: int
    viewers: int
    fixations: int
    temporal: str | None
    fold: str | None = None


class GazeTables(EvaluationTables):
    """All results on fixation sets, read from JSON."""

    sets: tuple[EvaluatedSet, ...]


class Evaluation(EvaluationTables):
    """The content of a file that `eyeline evaluate` writes with `-o` or `--summary`."""

    schema_version: int = Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    gaze: GazeTables | None = None

    def tables(self, task: Task) -> EvaluationTables | None:
        """Return the results for a task; None if no dataset of that kind was evaluated."""
        return self.gaze if task == "gaze" else self


def read_evaluation(path: Path) -> tuple[Evaluation, str]:
    """Read the complete or summary JSON of `eyeline evaluate`; return its content and hex SHA-256.

    Raises:
        RegistryError: the file cannot be read, or is not the JSON of an evaluation.
    """
    data = read_regular_file(path, limit=MAX_BYTES)
    try:
        return Evaluation.model_validate(json.loads(data)), sha256_hex(data)
    except (ValueError, RecursionError) as exc:  # pydantic's ValidationError is a ValueError
        reason = str(exc)
        if isinstance(exc, ValidationError):
            first = exc.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RegistryError(
            f"{path}: is not an evaluation: {' '.join(reason.split())[:200]}",
            "give a file that eyeline evaluate wrote with -o or --summary",
        ) from exc
