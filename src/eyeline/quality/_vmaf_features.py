"""The elementary features of VMAF (VIF, ADM, motion) as libvmaf computes them, whole and weighted.

Each feature is a ratio or a mean of sums over pixels. One pass computes the sums twice, plain and with
a weight per pixel. Uniform weights give libvmaf's values. docs/sw_vmaf.md explains where the weights
enter.

- VIF, visual information fidelity: how much information of the reference survives in the distorted
  picture, at four scales. Definition: Sheikh & Bovik, "Image information and visual quality", IEEE TIP
  15(2), 2006, in the pixel domain. Constants, borders and flat areas follow libvmaf's `integer_vif`.
- ADM, detail loss: both pictures go through a Daubechies-2 wavelet. The coefficients that the distorted
  picture keeps of the reference are separated from the added ones (decoupling), scaled by contrast
  sensitivity, masked by the added ones near them, and pooled: the cube root of a sum of cubes, over that
  of the reference. Definition: Li, Zhang, Ma & Ngan, "Image quality assessment by separately evaluating
  detail losses and additive impairments", IEEE TMM 13(5), 2011. Constants and borders follow libvmaf's
  `integer_adm`.
- Motion: the mean absolute difference of two blurred luma frames of the reference. A frame's feature
  (`motion2`) is the smaller of the differences to its two neighbours, so a cut does not count. Window
  and border follow libvmaf's `integer_motion`.

This module also owns OpenCV, which every metric filters with, and the memory that threads work in.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from eyeline.errors import MissingExtraError, QualityError

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    Plane = NDArray[np.floating]

FLOAT = np.dtype(np.float32)
DOUBLE = np.dtype(np.float64)


def opencv() -> ModuleType:
    """Import OpenCV, which filters float32 planes with vector instructions and without the GIL.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as exc:
        raise MissingExtraError("opencv-python-headless", "vmaf") from exc
    return cv2


class Scratch(threading.local):
    """Memory that a thread works in, kept from frame to frame.

    The allocator would get each plane anew from the system and give it back, and the page faults would
    double the time.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, np.dtype[Any]], NDArray[Any]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an uninitialised array, valid until the next call with its name and dtype."""
        size = math.prod(shape)
        plane = self._kept.get((name, dtype))
        if plane is None or plane.size < size:
            plane = self._kept[name, dtype] = np.empty(size, dtype)
        return plane[:size].reshape(shape)


scratch = Scratch()


def sum_of(plane: Plane) -> float:
    """Sum a float32 or float64 plane (H, W) in float64, in an order that no address changes.

    The order of OpenCV's `sumElems` depends on the address, so its last bits change from run to run.
    """
    cv2 = opencv()
    return float(cv2.reduce(plane, 0, cv2.REDUCE_SUM, dtype=cv2.CV_64F).sum())


def sum_of_products(a: Plane, b: Plane) -> float:
    """Sum a * b, in float32 within a row; a BLAS product would wait for threads of its own."""
    return float(np.einsum("ij,ij->i", a, b).sum(dtype=np.float64))


SCALES = 4
GAIN_LIMIT = 100.0
"""libvmaf's default `vif_enhn_gain_limit` and `adm_enhn_gain_limit`: in effect no limit. The "neg"
models set 1."""

BORDER = 0.1
"""Share of the width and height that ADM leaves out at each side."""

LOW = tuple(
    round((a + b * math.sqrt(3)) / (4 * math.sqrt(2)) * 2**15) / 2**15
    for a, b in ((1, 1), (3, 1), (3, -1), (1, -1))
)
"""Low-pass taps of the Daubechies-2 wavelet in 15 bits; the high-pass is (c3, -c2, c1, -c0)."""

HIGH = (LOW[3], -LOW[2], LOW[1], -LOW[0])

MIDDLE = np.float32(128)
"""Subtracted from luma as in libvmaf: it changes the rounding of the approximation."""

BITS_DOWN, BITS_ACROSS = (7, 21, 20, 18), (6, 21, 19, 18)
"""Fractional bits that libvmaf keeps of each scale's columns, then of its rows."""

