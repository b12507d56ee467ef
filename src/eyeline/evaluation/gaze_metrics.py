"""One map against recorded fixations: the numbers of the field of gaze prediction.

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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from eyeline.datasets.density import gaze_density
from eyeline.datasets.fixations import Fixations
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
"""Every number of a map, in the order of the tables, and what it is."""

GAZE_LOWER_IS_BETTER: Final = frozenset({"kl"})


@dataclass(frozen=True)
class GazeTruth:
    """What viewers did on one picture, at the resolution at which maps are judged.

    Attributes:
        rows: intp (N,), pixel row of each fixation.
        columns: intp (N,), pixel column of each fixation.
        density: float64 (h, w), density of the fixations, sum 1.
        others: float64 (h, w), how many fixations of the other stimuli fall on each pixel.
        prior: float64 (h, w), density of the centre prior, positive, sum 1.
    """

    rows: Ints
    columns: Ints
    density: Floats
    others: Floats
    prior: Floats


def gaze_truth(fixations: Fixations, others: Floats, prior: Floats, sigma: float) -> GazeTruth:
    """Bring the fixations on one picture to the resolution of `others` and `prior`.

    Args:
        fixations: at least one.
        others: see `GazeTruth`.
        prior: see `GazeTruth`.
        sigma: of the recorded density, share of the width, see `gaze_density`.
    """
    height, width = prior.shape
    density = gaze_density(fixations, width, height, sigma).astype(np.float64)
    rows, columns = pixels(fixations, width, height)
    return GazeTruth(rows, columns, density, others, prior)


def pixels(fixations: Fixations, width: int, height: int) -> tuple[Ints, Ints]:
    """Return row and column of the pixel that each fixation falls on, intp (N,) each."""
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
    """Turn a map into the density that SIM, KL and information gain take.

    The map is divided by its sum and mixed with a small share of the uniform density. A map that is
    0 everywhere becomes the uniform density.

    Args:
        saliency: (h, w), finite; negative values count as 0.
        uniform: share of the uniform density, 0..1.

    Returns:
        float64 (h, w), sum 1, nowhere below `uniform / (h * w)`.
    """
    values = np.maximum(saliency.astype(np.float64), 0)
    return (1 - uniform) * normalised(values) + uniform / values.size


def score_gaze(saliency: npt.NDArray[np.floating], truth: GazeTruth) -> dict[str, float]:
    """Score one map.

    Args:
        saliency: (h, w), at the resolution of `truth`, finite.
        truth: what viewers did.

    Returns:
        A number for each of `GAZE_MEASURES`; see the module for NaN.
    """
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

    Args:
        saliency: float64 (h, w).
        rows: intp (N,), of the fixations.
        columns: intp (N,), of the fixations.
    """
    if not len(rows):
        return float("nan")
    std = _std(saliency)
    return float((saliency[rows, columns].mean() - saliency.mean()) / std) if std else 0.0


def cc(saliency: Floats, density: Floats) -> float:
    """Return Pearson's linear correlation coefficient; 0 where either is constant.

    Args:
        saliency: float64 (h, w).
        density: float64 (h, w), recorded.
    """
    below = _std(saliency) * _std(density)
    if not below:
        return 0.0
    return float(((saliency - saliency.mean()) * (density - density.mean())).mean() / below)


def _std(values: Floats) -> float:
    """Standard deviation; exactly 0 for a constant array, whose mean may round."""
    return float(values.std()) if values.min() < values.max() else 0.0


def sim(density: Floats, recorded: Floats) -> float:
    """Return the sum of the smaller of two densities at each pixel (Judd, Durand, Torralba, 2012).

    Args:
        density: float64 (h, w), of the map, sum 1.
        recorded: float64 (h, w), sum 1.
    """
    return float(np.minimum(density, recorded).sum())


def kl(density: Floats, recorded: Floats) -> float:
    """Return the sum of `recorded * log(recorded / density)`, nats.

    Pixels whose recorded density is 0 add nothing.

    Args:
        density: float64 (h, w), of the map, positive, sum 1.
        recorded: float64 (h, w), sum 1.
    """
    some = recorded > 0
    return float((recorded[some] * np.log(recorded[some] / density[some])).sum())


def information_gain(density: Floats, prior: Floats, rows: Ints, columns: Ints) -> float:
    """Return the mean of `log2(density / prior)` at the fixations, bits per fixation.

    Args:
        density: float64 (h, w), of the map, positive, sum 1.
        prior: float64 (h, w), of the baseline, positive, sum 1.
        rows: intp (N,), of the fixations.
        columns: intp (N,), of the fixations.
    """
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
    """Weight of the values that are not below each level; of those above it with side `left`.

    Args:
        levels: float64 (L,), rising.
        values: float64, any shape.
        weights: the same shape.
        side: `right` or `left`.
    """
    passed = np.searchsorted(levels, values.ravel(), side)  # how many levels each value passes
    per_level = np.bincount(passed, weights.ravel(), len(levels) + 1)
    return np.asarray(per_level[::-1].cumsum()[::-1][1:], np.float64)
