"""The features of a saliency map, which are the columns of a log, and their plot over time.

To add a feature, add it to `FEATURES`, `map_features` and `PANELS`. All features are computed in
float64 over the visible frame, after padding is cropped. Their names are part of the API.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.errors import LogError, MissingExtraError, OutputError
from eyeline.files import whole_file
from eyeline.logs.base import Log

FEATURES = {
    "saliency_mean": "arithmetic mean of the map",
    "saliency_std": "population standard deviation of the map",
    "saliency_coverage": "share of the frame above 0.5",
    "saliency_entropy": "how evenly the map is spread: 0 = one point, 1 = uniform",
    "saliency_cx": "horizontal centroid, 0 = left edge, 1 = right edge",
    "saliency_cy": "vertical centroid, 0 = top edge, 1 = bottom edge",
    "saliency_flicker": "mean absolute change from the previous frame's map; 0 across a cut",
}
"""Features and their meaning, in the order of the log columns."""

Map = npt.NDArray[np.float32]

_TINY = np.float32(np.finfo(np.float32).tiny)


def _centre(weights: npt.NDArray[np.float64], total: float) -> float:
    """Return the weighted mean position of pixel centres, 0..1; 0.5 when all weights are 0."""
    if total <= 0:
        return 0.5
    n = len(weights)
    return float(weights @ ((np.arange(n) + 0.5) / n)) / total


def _entropy(m: Map, total: float) -> float:
    """Return the Shannon entropy of the map as a distribution over N pixels, divided by log2(N).

    With T = sum(m) and p = m / T: H = log2(T) - sum(m log2 m) / T (Shannon 1948). A map of zeros has
    entropy 0.
    """
    if total <= 0 or m.size < 2:
        return 0.0
    terms = np.maximum(m, _TINY)  # avoids log2(0); 0 log 0 = 0 follows from the product below
    np.log2(terms, out=terms)
    terms *= m
    spread = math.log2(total) - float(terms.sum(dtype=np.float64)) / total
    return min(1.0, max(0.0, spread / math.log2(m.size)))


def map_features(m: Map, previous: Map | None) -> dict[str, float]:
    """Compute all `FEATURES` of a map.

    Args:
        m: float32 (h, w) in [0, 1].
        previous: the map of the previous frame; None at the start and across a cut.
    """
    exact = m.astype(np.float64)
    columns = exact.sum(axis=0)
    rows = exact.sum(axis=1)
    total = float(rows.sum())
    mean = total / m.size
    exact -= mean  # E[m^2] - mean^2 would be inexact for a nearly flat map
    variance = float(np.einsum("ij,ij->", exact, exact)) / m.size
    if previous is not None and previous.shape == m.shape:
        flicker = float(np.abs(m - previous).mean(dtype=np.float64))
    else:
        flicker = 0.0
    return {
        "saliency_mean": mean,
        "saliency_std": math.sqrt(variance),
        "saliency_coverage": float(np.count_nonzero(m > 0.5)) / m.size,
        "saliency_entropy": _entropy(m, total),
        "saliency_cx": _centre(columns, total),
        "saliency_cy": _centre(rows, total),
        "saliency_flicker": flicker,
    }


PANELS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # title, unit, columns
    ("mean", "0..1", ("saliency_mean",)),
    ("spread", "0..1", ("saliency_std",)),
    ("coverage", "share above 0.5", ("saliency_coverage",)),
    ("entropy", "1 = even", ("saliency_entropy",)),
    ("centroid", "0..1 of the frame", ("saliency_cx", "saliency_cy")),
    ("flicker", "change per frame", ("saliency_flicker",)),
)
"""The panels from top to bottom; a panel without a column in the log is left out."""

COLOURS = ("#1b5e8c", "#c2571a")
INK, FAINT, CUT = "#333333", "#dddddd", "#999999"

WIDTH_INCHES, PANEL_INCHES, DPI = 12.0, 1.15, 100
"""Width of the plot, height of a panel, and resolution: a PNG is 1200 pixels wide."""

MOST_POINTS = 4800
"""Largest number of points per line; longer series are reduced by `_envelope`."""

SUFFIXES = (".svg", ".png")

Series = npt.NDArray[np.float64]


def _envelope(times: Series, values: Series) -> tuple[Series, Series]:
    """Reduce a long line to the minimum and maximum of each interval, so that no peak is lost."""
    if len(values) <= MOST_POINTS:
        return times, values
    stretch = -(-len(values) * 2 // MOST_POINTS)
    whole = len(values) // stretch * stretch
    blocks = values[:whole].reshape(-1, stretch)
    first = np.arange(0, whole, stretch)
    # If a block has a NaN, argmin and argmax return its index, so the line keeps its gaps.
    both = np.stack([first + blocks.argmin(1), first + blocks.argmax(1)], 1)
    at = np.append(np.sort(both, 1).ravel(), np.arange(whole, len(values)))
    return times[at], values[at]


def _times(log: Log) -> tuple[Series, str]:
    """Return the x values and their label: presentation times, or frame numbers if the log has no times."""
    times = np.array(log.pts_time, np.float64)
    if np.isnan(times).any():
        return np.array(log.frame_num, np.float64), "frame"
    return times, "time, s"


def check_plot_path(path: str | Path) -> str:
    """Return the file format that belongs to the suffix of `path`.

    Raises:
        OutputError: the suffix is neither `.svg` nor `.png`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise OutputError(
            f"{path}: a plot can't be written as {suffix or 'a file without a suffix'}",
            f"use {' or '.join(SUFFIXES)}",
        )
    return suffix[1:]


