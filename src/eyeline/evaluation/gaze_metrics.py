"""Score one map against recorded fixations, and fit the centre prior.

NSS, CC, SIM, KL and the AUCs are defined by Bylinskii, Judd, Oliva, Torralba and Durand, "What do
different evaluation metrics tell us about saliency models?", IEEE TPAMI 41(3), 2019, and information gain
by Kümmerer, Wallis and Bethge, "Information-theoretic model comparison unifies saliency metrics", PNAS
112(52), 2015. The results equal those of pysaliency, the code of the MIT/Tübingen benchmark.

Degenerate inputs have these results:

| input | result |
|---|---|
| no fixation | NaN for NSS, both AUCs and information gain |
| a constant map | NSS 0, CC 0, AUCs 0.5 |
| equal values (ties) | count half in both AUCs; there is no random jitter |
| no negative samples for an AUC | NaN |
| several fixations on one pixel | each fixation counts |

Viewers tend to look near the centre of any image, so every model is compared with the centre prior: a
Gaussian with the mean and the variances of the fixations of several sets, averaged over the sets. The
centre prior is never fitted on the set that is evaluated. `centre_priors.json` holds the priors that this
command prints for OSIE, Saliency in Crowd and Scene:

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
"""Share of the uniform density in the density of a map; it keeps logarithms finite."""

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
"""Name and definition of each measure of a map, in the order of the tables."""

GAZE_LOWER_IS_BETTER: Final = frozenset({"kl"})


@dataclass(frozen=True)
class GazeTruth:
    """The ground truth of one image or frame, at the resolution at which maps are evaluated.

    Attributes:
        rows: intp (N,), pixel row of each fixation.
        columns: intp (N,), pixel column of each fixation.
        density: float64 (h, w), density of the fixations, with sum 1.
        others: float64 (h, w), number of fixations on each pixel in all other stimuli of the set.
        prior: float64 (h, w), density of the centre prior, positive, with sum 1.
    """

    rows: Ints
    columns: Ints
    density: Floats
    others: Floats
    prior: Floats


def gaze_truth(fixations: Fixations, others: Floats, prior: Floats, sigma: float) -> GazeTruth:
    """Convert one or more fixations to the resolution of `others` and `prior` (see `GazeTruth`).

    `sigma` is the standard deviation of the blur as a share of the width (see `gaze_density`).
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
    """Divide non-negative values by their sum; return the uniform density if all values are 0."""
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
        float64 (h, w), with sum 1 and at least `uniform / (h * w)` everywhere.
    """
    values = np.maximum(saliency.astype(np.float64), 0)
    return (1 - uniform) * normalised(values) + uniform / values.size


def score_gaze(saliency: npt.NDArray[np.floating], truth: GazeTruth) -> dict[str, float]:
    """Return each of `GAZE_MEASURES` for one finite map, (h, w) at the resolution of `truth`."""
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

    Source: Peters, Iyer, Itti and Koch, Vision Research 45(18), 2005. The standard deviation is the
    population standard deviation over all pixels.
    """
    if not len(rows):
        return float("nan")
    std = _std(saliency)
    return float((saliency[rows, columns].mean() - saliency.mean()) / std) if std else 0.0


def cc(saliency: Floats, density: Floats) -> float:
    """Return Pearson's linear correlation coefficient; 0 if either array is constant."""
    below = _std(saliency) * _std(density)
    if not below:
        return 0.0
    return float(((saliency - saliency.mean()) * (density - density.mean())).mean() / below)


def _std(values: Floats) -> float:
    """Return the standard deviation; exactly 0 for a constant array, in spite of rounding."""
    return float(values.std()) if values.min() < values.max() else 0.0


def sim(density: Floats, recorded: Floats) -> float:
    """Return the sum over pixels of the smaller of two densities (Judd, Durand, Torralba, 2012)."""
    return float(np.minimum(density, recorded).sum())


def kl(density: Floats, recorded: Floats) -> float:
    """Return the sum of `recorded * log(recorded / density)` in nats; `density` must be positive."""
    some = recorded > 0
    return float((recorded[some] * np.log(recorded[some] / density[some])).sum())


