"""Score one map by recorded fixations with the metrics of gaze prediction, and fit the centre prior.

Bylinskii, Judd, Oliva, Torralba and Durand, "What do different evaluation metrics tell us about
saliency models?", IEEE TPAMI 41(3), 2019, define NSS, CC, SIM, KL and the AUCs; Kümmerer, Wallis and
Bethge, "Information-theoretic model comparison unifies saliency metrics", PNAS 112(52), 2015,
information gain. The results equal those of pysaliency, the code of the MIT/Tübingen benchmark.

No metric fails on a degenerate input:

| input | result |
|---|---|
| no fixation | NaN for NSS, both AUCs and information gain |
| a constant map | NSS 0, CC 0, AUCs 0.5 |
| equal values (ties) | half a hit in both AUCs; no random jitter |
| no negative for an AUC | NaN |
| several fixations on one pixel | each counts |

Viewers look near the centre of any picture, so every model is compared with the centre prior. It is a
Gaussian whose mean and variances are those of the fixations of other sets, averaged over the sets. It
is never fitted on the set that it judges. `centre_priors.json` holds the fits that this module prints
for OSIE, Saliency in Crowd and Scene:

    python -m eyeline.evaluation.gaze_metrics osie.tar crowd.tar scene.tar
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from eyeline.datasets.fixations import (
    CentreGaussian,
    Fixations,
    FixationSet,
    gaze_density,
    load_fixation_set,
)
from eyeline.errors import UsageError
from eyeline.evaluation.statistics import Floats

Ints = npt.NDArray[np.intp]

UNIFORM_SHARE = 0.01
"""Share of a map's density that is uniform: it keeps the logarithms of the density finite."""

GAZE_MEASURES: Final[dict[str, str]] = {
    "nss": "normalised scanpath saliency: the map at the fixations, in its standard deviations "
    "above its mean",
    "cc": "Pearson correlation of the map and the recorded density",
    "sim": "histogram intersection of the map's density and the recorded one, 0..1",
    "kl": "Kullback-Leibler divergence of the map's density from the recorded one, nats; lower is "
    "better",
    "auc_judd": "area under the ROC curve: fixations against all other pixels, with a threshold at "
    "each fixation",
    "shuffled_auc": "area under the ROC curve: fixations against the fixations on the other images "
    "or videos of the set, which cancels the preference for the centre",
    "information_gain": "log-likelihood of the fixations under the map's density above that under "
    "the centre prior, bits per fixation",
}
"""Every measure of a map and its definition, in the order of the tables."""

GAZE_LOWER_IS_BETTER: Final = frozenset({"kl"})


@dataclass(frozen=True)
class GazeTruth:
    """The fixations on one picture, at the resolution at which maps are judged.

    Attributes:
        rows: intp (N,), pixel row of each fixation.
        columns: intp (N,), pixel column of each fixation.
        density: float64 (h, w), density of the fixations, sum 1.
        others: float64 (h, w), number of fixations of the other stimuli on each pixel.
        prior: float64 (h, w), density of the centre prior, positive, sum 1.
    """

    rows: Ints
    columns: Ints
    density: Floats
    others: Floats
    prior: Floats


def gaze_truth(fixations: Fixations, others: Floats, prior: Floats, sigma: float) -> GazeTruth:
    """Convert one or more fixations to the resolution of `others` and `prior` (see `GazeTruth`).

    `sigma` is that of the recorded density, share of the width (see `gaze_density`).
    """
    height, width = prior.shape
    density = gaze_density(fixations, width, height, sigma).astype(np.float64)
    rows, columns = pixels(fixations, width, height)
    return GazeTruth(rows, columns, density, others, prior)


def pixels(fixations: Fixations, width: int, height: int) -> tuple[Ints, Ints]:
    """Return the pixel row and column of each fixation, intp (N,) each."""
    columns = np.minimum((fixations.x * width).astype(np.intp), width - 1)
    return np.minimum((fixations.y * height).astype(np.intp), height - 1), columns


def normalised(values: Floats) -> Floats:
    """Divide non-negative values by their sum; the uniform density where all of them are 0."""
    total = values.sum()
    if total <= 0:
        return np.full(values.shape, 1 / values.size)
    scaled: Floats = values / total
    return scaled


