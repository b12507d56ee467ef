"""The density of gaze: one fixation is one Gaussian, and its width is that of the visual angle."""

import numpy as np
import pytest

pytest.importorskip("PIL")
from eyeline.datasets.fixations import DEFAULT_SIGMA, Fixations, gaze_density, sigma_of


def fixations(*places: tuple[float, float]) -> Fixations:
    x, y = (np.array(axis, float) for axis in zip(*places, strict=True))
    n = len(x)
    return Fixations(np.arange(n), x, y, np.zeros(n), np.full(n, 200.0))


def test_one_fixation_is_a_gaussian_around_it() -> None:
    width, height, sigma = 80, 50, 0.05
    found = gaze_density(fixations((0.25, 0.6)), width, height, sigma)
    x, y = np.arange(width) + 0.5 - 20, np.arange(height) + 0.5 - 30
    expected = np.exp(-0.5 * (x[None] ** 2 + y[:, None] ** 2) / (sigma * width) ** 2)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5, atol=1e-12)


def test_it_sums_to_one_at_any_place() -> None:
    found = gaze_density(fixations((0.0, 0.0), (0.999, 0.5), (0.5, 0.2)), 64, 36)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert found.min() >= 0


def test_every_fixation_counts_alike() -> None:
    places = [(0.3, 0.4), (0.5, 0.5), (0.6, 0.55)]
    both = gaze_density(fixations(*places), 64, 36, 0.02)
    each = [gaze_density(fixations(p), 64, 36, 0.02) for p in places]
    np.testing.assert_allclose(both, np.mean(each, axis=0), atol=1e-7)


def test_the_shape_does_not_depend_on_the_resolution() -> None:
    places = fixations((0.3, 0.4), (0.8, 0.5))
    fine = gaze_density(places, 256, 144)
    coarse = gaze_density(places, 128, 72)
    means = fine.reshape(72, 2, 128, 2).sum((1, 3))
    np.testing.assert_allclose(means, coarse, atol=0.01 * coarse.max())


def test_one_degree_is_taken_where_it_is_known() -> None:
    assert sigma_of(1920, None) == DEFAULT_SIGMA
    assert sigma_of(1920, 48) == pytest.approx(0.025)


def test_without_a_fixation_there_is_no_density() -> None:
    with pytest.raises(ValueError, match="no fixation"):
        gaze_density(fixations((0.5, 0.5)).select(np.zeros(1, bool)), 64, 36)


def test_a_gaussian_between_the_samples_does_not_vanish() -> None:
    found = gaze_density(fixations((0.5, 0.5), (0.5, 96.5 / 160)), 1, 160, 1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    both = found[70:90].sum(), found[90:].sum()
    assert both[0] == pytest.approx(both[1], rel=0.2)  # on a sample's edge, and in its middle
