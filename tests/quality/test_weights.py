"""Weights at any size, and maps that have none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eyeline.errors import QualityError
from eyeline.inference import upscale
from eyeline.quality.weights import Weights, resample

SIDES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def test_a_map_of_its_own_size_is_itself() -> None:
    m = np.random.default_rng(0).random((7, 9), np.float32)
    assert np.array_equal(resample(m, 9, 7), m)


@pytest.mark.parametrize("size", [(90, 70), (13, 7), (9, 20)])
def test_enlarging_is_that_of_the_heat_map(size: tuple[int, int]) -> None:
    m = np.random.default_rng(1).random((7, 9), np.float32)
    assert resample(m, *size) == pytest.approx(upscale(m, *size), abs=1e-6)


def test_halving_takes_the_mean_of_blocks() -> None:
    m = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert resample(m, 2, 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_a_share_of_a_sample_counts_by_its_area() -> None:
    m = np.array([[0, 3, 6]], np.float32)
    assert resample(m, 2, 1) == pytest.approx(np.array([[1, 5]]))  # (0 + 3/2)/1.5, (3/2 + 6)/1.5


@given(m=hnp.arrays(np.float32, SIDES, elements=st.floats(0, 1, width=32)), size=SIDES)
def test_resampling_stays_in_range(m: np.ndarray, size: tuple[int, int]) -> None:
    out = resample(m, *size)
    assert out.shape == (size[1], size[0])
    assert out.min() >= m.min() - 1e-6
    assert out.max() <= m.max() + 1e-6


@given(m=hnp.arrays(np.float32, SIDES, elements=st.floats(0, 1, width=32)), by=st.integers(1, 6))
def test_shrinking_keeps_the_mean(m: np.ndarray, by: int) -> None:
    h, w = m.shape
    out = resample(m, -(-w // by), -(-h // by))
    assert out.mean(dtype=np.float64) == pytest.approx(m.mean(dtype=np.float64), abs=1e-5)


def test_weights_have_mean_one_and_no_zero_when_blended() -> None:
    m = np.zeros((4, 4), np.float32)
    m[0, 0] = 0.5
    w = Weights(m, 0.5).at(4, 4)
    assert w.mean() == pytest.approx(1)
    assert w.min() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "NaN"), (np.inf, "infinite"), (-0.1, "negative"), (0.0, "zero everywhere")],
)
def test_a_map_that_is_none_is_refused_by_frame(value: float, words: str) -> None:
    m = np.zeros((4, 4), np.float32)
    m[1, 2] = value
    with pytest.raises(QualityError, match=rf"frame 7: .*{words}"):
        Weights(m, 1.0, "frame 7")


def test_a_zero_map_is_no_matter_when_weights_are_uniform() -> None:
    assert Weights(np.zeros((2, 2), np.float32), 0.0).at(3, 3).tolist() == [[1, 1, 1]] * 3
