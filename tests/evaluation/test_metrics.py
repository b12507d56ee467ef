"""Metrics against answers worked out here, and against PySODMetrics used directly."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sod = pytest.importorskip("py_sod_metrics")

from eyeline.evaluation.metrics import (  # noqa: E402
    CURVES,
    MEASURES,
    SCALARS,
    ImageScore,
    Scores,
    correlation,
    fmeasure,
    overlap,
    score_image,
)


def disc(height: int = 60, width: int = 80, cx: float = 40, cy: float = 30, r: float = 15):
    y, x = np.mgrid[:height, :width]
    return (x - cx) ** 2 + (y - cy) ** 2 < r * r


def half_overlap() -> tuple[np.ndarray, np.ndarray]:
    """Truth: the left half of 64x64. Answer: the middle half. They share a quarter of the picture."""
    truth = np.zeros((64, 64), bool)
    truth[:, :32] = True
    answer = np.zeros((64, 64), np.float32)
    answer[:, 16:48] = 1
    return answer, truth


def blurry(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A soft, noisy answer to a disc."""
    rng = np.random.default_rng(seed)
    truth = disc(cx=30 + 4 * seed, r=10 + seed)
    answer = 0.15 + 0.6 * disc(cx=33 + 4 * seed, r=11 + seed) + 0.2 * rng.random(truth.shape)
    return answer.astype(np.float32), truth


def test_a_perfect_answer() -> None:
    truth = disc()
    values = score_image(truth.astype(np.float32), truth).values
    assert set(values) == set(SCALARS)
    assert values["mae"] == 0
    assert values["iou"] == values["block_iou_16"] == values["adaptive_fmeasure"] == 1
    for name in ("plcc", "smeasure", "weighted_fmeasure", "adaptive_emeasure"):
        assert values[name] == pytest.approx(1, abs=1e-3)


def test_the_opposite_answer() -> None:
    truth = disc()
    values = score_image(1 - truth.astype(np.float32), truth).values
    assert values["mae"] == 1
    assert values["iou"] == values["adaptive_fmeasure"] == 0
    assert values["plcc"] == pytest.approx(-1)


def test_half_an_overlap() -> None:
    values = score_image(*half_overlap()).values
    assert values["iou"] == pytest.approx(1 / 3)
    assert values["mae"] == 0.5
    assert values["plcc"] == pytest.approx(0)
    assert values["adaptive_fmeasure"] == pytest.approx(0.5)  # precision and recall are both .5
    assert values["block_iou_16"] == pytest.approx(1 / 3)
    assert values["block_iou_64"] == 1  # both means are .5: one salient block each


def test_precision_and_recall_of_a_map_with_three_levels() -> None:
    """1 on half of the object, .5 on the rest of it and as much background, 0 elsewhere."""
    truth = np.zeros((10, 10), bool)
    truth[:4] = True
    answer = np.zeros((10, 10), np.float32)
    answer[:2] = 1
    answer[2:6] = 0.5
    curves = score_image(answer, truth).curves
    assert (curves["precision"][0], curves["recall"][0]) == (1, 0.5)  # above .5: 20 of 20, of 40
    middle = 255 - 100  # a threshold of 100/255
    assert curves["precision"][middle] == pytest.approx(40 / 60)
    assert curves["recall"][middle] == 1
    assert curves["precision"][255] == pytest.approx(0.4)  # a threshold of 0 takes everything


@pytest.mark.parametrize("seed", range(4))
def test_agreement_with_pysodmetrics_on_8_bit_maps(seed: int) -> None:
    """Its classes fed with the 8-bit pictures that its users save, as the papers did."""
    answer, truth = blurry(seed)
    levels = np.round(answer * 255).astype(np.uint8)
    ours = score_image(levels.astype(np.float32) / 255, truth)
    gt = truth.astype(np.uint8) * 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f = sod.Fmeasure()
    s, e, w, m = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure(), sod.MAE()
    for metric in (f, s, e, w, m):
        metric.step(levels, gt)
    expected = {
        "adaptive_fmeasure": f.get_results()["fm"]["adp"],
        "smeasure": s.get_results()["sm"],
        "adaptive_emeasure": e.get_results()["em"]["adp"],
        "weighted_fmeasure": w.get_results()["wfm"],
        "mae": m.get_results()["mae"],
    }
    for name, value in expected.items():
        assert ours.values[name] == pytest.approx(value, abs=1e-6), name
    # A level that is a threshold falls to either side by float32's rounding; floats don't (below).
    assert ours.curves["recall"] == pytest.approx(f.get_results()["pr"]["r"], abs=0.01)
    assert ours.curves["emeasure"] == pytest.approx(e.get_results()["em"]["curve"], abs=0.03)


