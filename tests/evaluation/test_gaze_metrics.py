"""Metrics of gaze prediction and the centre prior: known answers, invariants, and pysaliency."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.datasets.fixations import CentreGaussian, Fixations, load_fixation_set
from eyeline.evaluation.gaze_metrics import (
    GAZE_MEASURES,
    UNIFORM_SHARE,
    GazeTruth,
    auc,
    auc_judd,
    cc,
    fit_prior,
    gaze_truth,
    information_gain,
    kl,
    map_density,
    nss,
    pixels,
    score_gaze,
    shipped_priors,
    sim,
)
from shared import SHARED

WIDTH, HEIGHT = 32, 18
PRIOR = map_density(CentreGaussian(0.5, 0.5, 0.25, 0.25).density(WIDTH, HEIGHT))


def fixations(x: np.ndarray, y: np.ndarray) -> Fixations:
    n = len(x)
    return Fixations(np.arange(n), x, y, np.zeros(n), np.full(n, 200.0))


def truth(seed: int = 0, count: int = 20) -> GazeTruth:
    """Fixations around a corner, negatives anywhere."""
    rng = np.random.default_rng(seed)
    x, y = rng.beta(2, 5, (2, count))
    others = rng.integers(0, 4, (HEIGHT, WIDTH)).astype(np.float64)
    return gaze_truth(fixations(x, y), others, PRIOR, 0.08)


def some_map(seed: int, *, levels: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((HEIGHT, WIDTH))
    return np.round(values * levels) / levels if levels else values


def test_the_recorded_density_is_the_perfect_map() -> None:
    t = truth()
    scores = score_gaze(t.density, t)
    assert list(scores) == list(GAZE_MEASURES)
    assert scores["cc"] == pytest.approx(1)
    assert sim(t.density, t.density) == pytest.approx(1)
    assert kl(t.density, t.density) == 0
    for seed in range(5):
        other = score_gaze(some_map(seed), t)
        assert all(other[m] < scores[m] for m in ("nss", "cc", "sim", "auc_judd", "shuffled_auc"))
        assert other["kl"] > scores["kl"]


@pytest.mark.parametrize("level", [0.0, 0.1, 0.3, 1.0])
def test_a_constant_map_knows_nothing(level: float) -> None:
    t = truth()
    scores = score_gaze(np.full((HEIGHT, WIDTH), level), t)
    assert (scores["nss"], scores["cc"]) == (0, 0)
    assert (scores["auc_judd"], scores["shuffled_auc"]) == (0.5, 0.5)
    entropy = -(t.density[t.density > 0] * np.log(t.density[t.density > 0])).sum()
    assert scores["kl"] == pytest.approx(np.log(WIDTH * HEIGHT) - entropy)
    at_fixations = PRIOR[t.rows, t.columns]
    expected = -np.log2(WIDTH * HEIGHT * at_fixations).mean()
    assert scores["information_gain"] == pytest.approx(expected)


def test_the_centre_prior_gains_nothing_over_itself() -> None:
    t = truth()
    assert information_gain(PRIOR, PRIOR, t.rows, t.columns) == 0


def test_one_fixation_on_the_peak() -> None:
    m = np.zeros((4, 5))
    m[1, 2] = 1
    mean, std = 1 / 20, np.sqrt(1 / 20 - 1 / 400)
    others = np.ones((4, 5))
    t = GazeTruth(np.array([1]), np.array([2]), m, others, np.full((4, 5), 1 / 20))
    scores = score_gaze(m, t)
    assert scores["nss"] == pytest.approx((1 - mean) / std)
    assert scores["auc_judd"] == 1
    assert scores["shuffled_auc"] == pytest.approx(19.5 / 20)  # the peak is among the negatives
    assert scores["information_gain"] == pytest.approx(np.log2((0.99 + 0.01 / 20) * 20))


def test_no_fixation_has_no_score() -> None:
    none = np.empty(0, np.intp)
    scores = score_gaze(some_map(1), GazeTruth(none, none, PRIOR, PRIOR, PRIOR))
    for name in ("nss", "auc_judd", "shuffled_auc", "information_gain"):
        assert np.isnan(scores[name])
    assert np.isfinite([scores[name] for name in ("cc", "sim", "kl")]).all()


def test_no_negatives_have_no_shuffled_auc() -> None:
    t = truth()
    alone = GazeTruth(t.rows, t.columns, t.density, np.zeros_like(t.density), t.prior)
    assert np.isnan(score_gaze(some_map(1), alone)["shuffled_auc"])


def test_a_tie_is_half_a_hit() -> None:
    assert auc(np.array([1.0]), np.array([0.0, 1.0, 1.0, 2.0]), np.ones(4)) == 0.5
    assert auc(np.array([1.0, 2.0]), np.array([1.0]), np.ones(1)) == 0.75


def test_every_fixation_on_a_pixel_counts() -> None:
    m = np.array([[0.0, 1.0, 2.0, 5.0]])
    rows, columns = np.zeros(3, np.intp), np.array([3, 3, 1])
    assert nss(m, rows, columns) == pytest.approx((11 / 3 - 2) / m.std())


def test_positions_at_the_far_edge_stay_inside() -> None:
    last = np.nextafter(1, 0)
    rows, columns = pixels(fixations(np.array([0.0, last]), np.array([0.5, last])), 7, 3)
    assert (rows.tolist(), columns.tolist()) == ([1, 2], [0, 6])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-5, 5))
def test_affine_changes_leave_nss_and_cc(seed: int, gain: float, offset: float) -> None:
    t, m = truth(seed), some_map(seed)
    assert nss(gain * m + offset, t.rows, t.columns) == pytest.approx(nss(m, t.rows, t.columns))
    assert cc(gain * m + offset, t.density) == pytest.approx(cc(m, t.density))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12))
def test_monotone_changes_leave_both_aucs(seed: int, levels: int) -> None:
    t, m = truth(seed), some_map(seed, levels=levels)
    first, changed = score_gaze(m, t), score_gaze(np.exp(3 * m), t)
    for name in ("auc_judd", "shuffled_auc"):
        assert changed[name] == pytest.approx(first[name], abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_scale_leaves_what_takes_a_density(seed: int, gain: float) -> None:
    t, m = truth(seed), some_map(seed)
    first, changed = score_gaze(m, t), score_gaze(gain * m, t)
    for name in ("kl", "sim", "information_gain"):
        assert changed[name] == pytest.approx(first[name], rel=1e-9, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_numbers_stay_in_their_ranges(seed: int) -> None:
    scores = score_gaze(some_map(seed, levels=3), truth(seed))
    assert -1 <= scores["cc"] <= 1
    assert 0 <= scores["sim"] <= 1
    assert scores["kl"] >= 0
    assert 0 <= scores["auc_judd"] <= 1
    assert 0 <= scores["shuffled_auc"] <= 1


def benchmark_code(name: str) -> ModuleType:
    """A module of pysaliency by its file: importing the package needs MATLAB helpers and torch."""
    found = importlib.util.find_spec("pysaliency")
    if found is None or not found.submodule_search_locations:
        pytest.skip("pysaliency, the benchmark's own code, is not installed")
    path = Path(found.submodule_search_locations[0]) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"pysaliency_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("levels", [0, 2, 9])
@pytest.mark.parametrize("count", [1, 20, 300])
def test_map_metrics_equal_pysaliencys(levels: int, count: int) -> None:
    theirs = benchmark_code("metrics")
    t, m = truth(levels, count), some_map(count, levels=levels)
    density = map_density(m)
    ours = score_gaze(m, t)
    assert ours["nss"] == pytest.approx(theirs.NSS(m, t.columns, t.rows).mean(), abs=1e-6)
    assert ours["cc"] == pytest.approx(theirs.CC(m, t.density), abs=1e-6)
    assert ours["sim"] == pytest.approx(theirs.SIM(density, t.density), abs=1e-6)
    with np.errstate(divide="ignore"):
        expected = theirs.probabilistic_image_based_kl_divergence(
            np.log(density), np.log(np.maximum(t.density, 1e-300))
        )
    assert ours["kl"] == pytest.approx(expected, abs=1e-6)


def test_a_constant_map_equals_pysaliencys() -> None:
    theirs = benchmark_code("metrics")
    t, m = truth(), np.full((HEIGHT, WIDTH), 0.5)  # its mean is exact: theirs divides by rounding
    ours = score_gaze(m, t)
    assert ours["nss"] == pytest.approx(theirs.NSS(m, t.columns, t.rows).mean(), abs=1e-6)
    assert ours["cc"] == pytest.approx(theirs.CC(m, t.density), abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*trapz:DeprecationWarning")
@pytest.mark.parametrize("levels", [0, 1, 2, 9])
@pytest.mark.parametrize("count", [1, 20, 300])
def test_aucs_equal_pysaliencys(levels: int, count: int) -> None:
    pytest.importorskip("numba", reason="pysaliency's AUC needs numba")
    theirs = benchmark_code("numba_utils")
    t, m = truth(levels, count), some_map(count, levels=levels)
    at = (t.rows, t.columns)
    unfixated = np.ones(m.shape, bool)
    unfixated[at] = False
    ours = score_gaze(m, t)
    judd, _, _ = theirs.general_roc_numba(m[at], m[unfixated], judd=1)
    assert ours["auc_judd"] == pytest.approx(judd, abs=1e-6)
    shuffled = np.repeat(m.ravel(), t.others.ravel().astype(int))
    assert ours["shuffled_auc"] == pytest.approx(
        theirs.general_roc_numba(m[at], shuffled)[0], abs=1e-6
    )
    assert auc_judd(m[at], m, unfixated.astype(float)) == ours["auc_judd"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(-1, 1))
def test_a_maps_density_adds_up_to_one(seed: int, offset: float) -> None:
    density = map_density((some_map(seed) + offset).astype(np.float32))
    assert density.sum() == pytest.approx(1)
    assert density.min() >= UNIFORM_SHARE / density.size * 0.999


def test_a_map_of_zeros_becomes_uniform() -> None:
    assert map_density(np.zeros((9, 16), np.float32)) == pytest.approx(np.full((9, 16), 1 / 144))


pytest.importorskip("PIL")


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
