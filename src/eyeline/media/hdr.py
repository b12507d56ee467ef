"""HDR to SDR at small sizes: PQ and HLG R'G'B' in BT.2020 to R'G'B' in BT.709 with sRGB's curve.

Four steps: linearise to the light of a 1000 cd/m2 display, compress the largest component by the
EETF of ITU-R BT.2390 (the others by the same gain, so hues stay), change primaries, clip, encode.
Diffuse white of HDR production, 203 cd/m2 (ITU-R BT.2408), is SDR's peak: it comes out at about
229 of 255, mid grey (26 cd/m2) at 100. This serves looking and saliency, not mastering.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from eyeline.media.types import Transfer

Floats = npt.NDArray[np.float64]

SDR_PEAK = 203.0  # cd/m2: reference white of HDR production (ITU-R BT.2408-7)
HDR_PEAK = 1000.0  # cd/m2: nominal peak of HLG and of most PQ masters (ITU-R BT.2100-2)

BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Linear BT.2020 to BT.709 primaries (ITU-R BT.2087-0)."""

LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
"""Luminance of linear BT.2020 R, G, B (ITU-R BT.2100-2)."""

_CODES = 1 << 16
# Pixels mapped at once: intermediate planes stay in the cache, which takes a third of the time.
_BLOCK = 1 << 13

# SMPTE ST 2084 / ITU-R BT.2100-2, table 4.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_to_linear(signal: Floats) -> Floats:
    """SMPTE ST 2084 EOTF: signal 0..1 to cd/m2, 0..10000."""
    p = np.power(signal, 1 / _M2)
    linear: Floats = 10000 * np.power(np.maximum(p - _C1, 0) / (_C2 - _C3 * p), 1 / _M1)
    return linear


def linear_to_pq(light: Floats) -> Floats:
    """Inverse of `pq_to_linear`: cd/m2 to signal 0..1."""
    y = np.power(light / 10000, _M1)
    return np.power((_C1 + _C2 * y) / (1 + _C3 * y), _M2)


def hlg_to_scene(signal: Floats) -> Floats:
    """HLG inverse OETF (ITU-R BT.2100-2, table 5): signal 0..1 to scene light 0..1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal * signal / 3, (np.exp((signal - c) / a) + b) / 12)


def compress(light: Floats) -> Floats:
    """Tone curve: cd/m2 to SDR light 0..1.

    The EETF of ITU-R BT.2390-8, section 5.4.1, from 0..`HDR_PEAK` to 0..`SDR_PEAK`: in PQ, linear up
    to a knee, then a Hermite spline that reaches the target's peak at the source's. Brighter light
    than `HDR_PEAK` is clipped.
    """
    top, target = linear_to_pq(np.array([HDR_PEAK, SDR_PEAK]))
    e1 = np.minimum(linear_to_pq(light) / top, 1.0)
    peak = target / top
    knee = 1.5 * peak - 0.5
    t = (np.maximum(e1, knee) - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * peak
    )
    return pq_to_linear(np.where(e1 < knee, e1, spline) * top) / SDR_PEAK


def _srgb(linear: Floats) -> Floats:
    """IEC 61966-2-1 encoding, linear 0..1 to signal 0..1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055)


@cache
def _linear_table(transfer: Transfer) -> npt.NDArray[np.float32]:
    """16-bit signal to display light 0..`HDR_PEAK` (PQ, clipped) or scene light 0..1 (HLG)."""
    signal = np.linspace(0, 1, _CODES)
    light = np.minimum(pq_to_linear(signal), HDR_PEAK) if transfer == "pq" else hlg_to_scene(signal)
    return light.astype(np.float32)


@cache
def _tone_table() -> npt.NDArray[np.float32]:
    """Square root of light / `HDR_PEAK` in 65535 steps to the tone curve's SDR light.

    The square root spends steps where eyes need them, in the dark.
    """
    return compress(HDR_PEAK * np.linspace(0, 1, _CODES) ** 2).astype(np.float32)


@cache
def _code_table() -> npt.NDArray[np.uint8]:
    """Linear light 0..1 in 65535 steps to sRGB codes."""
    return np.floor(255 * _srgb(np.linspace(0, 1, _CODES)) + 0.5).astype(np.uint8)


def _mix(
    weights: npt.NDArray[np.float32], planes: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Weighted sum of three planes.

    Written out, since BLAS waits for threads of its own: on a busy machine 8 ms in place of 0.1.
    """
    mixed: npt.NDArray[np.float32] = weights[0] * planes[0]
    mixed += weights[1] * planes[1]
    mixed += weights[2] * planes[2]
    return mixed


def to_sdr(planes: npt.NDArray[np.uint16], transfer: Transfer) -> npt.NDArray[np.uint8]:
    """Map HDR to SDR.

    Args:
        planes: uint16 (3, h, w), full-range R'G'B' in BT.2020 primaries, 0..65535.
        transfer: `pq` or `hlg`.

    Returns:
        uint8 (3, h, w), R'G'B' in BT.709 primaries, sRGB curve.
    """
    _, h, w = planes.shape
    rgb = np.empty(planes.shape, np.uint8)
    rows = max(1, _BLOCK // w)
    for top in range(0, h, rows):
        block = slice(top, top + rows)
        rgb[:, block] = _block_to_sdr(planes[:, block], transfer)
    return rgb


def _block_to_sdr(planes: npt.NDArray[np.uint16], transfer: Transfer) -> npt.NDArray[np.uint8]:
    light = np.take(_linear_table(transfer), planes)
    if transfer == "hlg":
        # The OOTF of a 1000 cd/m2 display has gamma 1.2, on luminance (BT.2100-2, table 5).
        light *= HDR_PEAK * np.power(_mix(LUMINANCE, light), np.float32(0.2))
    brightest = np.maximum(light.max(axis=0), np.float32(1e-6))
    steps = np.sqrt(brightest / np.float32(HDR_PEAK)) * (_CODES - 1) + 0.5
    light *= np.take(_tone_table(), np.minimum(steps, _CODES - 1).astype(np.uint16)) / brightest
    mixed = np.stack([_mix(row, light) for row in BT2020_TO_BT709])
    np.clip(mixed, 0, 1, out=mixed)
    return np.take(_code_table(), (mixed * (_CODES - 1) + 0.5).astype(np.uint16))
