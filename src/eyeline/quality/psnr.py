"""PSNR of a plane, over all samples equally ("whole") and weighted by a map.

PSNR = 10 log10(peak^2 / MSE), where peak = 2^depth - 1 and MSE is the mean or the weighted mean of
squared differences. As in libvmaf's `psnr` feature, PSNR is limited to 6 * depth + 12 dB (60 dB at 8
bits), so that identical frames have a finite value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from eyeline.media.colour import Samples
from eyeline.quality._vmaf_features import FLOAT, opencv, scratch, sum_of, sum_of_products
from eyeline.quality.weights import Weights

_ROWS = 256  # rows per step, which bounds the temporary memory


class SquaredError(NamedTuple):
    """Mean squared error of a plane, in squared code values."""

    whole: float
    weighted: float


def cap(depth: int) -> float:
    """Return the upper limit of PSNR in dB: 6 dB per bit plus 12 dB, as in libvmaf's `integer_psnr`."""
    return 6.0 * depth + 12


def decibels(mse: float, depth: int) -> float:
    """Convert a mean squared error to PSNR in dB, at most `cap`."""
    if mse <= 0:
        return cap(depth)
    peak = (1 << depth) - 1
    return min(10 * math.log10(peak * peak / mse), cap(depth))


def combined(y: float, cb: float, cr: float) -> float:
    """Return the 6:1:1 PSNR of all planes, (6 Y + Cb + Cr) / 8.

    Source: Ohm et al., "Comparison of the coding efficiency of video coding standards", IEEE TCSVT
    22(12), 2012, equation 2.
    """
    return (6 * y + cb + cr) / 8


def squared_error(reference: Samples, distorted: Samples, weights: Weights | None) -> SquaredError:
    """Return the mean squared error of one plane.

    The whole error is exact up to 16 bits; the weighted error sums each row in float32.

    Args:
        reference: uint8 or uint16 (H, W).
        distorted: same shape and type as `reference`.
        weights: weights of the frame; None gives all samples the same weight.
    """
    cv2 = opencv()
    total = float(cv2.norm(reference, distorted, cv2.NORM_L2SQR))
    whole = total / reference.size
    if weights is None or weights.strength == 0:
        return SquaredError(whole, whole)
    height, width = reference.shape
    m = weights.map_at(width, height)
    salient = 0.0
    for top in range(0, height, _ROWS):
        band = slice(top, top + _ROWS)
        r, d = reference[band], distorted[band]
        gap = cv2.absdiff(r, d, dst=scratch("gap", r.shape, r.dtype))
        squares = cv2.multiply(gap, gap, dst=scratch("squares", r.shape, FLOAT), dtype=cv2.CV_32F)
        salient += sum_of_products(m[band], squares)
    return SquaredError(
        whole, weights.blend(total, salient) / weights.blend(reference.size, sum_of(m))
    )
