import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.errors import LogError, MissingExtraError, OutputError
from eyeline.logs.base import Log
from eyeline.saliency.plot import CUT, MOST_POINTS, PANELS, _envelope, plot_log

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
