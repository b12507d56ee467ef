"""Visual information fidelity at four scales, as libvmaf computes it, whole and weighted in one pass.

Two sums over pixels make each scale: how much information of the reference survives in the
distorted picture (numerator), and how much there was (denominator). libvmaf divides the sums; the
weighted feature divides the sums of weight times the same terms, so uniform weights give libvmaf's.

Definition: Sheikh & Bovik, "Image information and visual quality", IEEE TIP 15(2), 2006, in the
pixel domain; libvmaf's fixed-point extractor (`integer_vif`) sets the constants, the borders and
what happens where the reference is flat. docs/sw_vmaf.md gives the choices of the weighting.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eyeline.quality.kernels import opencv, scratch, sum_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.floating]

SCALES = 4
NOISE_VARIANCE = 2.0
"""Variance of the eye's internal noise (sigma_nsq), in squared codes of 8 bits."""

GAIN_LIMIT = 100.0
"""libvmaf's default `vif_enhn_gain_limit`: in effect none. The "neg" models set 1."""


class Vif(NamedTuple):
    """VIF of one frame at each scale, finest first; 1 says that nothing was lost."""

    whole: tuple[float, ...]
    weighted: tuple[float, ...] | None


def gaussian(width: int) -> Plane:
    """float32 (width,), sums to 1: VIF's window, whose standard deviation is a fifth of its width.

    In 16 bits as libvmaf has it; what rounding leaves goes to the middle three taps.
    """
    x = np.arange(width) - width // 2
    taps = np.exp(-0.5 * (x / (width / 5)) ** 2)
    taps = np.rint(taps / taps.sum() * 2**16)
    middle = width // 2
    taps[[middle - 1, middle + 1]] -= np.ceil((taps.sum() - 2**16) / 2)
    taps[middle] += 2**16 - taps.sum()
    return np.asarray(taps / 2**16, np.float32)


FIRST_DOUBLE = 2
"""Scales from here on are float64: of so few pixels that one on the other side of a threshold
shows, and cheap. Finer scales are float32, where such differences cancel."""

STRIP = 1 << 21
"""Pixels worked on at a time once the windows are through: bounds the memory of large frames. Each
call costs threads a turn at the GIL, which weighs more than what a smaller strip saves in the cache
(`benchmarks/sw_vmaf.py --threads`)."""

ONE = np.ones(1, np.float32)
WINDOWS = tuple(gaussian(2 ** (SCALES - scale) + 1) for scale in range(SCALES))  # 17, 9, 5, 3


def vif(
    reference: Plane, distorted: Plane, weight: Plane | None = None, gain_limit: float = GAIN_LIMIT
) -> Vif:
    """VIF of a frame, whole and (where a weight is given) weighted.

    Args:
        reference: float32 (H, W), luma in codes of 8 bits.
        distorted: the same of the distorted frame.
        weight: float32 (H, W), not negative; only ratios between pixels matter.
        gain_limit: most that a local gain counts, at least 1 (`vif_enhn_gain_limit`).
    """
    whole: list[float] = []
    weighted: list[float] = []
    for scale, window in enumerate(WINDOWS):
        if scale:
            reference, distorted = _halve(reference, window), _halve(distorted, window)
            if scale == FIRST_DOUBLE:
                reference, distorted = reference.astype(np.float64), distorted.astype(np.float64)
            weight = None if weight is None else halve_centred(weight)
        plain_sums, weighted_sums = _sums(reference, distorted, window, gain_limit, weight)
        whole.append(plain_sums[0] / plain_sums[1])
        if weight is not None:
            weighted.append(weighted_sums[0] / weighted_sums[1])
    return Vif(tuple(whole), tuple(weighted) if weight is not None else None)


