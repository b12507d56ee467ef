"""From offsets to few steady levels: a temporal filter, reset at cuts, and hysteresis.

A block whose QP changes every frame flickers and costs skip blocks. So offsets follow an
exponential average, and a level changes only when the average has left the middle between two of
them by a margin.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Levels = npt.NDArray[np.int16]

DEFAULT_SMOOTHING = 0.7
"""Share of the past in the average: at 25 frames/s it forgets two thirds in 0.11 s."""

DEFAULT_LEVELS = 9
HYSTERESIS = 0.25
"""Steps beyond the middle between two levels before a block changes over."""


def level_step(span: float, levels: int) -> int:
    """Whole QPs between neighbouring levels, so that `span` QP takes at most `levels` of them.

    Args:
        span: QP between the least and the greatest offset.
        levels: how many there may be, zero included; at least 3.
    """
    step = max(1, math.ceil(span / (levels - 1)))
    # A span that straddles multiples of the step asymmetrically may touch one level more.
    return step if span / step + 1 <= levels else step + 1


class Steadier:
    """Turns a frame's offsets into levels that do not flicker.

    Args:
        step: QP between levels, see `level_step`.
        smoothing: share of the past in the average, 0..0.99; 0 takes every frame as it is.
        hysteresis: see `HYSTERESIS`; 0 rounds.
        most: levels that a frame may hold, as given to `level_step`; None = any.
    """

    def __init__(
        self,
        step: int,
        smoothing: float = DEFAULT_SMOOTHING,
        hysteresis: float = HYSTERESIS,
        most: int | None = None,
    ) -> None:
        self._step, self._smoothing, self._hysteresis = step, smoothing, hysteresis
        self._most = most
        self._mean: Floats | None = None
        self._levels: npt.NDArray[np.float32] | None = None

    def __call__(self, offsets: Floats, *, reset: bool = False) -> Levels:
        """The levels of the next frame.

        Args:
            offsets: float32 (rows, columns), QP.
            reset: a scene starts here, so the past says nothing. So does another grid.

        Returns:
            int16 (rows, columns), QP, multiples of the step.
        """
        mean, levels = self._mean, self._levels
        if reset or mean is None or levels is None or mean.shape != offsets.shape:
            mean = offsets.astype(np.float32)
            levels = np.rint(mean / self._step)
        else:
            mean += (1 - self._smoothing) * (offsets - mean)
            scaled = mean / self._step
            leave = np.abs(scaled - levels) > 0.5 + self._hysteresis
            levels = np.where(leave, np.rint(scaled), levels)
        if self._most is not None and np.ptp(levels) >= self._most:
            # Hysteresis holds levels just outside of what this frame spans, and both ends of a
            # span may lie at ties that are rounded outwards.
            lowest = np.rint(mean / self._step).min()
            levels = np.clip(levels, lowest, lowest + self._most - 1)
        self._mean, self._levels = mean, levels
        return (levels * self._step).astype(np.int16)
