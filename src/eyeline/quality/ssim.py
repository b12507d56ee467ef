"""SSIM and MS-SSIM of luma, whole and weighted, equal to libvmaf's `float_ssim` and `float_ms_ssim`.

SSIM: Wang, Bovik, Sheikh & Simoncelli, "Image quality assessment: from error visibility to structural
similarity", IEEE TIP 13(4), 2004; 11x11 Gaussian window of sigma 1.5, K1 = .01, K2 = .03, L = 255
(deeper samples are scaled to 8 bits), windows inside the picture alone. Like libvmaf (and the
authors' own program) a picture is first averaged down by round(short side / 256).

MS-SSIM: Wang, Simoncelli & Bovik, "Multiscale structural similarity for image quality assessment",
Asilomar 2003: five scales, exponents below. libvmaf pools luminance, contrast and structure apart,
and halves by the 9/7 wavelet's low-pass.

Weighted: the map enters the pooling, at every scale, as Wang & Li do with information content
("Information content weighting for perceptual image quality assessment", IEEE TIP 20(5), 2011).
A window's weight is the window's own Gaussian mean of the map, so that no sample's weight is lost
at the border. Unlike them we weight the luminance term of the last scale too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eyeline.errors import QualityError
from eyeline.media.planes import Samples
from eyeline.quality.weights import Weights

Plane = npt.NDArray[np.float32]

TAPS = 11
SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2
C3 = C2 / 2

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of contrast and structure, finest scale first; the last is luminance's too."""

LOW_PASS = (0.602914, 0.266846, -0.078201, -0.016828, 0.026727)
"""Centre and right half of the 9/7 analysis low-pass (Cohen, Daubechies & Feauveau, 1992)."""

SMALLEST_MS = TAPS << (len(EXPONENTS) - 1)
"""Least side for five scales, pixels: 176."""

_BAND = (
    1 << 18
)  # bytes of a float32 plane that are worked on at once, so that they stay in the cache

