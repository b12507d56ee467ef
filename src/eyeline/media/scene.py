"""How much a frame differs from the one before: FFmpeg's `scdet` score, on the small planes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def difference(plane: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Mean absolute difference of two planes of one size, percent of full scale.

    Args:
        plane: uint8 (h, w).
        other: the same.
    """
    gap: npt.NDArray[np.uint8] = np.maximum(plane, other) - np.minimum(plane, other)
    # NumPy adds 8-bit samples up five times faster in 32 bits, which hold 2^24 of them.
    total = gap.sum(dtype=np.uint32 if gap.size <= 1 << 24 else np.uint64)
    return float(total) / gap.size / 2.55


class SceneScore:
    """The scene score of consecutive frames.

    The formula is `scdet`'s: with d the mean absolute difference in percent of full scale, the score
    is min(d, |d - previous d|), so that steady motion scores low and a jump scores high. It is
    taken over the green plane at working size, where `scdet` takes all samples of the source.
    """

    def __init__(self) -> None:
        self._plane: npt.NDArray[np.uint8] | None = None
        self._difference = 0.0

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> float:
        """Score of a frame, 0..100.

        Args:
            rgb: uint8 (3, h, w); a change of size scores 100, the first frame 0.
        """
        plane, previous = rgb[1], self._plane
        self._plane = plane
        if previous is None:
            return 0.0
        if previous.shape != plane.shape:
            self._difference = 0.0
            return 100.0
        now = difference(plane, previous)
        score = min(now, abs(now - self._difference))
        self._difference = now
        return score
