"""The centre prior is the Gaussian that its parameters say."""

import numpy as np
import pytest

from eyeline.evaluation.centre_prior import CentreGaussian


def test_the_density_has_the_moments_of_its_parameters() -> None:
    d = CentreGaussian(0.4, 0.6, 0.1, 0.05).density(200, 100)
    y, x = np.mgrid[:100, :200]
    x, y = (x + 0.5) / 200, (y + 0.5) / 100
    mean_x, mean_y = (d * x).sum(), (d * y).sum()
    assert d.sum() == pytest.approx(1)
    assert (mean_x, mean_y) == pytest.approx((0.4, 0.6), abs=1e-3)
    assert np.sqrt((d * (x - mean_x) ** 2).sum()) == pytest.approx(0.1, abs=1e-3)
    assert np.sqrt((d * (y - mean_y) ** 2).sum()) == pytest.approx(0.05, abs=1e-3)
