"""HDR to SDR at small sizes: PQ and HLG R'G'B' in BT.2020 to display-ready BT.709 R'G'B'.

Linearise, map tones on the largest component (so hues stay), change primaries, clip, encode with
sRGB's curve. It serves saliency and looks, not mastering.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from eyeline.media.types import Transfer

SDR_WHITE = 203.0  # cd/m2: reference white of HDR production (ITU-R BT.2408-7)
PEAK = 1000.0  # cd/m2: nominal peak of HLG and of most PQ masters (ITU-R BT.2100-2)

BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Linear BT.2020 to BT.709 primaries (ITU-R BT.2087-0)."""

_CODES = 4096  # the tables' resolution: 12 bits


def pq_to_linear(e: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084 EOTF: signal 0..1 to cd/m2, 0..10000."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    p = np.power(e, 1 / m2)
    linear: npt.NDArray[np.float64] = 10000 * np.power(
        np.maximum(p - c1, 0) / (c2 - c3 * p), 1 / m1
    )
    return linear


def hlg_to_linear(e: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """HLG inverse OETF and the system gamma 1.2 of a 1000 cd/m2 display, per component (BT.2100-2).

    The standard applies the gamma to luminance; per component it is exact on greys.
    """
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(e <= 0.5, e * e / 3, (np.exp((e - c) / a) + b) / 12)
    display: npt.NDArray[np.float64] = PEAK * np.power(scene, 1.2)
    return display


def compress(nits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Tone curve: cd/m2 to SDR linear 0..1, extended Reinhard on white-relative light.

    L (1 + L / W^2) / (1 + L) with L relative to reference white and W the peak (Reinhard et al.,
    "Photographic Tone Reproduction", 2002, eq. 4): monotone, black to 0, peak to 1.
    """
    light, white = nits / SDR_WHITE, PEAK / SDR_WHITE
    return np.minimum(light * (1 + light / white**2) / (1 + light), 1.0)


def _srgb(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IEC 61966-2-1 encoding, linear 0..1 to signal 0..1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055)


@cache
def _tables(
    transfer: Transfer,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Signal to linear light, signal to tone gain (mapped / linear), linear 0..1 to sRGB code."""
    signal = np.linspace(0, 1, _CODES)
    nits = pq_to_linear(signal) if transfer == "pq" else hlg_to_linear(signal)
    gain = compress(nits) / np.maximum(nits, 1e-6)
    codes = np.round(255 * _srgb(np.linspace(0, 1, _CODES))).astype(np.uint8)
    return nits.astype(np.float32), gain.astype(np.float32), codes


def to_sdr(planes: npt.NDArray[np.uint16], transfer: Transfer) -> npt.NDArray[np.uint8]:
    """Map HDR to SDR.

    Args:
        planes: uint16 (3, h, w), full-range R'G'B' in BT.2020 primaries, 0..65535.
        transfer: `pq` or `hlg`.

    Returns:
        uint8 (3, h, w), R'G'B' in BT.709 primaries, sRGB curve.
    """
    linear, gain, codes = _tables(transfer)
    index = planes >> 4  # 16 bits to the tables' 12
    light = linear[index] * gain[index.max(axis=0)]
    mixed = np.tensordot(BT2020_TO_BT709, light, 1)
    np.clip(mixed, 0, 1, out=mixed)
    return codes[(mixed * (_CODES - 1) + 0.5).astype(np.uint16)]
