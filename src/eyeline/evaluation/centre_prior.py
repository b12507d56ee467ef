"""The centre prior: viewers look near the centre of any picture, so every model is held against it.

The prior is a Gaussian whose mean and standard deviations are those of the fixations of other sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eyeline.evaluation.gaze_metrics import Floats, normalised


@dataclass(frozen=True)
class CentreGaussian:
    """A Gaussian over the picture with independent axes.

    Attributes:
        x, y: mean, fractions of the width and height.
        std_x, std_y: standard deviations, fractions of the width and height.
    """

    x: float
    y: float
    std_x: float
    std_y: float

    def density(self, width: int, height: int) -> Floats:
        """Return the density at the pixel centres, cut off at the picture's edges.

        Args:
            width: columns.
            height: rows.

        Returns:
            float64 (height, width), sum 1.
        """
        across = _bell(width, self.x, self.std_x)
        down = _bell(height, self.y, self.std_y)
        return normalised(np.outer(down, across).astype(np.float64))


def _bell(count: int, mean: float, std: float) -> Floats:
    bell: Floats = np.exp(-0.5 * (((np.arange(count) + 0.5) / count - mean) / std) ** 2)
    return bell