def map_density(saliency: npt.NDArray[np.floating], uniform: float = UNIFORM_SHARE) -> Floats:
    """Convert a map to the density that SIM, KL and information gain need.

    The map is divided by its sum and mixed with a small share of the uniform density. A map that is
    0 everywhere becomes the uniform density.

    Args:
        saliency: (h, w), finite; negative values count as 0.
        uniform: share of the uniform density, 0 to 1.

    Returns:
        float64 (h, w), sum 1, at least `uniform / (h * w)` everywhere.
    """
    values = np.maximum(saliency.astype(np.float64), 0)
    return (1 - uniform) * normalised(values) + uniform / values.size


def score_gaze(saliency: npt.NDArray[np.floating], truth: GazeTruth) -> dict[str, float]:
    """Score one map, (h, w) at the resolution of `truth`, finite, by each of `GAZE_MEASURES`."""
    m = saliency.astype(np.float64)
    density = map_density(m)
    at = (truth.rows, truth.columns)
    unfixated = np.ones(m.shape)
    unfixated[at] = 0
    return {
        "nss": nss(m, *at),
        "cc": cc(m, truth.density),
        "sim": sim(density, truth.density),
        "kl": kl(density, truth.density),
        "auc_judd": auc_judd(m[at], m, unfixated),
        "shuffled_auc": auc(m[at], m, truth.others),
        "information_gain": information_gain(density, truth.prior, *at),
    }


def nss(saliency: Floats, rows: Ints, columns: Ints) -> float:
    """Return the mean of the standardised map at the fixations; 0 for a constant map.

    Peters, Iyer, Itti and Koch, Vision Research 45(18), 2005. The standard deviation is that of the
    population, over all pixels.
    """
    if not len(rows):
        return float("nan")
    std = _std(saliency)
    return float((saliency[rows, columns].mean() - saliency.mean()) / std) if std else 0.0


def cc(saliency: Floats, density: Floats) -> float:
    """Return Pearson's linear correlation coefficient; 0 where either is constant."""
    below = _std(saliency) * _std(density)
    if not below:
        return 0.0
    return float(((saliency - saliency.mean()) * (density - density.mean())).mean() / below)


def _std(values: Floats) -> float:
    """Return the standard deviation; exactly 0 for a constant array, whose mean may be rounded."""
    return float(values.std()) if values.min() < values.max() else 0.0


def sim(density: Floats, recorded: Floats) -> float:
    """Return the sum of the smaller of two densities at each pixel (Judd, Durand, Torralba, 2012)."""
    return float(np.minimum(density, recorded).sum())


def kl(density: Floats, recorded: Floats) -> float:
    """Return the sum of `recorded * log(recorded / density)`, nats; `density` is positive."""
    some = recorded > 0
    return float((recorded[some] * np.log(recorded[some] / density[some])).sum())


def information_gain(density: Floats, prior: Floats, rows: Ints, columns: Ints) -> float:
    """Return the mean of `log2(density / prior)` at the fixations, bits per fixation."""
    if not len(rows):
        return float("nan")
    return float(np.log2(density[rows, columns] / prior[rows, columns]).mean())


def auc(positives: Floats, negatives: Floats, weights: Floats) -> float:
    """Return the probability that a positive exceeds a negative, ties counting half.

    With the fixations of other stimuli as negatives this is the shuffled AUC in the form of Borji,
    Sihite and Itti, IEEE TIP 22(1), 2013, with all negatives instead of random samples.

    Args:
        positives: float64 (N,), the map at the fixations.
        negatives: float64, any shape, the map at each pixel.
        weights: float64, the same shape, how often each pixel is a negative.
    """
    count = weights.sum()
    if not len(positives) or not count:
        return float("nan")
    levels, at = np.unique(positives, return_inverse=True)
    not_below = _counts(levels, negatives, weights, side="right")
    above = _counts(levels, negatives, weights, side="left")
    return float(1 - ((not_below + above) / 2)[at].mean() / count)


