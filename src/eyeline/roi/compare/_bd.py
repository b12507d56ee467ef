"""Bjøntegaard deltas of two rate-quality curves, by the `bjontegaard` package, with its cautions as errors.

BD-rate: mean horizontal distance of the curves, as a change of rate at equal quality; BD-quality:
mean vertical distance, as a change of quality at equal rate; both over the range that the curves
share, rates on a logarithmic scale (Bjøntegaard, "Calculation of average PSNR differences between
RD-curves", ITU-T VCEG-M33, 2001).

Between its points a curve is interpolated piecewise: `akima` (the default; the least error against
densely sampled curves in Herglotz et al., "The Bjøntegaard Bible", IEEE TIP 2024) or `pchip`
(the piecewise cubic of the JVT's and JVET's common test conditions). A single cubic through all
points, as in 2001, swings between them and is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from eyeline.errors import MissingExtraError, QualityError, UsageError

Method = Literal["akima", "pchip"]

FEWEST_POINTS = 4
"""Of VCEG-M33; with fewer, a delta says more of the interpolation than of the encoder."""

GOOD_OVERLAP = 0.75
"""Share of both curves' range below which a delta is to be quoted with care."""


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
    """A curve against an anchor.

    Attributes:
        rate: percent of the anchor's rate at equal quality; negative is fewer bits.
        quality: the metric's unit at equal rate; positive is better.
        overlap: share of the whole range of quality that both curves cover, 0..1.
    """

    rate: float
    quality: float
    overlap: float


def bjontegaard_delta(
    anchor: Curve, test: Curve, method: Method = "akima", name: str = "quality"
) -> Delta:
    """What a curve saves and gains against an anchor.

    Args:
        anchor: what is compared with; at least `FEWEST_POINTS` points, in any order.
        test: what is judged.
        method: interpolation.
        name: of the metric, for errors.

    Raises:
        QualityError: too few points, quality that does not rise with the rate, or curves without a
            common range: then there is no delta.
        UsageError: an unknown method.
        MissingExtraError: the package is not installed.
    """
    if method not in get_args(Method):
        raise UsageError(f"method is {method!r}", f"one of {', '.join(get_args(Method))}")
    a, t = _ordered(anchor, name, "plain"), _ordered(test, name, "roi")
    overlap = _overlap(a.quality, t.quality)
    if overlap <= 0:
        raise QualityError(
            f"{name}: the curves do not overlap ({_span(a.quality)} and {_span(t.quality)})",
            "give rates that lie nearer",
        )
    if _overlap(a.rates, t.rates) <= 0:
        raise QualityError(
            f"{name}: the rates do not overlap ({_span(a.rates)} and {_span(t.rates)})",
            "give rates that lie nearer",
        )
    try:
        from bjontegaard import bd_psnr, bd_rate
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "bjontegaard", "roi") from exc
    # The package's own warning on overlap is off: `overlap` says it, and none is an error above.
    points = a.rates, a.quality, t.rates, t.quality
    options = {"require_matching_points": False, "min_overlap": 0}
    return Delta(
        float(bd_rate(*points, method=method, **options)),
        float(bd_psnr(*points, method=method, **options)),
        overlap,
    )


def _ordered(curve: Curve, name: str, which: str) -> Curve:
    if len(curve.rates) != len(curve.quality):
        raise QualityError(
            f"{name}: {len(curve.rates)} rates, {len(curve.quality)} values", "one for each"
        )
    if len(curve.rates) < FEWEST_POINTS:
        raise QualityError(
            f"{name}: {len(curve.rates)} points", f"a delta needs {FEWEST_POINTS} or more"
        )
    if min(curve.rates) <= 0:
        raise QualityError(f"{name}: a rate of {min(curve.rates):g}", "rates are positive")
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
    """Common range of two rising sequences over their whole range; not positive if there is none."""
    return (min(a[-1], b[-1]) - max(a[0], b[0])) / (max(a[-1], b[-1]) - min(a[0], b[0]))


def _span(values: Sequence[float]) -> str:
    return f"{values[0]:.4g} to {values[-1]:.4g}"
