"""The features of a saliency map: the numbers per frame that logs hold.

To add one, add it to `FEATURES` and to `map_features`. All are computed in float64 over the visible
frame, after padding is cropped. Their names are part of the API.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FEATURES = {
    "saliency_mean": "arithmetic mean of the map",
    "saliency_std": "population standard deviation of the map",
    "saliency_coverage": "share of the frame above 0.5",
    "saliency_entropy": "how evenly the map is spread: 0 = one point, 1 = uniform",
    "saliency_cx": "horizontal centroid, 0 = left edge, 1 = right edge",
    "saliency_cy": "vertical centroid, 0 = top edge, 1 = bottom edge",
    "saliency_flicker": "mean absolute change from the previous frame's map; 0 across a cut",
}
"""Features and their meaning, in the order of every log's columns."""

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

    With p = m / T: H = log2(T) - sum(m log2 m) / T (Shannon 1948). An empty map has entropy 0.
    """
    if total <= 0 or m.size < 2:
        return 0.0
    terms = np.maximum(m, _TINY)  # 0 log 0 = 0: the product below is zero where m is
    np.log2(terms, out=terms)
    terms *= m
    spread = math.log2(total) - float(terms.sum(dtype=np.float64)) / total
    return min(1.0, max(0.0, spread / math.log2(m.size)))


def map_features(m: Map, previous: Map | None) -> dict[str, float]:
    """Return a number per name of `FEATURES`.

    Args:
        m: float32 (h, w) in [0, 1].
        previous: the map of the frame before; None at the start and across a cut.
    """
    exact = m.astype(np.float64)
    columns = exact.sum(axis=0)
    rows = exact.sum(axis=1)
    total = float(rows.sum())
    mean = total / m.size
    exact -= mean  # centred first: E[m^2] - mean^2 would leave the round-off of a flat map
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