def auc_judd(positives: Floats, negatives: Floats, weights: Floats) -> float:
    """Return the area under the ROC curve that has a point at each distinct fixated value.

    Judd, Durand and Torralba, "A benchmark of computational models of saliency to predict human
    fixations", MIT-CSAIL-TR-2012-001. The curve is linear between its points, as in the authors' code,
    so few fixations give a slightly larger area than `auc`, and fixations that all lie on the lowest
    value of the map give 0.5.

    Args:
        positives: float64 (N,), the map at the fixations.
        negatives: float64, any shape, the map at each pixel.
        weights: float64, the same shape, 1 where no fixation fell and 0 elsewhere.
    """
    count = weights.sum()
    if not len(positives) or not count:
        return float("nan")
    levels, multiplicity = np.unique(positives, return_counts=True)
    alarms = np.concatenate([[0.0], _counts(levels, negatives, weights)[::-1] / count, [1.0]])
    hits = np.concatenate([[0.0], np.cumsum(multiplicity[::-1]) / len(positives), [1.0]])
    return float((np.diff(alarms) * (hits[1:] + hits[:-1])).sum() / 2)


def _counts(
    levels: Floats, values: Floats, weights: Floats, side: Literal["left", "right"] = "right"
) -> Floats:
    """Sum the weights of the values that are not below each level; with `left` of those above it."""
    passed = np.searchsorted(levels, values.ravel(), side)  # how many levels each value passes
    per_level = np.bincount(passed, weights.ravel(), len(levels) + 1)
    return np.asarray(per_level[::-1].cumsum()[::-1][1:], np.float64)


@dataclass(frozen=True)
class FittedPrior:
    """The moments of all fixations of one set, as in `CentreGaussian`."""

    name: str
    digest: str
    stimuli: int
    fixations: int
    x: float
    y: float
    std_x: float
    std_y: float


def fit_prior(dataset: FixationSet) -> FittedPrior:
    """Measure the mean and the standard deviations of all fixations of a set.

    Raises:
        UsageError: all fixations have the same x or the same y.
    """
    x = np.concatenate([s.fixations.x for s in dataset.stimuli])
    y = np.concatenate([s.fixations.y for s in dataset.stimuli])
    moments = [round(float(v), 5) for v in (x.mean(), y.mean(), x.std(), y.std())]
    if min(moments[2:]) <= 0:
        raise UsageError(
            f"{dataset.name}: all fixations have the same x or y, so no centre prior can be fitted",
            "give --prior a set with more fixations",
        )
    return FittedPrior(dataset.name, dataset.digest, len(dataset.stimuli), len(x), *moments)


def shipped_priors() -> list[FittedPrior]:
    """Return the fits that come with the package."""
    text = resources.files("eyeline.evaluation").joinpath("centre_priors.json").read_text("utf-8")
    return [FittedPrior(**fields) for fields in json.loads(text)]


def priors_for(dataset: FixationSet, own: Sequence[FittedPrior] | None = None) -> list[FittedPrior]:
    """Return the user's own fits, or the shipped ones, without that of the set that is judged.

    Raises:
        UsageError: no fit is left.
    """
    known = shipped_priors() if own is None else own
    # Imported anew, a set has another digest: its name decides, too.
    same = (dataset.digest, dataset.name.casefold())
    others = [p for p in known if p.digest != same[0] and p.name.casefold() != same[1]]
    if not others:
        raise UsageError(
            f"--prior names {dataset.name}, the set that is judged",
            "fit the centre prior on another set, or leave the option out",
        )
    return others


def combined(priors: Sequence[FittedPrior]) -> CentreGaussian:
    """Return the Gaussian with the mean and variance over one or more sets of equal weight."""
    x, std_x = _mixture([(p.x, p.std_x) for p in priors])
    y, std_y = _mixture([(p.y, p.std_y) for p in priors])
    return CentreGaussian(x, y, std_x, std_y)


def _mixture(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return mean and standard deviation of an equal mixture of (mean, standard deviation)."""
    mean = sum(m for m, _ in parts) / len(parts)
    square = sum(s * s + m * m for m, s in parts) / len(parts)
    return mean, math.sqrt(square - mean * mean)


if __name__ == "__main__":
    fits = [asdict(fit_prior(load_fixation_set(Path(path)))) for path in sys.argv[1:]]
    sys.stdout.write(json.dumps(fits, indent=1) + "\n")
