"""The centre prior is the Gaussian that its parameters say."""

import numpy as np
import pytest

from shared import SHARED

pytest.importorskip("PIL")
from eyeline.datasets.fixations import CentreGaussian, load_fixation_set
from eyeline.evaluation.gaze_metrics import fit_prior, shipped_priors


def test_the_density_has_the_moments_of_its_parameters() -> None:
    d = CentreGaussian(0.4, 0.6, 0.1, 0.05).density(200, 100)
    y, x = np.mgrid[:100, :200]
    x, y = (x + 0.5) / 200, (y + 0.5) / 100
    mean_x, mean_y = (d * x).sum(), (d * y).sum()
    assert d.sum() == pytest.approx(1)
    assert (mean_x, mean_y) == pytest.approx((0.4, 0.6), abs=1e-3)
    assert np.sqrt((d * (x - mean_x) ** 2).sum()) == pytest.approx(0.1, abs=1e-3)
    assert np.sqrt((d * (y - mean_y) ** 2).sum()) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.skipif(not (SHARED / "gaze").exists(), reason="needs ../shared/data/gaze")
@pytest.mark.parametrize("name", ["osie", "crowd", "scene"])
def test_the_shipped_fits_are_those_of_the_published_sets(name: str) -> None:
    shipped = {p.name: p for p in shipped_priors()}
    assert fit_prior(load_fixation_set(SHARED / "gaze" / f"{name}.tar")) == shipped[name]
