"""Intervals of a mean: as wide as theory says, wider where neighbours resemble each other."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.report._series import (
    LEAST_FRAMES,
    MOST_BLOCKS,
    _autocovariance,
    block_length,
    mean_interval,
)


def autoregressive(phi: float, count: int, seed: int) -> np.ndarray:
    """x[i] = phi x[i - 1] + noise of variance 1, from its stationary distribution."""
    noise = np.random.default_rng(seed).normal(size=count)
    x = np.empty(count)
    x[0] = noise[0] / math.sqrt(1 - phi**2)
    for i in range(1, count):
        x[i] = phi * x[i - 1] + noise[i]
    return x


def test_autocovariance_by_hand() -> None:
    # mean 2: deviations -1, 0, 1
    assert _autocovariance(np.array([1.0, 2.0, 3.0])) == pytest.approx([2 / 3, 0, -1 / 3])


def test_independent_frames_have_the_textbooks_width() -> None:
    x = np.random.default_rng(1).normal(size=2000)
    interval = mean_interval(x)
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / math.sqrt(2000), rel=0.12)


def test_resembling_frames_have_longer_blocks_and_wider_intervals() -> None:
    """The variance of an AR(1) mean is (1 - phi)^-2 / n: a width of 2 * 1.96 * 5 / sqrt(n)."""
    widths, lengths = [], []
    for seed in range(8):
        x = autoregressive(0.8, 4000, seed)
        interval = mean_interval(x, draws=500)
        assert interval is not None
        widths.append(interval.high - interval.low)
        lengths.append(interval.block)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 5 / math.sqrt(4000), rel=0.15)
    assert min(lengths) > 10


def test_it_covers_the_truth_nearly_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(200):
        interval = mean_interval(autoregressive(0.6, 500, seed), draws=300)
        assert interval is not None
        inside += interval.low <= 0 <= interval.high
    assert 0.88 <= inside / 200 <= 0.99  # 500 frames hold some 125 independent ones


def test_a_constant_has_no_width() -> None:
    interval = mean_interval(np.full(50, 97.3))
    assert interval is not None
    assert interval.block == 1
    assert (interval.low, interval.high) == pytest.approx((97.3, 97.3), abs=1e-12)


@pytest.mark.parametrize(
    "values", [np.arange(LEAST_FRAMES - 1.0), [*range(20), np.nan], [*range(20), np.inf]]
)
def test_no_interval(values: object) -> None:
    assert mean_interval(np.asarray(values, float)) is None


def test_long_clips_are_bounded() -> None:
    interval = mean_interval(np.random.default_rng(0).normal(size=100_000), draws=50)
    assert interval is not None
    assert interval.block == 100_000 // MOST_BLOCKS


@given(st.lists(st.floats(-1e6, 1e6), min_size=LEAST_FRAMES, max_size=60))
def test_bounds_hold_whatever_the_values(values: list[float]) -> None:
    x = np.array(values)
    interval = mean_interval(x, draws=100)
    assert interval is not None
    slack = 1e-9 * (1 + np.abs(x).max())
    assert x.min() - slack <= interval.low <= interval.high <= x.max() + slack
    assert 1 <= interval.block <= math.ceil(len(x) / 3)
    assert block_length(x) == interval.block


def test_numbers_near_the_end_of_float64() -> None:
    assert mean_interval(np.array([1e308, 1.2e308] * 10)) is None  # their sum is infinite
    tiny = mean_interval(np.array([1e-300, 2e-300] * 10))
    assert tiny is not None
    assert 1e-300 < tiny.low < 1.5e-300 < tiny.high < 2e-300
