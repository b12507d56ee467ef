"""The elementary features of VMAF (VIF, ADM, motion) as libvmaf computes them, whole and weighted.

Each feature is a mean, or a ratio of sums, over pixels. One pass computes the sums twice: without
weights ("whole") and with one weight per pixel ("weighted"). Uniform weights give libvmaf's values.
docs/sw_vmaf.md explains where the weights enter the formulas.

- VIF (visual information fidelity): the share of the reference's information that the distorted frame
  keeps, at four scales. Definition: Sheikh & Bovik, "Image information and visual quality", IEEE TIP
  15(2), 2006, in the pixel domain. Constants, borders and flat areas follow libvmaf's `integer_vif`.
- ADM (detail loss measure): a Daubechies-2 wavelet transforms both frames. Decoupling splits the
  distorted coefficients into detail kept from the reference and added detail. Kept detail is scaled by
  contrast sensitivity and masked by the added detail around it. The feature is the cube root of the sum
  of cubes of kept detail, divided by that of all detail of the reference. Definition: Li, Zhang, Ma & Ngan,
  "Image quality assessment by separately evaluating detail losses and additive impairments", IEEE TMM
  13(5), 2011. Constants and borders follow libvmaf's `integer_adm`.
- Motion: the mean absolute difference of two blurred luma frames of the reference. A frame's feature
  (`motion2`) is the smaller of its differences to the previous and the next frame, so a cut does not
  count as motion. Window and border follow libvmaf's `integer_motion`.

This module also imports OpenCV for all metrics and holds the working memory of their threads.
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
    """Import OpenCV, which filters float32 planes with SIMD instructions and releases the GIL.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as exc:
        raise MissingExtraError("opencv-python-headless", "vmaf") from exc
    return cv2


class Scratch(threading.local):
    """Working memory of a thread, reused from frame to frame.

    Without this reuse, the allocator would get every plane from the system and return it, and the page
    faults would double the run time.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, np.dtype[Any]], NDArray[Any]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an uninitialised array, valid until the next call with the same name and dtype."""
        size = math.prod(shape)
        plane = self._kept.get((name, dtype))
        if plane is None or plane.size < size:
            plane = self._kept[name, dtype] = np.empty(size, dtype)
        return plane[:size].reshape(shape)


scratch = Scratch()


def sum_of(plane: Plane) -> float:
    """Sum a float32 or float64 plane (H, W) in float64, in a fixed order.

    OpenCV's `sumElems` sums in an order that depends on the memory address of the plane, so the last bits
    of its result change from run to run.
    """
    cv2 = opencv()
    return float(cv2.reduce(plane, 0, cv2.REDUCE_SUM, dtype=cv2.CV_64F).sum())


def sum_of_products(a: Plane, b: Plane) -> float:
    """Sum a * b, in float32 within each row, without BLAS, which would wait for its own threads."""
    return float(np.einsum("ij,ij->i", a, b).sum(dtype=np.float64))


SCALES = 4
GAIN_LIMIT = 100.0
"""libvmaf's default of `vif_enhn_gain_limit` and `adm_enhn_gain_limit`: practically no limit. VMAF's
"neg" models set both limits to 1."""

BORDER = 0.1
"""Width of the border that ADM leaves out at each side, as a share of the width or height."""

LOW = tuple(
    round((a + b * math.sqrt(3)) / (4 * math.sqrt(2)) * 2**15) / 2**15
    for a, b in ((1, 1), (3, 1), (3, -1), (1, -1))
)
"""Low-pass taps of the Daubechies-2 wavelet, rounded to 15 bits. With these taps as (c0, c1, c2, c3),
the high-pass taps are (c3, -c2, c1, -c0)."""

HIGH = (LOW[3], -LOW[2], LOW[1], -LOW[0])

MIDDLE = np.float32(128)
"""Value that is subtracted from luma, as in libvmaf, because it affects the rounding of the wavelet."""

BITS_DOWN, BITS_ACROSS = (7, 21, 20, 18), (6, 21, 19, 18)
"""Fractional bits that libvmaf keeps after the vertical and after the horizontal filter, by scale."""

COS_SQUARED = math.cos(math.radians(1)) ** 2  # within 1 degree, only the contrast changed
NOISE = 1 / 32  # libvmaf's adm_noise_weight: keeps the ratio of flat pictures near 1
PIXELS_PER_DEGREE = 3.0 * 1080 * math.pi / 180  # a 1080-row screen viewed from 3 screen heights

