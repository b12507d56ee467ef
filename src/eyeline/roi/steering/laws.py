"""Saliency to QP offsets: `clamp(-strength * f(saliency))`, by one of three laws.

| law | f | for |
|---|---|---|
| `symmetric` | `2 s - 1`: -strength where s is 1, +strength where it is 0 | a look-alike of fixed maps |
| `neutral` | `s - c` | maps of objects: the same file size, moved bits |
| `density` | `log2(w) - c`, w = (1 - k) + k s / mean(s) | maps of gaze: the least weighted error |

c is such that the mean of a frame's offsets, weighted by each block's bits, is zero.
An offset is in QP of H.264 and HEVC, where 6 double the quantiser step (ITU-T H.264, 8.5.9).

`density` follows from what is to be minimised: the squared error that viewers see, weighted as
`eyeline score` weights it, (1 - k) of it over the whole frame and k where they look. At a given rate the
least weighted error has the same slope in every block, dD/dR = -lambda / w, and lambda doubles with every
3 QP (Sullivan & Wiegand, "Rate-distortion optimization for video compression", IEEE Signal Processing
Magazine 15(6), 1998; lambda = 0.85 * 2**((QP - 12) / 3) in the reference encoders of H.264 and HEVC).
So the offset is -3 log2(w), if the map were known. A predicted map is less sure than it looks, and half
of that or less gains more at equal cost (docs/roi_compare.md).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from eyeline.errors import UsageError

Floats = npt.NDArray[np.float32]
Law = Literal["symmetric", "neutral", "density"]
LAWS: tuple[Law, ...] = get_args(Law)

MAX_OFFSET = 51
"""Largest offset an 8-bit encoder knows: its whole range of QPs."""

GAZE_SHARE = 0.75
"""k of the `density` law: the share of the error that counts where viewers look. Of 0.25, 0.5, 0.75 and
0.9 the one that gains most at equal cost with predicted maps; docs/roi_compare.md."""

PEAK = 40.0
"""Peak over mean of a narrow map of gaze: 32 viewers' fixations blurred by 3 % of the width."""

DEFAULT_CLAMP = 12
"""Four times the quantiser step: beyond it a picture falls apart at the edges of regions."""


def check_law(law: str, strength: float, clamp: float) -> None:
    """Refuse what no encoder could do.

    Args:
        law: one of `LAWS`.
        strength: QP between the most and the least salient, halved for `symmetric`.
        clamp: largest offset either way, QP.

    Raises:
        UsageError: an unknown law, or a number out of range.
    """
    if law not in LAWS:
        raise UsageError(f"law is {law!r}", f"one of {', '.join(LAWS)}")
    if not 0 <= strength <= MAX_OFFSET:
        raise UsageError(f"strength is {strength:g}", f"give 0..{MAX_OFFSET} QP; 0 encodes plainly")
    if not 1 <= clamp <= MAX_OFFSET:
        raise UsageError(f"clamp is {clamp:g}", f"give 1..{MAX_OFFSET} QP")


def symmetric(saliency: Floats, strength: float, clamp: float = DEFAULT_CLAMP) -> Floats:
    """Offsets that are zero at saliency .5, whatever they do to the file's size.

    Args:
        saliency: float32 (rows, columns) in [0, 1].
        strength: QP at saliency 1 (taken off) and at 0 (added).
        clamp: largest offset either way, QP.

    Returns:
        float32 (rows, columns), QP.
    """
    return np.clip(-strength * (2 * saliency - 1), -clamp, clamp).astype(np.float32)


def neutral(
    saliency: Floats,
    strength: float,
    clamp: float = DEFAULT_CLAMP,
    weights: npt.NDArray[np.floating] | None = None,
) -> Floats:
    """Offsets whose weighted mean is zero, so that bits move and hardly grow.

    To first order a block's bits change by `-offset * ln(2) / 6` of themselves, so offsets weighted
    by bits that sum to zero leave the file's size alone. Where the clamp bites, c is searched for
    by bisection: the mean falls monotonically in it.

    Args:
        saliency: float32 (rows, columns), finite; in [0, 1] for the law of this name.
        strength: QP between saliency 0 and 1.
        clamp: largest offset either way, QP.
        weights: (rows, columns), at least 0: each block's share of the bits; equal when None.

    Returns:
        float32 (rows, columns), QP.
    """
    s = saliency.astype(np.float64)
    w = np.ones_like(s) if weights is None else weights.astype(np.float64)
    total = w.sum()
    if not total > 0:
        w, total = np.ones_like(s), float(s.size)
    centre = float((w * s).sum() / total)
    offsets = np.clip(strength * (centre - s), -clamp, clamp)
    low, high = float(s.min()), float(s.max())
    if strength * (high - low) > clamp:
        for _ in range(24):  # 2**-24 of the range: below any encoder's step
            centre = (low + high) / 2
            offsets = np.clip(strength * (centre - s), -clamp, clamp)
            if (w * offsets).sum() > 0:
                high = centre
            else:
                low = centre
    return offsets.astype(np.float32)


def density(
    saliency: Floats,
    strength: float,
    clamp: float = DEFAULT_CLAMP,
    weights: npt.NDArray[np.floating] | None = None,
) -> Floats:
    """Offsets by the logarithm of how much each block's error counts, with a weighted mean of zero.

    Only the map's shape counts, not its level: a map of zeros has offsets of zero.

    Args:
        saliency: float32 (rows, columns), at least 0.
        strength: QP per doubling of the weight.
        clamp: largest offset either way, QP.
        weights: see `neutral`.

    Returns:
        float32 (rows, columns), QP.
    """
    mean = float(saliency.mean(dtype=np.float64))
    share = GAZE_SHARE if mean > 0 else 0.0
    counts = (1 - share) + share * saliency / (mean or 1.0)
    return neutral(np.log2(counts), strength, clamp, weights)


def span_of(law: Law, strength: float, clamp: float) -> float:
    """QP between the least and the greatest offset of a law, for `eyeline.roi.steering.levels.level_step`.

    The `density` law has no greatest weight; a peak of `PEAK` times the mean is taken.
    """
    one_way = {
        "symmetric": 2.0,
        "neutral": 1.0,
        "density": math.log2(1 + GAZE_SHARE * (PEAK - 1)) - math.log2(1 - GAZE_SHARE),
    }[law]
    return min(one_way * strength, 2 * clamp)


def offsets_of(
    law: Law,
    saliency: Floats,
    strength: float,
    clamp: float = DEFAULT_CLAMP,
    weights: npt.NDArray[np.floating] | None = None,
) -> Floats:
    """Apply a law by its name; see `symmetric`, `neutral` and `density`."""
    if law == "symmetric":
        return symmetric(saliency, strength, clamp)
    return (neutral if law == "neutral" else density)(saliency, strength, clamp, weights)
