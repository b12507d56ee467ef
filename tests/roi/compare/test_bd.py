"""Deltas of two curves: known answers, and refusals where there is no answer."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.errors import QualityError, UsageError
from eyeline.roi.compare._records import Curve, bjontegaard_delta

RATES = (400.0, 800.0, 1600.0, 3200.0, 6400.0)
QUALITY = (30.0, 33.0, 35.5, 37.5, 39.0)
ANCHOR = Curve(RATES, QUALITY)


@pytest.mark.parametrize("method", ["akima", "pchip"])
def test_a_curve_against_itself_is_nothing(method: str) -> None:
    delta = bjontegaard_delta(ANCHOR, ANCHOR, method)  # type: ignore[arg-type]
    assert delta.rate == pytest.approx(0, abs=1e-9)
    assert delta.quality == pytest.approx(0, abs=1e-9)
    assert delta.overlap == 1


@pytest.mark.parametrize("method", ["akima", "pchip"])
@given(share=st.floats(0.6, 1.6))
def test_fewer_bits_for_the_same_quality_are_that_share(method: str, share: float) -> None:
    test = Curve([r * share for r in RATES], QUALITY)
    delta = bjontegaard_delta(ANCHOR, test, method)  # type: ignore[arg-type]
    assert delta.rate == pytest.approx((share - 1) * 100, abs=1e-6)


def test_a_straight_line_that_lies_higher_gains_that_much() -> None:
    line = [30 + 6 * math.log10(r) for r in RATES]
    delta = bjontegaard_delta(Curve(RATES, line), Curve(RATES, [q + 0.5 for q in line]))
    assert delta.quality == pytest.approx(0.5)
    # 0.5 dB at 6 dB a decade
    assert delta.rate == pytest.approx((10 ** (-0.5 / 6) - 1) * 100)


def test_points_may_come_in_any_order() -> None:
    turned = Curve(RATES[::-1], QUALITY[::-1])
    test = Curve([r * 0.9 for r in RATES], QUALITY)
    assert bjontegaard_delta(turned, test) == bjontegaard_delta(ANCHOR, test)


def test_the_overlap_is_the_share_of_quality_that_both_cover() -> None:
    higher = Curve(RATES, [q + 3 for q in QUALITY])
    assert bjontegaard_delta(ANCHOR, higher).overlap == pytest.approx(6 / 12)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (Curve(RATES, [q + 20 for q in QUALITY]), "qualities of the two curves do not overlap"),
        (Curve([r * 100 for r in RATES], QUALITY), "rates of the two curves do not overlap"),
        (Curve(RATES, (30, 33, 33, 37, 39)), "rises with the rate"),
        (Curve((400, 800, 800, 3200, 6400), QUALITY), "rises with the rate"),
        (Curve(RATES[:3], QUALITY[:3]), "at least 4 are needed"),
        (Curve(RATES, QUALITY[:4]), "5 rates, but 4 values"),
        (Curve((0, 800, 1600, 3200, 6400), QUALITY), "positive"),
    ],
)
def test_no_delta_is_made_up(test: Curve, said: str) -> None:
    with pytest.raises(QualityError, match=said):
        bjontegaard_delta(ANCHOR, test)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="akima, pchip"):
        bjontegaard_delta(ANCHOR, ANCHOR, "cubic")  # type: ignore[arg-type]
