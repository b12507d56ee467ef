"""Saliency to QP offsets: `clamp(-strength * f(saliency))`, by one of two laws.

| law | f | for |
|---|---|---|
| `symmetric` | `2 s - 1`: -strength where s is 1, +strength where it is 0 | a look-alike of fixed maps |
| `neutral` | `s - c`, c such that the bit-weighted mean offset is zero | the same file size, moved bits |

An offset is in QP of H.264 and HEVC, where 6 double the quantiser step (ITU-T H.264, 8.5.9).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from eyeline.errors import UsageError

Floats = npt.NDArray[np.float32]
Law = Literal["symmetric", "neutral"]
LAWS: tuple[Law, ...] = get_args(Law)

MAX_OFFSET = 51
"""Largest offset an 8-bit encoder knows: its whole range of QPs."""

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
        saliency: float32 (rows, columns) in [0, 1].
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
    if strength > clamp:
        low, high = 0.0, 1.0
        for _ in range(24):  # 2**-24 of the range: below any encoder's step
            centre = (low + high) / 2
            offsets = np.clip(strength * (centre - s), -clamp, clamp)
            if (w * offsets).sum() > 0:
                high = centre
            else:
                low = centre
    return offsets.astype(np.float32)


def offsets_of(
    law: Law,
    saliency: Floats,
    strength: float,
    clamp: float = DEFAULT_CLAMP,
    weights: npt.NDArray[np.floating] | None = None,
) -> Floats:
    """Apply a law by its name; see `symmetric` and `neutral`."""
    if law == "symmetric":
        return symmetric(saliency, strength, clamp)
    return neutral(saliency, strength, clamp, weights)
