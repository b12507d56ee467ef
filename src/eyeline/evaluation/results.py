"""The results of an evaluation: records, the JSON that is written of them, and its reader.

`evaluate` returns an `EvaluationReport`, whose `dumps` and `summary` write JSON. `read_evaluation` reads
that JSON back, as far as other packages need it.
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
WORST = 12  # images or frames listed as failures

MAX_BYTES = 256 * 1024 * 1024
"""Most bytes of an evaluation's JSON, which may hold the rows of many thousand images."""

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
"""How images shrink to the working size, for `NOTES`."""


@dataclass(frozen=True)
class VideoScore:
    """One video of a dataset with masks: a folder of frames. A single frame has None for changes.

    Attributes:
        iou, iou_std: mean and standard deviation over frames.
        iou_change: mean absolute difference between successive frames' IoU: 0 is steady.
        flicker: mean absolute difference of successive maps, 0 to 1.
        truth_flicker: the same of the masks; a steady map has about as much.
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
    """One model on one dataset with masks.

    Attributes:
        model: registry id, or file name.
        parameters: see `count_parameters`.
        smoke: whether the model is a smoke model, whose numbers mean nothing.
        dataset_digest: sha256 over names, images and masks.
        size: the size that was asked for: lines, `WxH`, `native`, or `model` for that of the I/O spec.
        working_size: (width, height) that most images had, before padding.
        latency_ms: one-thread median at `working_size`.
        estimates: each of `MEASURES` with its interval.
        empty_masks, full_masks: names of images without foreground, and without background.
        without_plcc: number of images without a PLCC.
        images: the scalars of each image.
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
class GazeResult:
    """One model or baseline on one fixation set.

    Attributes:
        model: registry id, file name, or name of the baseline.
        baseline: whether it is a baseline, which has no value for the attributes up to `latency_ms`.
        model_sha256, parameters, smoke, io, size, working_size, latency_ms: see `MaskResult`.
        estimates: each of `GAZE_MEASURES` with its interval.
        stimuli: the numbers of each image or video, and of each judged frame of a video.
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
        """NSS, name and time in ms of the pictures of the lowest NSS, worst first.

        The number of frames per video is limited: else the frames of one bad second fill the list.
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
    """A fixation set, and how maps were judged on it.

    Attributes:
        stimuli: number of judged images or videos.
        fixations: number of valid fixations of the whole set.
        pictures: number of judged images or frames.
        empty: number of judged frames without an active fixation; they have no score.
        blur: standard deviation of the recorded density, in words.
        prior, prior_sets: the centre prior, and the sets that it was fitted on.
        temporal: filter on the maps of videos, as asked for (`model` is each model's own); None for
            images.
        longest_side: resolution at which maps were judged, pixels.
        uniform_share: share of the uniform density in a map's density.
        splits: number of random halvings of the viewers.
        fold: the fold of training that the stimuli are of; None for the whole set.
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
        sets: facts of each set.
        results: for each set the models, then the baselines.
        comparisons: every two models, and each model with the centre prior, on every set.
    """

    sets: list[GazeSet] = field(default_factory=list)
    results: list[GazeResult] = field(default_factory=list)
    comparisons: list[ModelComparison] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return the notes for a reader of the tables."""
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
        results: for each dataset the models.
        comparisons: every two models, on every dataset; the p-values are not corrected for the number
            of comparisons.
        about: versions, machine, bootstrap.
        gaze: the results on fixation sets.
    """

    results: list[MaskResult]
    comparisons: list[ModelComparison]
    about: dict[str, Any]
    gaze: GazeReport = field(default_factory=GazeReport)

    def notes(self) -> list[str]:
        """Return the notes for a reader of the tables of datasets with masks."""
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
        """Return JSON text without the images' rows, small enough to stand beside a model card."""
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
    """One model or baseline on one dataset, as read; a baseline has no digest, size and latency."""

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
        """Count the images of a complete file; a summary holds their number."""
        if isinstance(fields, dict) and isinstance(fields.get("images"), list):
            return fields | {"image_count": len(fields["images"])}
        return fields


class EvaluationTables(_Part):
    """The results on datasets of one kind, as read: with masks, or with fixations."""

    lower_is_better: tuple[str, ...]
    notes: tuple[str, ...]
    results: tuple[EvaluationRow, ...]
    comparisons: tuple[ModelComparison, ...]


class EvaluatedSet(_Part):
    """Facts of a fixation set, as read; see `GazeSet`."""

    dataset: str
    digest: Digest
    kind: str
    stimuli: int
    viewers: int
    fixations: int
    temporal: str | None
    fold: str | None = None


class GazeTables(EvaluationTables):
    """The results on fixation sets, as read."""

    sets: tuple[EvaluatedSet, ...]


class Evaluation(EvaluationTables):
    """The content of a file that `eyeline evaluate` wrote with `-o` or `--summary`."""

    schema_version: int = Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    gaze: GazeTables | None = None

    def tables(self, task: Task) -> EvaluationTables | None:
        """Return the results for a task; None where no dataset of that kind was evaluated."""
        return self.gaze if task == "gaze" else self


def read_evaluation(path: Path) -> tuple[Evaluation, str]:
    """Read the JSON of `eyeline evaluate`, complete or its summary, and its sha256 hex digest.

    Raises:
        RegistryError: the file cannot be read, or is not an evaluation.
    """
    data = read_regular_file(path, limit=MAX_BYTES)
    try:
        return Evaluation.model_validate(json.loads(data)), sha256_hex(data)
    except (ValueError, RecursionError) as exc:  # a ValidationError is a ValueError
        reason = str(exc)
        if isinstance(exc, ValidationError):
            first = exc.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RegistryError(
            f"{path}: is not an evaluation: {' '.join(reason.split())[:200]}",
            "eyeline evaluate writes one with -o or --summary",
        ) from exc