def test_pooling_agrees_with_pysodmetrics_over_a_dataset() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f = sod.Fmeasure()
    e = sod.Emeasure()
    scores = []
    for seed in range(6):
        answer, truth = blurry(seed)
        scores.append(score_image(answer, truth))
        for metric in (f, e):
            metric.step(answer.astype(np.float64) * 255, truth.astype(np.uint8) * 255)
    pooled = {name: float(v[0]) for name, v in Scores(scores).pool().items()}
    assert list(pooled) == list(MEASURES)
    results, em = f.get_results(), e.get_results()["em"]
    p, r = results["pr"]["p"], results["pr"]["r"]
    assert pooled["max_fmeasure_mean"] == pytest.approx(results["fm"]["curve"].max(), abs=1e-6)
    assert pooled["mean_fmeasure"] == pytest.approx(results["fm"]["curve"].mean(), abs=1e-6)
    assert pooled["adaptive_fmeasure"] == pytest.approx(results["fm"]["adp"], abs=1e-6)
    of_means = (1.3 * p * r / (0.3 * p + r)).max()
    assert pooled["max_fmeasure_dataset"] == pytest.approx(of_means, abs=1e-6)
    assert pooled["max_emeasure"] == pytest.approx(em["curve"].max(), abs=1e-6)
    assert pooled["mean_emeasure"] == pytest.approx(em["curve"].mean(), abs=1e-6)


def flat_score(precision: float, recall: float) -> ImageScore:
    curves = {
        "precision": np.full(256, precision, np.float32),
        "recall": np.full(256, recall, np.float32),
        "emeasure": np.zeros(256, np.float32),
    }
    assert set(curves) == set(CURVES)
    return ImageScore(dict.fromkeys(SCALARS, 0.5), curves)


def test_the_two_conventions_of_max_f_differ_as_they_should() -> None:
    """One image with P 1, R .1 and one with P .1, R 1: means .55 and .55 give F .55; F .36 and .13."""
    pooled = Scores([flat_score(1.0, 0.1), flat_score(0.1, 1.0)]).pool()
    assert pooled["max_fmeasure_dataset"][0] == pytest.approx(0.55, abs=1e-6)
    by_image = (1.3 * 0.1 / (0.3 + 0.1) + 1.3 * 0.1 / (0.03 + 1.0)) / 2
    assert pooled["max_fmeasure_mean"][0] == pytest.approx(by_image, abs=1e-6)
    assert by_image < 0.3


def test_weights_are_counts_of_images() -> None:
    scores = [score_image(*blurry(seed)) for seed in range(3)]
    weighted = Scores(scores).pool(np.array([[2.0, 0.0, 1.0]]))
    repeated = Scores([scores[0], scores[0], scores[2]]).pool()
    for name in MEASURES:
        assert weighted[name][0] == pytest.approx(repeated[name][0], abs=1e-9), name


def test_an_empty_mask_follows_the_stated_rules() -> None:
    nothing = np.zeros((20, 30), bool)
    quiet = np.zeros((20, 30), np.float32)
    loud = quiet.copy()
    loud[:10] = 1
    by_quiet, by_loud = score_image(quiet, nothing).values, score_image(loud, nothing).values
    assert (by_quiet["iou"], by_loud["iou"]) == (1, 0)
    assert (by_quiet["smeasure"], by_loud["smeasure"]) == (1, 0.5)
    assert by_loud["adaptive_fmeasure"] == by_loud["weighted_fmeasure"] == 0
    assert np.isnan(by_loud["plcc"])


def test_a_plcc_without_value_leaves_its_mean_alone() -> None:
    scores = [score_image(*blurry(0)), score_image(np.zeros((9, 9), np.float32), np.eye(9) > 0)]
    assert np.isnan(scores[1].values["plcc"])
    assert Scores(scores).pool()["plcc"][0] == scores[0].values["plcc"]


def test_plcc_does_not_depend_on_scale_but_mae_of_raw_maps_would() -> None:
    answer, truth = blurry(2)
    one, two = score_image(answer, truth).values, score_image(answer / 4, truth).values
    assert one["plcc"] == pytest.approx(two["plcc"], abs=1e-6)
    assert one["mae"] == pytest.approx(two["mae"], abs=1e-6)  # min-max-normalised first
    assert one["iou"] > 0.3 and two["iou"] == 0  # taken as it comes


def test_an_object_in_an_edge_block_counts() -> None:
    truth = np.zeros((20, 20), bool)
    truth[16:, 16:] = True
    assert score_image(np.zeros((20, 20), np.float32), truth).values["block_iou_16"] == 0
    assert score_image(truth.astype(np.float32), truth).values["block_iou_16"] == 1


@given(st.integers(0, 2**16))
def test_overlap_is_symmetric_and_bounded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((7, 9)) < 0.3, rng.random((7, 9)) < 0.6
    assert overlap(a, b) == overlap(b, a)
    assert 0 <= overlap(a, b) <= 1
    assert overlap(a, a) == 1


def test_correlation_is_numpys() -> None:
    answer, truth = blurry(1)
    expected = np.corrcoef(answer.ravel(), truth.ravel())[0, 1]
    assert correlation(answer, truth) == pytest.approx(expected, abs=1e-9)


def test_f_of_nothing_is_zero() -> None:
    assert fmeasure(np.zeros(2), np.array([0.0, 1.0])).tolist() == [0, 0]


@pytest.mark.parametrize("where", [np.s_[-1, :], np.s_[:, -1], np.s_[-1, -1]])
def test_an_object_in_the_last_row_or_column_has_an_s_measure(where: object) -> None:
    """PySODMetrics cuts the picture at the object's centre: a quarter may be empty."""
    truth = np.zeros((30, 40), bool)
    truth[where] = True  # type: ignore[index]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = score_image(truth.astype(np.float32), truth).values
    assert values["smeasure"] == pytest.approx(1, abs=1e-2)