def information_gain(density: Floats, prior: Floats, rows: Ints, columns: Ints) -> float:
    """Return the mean of `log2(density / prior)` at the fixations, in bits per fixation."""
    if not len(rows):
        return float("nan")
    return float(np.log2(density[rows, columns] / prior[rows, columns]).mean())


def auc(positives: Floats, negatives: Floats, weights: Floats) -> float:
    """Return the probability that a positive value exceeds a negative one; ties count half.

    With fixations of other stimuli as negatives, the result is the shuffled AUC of Borji, Sihite and
    Itti, IEEE TIP 22(1), 2013, but with all negatives instead of random samples.

    Args:
        positives: float64 (N,), values of the map at the fixations.
        negatives: float64, any shape, values of the map at each pixel.
        weights: float64, same shape as `negatives`, number of times that each pixel counts.
    """
    count = weights.sum()
    if not len(positives) or not count:
        return float("nan")
    levels, at = np.unique(positives, return_inverse=True)
    not_below = _counts(levels, negatives, weights, side="right")
    above = _counts(levels, negatives, weights, side="left")
    return float(1 - ((not_below + above) / 2)[at].mean() / count)


def auc_judd(positives: Floats, negatives: Floats, weights: Floats) -> float:
    """Return the area under the ROC curve with one point per distinct map value at a fixation.

    Source: Judd, Durand and Torralba, "A benchmark of computational models of saliency to predict human
    fixations", MIT-CSAIL-TR-2012-001. As in the authors' code, the curve is linear between its points.
    Therefore the area is slightly larger than that of `auc` if there are few fixations, and 0.5 if all
    fixations lie on the lowest value of the map.

    Args:
        positives: float64 (N,), values of the map at the fixations.
        negatives: float64, any shape, values of the map at each pixel.
        weights: float64, same shape as `negatives`, 0 at pixels with a fixation and 1 elsewhere.
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
    """For each level, sum the weights of values at or above it (`right`), or above it (`left`)."""
    passed = np.searchsorted(
        levels, values.ravel(), side
    )  # number of levels that each value reaches
    per_level = np.bincount(passed, weights.ravel(), len(levels) + 1)
    return np.asarray(per_level[::-1].cumsum()[::-1][1:], np.float64)


@dataclass(frozen=True)
class FittedPrior:
    """A centre prior fitted on one set: mean and standard deviations as in `CentreGaussian`."""

    name: str
    digest: str
    stimuli: int
    fixations: int
    x: float
    y: float
    std_x: float
    std_y: float


def fit_prior(dataset: FixationSet) -> FittedPrior:
    """Return the mean and the standard deviations of all fixations of a set.

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
    """Return the priors that come with the package."""
    text = resources.files("eyeline.evaluation").joinpath("centre_priors.json").read_text("utf-8")
    return [FittedPrior(**fields) for fields in json.loads(text)]


def priors_for(dataset: FixationSet, own: Sequence[FittedPrior] | None = None) -> list[FittedPrior]:
    """Return the given priors, or else those of the package, without a prior fitted on `dataset`.

    Raises:
        UsageError: no prior is left.
    """
    known = shipped_priors() if own is None else own
    # Compare names, too, because importing a set again may change its digest.
    same = (dataset.digest, dataset.name.casefold())
    others = [p for p in known if p.digest != same[0] and p.name.casefold() != same[1]]
    if not others:
        raise UsageError(
            f"--prior names only {dataset.name}, the set that is evaluated",
            "give --prior another set, or leave it out",
        )
    return others


def combined(priors: Sequence[FittedPrior]) -> CentreGaussian:
    """Return the Gaussian with the mean and variances over all sets, each with equal weight."""
    x, std_x = _mixture([(p.x, p.std_x) for p in priors])
    y, std_y = _mixture([(p.y, p.std_y) for p in priors])
    return CentreGaussian(x, y, std_x, std_y)


def _mixture(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the mean and standard deviation of an equal mixture; a part is (mean, deviation)."""
    mean = sum(m for m, _ in parts) / len(parts)
    square = sum(s * s + m * m for m, s in parts) / len(parts)
    return mean, math.sqrt(square - mean * mean)


if __name__ == "__main__":
    fits = [asdict(fit_prior(load_fixation_set(Path(path)))) for path in sys.argv[1:]]
    sys.stdout.write(json.dumps(fits, indent=1) + "\n")
