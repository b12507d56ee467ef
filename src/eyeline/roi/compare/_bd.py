"""Compute Bjøntegaard deltas of two rate-quality curves, with the `bjontegaard` package.

BD-rate is the mean horizontal distance of the curves, as a change of rate at equal quality; BD-quality is
the mean vertical distance, as a change of quality at equal rate. Both cover the range that the curves
share, with rates on a logarithmic scale (Bjøntegaard, "Calculation of average PSNR differences between
RD-curves", ITU-T VCEG-M33, 2001).

Between its points a curve is interpolated piecewise: `akima` (the default; the least error against densely
sampled curves in Herglotz et al., "The Bjøntegaard Bible", IEEE TIP 2024) or `pchip` (the piecewise cubic
of the JVT's and JVET's common test conditions). A single cubic through all points, as in 2001, oscillates
between them and is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from eyeline.errors import MissingExtraError, QualityError, UsageError

Method = Literal["akima", "pchip"]

FEWEST_POINTS = 4
"""From VCEG-M33; with fewer points a delta depends more on the interpolation than on the encoder."""

GOOD_OVERLAP = 0.75
"""Least overlap of the curves for a reliable delta."""


@dataclass(frozen=True)
class Curve:
    """One encoder's points.

    Attributes:
        rates: bits in any unit, positive.
        quality: dB, points or an index; more is better.
    """

    rates: Sequence[float]
    quality: Sequence[float]


@dataclass(frozen=True)
class Delta:
    """The difference of a curve to an anchor.

    Attributes:
        rate: percent of the anchor's rate at equal quality; negative means fewer bits.
        quality: in the metric's unit at equal rate; positive means better.
        overlap: share of the whole range of quality that both curves cover, 0..1.
    """

    rate: float
    quality: float
    overlap: float


def bjontegaard_delta(
    anchor: Curve, test: Curve, method: Method = "akima", name: str = "quality"
) -> Delta:
    """Return the deltas of the curve `test` against `anchor`; points may come in any order.

    Raises:
        QualityError: there are too few points, quality does not rise with the rate, or the curves have no
            common range. `name` is the metric in the message.
        UsageError: the method is unknown.
        MissingExtraError: the package is not installed.
    """
    if method not in get_args(Method):
        raise UsageError(
            f"the method is {method!r}", f"choose one of: {', '.join(get_args(Method))}"
        )
    a, t = _ordered(anchor, name, "plain"), _ordered(test, name, "roi")
    overlap = _overlap(a.quality, t.quality)
    for what, x, y in (("curves", a.quality, t.quality), ("rates", a.rates, t.rates)):
        if _overlap(x, y) <= 0:
            spans = " and ".join(f"{values[0]:.4g} to {values[-1]:.4g}" for values in (x, y))
            raise QualityError(
                f"{name}: the {what} do not overlap ({spans})", "choose rates that are closer"
            )
    try:
        from bjontegaard import bd_psnr, bd_rate
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "bjontegaard", "roi") from exc
    # The package's own warning about the overlap is off: `Delta.overlap` has it.
    points = a.rates, a.quality, t.rates, t.quality
    options = {"require_matching_points": False, "min_overlap": 0}
    rate, quality = (float(f(*points, method=method, **options)) for f in (bd_rate, bd_psnr))
    return Delta(rate, quality, overlap)


def _ordered(curve: Curve, name: str, which: str) -> Curve:
    if len(curve.rates) != len(curve.quality):
        raise QualityError(
            f"{name}: {len(curve.rates)} rates and {len(curve.quality)} values",
            "give one value per rate",
        )
    if len(curve.rates) < FEWEST_POINTS:
        raise QualityError(
            f"{name}: {len(curve.rates)} points; a delta needs {FEWEST_POINTS} or more",
            "give more rates",
        )
    if min(curve.rates) <= 0:
        raise QualityError(
            f"{name}: a rate is {min(curve.rates):g}; it must be positive", "remove the point"
        )
    points = sorted(zip(curve.rates, curve.quality, strict=True))
    for (low, worse), (high, better) in pairwise(points):
        if not (high > low and better > worse):
            raise QualityError(
                f"{name}: {which} goes from {worse:.4g} to {better:.4g} as the rate goes from "
                f"{low:.6g} to {high:.6g}",
                "a delta needs quality that rises with the rate: leave out saturated points",
            )
    return Curve([p[0] for p in points], [p[1] for p in points])


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the common range of two rising sequences over their whole range; at most 0 without one."""
    return (min(a[-1], b[-1]) - max(a[0], b[0])) / (max(a[-1], b[-1]) - min(a[0], b[0]))