def plot_log(log: Log, path: str | Path, cuts: Sequence[float] = (), title: str = "") -> None:
    """Draw a log's features over time, with scene cuts as thin vertical lines.

    The same log and the same version of matplotlib give the same bytes.

    Args:
        log: a log with at least one column of `PANELS`.
        path: output file, ending in `.svg` or `.png`.
        cuts: presentation times at which scenes begin, seconds.
        title: text above the panels.

    Raises:
        MissingExtraError: matplotlib is not installed.
        LogError: the log has no rows, or no saliency features.
        OutputError: the suffix is unknown, or the file can't be written.
    """
    form = check_plot_path(path)
    panels = [p for p in PANELS if any(name in log.values for name in p[2])]
    if not len(log) or not panels:
        raise LogError(
            "the log has no rows or no saliency features, so there is nothing to plot",
            "give a log that `eyeline extract` wrote",
        )
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as exc:
        raise MissingExtraError("matplotlib", "plot") from exc
    style: Any = {
        "font.family": "sans-serif",
        "font.size": 10,
        "svg.hashsalt": "eyeline",  # gives the SVG the same ids in every run
        "svg.fonttype": "none",  # keeps text as text, not outlines
        "text.color": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    times, unit = _times(log)
    with mpl.rc_context():
        mpl.rcdefaults()  # ignores the user's matplotlibrc
        mpl.rcParams.update(style)
        # `Figure` is used without pyplot, which needs a window system and keeps global state.
        figure = Figure(
            figsize=(WIDTH_INCHES, 0.9 + PANEL_INCHES * len(panels)),
            dpi=DPI,
            layout="constrained",
        )
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, panel, log, times, cuts)
        axes[-1].set_xlabel(unit)
        span = float(times[-1] - times[0]) or 1.0
        axes[-1].set_xlim(times[0] - span * 0.005, times[-1] + span * 0.005)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=12, parse_math=False)
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        with whole_file(path) as temporary:
            figure.savefig(temporary, format=form, metadata=metadata)


def _draw(
    axis: Any,
    panel: tuple[str, str, tuple[str, ...]],
    log: Log,
    times: Series,
    cuts: Sequence[float],
) -> None:
    title, unit, columns = panel
    present = [name for name in columns if name in log.values]
    for name, colour in zip(present, COLOURS, strict=False):
        line = _envelope(times, np.array(log.values[name], np.float64))
        axis.plot(
            *line,
            color=colour,
            linewidth=1.2,
            label=name.removeprefix("saliency_"),
            marker="." if len(times) == 1 else "",
        )
    for cut in cuts:
        axis.axvline(cut, color=CUT, linewidth=0.7, linestyle=(0, (3, 2)), zorder=0)
    # A y label instead of this text would move with the width of the panel's tick labels.
    label = f"{title}\n{unit}"
    axis.text(-0.14, 0.5, label, transform=axis.transAxes, va="center", fontsize=9)
    axis.margins(y=0.12)
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.tick_params(length=0, labelsize=8)
    axis.locator_params(axis="y", nbins=4)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    if len(present) > 1:
        axis.legend(
            frameon=False,
            fontsize=8,
            ncols=2,
            loc="lower right",
            bbox_to_anchor=(1, 0.97),
            borderpad=0,
        )
