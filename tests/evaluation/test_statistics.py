"""Intervals and p-values: repeatable, right where theory says what is right."""

import numpy as np
import pytest

pytest.importorskip("py_sod_metrics")

from eyeline.evaluation.metrics import SCALARS, ImageScore, Scores
from eyeline.evaluation.statistics import (
    Means,
    differences,
    draw_weights,
    estimates,
    pool,
    tail_share,
)


def scores_of(iou: np.ndarray, *, curve: float = 0.5) -> Scores:
    """Images that differ in their IoU alone."""
    flat = {name: np.full(256, curve, np.float32) for name in ("precision", "recall", "emeasure")}
    return Scores([ImageScore(dict.fromkeys(SCALARS, 0.5) | {"iou": float(v)}, flat) for v in iou])


def ious(values: np.ndarray) -> Means:
    """The IoU alone, where nothing depends on the curves, which take long to pool."""
    return Means({"iou": values})


def normal(seed: int, count: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.6, 0.1, count)


def test_every_draw_has_as_many_images_as_the_dataset() -> None:
    weights = draw_weights(37, draws=50)
    assert weights.shape == (50, 37)
    assert (weights.sum(1) == 37).all()


def test_one_seed_gives_one_answer_and_another_another() -> None:
    scores = scores_of(normal(0))
    first, same, other = (estimates(pool(scores, draws=300, seed=s)) for s in (1, 1, 2))
    assert first == same
    assert first["iou"] != other["iou"]
    assert first["iou"].value == other["iou"].value


def test_the_interval_is_that_of_the_normal_distribution() -> None:
    e = estimates(pool(scores_of(normal(0))))["iou"]
    assert e.low < e.value < e.high
    assert e.value == pytest.approx(normal(0).mean())
    assert e.high - e.low == pytest.approx(2 * 1.96 * normal(0).std() / 20, rel=0.08)


@pytest.mark.parametrize("count", [4, 5, 10, 28, 1000])
def test_few_items_widen_the_interval_as_the_t_distribution_does(count: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    t = stats.t.ppf(0.975, count - 1)
    assert tail_share(count) == pytest.approx(
        stats.norm.cdf(-t * np.sqrt(count / (count - 1))), rel=0.15
    )


def test_an_interval_over_few_items_covers_the_truth() -> None:
    """Of 300 sets of 6 items, about 95 % of the intervals hold the true mean."""
    covered = 0
    for seed in range(300):
        e = estimates(pool(ious(normal(seed, 6)), draws=400))["iou"]
        covered += e.low <= 0.6 <= e.high
    assert 0.91 <= covered / 300 <= 0.98


def test_few_items_can_not_have_a_small_p_value() -> None:
    base = normal(0, 5)
    a, b = (pool(scores_of(v)) for v in (base + 0.01, base))
    assert differences(a, b)["iou"].p_value == 2 / 2**5


def test_a_measure_without_spread_has_an_interval_of_no_width() -> None:
    e = estimates(pool(scores_of(normal(0), curve=0.25)))["max_fmeasure_dataset"]
    assert e.low == pytest.approx(e.value) == pytest.approx(0.25)
    assert e.high == pytest.approx(e.value)


def test_a_single_image_has_no_interval() -> None:
    e = estimates(pool(scores_of(np.array([0.7]))))["iou"]
    assert e.value == 0.7
    assert np.isnan(e.low) and np.isnan(e.high)


def test_a_paired_difference_sees_what_intervals_hide() -> None:
    """.01 better on every image: intervals overlap, and the pairs leave no doubt."""
    base = normal(0)
    a, b = (pool(ious(v)) for v in (base + 0.01, base))
    assert estimates(a)["iou"].low < estimates(b)["iou"].high
    d = differences(a, b)["iou"]
    assert (d.value, d.low, d.high) == pytest.approx((0.01, 0.01, 0.01))
    assert d.p_value == pytest.approx(2 / 2001)


def test_a_model_does_not_differ_from_itself() -> None:
    a = pool(scores_of(normal(0)))
    assert all(d.value == 0 and d.p_value == 1 for d in differences(a, a).values())


def test_p_values_of_equal_models_are_spread_evenly() -> None:
    """Two models of one quality: few datasets say p < .05, about half say p < .5."""
    p = []
    for seed in range(40):
        a, b = (pool(ious(normal(2 * seed + i, 40)), draws=100) for i in (0, 1))
        p.append(differences(a, b)["iou"].p_value)
    assert np.mean(np.array(p) < 0.05) <= 0.15
    assert 0.25 < np.mean(np.array(p) < 0.5) < 0.75
