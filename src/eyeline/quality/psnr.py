"""PSNR of a plane, whole and weighted, from one pass over its samples.

PSNR = 10 log10(peak^2 / MSE) with peak = 2^depth - 1, and MSE the mean, or the weighted mean, of
squared differences. It is capped at 6 * depth + 12 dB (60 at 8 bits), as libvmaf's `psnr` feature
is, so that identical frames have a number.

Squares are summed in float32 over a few rows, where sums of 8-bit samples stay exact, then in
float64. A coarse map is brought to the plane's size a few rows at a time, so that all of it happens
in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eyeline.media.planes import Samples
from eyeline.quality.weights import Map, Weights

_ROWS = 32  # sums of 8-bit squares over as many rows stay below 2^24, exact in float32


class Error(NamedTuple):
    """Mean squared error of a plane, in squared codes."""

    whole: float
    weighted: float


def cap(depth: int) -> float:
    """The greatest PSNR, dB: libvmaf's `integer_psnr` has 6 dB a bit and 12."""
    return 6.0 * depth + 12


def decibels(mse: float, depth: int) -> float:
    """PSNR in dB, at most `cap`."""
    if mse <= 0:
        return cap(depth)
    peak = (1 << depth) - 1
    return min(10 * math.log10(peak * peak / mse), cap(depth))


def combined(y: float, cb: float, cr: float) -> float:
    """PSNR of all planes as 6:1:1, (6 Y + Cb + Cr) / 8.

    Source: Ohm et al., "Comparison of the coding efficiency of video coding standards", IEEE TCSVT
    22(12), 2012, equation 2.
    """
    return (6 * y + cb + cr) / 8


def squared_error(reference: Samples, distorted: Samples, weights: Weights | None) -> Error:
    """Mean squared error of one plane.

    Args:
        reference: uint8 or uint16 (H, W).
        distorted: the same.
        weights: of the frame; None counts all samples alike.
    """
    height, width = reference.shape
    if weights is None:
        bands = (slice(y, y + _ROWS) for y in range(0, height, _ROWS))
        total = sum(_sum(_squares(reference[band], distorted[band])) for band in bands)
        return Error(total / reference.size, total / reference.size)
    h, w = weights.saliency.shape
    if h > height or w > width or (h, w) == (height, width):
        total, salient, mass = _direct(reference, distorted, weights.map_at(width, height))
    else:
        total, salient, mass = _interpolated(reference, distorted, weights)
    k, level = weights.strength, weights.level
    numerator = (1 - k) * total + k / level * salient
    denominator = (1 - k) * reference.size + k / level * mass
    return Error(total / reference.size, numerator / denominator)


def _squares(a: Samples, b: Samples) -> npt.NDArray[np.float32]:
    """float32: squared differences."""
    d: npt.NDArray[np.float32]
    if a.dtype == np.uint8:
        d = (np.maximum(a, b) - np.minimum(a, b)).astype(np.float32)  # 8-bit vectors are widest
    else:
        d = np.subtract(a, b, dtype=np.float32)
    d *= d
    return d


def _direct(a: Samples, b: Samples, m: Map) -> tuple[float, float, float]:
    """Sums of squares, of map times squares, and of the map over all samples."""
    return _banded(a, b, lambda band: m[band])


def _interpolated(a: Samples, b: Samples, weights: Weights) -> tuple[float, float, float]:
    """The same for a coarser map: its rows are as wide as the plane, rows between are made here."""
    height, width = a.shape
    h = len(weights.saliency)
    rows = weights.map_at(width, h)
    steps = np.zeros_like(rows)  # to the next row
    np.subtract(rows[1:], rows[:-1], out=steps[:-1])
    at = np.clip((np.arange(height) + 0.5) * (h / height) - 0.5, 0, h - 1)
    top = at.astype(np.intp)
    share = (at - top).astype(np.float32)[:, None]

    def between(band: slice) -> Map:
        m: Map = np.take(steps, top[band], axis=0)
        m *= share[band]
        m += np.take(rows, top[band], axis=0)
        return m

    return _banded(a, b, between)


def _banded(a: Samples, b: Samples, map_of: Callable[[slice], Map]) -> tuple[float, float, float]:
    total = salient = mass = 0.0
    for y in range(0, len(a), _ROWS):
        band = slice(y, min(y + _ROWS, len(a)))
        squares, m = _squares(a[band], b[band]), map_of(band)
        total += _sum(squares)
        mass += _sum(m)
        squares *= m
        salient += _sum(squares)
    return total, salient, mass


def _sum(x: Map) -> float:
    return float(x.sum(axis=0).sum(dtype=np.float64))