COS_SQUARED = math.cos(math.radians(1)) ** 2  # an angle under one degree is a change of contrast
NOISE = 1 / 32  # libvmaf's adm_noise_weight: keeps the ratio of flat pictures near 1
PIXELS_PER_DEGREE = 3.0 * 1080 * math.pi / 180  # three heights from a screen of 1080 rows

# Watson, Yang, Solomon & Villasenor, "Visibility of wavelet quantization noise", IEEE TIP 6(8),
# 1997: luma of table IV, and table V's amplitudes (horizontal or vertical, diagonal) by scale.
WATSON_A, WATSON_K, WATSON_F0 = 0.495, 0.466, 0.401
WATSON_G = (1.0, 0.534)
WATSON_AMPLITUDE = ((0.67234, 0.72709), (0.41317, 0.49428), (0.22727, 0.28688), (0.11792, 0.15214))


class Adm(NamedTuple):
    """ADM over all scales together, and of each scale, finest first."""

    adm2: float
    scales: tuple[float, ...]


class AdmPair(NamedTuple):
    """ADM over the whole frame and with weights."""

    whole: Adm
    weighted: Adm | None


def sensitivity(scale: int) -> tuple[float, float]:
    """Return the contrast sensitivity (Watson, eq. 9) to (horizontal or vertical, diagonal) detail."""
    both = []
    for g, amplitude in zip(WATSON_G, WATSON_AMPLITUDE[scale], strict=True):
        octaves = math.log10(2 ** (scale + 1) * WATSON_F0 * g / PIXELS_PER_DEGREE)
        both.append(amplitude / (2 * WATSON_A * 10 ** (WATSON_K * octaves**2)))
    return both[0], both[1]


def adm(
    reference: Plane, distorted: Plane, weight: Plane | None = None, gain_limit: float = GAIN_LIMIT
) -> AdmPair:
    """Return the ADM of a frame, whole and (where a weight is given) weighted.

    Args:
        reference: float32 (H, W), luma in 8-bit codes.
        distorted: the same of the distorted frame.
        weight: float32 (H, W), 0 or more; only the ratios between pixels matter.
        gain_limit: how much raised contrast counts at most, 1 or more (`adm_enhn_gain_limit`).

    Raises:
        QualityError: all weight lies in the border that ADM leaves out.
    """
    whole, weighted = [], []
    reference, distorted = reference - MIDDLE, distorted - MIDDLE
    for scale in range(SCALES):
        ref, dist = wavelet(reference, scale, "ref"), wavelet(distorted, scale, "dist")
        reference, distorted = ref[0], dist[0]
        kept, there = _details(ref[1:], dist[1:], scale, gain_limit)
        area = kept[0].size
        whole.append((_pool(kept, area, 1.0), _pool(there, area, 1.0)))
        if weight is None:
            continue
        weight = halve_blocks(weight)
        rows, columns = inner(weight.shape)
        inside = np.ascontiguousarray(weight[rows, columns])
        total = sum_of(inside)
        if not total > 0:
            raise QualityError(
                "the map has no weight outside the border of a tenth that ADM leaves out",
                "blend it with uniform weights (--weight below 1)",
            )
        for cubes in (*kept, *there):
            np.multiply(cubes, inside, out=cubes)
        gain = area / total
        weighted.append((_pool(kept, area, gain), _pool(there, area, gain)))
    return AdmPair(_adm(whole), _adm(weighted) if weight is not None else None)