# Watson, Yang, Solomon & Villasenor, "Visibility of wavelet quantization noise", IEEE TIP 6(8),
# 1997: luma constants of table IV, and amplitudes of table V by scale, each as (horizontal or
# vertical, diagonal).
WATSON_A, WATSON_K, WATSON_F0 = 0.495, 0.466, 0.401
WATSON_G = (1.0, 0.534)
WATSON_AMPLITUDE = ((0.67234, 0.72709), (0.41317, 0.49428), (0.22727, 0.28688), (0.11792, 0.15214))


class Adm(NamedTuple):
    """ADM over all scales together, and ADM of each scale, finest first."""

    adm2: float
    scales: tuple[float, ...]


class AdmPair(NamedTuple):
    """ADM over the whole frame, and weighted ADM; `weighted` is None without weights."""

    whole: Adm
    weighted: Adm | None


def sensitivity(scale: int) -> tuple[float, float]:
    """Return the contrast sensitivity (Watson, eq. 9) for (horizontal or vertical, diagonal) detail."""
    both = []
    for g, amplitude in zip(WATSON_G, WATSON_AMPLITUDE[scale], strict=True):
        octaves = math.log10(2 ** (scale + 1) * WATSON_F0 * g / PIXELS_PER_DEGREE)
        both.append(amplitude / (2 * WATSON_A * 10 ** (WATSON_K * octaves**2)))
    return both[0], both[1]


def adm(
    reference: Plane, distorted: Plane, weight: Plane | None = None, gain_limit: float = GAIN_LIMIT
) -> AdmPair:
    """Return the ADM of a frame, whole and (if `weight` is given) weighted.

    Args:
        reference: float32 (H, W), luma in 8-bit codes.
        distorted: luma of the distorted frame, in the same form.
        weight: float32 (H, W), 0 or more; only the ratios between pixels matter.
        gain_limit: greatest contrast gain that counts, 1 or more (`adm_enhn_gain_limit`).

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
                "the map is zero everywhere except in the outer 10 % on each side, which ADM leaves out",
                "give a --weight below 1, which adds a uniform weight to the map",
            )
        for cubes in (*kept, *there):
            np.multiply(cubes, inside, out=cubes)
        gain = area / total
        weighted.append((_pool(kept, area, gain), _pool(there, area, gain)))
    return AdmPair(_adm(whole), _adm(weighted) if weight is not None else None)


def inner(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of a band inside the border, rounded as in libvmaf."""
    height, width = shape
    top, left = int(height * BORDER - 0.5), int(width * BORDER - 0.5)
    return slice(top, height - top), slice(left, width - left)


def halve_blocks(weight: Plane) -> Plane:
    """Return the weights of wavelet coefficients: the mean of each 2x2 block, (H, W) halved and rounded up.

    The four taps of a coefficient are centred on its 2x2 block, so the block's mean is its weight.
    """
    cv2 = opencv()
    height, width = weight.shape
    if height % 2 or width % 2:
        weight = cv2.copyMakeBorder(weight, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    size = (weight.shape[1] // 2, weight.shape[0] // 2)
    half: Plane = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    return half


def wavelet(plane: Plane, scale: int, name: str = "") -> Plane:
    """Compute one level of the Daubechies-2 wavelet, rounded as libvmaf does at this scale.

    The rounding decides whether two small coefficients have the same direction, and flat areas must
    give exact zeros. So sums that float32 cannot hold exactly use float64.

    Args:
        plane: float32 (H, W), or float64 from scale 1.
        scale: 0 to 3, finest first.
        name: name of the working memory for the result; the next call with this name and scale
            overwrites it.

    Returns:
        float64 (4, ceil(H / 2), ceil(W / 2)): approximation, vertical edges (high-pass along
        rows), horizontal edges (high-pass along columns), diagonal.
    """
    height, width = plane.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    dtype = DOUBLE if scale else FLOAT  # float32 is exact for the first pass only
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
    np.floor(plane, out=plane)  # halves round up, as with libvmaf's bit shifts
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
    """Return the cubes of kept detail and of the reference's detail, without the border.

    Each returned list has three planes. `ref` and `dist` are float32 (3, H, W): vertical, horizontal and
    diagonal detail.
    """
    cv2 = opencv()
    rows, columns = inner(ref.shape[1:])
    # The masking window needs one more coefficient on each side, if the band has one.
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
    # Kept detail is t where it has the sign of o, limited to |o|, or to |o| * gain_limit where only the
    # contrast changed. The result equals libvmaf's clip of t / o to [0, 1], without the division.
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
    """Return 1 where the angle between the (vertical, horizontal) details `o` and `t` is below 1 degree."""
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
    """Return VIF's window, float32 (width,): sum 1, standard deviation width / 5.

    The taps are rounded to 16 bits as in libvmaf; the middle three taps absorb the rounding error.
    """
    x = np.arange(width) - width // 2
    taps = np.exp(-0.5 * (x / (width / 5)) ** 2)
    taps = np.rint(taps / taps.sum() * 2**16)
    middle = width // 2
    taps[[middle - 1, middle + 1]] -= np.ceil((taps.sum() - 2**16) / 2)
    taps[middle] += 2**16 - taps.sum()
    return np.asarray(taps / 2**16, np.float32)


FIRST_DOUBLE = 2
"""First scale that is computed in float64. Coarse scales have so few pixels that the result
changes if float32 rounding moves one pixel across a threshold. In finer scales such changes cancel out."""

STRIP = 1 << 21
"""Pixels per step after filtering, which bounds the memory for large frames. Smaller strips would fit
into the cache, but more calls wait for the GIL, which costs more (`benchmarks/sw_vmaf.py --threads`)."""

ONE = np.ones(1, np.float32)
# The windows are 17, 9, 5 and 3 pixels wide.
WINDOWS = tuple(gaussian(2 ** (SCALES - scale) + 1) for scale in range(SCALES))


def vif(
    reference: Plane, distorted: Plane, weight: Plane | None = None, gain_limit: float = GAIN_LIMIT
) -> Vif:
    """Return the VIF of a frame, whole and (if `weight` is given) weighted.

    Args:
        reference: float32 (H, W), luma in 8-bit codes.
        distorted: luma of the distorted frame, in the same form.
        weight: float32 (H, W), 0 or more; only the ratios between pixels matter.
        gain_limit: greatest local gain that counts, 1 or more (`vif_enhn_gain_limit`).
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

    The low-pass has 5 binomial taps, is centred on the kept pixels and mirrored at the border. So
    weights stay aligned with the pixels of each scale, and constant weights stay constant.
    """
    height, width = weight.shape
    half = opencv().pyrDown(weight)
    return np.ascontiguousarray(half[: height // 2, : width // 2])


def _mean(plane: Plane, window: Plane, name: str) -> Plane:
    """Return local means, rounded to 8 fractional bits after the vertical filter as in libvmaf.

    Variances are small differences of large numbers, so at coarse scales this rounding changes the third
    decimal of the feature.
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
    """Return the sums of (numerator, denominator) over all pixels, whole and weighted."""
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
    """Return VIF's numerator and denominator at every pixel, in nats; overwrite the given planes.

    `s1`, `s2` and `s12` are local means of squares and products; the function turns them into variances
    and the covariance. With g = s12 / s1 and sv = s2 - g * s12, the numerator is
    log(1 + g^2 s1 / (sv + 2)) and the denominator is log(1 + s1 / 2). Where the reference is flat
    (s1 < 2), libvmaf instead uses the numerator 1 - 4 s2 / 255^2 and the denominator 1, in bits.
    """
    cv2 = opencv()
    square = mean1 * mean1
    s1 -= square
    np.multiply(mean1, mean2, out=square)
    s12 -= square
    np.multiply(mean2, mean2, out=square)
    s2 -= square
    cv2.threshold(s2, 0, 0, cv2.THRESH_TOZERO, dst=s2)

    textured, flat = mean1, mean2  # reuse the memory of the means
    cv2.threshold(s1, NOISE_VARIANCE, 1, cv2.THRESH_BINARY, dst=textured)
    np.maximum(s1, NOISE_VARIANCE, out=s1)  # makes the denominator log(2) in flat areas
    np.multiply(s2, -4 * math.log(2) / 255**2, out=flat)
    flat += math.log(2)

    gain = np.divide(s12, s1, out=square)
    s12 *= gain
    s2 -= s12
    cv2.threshold(s2, 0, 0, cv2.THRESH_TOZERO, dst=s2)
    s2 += NOISE_VARIANCE
    cv2.threshold(gain, 0, 0, cv2.THRESH_TOZERO, dst=gain)  # a negative gain keeps no information
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
    """Mean absolute difference between a frame and the previous frame, in 8-bit codes.

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
    """Return the mean absolute difference of two blurred reference frames.

    Args:
        reference: float32 (H, W), luma in 8-bit codes (a constant offset does not matter).
        previous: luma of the previous frame, in the same form.
        weight: float32 (H, W), weights of the frame.
        previous_weight: float32 (H, W), weights of the previous frame.
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
