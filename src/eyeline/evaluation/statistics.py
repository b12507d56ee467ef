"""Bootstrap intervals of a dataset's measures, and the comparison of two models.

Items are drawn with replacement (Efron, 1979), with the same draws for every model and measure. Each
measure is pooled anew over each draw, so a maximum over thresholds is taken in each draw. An item is an
image, or a whole video of a fixation set. In datasets with masks each frame of a video is an item; the
frames resemble each other, so those intervals are too narrow.

A plain percentile interval is also too narrow for few items. The quantiles are moved outwards by the
t distribution (Hesterberg, "What teachers should know about the bootstrap", The American Statistician
69(4), 2015: the expanded percentile interval): far with 5 items, hardly with 1,000.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator

Floats = npt.NDArray[np.float64]

DRAWS = 2000
SEED = 20260
LEVEL = 0.95
_CHUNK = 250  # draws per step: bounds the memory for sets of many thousand images


class Poolable(Protocol):
    """The scores of many items, which pool to one number per measure.

    Attributes:
        count: items.
    """

    count: int

    def pool(self, weights: Floats | None = None) -> dict[str, Floats]:
        """Return every measure over the dataset, or over weighted versions of it.

        Args:
            weights: float64 (B, N), how often each item occurs in each version; None for one version,
                the dataset itself.

        Returns:
            float64 (B,) for each measure; NaN for a measure without a value.
        """


class Means:
    """Scores that pool as plain means over items, without NaN values.

    Args:
        columns: float64 (N,) for each measure, N at least 1.
    """

    def __init__(self, columns: Mapping[str, Floats]) -> None:
        self.columns = dict(columns)
        self.count = len(next(iter(self.columns.values())))

    def pool(self, weights: Floats | None = None) -> dict[str, Floats]:
        """Return the means of every measure, see `Poolable`."""
        w = np.ones((1, self.count)) if weights is None else weights
        out = {}
        for name, column in self.columns.items():
            known = np.isfinite(column)
            share = w @ known
            sums = w @ np.where(known, column, 0)
            out[name] = np.where(share > 0, sums / np.where(share > 0, share, 1), np.nan)
        return out


@dataclass(frozen=True)
class Pooled:
    """The measures of one model on a dataset of `count` items, and on redrawn versions of it.

    Attributes:
        whole: each measure over the dataset itself; NaN for a measure without a value.
        draws: float64 (draws,) for each measure; empty with fewer than two items.
    """

    whole: dict[str, float]
    draws: dict[str, Floats]
    count: int


Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number that the JSON of an evaluation writes as null where it is NaN."""


@dataclass(frozen=True)
class Estimate:
    """A measure with the ends of its 95 % percentile interval; NaN where there is no value."""

    value: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class Difference(Estimate):
    """A measure of one model less that of another, on the same items.

    Attributes:
        p_value: two-sided, of the paired bootstrap; at least 2 / (draws + 1), and at least
            2 ** (1 - N), the smallest p-value of a sign-flip test of N items.
    """

    p_value: Number


@dataclass(frozen=True)
class ModelComparison:
    """Two models on one dataset: the measures of `model` less those of `other`."""

    dataset: str
    model: str
    other: str
    differences: dict[str, Difference]


def draw_weights(count: int, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """Return how often each of `count` items occurs in each draw, float64 (draws, count)."""
    rng = np.random.default_rng([seed, count])
    return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


def pool(scores: Poolable, draws: int = DRAWS, seed: int = SEED) -> Pooled:
    """Pool every measure over the dataset and over redrawn versions; a seed gives the same draws."""
    whole = {name: float(value[0]) for name, value in scores.pool().items()}
    if scores.count < 2:
        return Pooled(whole, {name: np.empty(0) for name in whole}, scores.count)
    weights = draw_weights(scores.count, draws, seed)
    parts = [scores.pool(weights[i : i + _CHUNK]) for i in range(0, draws, _CHUNK)]
    draws_of = {name: np.concatenate([p[name] for p in parts]) for name in whole}
    return Pooled(whole, draws_of, scores.count)


def tail_share(count: int) -> float:
    """Return the share of draws beyond each end of the interval over `count` items, 2 or more."""
    freedom, normal = count - 1, NormalDist()
    z = normal.inv_cdf((1 + LEVEL) / 2)
    # Quantile of the t distribution: Abramowitz and Stegun, 26.7.5.
    t = (
        z
        + (z**3 + z) / 4 / freedom
        + (5 * z**5 + 16 * z**3 + 3 * z) / 96 / freedom**2
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / freedom**3
    )
    return normal.cdf(-t * math.sqrt(count / freedom))


def _interval(draws: Floats, count: int) -> tuple[float, float]:
    known = draws[np.isfinite(draws)]
    if not len(known):
        return float("nan"), float("nan")
    tail = tail_share(count)
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def estimates(pooled: Pooled) -> dict[str, Estimate]:
    """Return every measure with its interval."""
    return {
        name: Estimate(value, *_interval(pooled.draws[name], pooled.count))
        for name, value in pooled.whole.items()
    }


def differences(a: Pooled, b: Pooled) -> dict[str, Difference]:
    """Return every measure of `a` less that of `b`, on the same items and the same draws.

    The p-value is twice the share of draws on the other side of zero (Efron and Tibshirani, 1993,
    chapter 15). One more draw is counted there, so the p-value is never zero.
    """
    out = {}
    for name in a.whole:
        draws = a.draws[name] - b.draws[name]
        known = draws[np.isfinite(draws)]
        far = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
        p = min(1.0, 2 * (int(far) + 1) / (len(known) + 1)) if len(known) else float("nan")
        p = max(p, 2.0 ** (1 - a.count)) if len(known) else p
        out[name] = Difference(a.whole[name] - b.whole[name], *_interval(draws, a.count), p)
    return out


def number(value: float, *, sign: bool = False) -> str:
    """Return a number with three decimals; a dash for NaN."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.lstrip("-+") if float(text) == 0 else text


def estimate_cell(estimate: Estimate) -> str:
    """Return a number with its interval in brackets."""
    if not math.isfinite(estimate.low):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def difference_cells(differences: Mapping[str, Difference], measures: Iterable[str]) -> list[str]:
    """Return each difference with its interval and p-value."""
    cells = []
    for name in measures:
        d = differences[name]
        ends = f" [{number(d.low, sign=True)}, {number(d.high, sign=True)}]"
        shown = ends if math.isfinite(d.low) else ""
        cells.append(f"{number(d.value, sign=True)}{shown} (p {p_cell(d.p_value)})")
    return cells


def p_cell(value: float) -> str:
    """Return a p-value."""
    return "<0.001" if value < 0.001 else number(value)
