"""Laws, blocks and smoothing: known answers and invariants."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eyeline.errors import MediaError, UsageError
from eyeline.roi.steering import (
    GAZE_SHARE,
    LevelMapper,
    LevelSmoother,
    SteerOptions,
    block_activity,
    check_law,
    density,
    grid_size,
    level_step,
    neutral,
    span_of,
    steering_means,
    symmetric,
    to_coded,
    valid_map,
)

saliency = arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32))
weights = arrays(np.float64, (5, 7), elements=st.floats(0.5, 100))
strengths = st.floats(0.5, 51)


def test_symmetric_is_the_references_law() -> None:
    s = np.array([[0, 0.5, 1]], np.float32)
    assert symmetric(s, 4).tolist() == [[4, 0, -4]]
    assert symmetric(s, 20).tolist() == [[12, 0, -12]]


@given(saliency, weights, strengths, st.floats(1, 12))
def test_neutral_offsets_weigh_nothing(
    s: np.ndarray, w: np.ndarray, strength: float, clamp: float
) -> None:
    offsets = neutral(s, strength, clamp, w)
    assert np.abs(offsets).max() <= clamp
    assert abs((w * offsets).sum() / w.sum()) < 1e-3


def test_density_doubles_a_weight_for_its_strength() -> None:
    """Two blocks whose weights are 4 to 1: two doublings, so twice the strength lies between them."""
    k = GAZE_SHARE
    # (1 - k) + k s / mean with a mean of 1: s such that the weights are 1.6 and 0.4.
    s = np.array([[1 + 0.6 / k, 1 - 0.6 / k]], np.float32).clip(0)
    weights = (1 - k) + k * s / s.mean()
    found = density(s, 1.5)
    assert found[0, 1] - found[0, 0] == pytest.approx(
        1.5 * np.log2(weights[0, 0] / weights[0, 1]), abs=1e-5
    )
    assert found.sum() == pytest.approx(0, abs=1e-5)


@given(saliency, st.floats(0.01, 100), st.floats(0.5, 3))
def test_density_depends_on_the_shape_of_a_map_alone(
    s: np.ndarray, level: float, strength: float
) -> None:
    s = s + np.float32(0.01)
    np.testing.assert_allclose(density(s * level, strength), density(s, strength), atol=1e-3)


def test_density_of_a_map_of_zeros_moves_nothing() -> None:
    assert not density(np.zeros((3, 4), np.float32), 3).any()


@given(saliency, weights, st.floats(0.5, 6), st.floats(1, 12))
def test_density_offsets_weigh_nothing(
    s: np.ndarray, w: np.ndarray, strength: float, clamp: float
) -> None:
    offsets = density(s, strength, clamp, w)
    assert np.abs(offsets).max() <= clamp
    assert abs((w * offsets).sum() / w.sum()) < 1e-3


@pytest.mark.parametrize("peak", [1.0, 10.0, 35.0])
def test_the_span_of_density_holds_maps_of_gaze(peak: float) -> None:
    s = np.zeros((30, 40), np.float32)
    s[0, 0] = 1
    s += (1 / peak - 1 / s.size) / (1 - 1 / s.size) if peak < s.size else 0
    found = density(s, 1.5)
    assert np.ptp(found) <= span_of("density", 1.5, 12) + 1e-4


def test_a_map_of_gaze_is_steered_by_its_density_and_one_of_objects_by_its_values() -> None:
    gaze, objects = SteerOptions().for_map("gaze"), SteerOptions().for_map("objects")
    assert (gaze.law, objects.law) == ("density", "neutral")
    assert SteerOptions().for_map(None) == objects
    named = SteerOptions(strength=2, law="symmetric").for_map("gaze")
    assert (named.law, named.strength) == ("symmetric", 2)


@given(saliency, strengths)
def test_more_saliency_never_means_a_higher_qp(s: np.ndarray, strength: float) -> None:
    order = np.argsort(s, axis=None)
    for offsets in (symmetric(s, strength), neutral(s, strength), density(s, strength)):
        assert (np.diff(offsets.ravel()[order]) <= 0).all()


@pytest.mark.parametrize("given_", [("cubic", 4, 12), ("neutral", 52, 12), ("neutral", 4, 0.5)])
def test_numbers_out_of_range_are_refused(given_: tuple[str, float, float]) -> None:
    with pytest.raises(UsageError):
        check_law(*given_)


@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([16, 64]))
def test_block_means_of_a_full_size_map_are_plain_means(
    width: int, height: int, block: int
) -> None:
    m = np.random.default_rng(width * 151 + height).random((height, width), np.float32)
    means = steering_means(m, width, height, block)
    assert means.shape == grid_size(width, height, block)
    for row, column in np.ndindex(means.shape):
        part = m[row * block : (row + 1) * block, column * block : (column + 1) * block]
        assert means[row, column] == pytest.approx(part.mean(), abs=1e-5)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(8, 200), st.floats(0, 1, width=32))
def test_a_constant_map_stays_constant_at_any_size(h: int, w: int, side: int, s: float) -> None:
    means = steering_means(np.full((h, w), s, np.float32), side, side + 3, 16)
    assert np.allclose(means, s, atol=1e-6)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_map_is_turned_back_to_how_the_picture_is_coded(rotation: int) -> None:
    coded = np.arange(6, dtype=np.float32).reshape(2, 3)
    upright = np.rot90(coded, -rotation // 90)  # clockwise
    assert (to_coded(upright, rotation) == coded).all()


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((9, 9), np.float32),
        np.full((9, 16), np.nan, np.float32),
        np.full((9, 16), 1.5, np.float32),
        np.zeros((9, 16, 3), np.float32),
        np.zeros((0, 16), np.float32),
    ],
)
def test_maps_of_something_else_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(MediaError, match="frame 3"):
        valid_map(bad, (1280, 720), "frame 3")


def test_busy_blocks_weigh_more_than_flat_ones() -> None:
    luma = np.zeros((40, 48), np.uint8)
    luma[:, 16:32] = np.random.default_rng(0).integers(0, 255, (40, 16))
    activity = block_activity(luma, 16)
    assert activity.shape == (3, 3)
    assert (activity[:, 1] > 10 * activity[:, 0]).all()
    assert activity[:, 0].tolist() == [1, 1, 1]


@example(3.0, 4)
@given(st.floats(0.5, 24), st.integers(3, 9))
def test_levels_are_at_most_as_many_as_asked(span: float, levels: int) -> None:
    step = level_step(span, levels)
    for low in np.linspace(-span, 0, 13):
        offsets = np.linspace(low, low + span, 500, dtype=np.float32)[None]
        steady = LevelSmoother(step, smoothing=0, hysteresis=0, most=levels)
        assert len(np.unique(steady(offsets))) <= levels


def test_hysteresis_keeps_no_more_levels_than_asked() -> None:
    steady = LevelSmoother(1, smoothing=0, most=4)
    for low in (-1.5, -2.2, -0.8):
        offsets = np.linspace(low, low + 3, 64, dtype=np.float32).reshape(8, 8)
        assert len(np.unique(steady(offsets))) <= 4


def test_hysteresis_keeps_a_block_that_wavers() -> None:
    steady = LevelSmoother(1, smoothing=0, hysteresis=0.25)
    seen = [int(steady(np.full((1, 1), x, np.float32))[0, 0]) for x in (1.4, 1.6, 1.4, 1.7, 1.8)]
    assert seen == [1, 1, 1, 1, 2]


def test_smoothing_follows_and_a_cut_starts_anew() -> None:
    steady = LevelSmoother(1, smoothing=0.5, hysteresis=0)
    low, high = np.zeros((1, 1), np.float32), np.full((1, 1), 8, np.float32)
    assert [int(steady(x)[0, 0]) for x in (low, high, high)] == [0, 4, 6]
    assert steady(low, reset=True)[0, 0] == 0


def test_another_grid_starts_anew() -> None:
    steady = LevelSmoother(1, smoothing=0.9)
    steady(np.zeros((1, 1), np.float32))
    assert steady(np.full((2, 2), 8, np.float32)).tolist() == [[8, 8], [8, 8]]


def test_an_encoder_with_few_levels_gets_few() -> None:
    steering = LevelMapper(SteerOptions(strength=12, law="symmetric"), 640, 64, 16, 7)
    ramp = np.tile(np.linspace(0, 1, 640, dtype=np.float32), (64, 1))
    assert len(np.unique(steering(ramp))) <= 7