_gauss = np.exp(-0.5 * ((np.arange(TAPS) - TAPS // 2) / SIGMA) ** 2)
WINDOW = (_gauss / _gauss.sum()).astype(np.float32)


class Similarity(NamedTuple):
    """An index, 1 for identical pictures; `weighted` is None without weights."""

    whole: float
    weighted: float | None


class _Terms(NamedTuple):
    """Means over windows of luminance, contrast, structure, and their product."""

    luminance: float
    contrast: float
    structure: float
    product: float


def ssim(reference: Samples, distorted: Samples, depth: int, weights: Weights | None) -> Similarity:
    """SSIM of a luma plane.

    Args:
        reference: uint8 or uint16 (H, W).
        distorted: the same.
        depth: bits a sample.
        weights: of the frame, or None.

    Raises:
        QualityError: a picture smaller than the window.
    """
    height, width = reference.shape
    factor = max(1, int(min(width, height) / 256 + 0.5))
    x, y = (_centred(_shrunk(p, factor), depth) for p in (reference, distorted))
    _check(x, TAPS, "SSIM")
    whole, weighted = _compare(x, y, _weights(weights, x), luminance=True)
    return Similarity(whole.product, weighted.product if weighted else None)


def ms_ssim(
    reference: Samples, distorted: Samples, depth: int, weights: Weights | None
) -> Similarity:
    """MS-SSIM of a luma plane; arguments as `ssim`'s.

    Raises:
        QualityError: a side under `SMALLEST_MS`.
    """
    _check(reference, SMALLEST_MS, "MS-SSIM")
    x, y = (_centred(p, depth) for p in (reference, distorted))
    results = [1.0, 1.0]
    for scale, exponent in enumerate(EXPONENTS):
        if scale:
            x, y = _halved(x), _halved(y)
        last = scale == len(EXPONENTS) - 1
        terms = _compare(x, y, _weights(weights, x), luminance=last)
        for i, t in enumerate(terms):
            if t is not None:
                results[i] *= t.contrast**exponent * abs(t.structure) ** exponent
                results[i] *= t.luminance**exponent if last else 1.0
    return Similarity(results[0], results[1] if weights is not None else None)


def _check(plane: npt.NDArray[np.generic], least: int, name: str) -> None:
    height, width = plane.shape
    if min(width, height) < least:
        raise QualityError(
            f"a picture of {width}x{height} is too small for {name}, which needs {least} a side",
            "leave it out of --metrics",
        )


def _centred(plane: npt.NDArray[np.generic], depth: int) -> Plane:
    """8-bit codes less 128: variances don't change, and float32 keeps more of their digits."""
    x = plane.astype(np.float32)
    if depth != 8:
        x *= np.float32(2.0 ** (8 - depth))
    x -= np.float32(128)
    return x


def _weights(weights: Weights | None, like: Plane) -> Plane | None:
    return None if weights is None else weights.at(like.shape[1], like.shape[0])


def _shrunk(plane: Samples, factor: int) -> npt.NDArray[np.generic]:
    """Mean of factor x factor samples about every factor-th, mirrored at the border, float32.

    libvmaf's grid: samples from -(factor // 2) on, and one more where a side is odd.
    """
    if factor == 1:
        return plane
    height, width = plane.shape
    rows, columns = height // factor + (height & 1), width // factor + (width & 1)
    down = _mirrored(np.arange(rows) * factor - factor // 2, height)
    total = np.zeros((rows, width), np.uint32 if plane.dtype == np.uint16 else np.uint16)
    for i in range(factor):
        total += plane[down(i)]
    across = _mirrored(np.arange(columns) * factor - factor // 2, width)
    out = np.zeros((rows, columns), np.uint32)
    for i in range(factor):
        out += total[:, across(i)]
    return out.astype(np.float32) / np.float32(factor * factor)


class _mirrored:  # noqa: N801 - used as a function
    """Indices from `start` on, mirrored into 0..size-1; a slice where none needs mirroring."""

    def __init__(self, start: npt.NDArray[np.intp], size: int) -> None:
        self._start, self._size = start, size

    def __call__(self, offset: int) -> npt.NDArray[np.intp]:
        at = self._start + offset
        at = np.where(at < 0, -1 - at, at)
        return np.where(at >= self._size, 2 * self._size - 1 - at, at)


def _halved(x: Plane) -> Plane:
    """Every second sample of the low-passed picture, mirrored at the border; sides rounded up."""
    reach = len(LOW_PASS) - 1
    for _ in range(2):  # rows, then columns by way of a transpose
        padded = np.pad(x, ((reach, reach), (0, 0)), mode="symmetric")
        n = -(-len(x) // 2)
        out = padded[reach : reach + 2 * n - 1 : 2] * np.float32(LOW_PASS[0])
        for i, tap in enumerate(LOW_PASS[1:], 1):
            pair = padded[reach - i : reach - i + 2 * n - 1 : 2]
            pair = pair + padded[reach + i : reach + i + 2 * n - 1 : 2]
            pair *= np.float32(tap)
            out += pair
        x = np.ascontiguousarray(out.T)
    return x


def _smoothed(x: Plane) -> Plane:
    """Gaussian means of the windows inside: (n, w) to (n - 10, w - 10), rows first."""
    half = TAPS // 2
    n = len(x) - TAPS + 1
    out: Plane = x[half : half + n] * WINDOW[half]
    scratch = np.empty_like(out)
    for i in range(half):
        np.add(x[i : i + n], x[TAPS - 1 - i : TAPS - 1 - i + n], out=scratch)
        scratch *= WINDOW[i]
        out += scratch
    w = x.shape[1] - TAPS + 1
    x = out
    out = x[:, half : half + w] * WINDOW[half]
    scratch = np.empty_like(out)
    for i in range(half):
        np.add(x[:, i : i + w], x[:, TAPS - 1 - i : TAPS - 1 - i + w], out=scratch)
        scratch *= WINDOW[i]
        out += scratch
    return out


def _compare(
    x: Plane, y: Plane, weight: Plane | None, *, luminance: bool
) -> tuple[_Terms, _Terms | None]:
    """Pooled terms of two planes (less 128), whole and weighted; luminance is 1 if not asked for."""
    height, width = x.shape
    valid = height - TAPS + 1
    count = max(8, _BAND // (4 * width) - TAPS + 1)
    sums = np.zeros((2, 4))
    masses = [0.0, 0.0]
    for top in range(0, valid, count):
        rows = slice(top, min(top + count, valid) + TAPS - 1)
        maps = _maps(x[rows], y[rows], luminance)
        sums[0] += [float(m.sum(dtype=np.float64)) for m in maps]
        masses[0] += maps[0].size
        if weight is not None:
            w = _smoothed(weight[rows])
            sums[1] += [float(np.einsum("ij,ij->i", m, w).sum(dtype=np.float64)) for m in maps]
            masses[1] += float(w.sum(dtype=np.float64))
    whole = _Terms(*(sums[0] / masses[0]))
    return whole, None if weight is None else _Terms(*(sums[1] / masses[1]))


def _maps(x: Plane, y: Plane, luminance: bool) -> tuple[Plane, Plane, Plane, Plane]:
    """Luminance, contrast, structure and their product for each window of a band."""
    mx, my = _smoothed(x), _smoothed(y)
    xx, yy, xy = _smoothed(x * x), _smoothed(y * y), _smoothed(x * y)
    xx -= mx * mx
    yy -= my * my
    xy -= mx * my
    np.maximum(xx, 0, out=xx)
    np.maximum(yy, 0, out=yy)
    deviations = np.sqrt(xx * yy)
    xx += yy
    contrast = 2 * deviations
    contrast += np.float32(C2)
    xx += np.float32(C2)
    contrast /= xx
    # A flat window: round-off in the covariance must not count (libvmaf does the same).
    np.copyto(xy, 0, where=(xy < 0) & (deviations <= 0))
    xy += np.float32(C3)
    deviations += np.float32(C3)
    structure = np.divide(xy, deviations, out=xy)
    product = contrast * structure
    if not luminance:
        return np.ones_like(product), contrast, structure, product
    mx += np.float32(128)
    my += np.float32(128)
    top = 2 * mx
    top *= my
    top += np.float32(C1)
    mx *= mx
    my *= my
    mx += my
    mx += np.float32(C1)
    top /= mx
    product *= top
    return top, contrast, structure, product
