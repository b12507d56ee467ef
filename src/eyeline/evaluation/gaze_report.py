"""Results of an evaluation on fixation sets, as records, tables and notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from eyeline.datasets.fixations import CentreGaussian, FixationProblem, Fold, Kind
from eyeline.evaluation.gaze_metrics import GAZE_LOWER_IS_BETTER, GAZE_MEASURES, FittedPrior
from eyeline.evaluation.statistics import Comparison, Estimate, difference_cells, estimate_cell
from eyeline.tables import Table

GAZE_COLUMNS: Final[dict[str, str]] = {
    "nss": "NSS",
    "cc": "CC",
    "sim": "SIM",
    "kl": "KL",
    "auc_judd": "AUC-Judd",
    "shuffled_auc": "shuffled AUC",
    "information_gain": "IG, bits",
}
"""Measures of the tables and their heads."""


WORST = 12  # images or frames shown as failures, by NSS


@dataclass(frozen=True)
class GazeResult:
    """One model or baseline on one fixation set.

    Attributes:
        model: its label: registry id, file name, or name of the baseline.
        dataset: name.
        dataset_digest: see `FixationSet`.
        baseline: whether it is a baseline, which has no value for the next attributes.
        model_sha256: digest of its bytes.
        parameters: see `Result`.
        smoke: its numbers mean nothing.
        io: its I/O spec.
        size: as asked for, see `Result`.
        working_size: (width, height) that most stimuli had, before padding.
        latency_ms: one-thread median at `working_size`.
        estimates: each of `GAZE_MEASURES` with its interval.
        stimuli: each image's or video's numbers; of a video each judged frame's, too.
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
        """NSS, name and time in milliseconds of the pictures of the lowest NSS, worst first.

        Of one video there are few of them: the frames of one bad second would fill the list.
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
        dataset: name.
        digest: see `FixationSet`.
        kind: images or videos.
        stimuli: judged images or videos.
        viewers: how many.
        fixations: valid ones of the whole set.
        pictures: judged images or frames.
        empty: judged frames at whose time no fixation was active; they have no score.
        problems: see `FixationSet`.
        blur: standard deviation of the recorded density, in words.
        prior: the centre prior.
        prior_sets: what it was fitted on.
        temporal: filter on the maps of videos, as asked for (`model` is each model's own); None for
            images.
        longest_side: resolution at which maps were judged, pixels.
        uniform_share: of a map's density.
        splits: random halvings of the viewers.
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
    """Everything that an evaluation found on fixation sets.

    Attributes:
        sets: facts of each set.
        results: sets in turn; models, then baselines within.
        comparisons: every two models, and each model with the centre prior, on every set.
    """

    sets: list[GazeSet] = field(default_factory=list)
    results: list[GazeResult] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "measures": GAZE_MEASURES,
            "lower_is_better": sorted(GAZE_LOWER_IS_BETTER),
            "notes": gaze_notes(self),
            **asdict(self),
        }


def gaze_tables(report: GazeReport) -> Iterator[Table]:
    """Yield the tables of every set: results, differences, and problems of the data."""
    for s in report.sets:
        results = [r for r in report.results if r.dataset_digest == s.digest]
        yield Table(
            _title(s),
            ["model", "parameters", "size", "ms", *GAZE_COLUMNS.values()],
            [_result_cells(r) for r in results],
        )
        yield Table(
            f"{s.dataset}, differences",
            ["model less other", *GAZE_COLUMNS.values()],
            [
                [f"{c.model} - {c.other}", *difference_cells(c.differences, GAZE_COLUMNS)]
                for c in report.comparisons
                if c.dataset == s.dataset
            ],
        )
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


def _result_cells(r: GazeResult) -> list[str]:
    size = f"{r.working_size[0]}x{r.working_size[1]}" if r.working_size else "-"
    return [
        f"{r.model} (smoke: numbers mean nothing)" if r.smoke else r.model,
        "-" if r.parameters is None else f"{r.parameters:,}",
        size,
        "-" if r.latency_ms is None else f"{r.latency_ms:.2f}",
        *(estimate_cell(r.estimates[name]) for name in GAZE_COLUMNS),
    ]


def gaze_notes(report: GazeReport) -> list[str]:
    """Return what a reader of the tables must know."""
    if not report.sets:
        return []
    first = report.sets[0]
    notes = [
        "Brackets hold 95 % bootstrap intervals over images, or over whole videos: the frames of one "
        "video are not independent. A video counts as the mean over its judged frames.",
        "NSS, CC, SIM, AUC and information gain (IG) rise with quality; KL falls. A uniform map has an "
        "NSS and a CC of 0, and AUCs of 0.5. IG is in bits per fixation above the centre prior, "
        "KL in nats.",
        "inter-observer: the density of half of the viewers as a map for the other half, both ways, "
        f"mean over {first.splits} random splits.",
        f"Maps are judged at a longest side of {first.longest_side} pixels. For SIM, KL and IG a map "
        f"is divided by its sum and mixed with {first.uniform_share:.0%} of the uniform density.",
    ]
    for s in report.sets:
        fitted = ", ".join(p.name for p in s.prior_sets)
        p = s.prior
        notes.append(
            f"{s.dataset}: the recorded density is blurred by a Gaussian with a standard deviation of "
            f"{s.blur}. The centre prior was fitted on {fitted}: mean ({p.x:.3f}, {p.y:.3f}), "
            f"standard deviation ({p.std_x:.3f}, {p.std_y:.3f}) of width and height."
        )
        if s.temporal:
            used = "each model's own" if s.temporal == "model" else s.temporal
            notes.append(f"{s.dataset}: models ran over whole videos; temporal filter: {used}.")
    return notes
