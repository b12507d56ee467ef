"""Per-frame numbers: known answers, and float64 formulas written independently."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eyeline.saliency.features import FEATURES, map_features

UNIT = st.floats(0, 1, width=32)
MAPS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=UNIT)


def disc(width: int, height: int, x0: int, y0: int, radius: float) -> np.ndarray:
    """1 inside a disc around the centre of pixel (x0, y0), 0 outside."""
    y, x = np.mgrid[:height, :width]
    return ((x - x0) ** 2 + (y - y0) ** 2 <= radius**2).astype(np.float32)


def test_names_and_their_order_are_those_of_the_table() -> None:
    assert list(map_features(np.zeros((2, 2), np.float32), None)) == list(FEATURES)


@given(st.floats(2.0**-20, 1, width=32), st.integers(2, 40), st.integers(2, 40))
def test_a_constant_map(c: float, h: int, w: int) -> None:
    f = map_features(np.full((h, w), c, np.float32), None)
    assert f["saliency_mean"] == pytest.approx(c, rel=1e-14)
    assert f["saliency_std"] == pytest.approx(0, abs=1e-7)
    assert f["saliency_coverage"] == (1.0 if c > 0.5 else 0.0)
    assert f["saliency_entropy"] == pytest.approx(1, abs=1e-6)
    assert f["saliency_cx"] == pytest.approx(0.5, abs=1e-12)
    assert f["saliency_cy"] == pytest.approx(0.5, abs=1e-12)


def test_a_map_of_zeros_has_its_centroid_in_the_middle_and_no_entropy() -> None:
    f = map_features(np.zeros((5, 7), np.float32), None)
    assert f == dict.fromkeys(FEATURES, 0.0) | {"saliency_cx": 0.5, "saliency_cy": 0.5}


def test_one_point_has_no_entropy_and_is_its_own_centroid() -> None:
    m = np.zeros((10, 20), np.float32)
    m[3, 17] = 0.7
    f = map_features(m, None)
    assert f["saliency_entropy"] == pytest.approx(0, abs=1e-6)
    assert (f["saliency_cx"], f["saliency_cy"]) == pytest.approx((17.5 / 20, 3.5 / 10))


def test_two_equal_points_hold_one_bit() -> None:
    m = np.zeros((8, 16), np.float32)
    m[0, 0] = m[7, 15] = 0.25
    f = map_features(m, None)
    assert f["saliency_entropy"] == pytest.approx(1 / math.log2(128), abs=1e-6)
    assert (f["saliency_cx"], f["saliency_cy"]) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(("x0", "y0"), [(20, 15), (75, 60), (100, 30)])
def test_a_discs_centroid_is_its_centre(x0: int, y0: int) -> None:
    m = disc(120, 80, x0, y0, 11.3)
    f = map_features(m, None)
    assert f["saliency_cx"] == pytest.approx((x0 + 0.5) / 120, abs=1e-12)
    assert f["saliency_cy"] == pytest.approx((y0 + 0.5) / 80, abs=1e-12)
    area = np.count_nonzero(m) / m.size
    assert f["saliency_mean"] == f["saliency_coverage"] == pytest.approx(area, abs=1e-15)
    assert f["saliency_std"] == pytest.approx(math.sqrt(area * (1 - area)), abs=1e-12)


def test_coverage_counts_what_is_above_half_not_at_half() -> None:
    m = np.array([[0.5, np.nextafter(np.float32(0.5), np.float32(1))]], np.float32)
    assert map_features(m, None)["saliency_coverage"] == 0.5


@given(MAPS)
def test_features_equal_independent_float64_formulas(m: np.ndarray) -> None:
    h, w = m.shape
    values = [float(v) for v in m.ravel()]
    total = math.fsum(values)
    mean = total / len(values)
    f = map_features(m, None)
    assert f["saliency_mean"] == pytest.approx(mean, rel=1e-13, abs=1e-300)
    variance = math.fsum((v - mean) ** 2 for v in values) / len(values)
    assert f["saliency_std"] == pytest.approx(math.sqrt(variance), abs=3e-8)
    if total < 1e-6:
        return
    xs = math.fsum(v * ((i % w + 0.5) / w) for i, v in enumerate(values)) / total
    ys = math.fsum(v * ((i // w + 0.5) / h) for i, v in enumerate(values)) / total
    assert (f["saliency_cx"], f["saliency_cy"]) == pytest.approx((xs, ys), abs=1e-12)
    if len(values) > 1:
        bits = -math.fsum(v / total * math.log2(v / total) for v in values if v > 0)
        assert f["saliency_entropy"] == pytest.approx(bits / math.log2(len(values)), abs=2e-6)


@given(MAPS, MAPS)
def test_every_feature_stays_in_its_range(m: np.ndarray, other: np.ndarray) -> None:
    f = map_features(m, other)
    assert all(math.isfinite(v) for v in f.values())
    assert all(0 <= v <= 1 for v in f.values())
    assert f["saliency_std"] <= 0.5 + 1e-9
    assert 0 < f["saliency_cx"] < 1
    assert 0 < f["saliency_cy"] < 1


def test_a_mirrored_map_mirrors_its_centroid() -> None:
    m = np.random.default_rng(0).random((30, 50), np.float32)
    a, b = map_features(m, None), map_features(m[::-1, ::-1], None)
    assert a["saliency_cx"] + b["saliency_cx"] == pytest.approx(1, abs=1e-12)
    assert a["saliency_cy"] + b["saliency_cy"] == pytest.approx(1, abs=1e-12)


def test_the_mean_is_summed_in_float64() -> None:
    m = np.full((1200, 1600), 0.1, np.float32)  # summed in float32 it is off by more than 1e-7
    assert map_features(m, None)["saliency_mean"] == pytest.approx(
        float(np.float32(0.1)), rel=1e-13
    )


def test_flicker_is_the_mean_absolute_change() -> None:
    before = np.array([[0, 0.25], [0.5, 1]], np.float32)
    after = np.array([[0, 0.75], [0.25, 0]], np.float32)
    assert map_features(after, before)["saliency_flicker"] == (0.5 + 0.25 + 1) / 4


def test_flicker_is_zero_without_a_previous_map_of_that_size() -> None:
    m = np.ones((4, 4), np.float32)
    assert map_features(m, None)["saliency_flicker"] == 0
    assert map_features(m, np.zeros((4, 5), np.float32))["saliency_flicker"] == 0
