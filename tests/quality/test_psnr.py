"""PSNR against closed forms and against sums written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eyeline.inference import upscale
from eyeline.quality.psnr import cap, combined, decibels, squared_error
from eyeline.quality.weights import Weights


def planes(seed: int, size: tuple[int, int] = (70, 90), depth: int = 8) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    kind = np.uint8 if depth == 8 else np.uint16
    return tuple(rng.integers(0, 1 << depth, size).astype(kind) for _ in range(2))


@pytest.mark.parametrize("depth", [8, 10, 16])
def test_whole_error_is_the_mean_of_squares(depth: int) -> None:
    a, b = planes(1, depth=depth)
    want = ((a.astype(np.float64) - b) ** 2).mean()
    assert squared_error(a, b, None).whole == pytest.approx(want, rel=1e-6)


def test_8_bit_sums_are_exact() -> None:
    a, b = np.zeros((64, 50), np.uint8), np.full((64, 50), 255, np.uint8)
    assert squared_error(a, b, None).whole == 65025


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (70, 90), (140, 180), (33, 200)])
def test_weighted_error_is_the_weighted_mean_at_any_map_size(shape: tuple[int, int]) -> None:
    a, b = planes(2)
    weights = Weights(np.random.default_rng(3).random(shape, np.float32))
    w = weights.at(90, 70).astype(np.float64)
    want = (w * (a.astype(np.float64) - b) ** 2).sum() / w.sum()
    assert squared_error(a, b, weights).weighted == pytest.approx(want, rel=1e-5)


def test_weights_of_a_coarse_map_are_its_linear_interpolation() -> None:
    a, b = planes(4, (360, 640), depth=10)
    m = np.random.default_rng(5).random((96, 171), np.float32)
    w = upscale(m, 640, 360).astype(np.float64)
    want = (w * (a.astype(np.float64) - b) ** 2).sum() / w.sum()
    assert squared_error(a, b, Weights(m)).weighted == pytest.approx(want, rel=1e-7)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_weight_blends_uniform_and_saliency(strength: float) -> None:
    a, b = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    b[:, :4] = (
        10  # the error is in the left half, the map is the left half: MSE 50 whole, 100 there
    )
    m = np.zeros((8, 8), np.float32)
    m[:, :4] = 1
    got = squared_error(a, b, Weights(m, strength)).weighted
    assert got == pytest.approx(50 + 50 * strength)


def test_errors_outside_the_map_do_not_count() -> None:
    a, b = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    b[:, 4:] = 200
    m = np.zeros((8, 8), np.float32)
    m[:, :4] = 0.3
    error = squared_error(a, b, Weights(m))
    assert (error.whole, error.weighted) == (20000, 0)


@given(
    m=hnp.arrays(np.float32, (5, 6), elements=st.floats(0.0625, 1, width=32)),
    scale=st.floats(0.125, 8),
    seed=st.integers(0, 99),
)
def test_the_level_of_a_map_is_of_no_matter(m: np.ndarray, scale: float, seed: int) -> None:
    a, b = planes(seed, (20, 30))
    one = squared_error(a, b, Weights(m, 0.5)).weighted
    other = squared_error(a, b, Weights(m * np.float32(scale), 0.5)).weighted
    assert other == pytest.approx(one, rel=1e-4)


@given(seed=st.integers(0, 99), level=st.floats(0.01, 1))
def test_a_uniform_map_gives_the_whole(seed: int, level: float) -> None:
    a, b = planes(seed, (20, 30))
    error = squared_error(a, b, Weights(np.full((4, 5), level, np.float32)))
    assert error.weighted == pytest.approx(error.whole, rel=1e-5)


def test_decibels_of_a_known_error() -> None:
    assert decibels(1.0, 8) == pytest.approx(20 * math.log10(255))
    assert decibels(16.0, 10) == pytest.approx(20 * math.log10(1023 / 4))


@pytest.mark.parametrize(("depth", "most"), [(8, 60), (10, 72), (12, 84)])
def test_identical_planes_have_the_cap(depth: int, most: float) -> None:
    assert decibels(0.0, depth) == cap(depth) == most
    assert decibels(1e-9, depth) == most


def test_six_one_one() -> None:
    assert combined(30, 40, 46) == (6 * 30 + 40 + 46) / 8
