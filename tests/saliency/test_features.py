"""Per-frame numbers: known answers, and float64 formulas written independently; and their plot."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eyeline.errors import LogError, MissingExtraError, OutputError
from eyeline.logs.base import Log
from eyeline.saliency.features import (
    CUT,
    FEATURES,
    MOST_POINTS,
    PANELS,
    _envelope,
    map_features,
    plot_log,
)

UNIT = st.floats(0, 1, width=32)
MAPS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=UNIT)


def disc(width: int, height: int, x0: int, y0: int, radius: float) -> np.ndarray:
    """1 inside a disc around the centre of pixel (x0, y0), 0 outside."""
    y, x = np.mgrid[:height, :width]
    return ((x - x0) ** 2 + (y - y0) ** 2 <= radius**2).astype(np.float32)


def test_names_and_their_order_are_those_of_the_table() -> None:
    assert list(map_features(np.zeros((2, 2), np.float32), None)) == list(FEATURES)


@given(st.floats(2.0**-20, 1, width=32), st.integers(2, 40), st.integers(2, 40))
def test_a_constant_map(c: float, h: int, w: int) -> None:
    f = map_features(np.full((h, w), c, np.float32), None)
    assert f["saliency_mean"] == pytest.approx(c, rel=1e-14)
    assert f["saliency_std"] == pytest.approx(0, abs=1e-7)
    assert f["saliency_coverage"] == (1.0 if c > 0.5 else 0.0)
    assert f["saliency_entropy"] == pytest.approx(1, abs=1e-6)
    assert f["saliency_cx"] == pytest.approx(0.5, abs=1e-12)
    assert f["saliency_cy"] == pytest.approx(0.5, abs=1e-12)


def test_a_map_of_zeros_has_its_centroid_in_the_middle_and_no_entropy() -> None:
    f = map_features(np.zeros((5, 7), np.float32), None)
    assert f == dict.fromkeys(FEATURES, 0.0) | {"saliency_cx": 0.5, "saliency_cy": 0.5}


def test_one_point_has_no_entropy_and_is_its_own_centroid() -> None:
    m = np.zeros((10, 20), np.float32)
    m[3, 17] = 0.7
    f = map_features(m, None)
    assert f["saliency_entropy"] == pytest.approx(0, abs=1e-6)
    assert (f["saliency_cx"], f["saliency_cy"]) == pytest.approx((17.5 / 20, 3.5 / 10))


def test_two_equal_points_hold_one_bit() -> None:
    m = np.zeros((8, 16), np.float32)
    m[0, 0] = m[7, 15] = 0.25
    f = map_features(m, None)
    assert f["saliency_entropy"] == pytest.approx(1 / math.log2(128), abs=1e-6)
    assert (f["saliency_cx"], f["saliency_cy"]) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(("x0", "y0"), [(20, 15), (75, 60), (100, 30)])
def test_a_discs_centroid_is_its_centre(x0: int, y0: int) -> None:
    m = disc(120, 80, x0, y0, 11.3)
    f = map_features(m, None)
    assert f["saliency_cx"] == pytest.approx((x0 + 0.5) / 120, abs=1e-12)
    assert f["saliency_cy"] == pytest.approx((y0 + 0.5) / 80, abs=1e-12)
    area = np.count_nonzero(m) / m.size
    assert f["saliency_mean"] == f["saliency_coverage"] == pytest.approx(area, abs=1e-15)
    assert f["saliency_std"] == pytest.approx(math.sqrt(area * (1 - area)), abs=1e-12)


def test_coverage_counts_what_is_above_half_not_at_half() -> None:
    m = np.array([[0.5, np.nextafter(np.float32(0.5), np.float32(1))]], np.float32)
    assert map_features(m, None)["saliency_coverage"] == 0.5


@given(MAPS)
def test_features_equal_independent_float64_formulas(m: np.ndarray) -> None:
    h, w = m.shape
    values = [float(v) for v in m.ravel()]
    total = math.fsum(values)
    mean = total / len(values)
    f = map_features(m, None)
    assert f["saliency_mean"] == pytest.approx(mean, rel=1e-13, abs=1e-300)
    variance = math.fsum((v - mean) ** 2 for v in values) / len(values)
    assert f["saliency_std"] == pytest.approx(math.sqrt(variance), abs=3e-8)
    if total < 1e-6:
        return
    xs = math.fsum(v * ((i % w + 0.5) / w) for i, v in enumerate(values)) / total
    ys = math.fsum(v * ((i // w + 0.5) / h) for i, v in enumerate(values)) / total
    assert (f["saliency_cx"], f["saliency_cy"]) == pytest.approx((xs, ys), abs=1e-12)
    if len(values) > 1:
        bits = -math.fsum(v / total * math.log2(v / total) for v in values if v > 0)
        assert f["saliency_entropy"] == pytest.approx(bits / math.log2(len(values)), abs=2e-6)


@given(MAPS, MAPS)
def test_every_feature_stays_in_its_range(m: np.ndarray, other: np.ndarray) -> None:
    f = map_features(m, other)
    assert all(math.isfinite(v) for v in f.values())
    assert all(0 <= v <= 1 for v in f.values())
    assert f["saliency_std"] <= 0.5 + 1e-9
    assert 0 < f["saliency_cx"] < 1
    assert 0 < f["saliency_cy"] < 1


def test_a_mirrored_map_mirrors_its_centroid() -> None:
    m = np.random.default_rng(0).random((30, 50), np.float32)
    a, b = map_features(m, None), map_features(m[::-1, ::-1], None)
    assert a["saliency_cx"] + b["saliency_cx"] == pytest.approx(1, abs=1e-12)
    assert a["saliency_cy"] + b["saliency_cy"] == pytest.approx(1, abs=1e-12)


def test_the_mean_is_summed_in_float64() -> None:
    m = np.full((1200, 1600), 0.1, np.float32)  # summed in float32 it is off by more than 1e-7
    assert map_features(m, None)["saliency_mean"] == pytest.approx(
        float(np.float32(0.1)), rel=1e-13
    )


def test_flicker_is_the_mean_absolute_change() -> None:
    before = np.array([[0, 0.25], [0.5, 1]], np.float32)
    after = np.array([[0, 0.75], [0.25, 0]], np.float32)
    assert map_features(after, before)["saliency_flicker"] == (0.5 + 0.25 + 1) / 4


def test_flicker_is_zero_without_a_previous_map_of_that_size() -> None:
    m = np.ones((4, 4), np.float32)
    assert map_features(m, None)["saliency_flicker"] == 0
    assert map_features(m, np.zeros((4, 5), np.float32))["saliency_flicker"] == 0


# --- the plot

COLUMNS = [name for panel in PANELS for name in panel[2]]


def make_log(frames=50, columns=COLUMNS):
    log = Log(list(columns), {}, fps=25.0)
    for i in range(frames):
        log.append(i, i / 25, {name: math.sin(i / 7) / 2 + 0.5 for name in columns})
    return log


def png_size(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_log_gives_the_same_bytes(tmp_path, suffix):
    for name in "ab":
        plot_log(make_log(), tmp_path / f"{name}.{suffix}", [0.4], "clip")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_svg_carries_no_date_and_names_its_panels(tmp_path):
    plot_log(make_log(), tmp_path / "a.svg", [], "price: $5 & $6 <clip>")
    text = (tmp_path / "a.svg").read_text()
    assert "<dc:date>" not in text
    assert "price: $5 &amp; $6 &lt;clip&gt;" in text
    for title, _, _ in PANELS:
        assert f">{title}<" in text


def test_every_cut_is_a_line_in_every_panel(tmp_path):
    def lines(cuts):
        plot_log(make_log(), tmp_path / "a.svg", cuts, "")
        return (tmp_path / "a.svg").read_text().count(f"stroke: {CUT}")

    assert lines([]) == 0
    assert lines([0.4, 0.8, 1.2]) == 3 * len(PANELS)


def test_png_is_1200_wide_and_only_as_high_as_its_panels(tmp_path):
    plot_log(make_log(), tmp_path / "all.png")
    plot_log(make_log(columns=["saliency_mean", "vmaf"]), tmp_path / "one.png")
    assert png_size(tmp_path / "all.png")[0] == png_size(tmp_path / "one.png")[0] == 1200
    assert png_size(tmp_path / "one.png")[1] < png_size(tmp_path / "all.png")[1] / 3


def test_a_log_without_times_is_drawn_over_frame_numbers(tmp_path):
    log = Log(["saliency_mean"], {})
    for i in range(3):
        log.append(i, math.nan, {"saliency_mean": 0.5})
    plot_log(log, tmp_path / "a.svg")
    assert ">frame<" in (tmp_path / "a.svg").read_text()


def test_a_single_frame_is_drawn(tmp_path):
    plot_log(make_log(1), tmp_path / "a.png")
    assert png_size(tmp_path / "a.png")[0] == 1200


@given(st.integers(1, 60_000), st.integers(0, 2**32 - 1))
def test_thinning_keeps_the_peaks_and_the_order(count, seed):
    values = np.random.default_rng(seed).normal(size=count)
    times, thin = _envelope(np.arange(count, dtype=float), values)
    assert len(thin) <= max(MOST_POINTS + MOST_POINTS // 2, 1)
    assert thin.min() == values.min()
    assert thin.max() == values.max()
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("log", [make_log(0), make_log(columns=["vmaf"])])
def test_nothing_to_plot_is_refused(tmp_path, log):
    with pytest.raises(LogError, match="nothing to plot"):
        plot_log(log, tmp_path / "a.svg")


@pytest.mark.parametrize("name", ["a.pdf", "a"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match=r"use \.svg or \.png"):
        plot_log(make_log(), tmp_path / name)


def test_a_folder_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        plot_log(make_log(), tmp_path / "no" / "a.svg")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"eyeline\[plot\]"):
        plot_log(make_log(), tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []
