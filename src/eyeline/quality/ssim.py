"""SSIM and MS-SSIM of luma, whole and weighted by a map.

The whole values equal libvmaf's `float_ssim` and `float_ms_ssim`.

SSIM: Wang, Bovik, Sheikh & Simoncelli, "Image quality assessment: from error visibility to structural
similarity", IEEE TIP 13(4), 2004. The window is an 11x11 Gaussian of sigma 1.5 and must lie inside the
frame; K1 = 0.01, K2 = 0.03, L = 255 (deeper samples are scaled to 8 bits). As in libvmaf and in the
authors' program, the frame is first downscaled by averaging, by the factor round(short side / 256).

MS-SSIM: Wang, Simoncelli & Bovik, "Multiscale structural similarity for image quality assessment",
Asilomar 2003, with five scales and the exponents below. As in libvmaf, luminance, contrast and structure
are pooled separately, and the low-pass of the 9/7 wavelet halves the frame between scales.

Weighted values: the map weights the pooling at every scale, as information content does in Wang & Li
("Information content weighting for perceptual image quality assessment", IEEE TIP 20(5), 2011). The
weight of a window is the mean of the map under the same Gaussian window, so that samples near the border
count, too. Unlike Wang & Li, this module also weights the luminance term of the last scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eyeline.errors import QualityError
from eyeline.media.colour import Samples
from eyeline.quality._vmaf_features import FLOAT, opencv, scratch, sum_of, sum_of_products
from eyeline.quality.weights import Weights

Plane = npt.NDArray[np.float32]

TAPS = 11
SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
C3 = C2 / 2

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of contrast and structure by scale, finest first; luminance also uses the last exponent."""

_right_half = (0.602914, 0.266846, -0.078201, -0.016828, 0.026727)
LOW_PASS = np.array([*_right_half[:0:-1], *_right_half], np.float32)
"""Analysis low-pass filter of the 9/7 wavelet (Cohen, Daubechies & Feauveau, 1992)."""

SMALLEST_MS = TAPS << (len(EXPONENTS) - 1)
"""Smallest side of a frame for five scales, in pixels (176)."""

_BAND = 1 << 19
"""Bytes of a float32 plane per step, chosen so that all planes of a step fit into the cache."""

_gauss = np.exp(-0.5 * ((np.arange(TAPS) - TAPS // 2) / SIGMA) ** 2)
WINDOW = (_gauss / _gauss.sum()).astype(np.float32)
_ONE = np.ones(1, np.float32)


class Similarity(NamedTuple):
    """A similarity index, 1 for identical pictures; `weighted` is None without weights."""

    whole: float
    weighted: float | None


Terms = Callable[[Plane, Plane], tuple[Plane, ...]]
"""A function from n rows of two planes (codes minus 128), (n, W), to the SSIM terms of each window,
(n - 10, W)."""


def ssim(reference: Samples, distorted: Samples, depth: int, weights: Weights | None) -> Similarity:
    """Return the SSIM of a luma plane.

    Args:
        reference: uint8 or uint16 (H, W).
        distorted: same shape and type as `reference`.
        depth: bits per sample.
        weights: weights of the frame, or None.

    Raises:
        QualityError: the frame is smaller than the window.
    """
    factor = shrink_factor(reference)
    x, y = (_shrunk(p, factor, depth) for p in (reference, distorted))
    _check(x, TAPS, "SSIM")
    whole, weighted = _pooled(x, y, weights, _index)
    return Similarity(whole[0], weighted[0] if weighted else None)


def shrink_factor(plane: Samples) -> int:
    """Return the factor by which SSIM downscales a frame: round(short side / 256), at least 1."""
    return max(1, int(min(plane.shape) / 256 + 0.5))


def ms_ssim(
    reference: Samples, distorted: Samples, depth: int, weights: Weights | None
) -> Similarity:
    """Return the MS-SSIM of a luma plane; the arguments are those of `ssim`.

    Raises:
        QualityError: a side of the frame is shorter than `SMALLEST_MS`.
    """
    _check(reference, SMALLEST_MS, "MS-SSIM")
    x, y = (_centred(p, depth) for p in (reference, distorted))
    results = [1.0, 1.0]
    for scale, exponent in enumerate(EXPONENTS):
        if scale:
            x, y = _halved(x), _halved(y)
        terms = _with_luminance if scale == len(EXPONENTS) - 1 else _contrast_and_structure
        for i, means in enumerate(_pooled(x, y, weights, terms)):
            for mean in means or ():
                results[i] *= abs(mean) ** exponent
    return Similarity(results[0], results[1] if weights is not None else None)


def _check(plane: npt.NDArray[np.generic], least: int, name: str) -> None:
    height, width = plane.shape
    if min(width, height) < least:
        raise QualityError(
            f"a frame of {width}x{height} is too small for {name}, which needs at least "
            f"{least}x{least}",
            f"leave {name} out of --metrics",
        )


def _centred(plane: Samples, depth: int) -> Plane:
    """Return 8-bit codes minus 128, since float32 rounds variances of smaller numbers less."""
    x = plane.astype(np.float32)
    if depth != 8:
        x *= np.float32(2.0 ** (8 - depth))
    x -= np.float32(128)
    return x


def _shrunk(plane: Samples, factor: int, depth: int) -> Plane:
    """Average blocks of factor x factor samples, mirrored at the border, and subtract 128.

    As in libvmaf, the blocks begin at sample -(factor // 2), and an odd side gets one more block.
    """
    if factor == 1:
        return _centred(plane, depth)
    cv2 = opencv()
    height, width = plane.shape
    rows, columns = height // factor + (height & 1), width // factor + (width & 1)
    before, after = factor // 2, factor  # an even side gets one sample too many after it
    padded = cv2.copyMakeBorder(
        plane, before, after, before, after, cv2.BORDER_REFLECT,
        dst=scratch("padded", (before + height + after, before + width + after), plane.dtype),
    )  # fmt: skip
    # uint16 holds the sum of up to 16 rows of 8-bit samples; other sums need uint32.
    narrow = plane.dtype == np.uint8 and factor <= 16
    kind = np.dtype(np.uint16 if narrow else np.uint32)
    down = scratch("down", (rows, padded.shape[1]), kind)
    down[:] = 0
    for i in range(factor):
        down += padded[i : i + rows * factor : factor]
    across = np.zeros((rows, columns), np.uint32)
    for i in range(factor):
        across += down[:, i : i + columns * factor : factor]
    x = across * np.float32(2 ** (8 - depth) / factor**2)
    x -= np.float32(128)
    return x


def _halved(x: Plane) -> Plane:
    """Low-pass filter, mirrored at the border, and keep every second sample; round sides up."""
    rows = _filtered(x, _ONE, LOW_PASS, "down")[::2]
    return np.ascontiguousarray(
        _filtered(np.ascontiguousarray(rows), LOW_PASS, _ONE, "across")[:, ::2]
    )


def _filtered(x: Plane, across: Plane, down: Plane, name: str) -> Plane:
    """Apply a separable filter, mirrored at the border; the result is in the scratch memory `name`."""
    cv2 = opencv()
    out: Plane = cv2.sepFilter2D(
        x, -1, across, down, dst=scratch(name, x.shape, FLOAT), borderType=cv2.BORDER_REFLECT
    )
    return out


def _means(x: Plane, name: str) -> Plane:
    """Return Gaussian means of all windows whose rows lie inside the plane: (n, W) to (n - 10, W).

    Windows of the first and last five columns reach outside the plane; the caller leaves them out.
    """
    return _filtered(x, WINDOW, WINDOW, name)[TAPS // 2 : len(x) - TAPS // 2]


def _pooled(
    x: Plane, y: Plane, weights: Weights | None, terms: Terms
) -> tuple[list[float], list[float] | None]:
    """Return the means of the terms over all windows of two planes, whole and weighted."""
    height, width = x.shape
    valid = height - TAPS + 1
    count = max(8, _BAND // (4 * width) - TAPS + 1)
    inside = np.s_[:, TAPS // 2 : width - TAPS // 2]
    saliency = None if weights is None else weights.map_at(width, height)
    whole: list[list[float]] = []  # per band, the sum of each term
    salient: list[list[float]] = []
    mass = 0.0
    for top in range(0, valid, count):
        rows = slice(top, min(top + count, valid) + TAPS - 1)
        maps = [term[inside] for term in terms(x[rows], y[rows])]
        whole.append([sum_of(m) for m in maps])
        if saliency is not None:
            w = _means(saliency[rows], "weight")[inside]
            mass += sum_of(w)
            salient.append([sum_of_products(m, w) for m in maps])
    windows = valid * (width - TAPS + 1)
    sums = [sum(bands) for bands in zip(*whole, strict=True)]
    means = [s / windows for s in sums]
    if weights is None:
        return means, None
    weighted = [sum(bands) for bands in zip(*salient, strict=True)]
    blended = [weights.blend(s, w) for s, w in zip(sums, weighted, strict=True)]
    return means, [b / weights.blend(windows, mass) for b in blended]


def _index(x: Plane, y: Plane) -> tuple[Plane, ...]:
    """Return the SSIM of each window from s = x + y and d = x - y, with four filters instead of five.

    Because C2 = 2 C3, contrast times structure is 1 - 2 var(d) / (var(s) + var(d) + 2 C2). Luminance is
    1 - 2 mean(d)^2 / (mean(s)^2 + mean(d)^2 + 2 C1), where s has the 128 of both planes added back. Both
    factors are exactly 1 where x and y are equal.
    """
    s = np.add(x, y, out=scratch("s", x.shape, FLOAT))
    d = np.subtract(x, y, out=scratch("d", x.shape, FLOAT))
    total, gap = _means(s, "mx"), _means(d, "my")
    both, lost = _means(np.multiply(s, s, out=s), "xx"), _means(np.multiply(d, d, out=d), "yy")
    both -= np.multiply(total, total, out=s[: len(total)])
    gap *= gap
    lost -= gap
    both += lost
    both += np.float32(2 * C2)
    lost /= both
    lost -= np.float32(0.5)
    total += np.float32(256)
    total *= total
    total += gap
    total += np.float32(2 * C1)
    gap /= total
    gap -= np.float32(0.5)
    gap *= lost
    gap *= np.float32(4)
    return (gap,)


def _contrast_and_structure(x: Plane, y: Plane) -> tuple[Plane, ...]:
    """Return contrast and structure of each window, with libvmaf's formulas."""
    cv2 = opencv()
    product = scratch("product", x.shape, FLOAT)
    mx, my = _means(x, "mx"), _means(y, "my")
    xx = _means(np.multiply(x, x, out=product), "xx")
    yy = _means(np.multiply(y, y, out=product), "yy")
    xy = _means(np.multiply(x, y, out=product), "xy")
    free = product[: len(mx)]
    xx -= np.multiply(mx, mx, out=free)
    yy -= np.multiply(my, my, out=free)
    xy -= np.multiply(mx, my, out=free)
    cv2.threshold(xx, 0, 0, cv2.THRESH_TOZERO, dst=xx)
    cv2.threshold(yy, 0, 0, cv2.THRESH_TOZERO, dst=yy)
    deviations = np.multiply(xx, yy, out=free)
    np.sqrt(deviations, out=deviations)
    xx += yy
    xx += np.float32(C2)
    # As in libvmaf, limit the covariance, so that rounding errors in flat windows do not count.
    cv2.max(xy, np.negative(deviations, out=yy), dst=xy)
    xy += np.float32(C3)
    deviations += np.float32(C3)
    xy /= deviations
    deviations *= 2  # C2 = 2 C3
    deviations /= xx
    return deviations, xy


def _with_luminance(x: Plane, y: Plane) -> tuple[Plane, ...]:
    """Return contrast, structure and luminance of each window."""
    contrast, structure = _contrast_and_structure(x, y)
    mx, my = _means(x, "mx") + np.float32(128), _means(y, "my") + np.float32(128)
    luminance = 2 * mx * my
    luminance += C1
    luminance /= mx * mx + my * my + C1
    return contrast, structure, luminance