def halve_centred(weight: Plane) -> Plane:
    """Weights at every second pixel, as VIF's pyramid keeps them: (H, W) to (H // 2, W // 2).

    A low-pass of 5 binomial taps centred on the kept pixel, mirrored at the border, so that the
    weights of a scale lie on that scale's pixels, and a constant stays the same constant.
    """
    height, width = weight.shape
    half = opencv().pyrDown(weight)
    return np.ascontiguousarray(half[: height // 2, : width // 2])


def _mean(plane: Plane, window: Plane, name: str) -> Plane:
    """Local mean, with libvmaf's rounding between the passes.

    It keeps 8 bits after the point once the columns are filtered. A variance is the small
    difference of two large numbers, so at the coarse scales, of few pixels, that rounding shows
    in the third decimal of the feature.
    """
    mean = _filter(plane, ONE, window, name)
    _to_fixed_point(mean)
    return _filter(mean, window, ONE, name)


def _filter(plane: Plane, across: Plane, down: Plane, name: str) -> Plane:
    cv2 = opencv()
    out = scratch(name, plane.shape, plane.dtype)
    filtered: Plane = cv2.sepFilter2D(
        plane, -1, across, down, dst=out, borderType=cv2.BORDER_REFLECT_101
    )
    return filtered


def _mean_product(a: Plane, b: Plane, window: Plane, name: str) -> Plane:
    product = np.multiply(a, b, out=scratch("product", a.shape, a.dtype))
    return _filter(product, window, window, name)


def _to_fixed_point(plane: Plane) -> None:
    plane *= 256
    plane += 0.5
    np.floor(plane, out=plane)  # a half goes up, as with shifts of integers
    plane *= 1 / 256


def _halve(plane: Plane, window: Plane) -> Plane:
    height, width = plane.shape
    mean = _mean(plane, window, "mean1")
    half: Plane = np.ascontiguousarray(mean[: height // 2 * 2 : 2, : width // 2 * 2 : 2])
    _to_fixed_point(half)
    return half


def _sums(
    ref: Plane, dist: Plane, window: Plane, gain_limit: float, weight: Plane | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(numerator, denominator) summed over a scale's pixels, plain and times the weights."""
    planes = (
        _mean(ref, window, "mean1"),
        _mean(dist, window, "mean2"),
        _mean_product(ref, ref, window, "s1"),
        _mean_product(dist, dist, window, "s2"),
        _mean_product(ref, dist, window, "s12"),
    )
    totals = np.zeros(4)
    rows = max(1, STRIP // ref.shape[1])
    for top in range(0, ref.shape[0], rows):
        strip = slice(top, top + rows)
        mean1, mean2, s1, s2, s12 = (plane[strip] for plane in planes)
        kept, there = _information(mean1, mean2, s1, s2, s12, gain_limit)
        totals[:2] += sum_of(kept), sum_of(there)
        if weight is not None:
            kept *= weight[strip]
            there *= weight[strip]
            totals[2:] += sum_of(kept), sum_of(there)
    return (float(totals[0]), float(totals[1])), (float(totals[2]), float(totals[3]))


def _information(
    mean1: Plane, mean2: Plane, s1: Plane, s2: Plane, s12: Plane, gain_limit: float
) -> tuple[Plane, Plane]:
    """Numerator and denominator of every pixel, in nats; the planes given are overwritten.

    With s1, s2, s12 the local variances and covariance, g = s12 / s1 and sv = s2 - g * s12:
    numerator log(1 + g^2 s1 / (sv + 2)), denominator log(1 + s1 / 2). Where the reference is flat
    (s1 < 2) libvmaf takes 1 - 4 s2 / 255^2 of a denominator of one bit in place of them.

    Args:
        mean1: local means of the reference.
        mean2: local means of the distorted picture.
        s1: local means of the reference's squares.
        s2: local means of the distorted picture's squares.
        s12: local means of the products.
        gain_limit: most that g counts.
    """
    cv2 = opencv()
    square = mean1 * mean1
    s1 -= square
    np.multiply(mean1, mean2, out=square)
    s12 -= square
    np.multiply(mean2, mean2, out=square)
    s2 -= square
    cv2.threshold(s2, 0, 0, cv2.THRESH_TOZERO, dst=s2)

    textured, flat = mean1, mean2  # their planes are free now
    cv2.threshold(s1, NOISE_VARIANCE, 1, cv2.THRESH_BINARY, dst=textured)
    np.maximum(s1, NOISE_VARIANCE, out=s1)  # so that a flat denominator is log(2)
    np.multiply(s2, -4 * math.log(2) / 255**2, out=flat)
    flat += math.log(2)

    gain = np.divide(s12, s1, out=square)
    s12 *= gain
    s2 -= s12
    cv2.threshold(s2, 0, 0, cv2.THRESH_TOZERO, dst=s2)
    s2 += NOISE_VARIANCE
    cv2.threshold(gain, 0, 0, cv2.THRESH_TOZERO, dst=gain)  # a negative gain keeps nothing
    if gain_limit < GAIN_LIMIT:
        cv2.threshold(gain, gain_limit, 0, cv2.THRESH_TRUNC, dst=gain)
    gain *= gain
    gain *= s1
    gain /= s2
    gain += 1
    kept: Plane = cv2.log(gain, dst=gain)
    kept -= flat
    kept *= textured
    kept += flat

    s1 *= 1 / NOISE_VARIANCE
    s1 += 1
    there: Plane = cv2.log(s1, dst=s1)
    return kept, there