def inner(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of a band inside the border, with libvmaf's rounding."""
    height, width = shape
    top, left = int(height * BORDER - 0.5), int(width * BORDER - 0.5)
    return slice(top, height - top), slice(left, width - left)


def halve_blocks(weight: Plane) -> Plane:
    """Average each 2x2 block: (H, W) to the halves rounded up, the weights of wavelet coefficients.

    A coefficient's four taps are centred on its block, so its weight is the block's mean.
    """
    cv2 = opencv()
    height, width = weight.shape
    if height % 2 or width % 2:
        weight = cv2.copyMakeBorder(weight, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    size = (weight.shape[1] // 2, weight.shape[0] // 2)
    half: Plane = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    return half


def wavelet(plane: Plane, scale: int, name: str = "") -> Plane:
    """Compute one level of the Daubechies-2 wavelet, with libvmaf's rounding at this scale.

    This rounding decides whether two small coefficients have the same direction, and flat areas must
    give exact zeros. So float64 is used where float32 cannot hold the sums.

    Args:
        plane: float32 (H, W), or float64 from scale 1.
        scale: 0 to 3, finest first.
        name: name of the result's memory; the next call with that name and scale reuses it.

    Returns:
        float64 (4, ceil(H / 2), ceil(W / 2)): approximation, vertical edges (high-pass along
        rows), horizontal edges (high-pass along columns), diagonal.
    """
    height, width = plane.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    dtype = DOUBLE if scale else FLOAT  # 24 bits hold one pass over codes, not two
    # As in libvmaf, row -1 is row 1, and the rows after the last one repeat backwards from it.
    padded = scratch("padded", (2 * rows + 2, width), dtype)
    padded[1 : height + 1] = plane
    padded[0] = plane[1]
    padded[height + 1 :] = plane[-1 : -1 - (len(padded) - height - 1) : -1]
    taps = [padded[i : i + 2 * rows : 2] for i in range(4)]
    bands = scratch(f"bands{name}{scale}", (4, rows, columns), DOUBLE)
    odd = scratch("odd", (rows, columns + 1), DOUBLE)  # samples -1, 1, 3, ...
    even = scratch("even", (rows, columns + 1), DOUBLE)  # samples 0, 2, 4, ...
    lines = scratch("lines", (rows, width), dtype)
    for i, vertical in enumerate((LOW, HIGH)):
        _combine(vertical, taps, lines)
        _round(lines, BITS_DOWN[scale])
        odd[:, 0] = lines[:, 1]
        odd[:, 1 : 1 + width // 2] = lines[:, 1::2]
        even[:, :columns] = lines[:, ::2]
        if width % 2:
            odd[:, -1], even[:, -1] = lines[:, -1], lines[:, -2]
        else:
            even[:, -1] = lines[:, -1]
        across = [odd[:, :-1], even[:, :-1], odd[:, 1:], even[:, 1:]]
        _combine(LOW, across, bands[2 * i])
        _combine(HIGH, across, bands[2 * i + 1])
    _round(bands, BITS_ACROSS[scale])
    return bands


def _round(plane: Plane, bits: int) -> None:
    plane *= 2.0**bits
    plane += 0.5
    np.floor(plane, out=plane)  # a half rounds up, as in libvmaf's shifts
    plane *= 2.0**-bits


def _combine(taps: tuple[float, ...], samples: list[Plane], out: Plane) -> None:
    product = scratch("product", out.shape, out.dtype)
    np.multiply(samples[0], taps[0], out=out)
    for tap, sample in zip(taps[1:], samples[1:], strict=True):
        np.multiply(sample, tap, out=product)
        out += product


def _details(
    ref: Plane, dist: Plane, scale: int, gain_limit: float
) -> tuple[list[Plane], list[Plane]]:
    """Return cubes of kept detail and of the reference's detail, three planes each, in the border.

    `ref` and `dist` are float32 (3, H, W): vertical, horizontal and diagonal details.
    """
    cv2 = opencv()
    rows, columns = inner(ref.shape[1:])
    # One coefficient more on each side, for the masking window, where the band has it.
    top, left = min(rows.start, 1), min(columns.start, 1)
    crop = (
        slice(None),
        slice(rows.start - top, rows.stop + top),
        slice(columns.start - left, columns.stop + left),
    )
    shape = ref[crop].shape
    o, t = scratch("o", shape, FLOAT), scratch("t", shape, FLOAT)
    o[:], t[:] = ref[crop], dist[crop]
    size = np.abs(o, out=scratch("size", shape, FLOAT))
    # Kept is the part of t in o's direction, at most o, or at most o times the limit where only the
    # contrast changed. This equals libvmaf's clip of t / o to [0, 1], without the division.
    limit = size
    if gain_limit > 1:
        gain = _contrast_only(o, t)
        gain *= gain_limit - 1
        gain += 1
        limit = np.multiply(size, gain, out=scratch("limit", shape, FLOAT))
    kept = scratch("kept", shape, FLOAT)
    sign = np.bitwise_and(o.view(np.int32), np.int32(-(2**31)), out=o.view(np.int32))
    np.bitwise_xor(t.view(np.int32), sign, out=kept.view(np.int32))
    np.maximum(kept, np.float32(0), out=kept)
    np.minimum(kept, limit, out=kept)
    added = np.abs(t, out=t)
    added -= kept
    factors = [np.float32(f) for f in (*sensitivity(scale)[:1] * 2, sensitivity(scale)[1])]
    mask = added[0] + added[1]
    mask *= factors[0]
    added[2] *= factors[2]
    mask += added[2]
    if not top:
        mask = np.concatenate((mask[1:2], mask, mask[-1:]))
    if not left:
        mask = np.concatenate((mask[:, 1:2], mask, mask[:, -1:]), axis=1)
    window = np.full((3, 3), 1 / 30, np.float32)
    window[1, 1] = 2 / 30
    threshold = np.ascontiguousarray(cv2.filter2D(mask, cv2.CV_32F, window)[1:-1, 1:-1])
    inside = (slice(top, kept.shape[1] - top), slice(left, kept.shape[2] - left))
    cubes_kept, cubes_there = [], []
    for i, factor in enumerate(factors):
        seen = kept[i][inside] * factor
        seen -= threshold
        cv2.threshold(seen, 0, 0, cv2.THRESH_TOZERO, dst=seen)
        cubes_kept.append(_cube(seen))
        cubes_there.append(_cube(size[i][inside] * factor))
    return cubes_kept, cubes_there


def _contrast_only(o: Plane, t: Plane) -> Plane:
    """Return 1 where (vertical, horizontal) of both have the same direction within one degree."""
    shape = o.shape[1:]
    across, lengths, other, product = (
        scratch(name, shape, FLOAT) for name in ("across", "lengths", "other", "crossed")
    )

    def dot(a: Plane, b: Plane, out: Plane) -> None:
        np.multiply(a[0], b[0], out=out)
        np.multiply(a[1], b[1], out=product)
        out += product

    dot(o, t, across)
    dot(o, o, lengths)
    dot(t, t, other)
    lengths *= other
    lengths *= COS_SQUARED
    np.multiply(across, across, out=other)
    same: Plane = np.logical_and(other >= lengths, across >= 0).astype(np.float32)
    return same


def _cube(plane: Plane) -> Plane:
    squares = plane * plane
    plane *= squares
    return plane


def _pool(cubes: list[Plane], area: int, gain: float) -> float:
    total = sum(math.cbrt(sum_of(plane) * gain) for plane in cubes)
    return float(total + 3 * math.cbrt(area * NOISE))


def _adm(scales: list[tuple[float, float]]) -> Adm:
    kept, there = (sum(column) for column in zip(*scales, strict=True))
    return Adm(kept / there, tuple(num / den for num, den in scales))


NOISE_VARIANCE = 2.0
"""Variance of the eye's internal noise (sigma_nsq), in squared 8-bit codes."""


class Vif(NamedTuple):
    """VIF of one frame at each scale, finest first; 1 means that nothing was lost."""

    whole: tuple[float, ...]
    weighted: tuple[float, ...] | None


def gaussian(width: int) -> Plane:
    """Return VIF's window, float32 (width,), sum 1, standard deviation a fifth of the width.

    The taps have 16 bits as in libvmaf; the middle three taps take the rounding error.
    """
    x = np.arange(width) - width // 2
    taps = np.exp(-0.5 * (x / (width / 5)) ** 2)
    taps = np.rint(taps / taps.sum() * 2**16)
    middle = width // 2
    taps[[middle - 1, middle + 1]] -= np.ceil((taps.sum() - 2**16) / 2)
    taps[middle] += 2**16 - taps.sum()
    return np.asarray(taps / 2**16, np.float32)


FIRST_DOUBLE = 2
"""First scale in float64. Coarse scales have so few pixels that one pixel on the other side of a
threshold changes the result; in the finer scales, in float32, such differences cancel."""

STRIP = 1 << 21
"""Pixels per step after the windows: bounds the memory of large frames. Smaller strips fit the cache,
but each call waits for the GIL, which costs more (`benchmarks/sw_vmaf.py --threads`)."""

ONE = np.ones(1, np.float32)
WINDOWS = tuple(gaussian(2 ** (SCALES - scale) + 1) for scale in range(SCALES))  # 17, 9, 5, 3


def vif(
    reference: Plane, distorted: Plane, weight: Plane | None = None, gain_limit: float = GAIN_LIMIT
) -> Vif:
    """Return the VIF of a frame, whole and (where a weight is given) weighted.

    Args:
        reference: float32 (H, W), luma in 8-bit codes.
        distorted: the same of the distorted frame.
        weight: float32 (H, W), 0 or more; only the ratios between pixels matter.
        gain_limit: how much a local gain counts at most, 1 or more (`vif_enhn_gain_limit`).
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
    """Return the weights at every second pixel, as in VIF's pyramid: (H, W) to (H // 2, W // 2).

    A low-pass of 5 binomial taps is centred on the kept pixels and mirrored at the border, so the
    weights of a scale lie on its pixels, and a constant stays the same.
    """
    height, width = weight.shape
    half = opencv().pyrDown(weight)
    return np.ascontiguousarray(half[: height // 2, : width // 2])


def _mean(plane: Plane, window: Plane, name: str) -> Plane:
    """Return local means, with libvmaf's rounding to 8 fractional bits after the columns.

    A variance is the small difference of two large numbers, so at the coarse scales this rounding
    changes the third decimal of the feature.
    """
    mean = _filter(plane, ONE, window, name)
    _round(mean, 8)
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


def _halve(plane: Plane, window: Plane) -> Plane:
    height, width = plane.shape
    mean = _mean(plane, window, "mean1")
    half: Plane = np.ascontiguousarray(mean[: height // 2 * 2 : 2, : width // 2 * 2 : 2])
    _round(half, 8)
    return half


def _sums(
    ref: Plane, dist: Plane, window: Plane, gain_limit: float, weight: Plane | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the sums of (numerator, denominator) over a scale's pixels, plain and weighted."""
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
    """Return the numerator and denominator of every pixel, in nats; overwrites the given planes.

    `s1`, `s2` and `s12` are local means of squares and products, which become variances and
    covariance. With g = s12 / s1 and sv = s2 - g * s12 the numerator is log(1 + g^2 s1 / (sv + 2)), the
    denominator log(1 + s1 / 2). Where the reference is flat (s1 < 2), libvmaf instead takes the
    numerator 1 - 4 s2 / 255^2 over a denominator of one bit.
    """
    cv2 = opencv()
    square = mean1 * mean1
    s1 -= square
    np.multiply(mean1, mean2, out=square)
    s12 -= square
    np.multiply(mean2, mean2, out=square)
    s2 -= square
    cv2.threshold(s2, 0, 0, cv2.THRESH_TOZERO, dst=s2)

    textured, flat = mean1, mean2  # these planes are free now
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


WINDOW = gaussian(5)


class MotionDifference(NamedTuple):
    """Mean difference between a frame and the one before it, in 8-bit codes.

    Attributes:
        whole: over all pixels.
        weighted: with this frame's weights; None without weights.
        weighted_by_previous: with the previous frame's weights; None without weights.
    """

    whole: float
    weighted: float | None
    weighted_by_previous: float | None


def motion(
    reference: Plane,
    previous: Plane,
    weight: Plane | None = None,
    previous_weight: Plane | None = None,
) -> MotionDifference:
    """Return the difference of two reference frames.

    Args:
        reference: float32 (H, W), luma in 8-bit codes (an offset does not matter).
        previous: the same of the frame before.
        weight: float32 (H, W) of the frame.
        previous_weight: float32 (H, W) of the frame before.
    """
    cv2 = opencv()
    change = reference - previous
    change = cv2.sepFilter2D(
        change, cv2.CV_32F, WINDOW, WINDOW, dst=change, borderType=cv2.BORDER_REFLECT_101
    )
    np.abs(change, out=change)

    def mean(weights: Plane | None) -> float | None:
        if weights is None:
            return None
        return float(sum_of(change * weights) / sum_of(weights))

    return MotionDifference(
        float(sum_of(change) / change.size), mean(weight), mean(previous_weight)
    )
