"""Compute the density of recorded gaze: the sum of one Gaussian per fixation.

The blur stands for the accuracy of an eye tracker and the size of the fovea. Metrics compare predicted
maps with the density, and scores of encodes weight errors by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eyeline.datasets.fixations import Fixations
from eyeline.errors import UsageError

DEFAULT_SIGMA = 0.03
"""Standard deviation as a share of the picture's width where the viewing distance is not known. One
degree of visual angle is the field's choice (Le Meur & Baccino, "Methods for comparing scanpaths and
saliency maps", Behavior Research Methods 45, 2013); a screen is some 30 to 40 degrees wide."""

PIXELS_PER_DEGREE = (1.0, 1000.0)
"""Least and most pixels per degree of visual angle: beyond, a density is a point, or flat."""

NARROWEST = 0.5
"""Least standard deviation, samples: a narrower Gaussian falls between the samples, so that fixations
would count by how near they are to the middle of one."""


def check_pixels_per_degree(pixels_per_degree: float | None) -> None:
    """Refuse a viewing distance that no screen is seen from.

    Args:
        pixels_per_degree: see `sigma_of`.

    Raises:
        UsageError: a number out of `PIXELS_PER_DEGREE`.
    """
    least, most = PIXELS_PER_DEGREE
    if pixels_per_degree is not None and not least <= pixels_per_degree <= most:
        raise UsageError(
            f"--pixels-per-degree is {pixels_per_degree:g}; it must be between {least:g} and {most:g}",
            "a screen of 1920 pixels that is 40 degrees wide has 48",
        )


def sigma_of(width: int, pixels_per_degree: float | None) -> float:
    """Return the density's standard deviation: one degree of visual angle where that is known.

    Args:
        width: of the picture as shown, pixels.
        pixels_per_degree: pixels of the picture per degree of visual angle; None if not known.

    Returns:
        Share of the width.
    """
    return DEFAULT_SIGMA if pixels_per_degree is None else pixels_per_degree / width


def gaze_density(
    fixations: Fixations, width: int, height: int, sigma: float = DEFAULT_SIGMA
) -> npt.NDArray[np.float32]:
    """Return the density of gaze over a picture; every fixation counts alike.

    Positions are exact, not rounded to samples. What of a Gaussian lies beyond the picture's edges
    is cut off.

    Args:
        fixations: at least one.
        width: columns of the result, which has the aspect of the picture as shown.
        height: rows of the result.
        sigma: standard deviation of the Gaussian, share of the width; at least `NARROWEST` samples
            are taken.

    Returns:
        float32 (height, width), positive or zero, sum 1.

    Raises:
        ValueError: there is no fixation.
    """
    if not len(fixations):
        raise ValueError("no fixation, so there is no density")
    narrowest = max(sigma * width, NARROWEST)
    across = _gaussians(fixations.x * width, width, narrowest)
    down = _gaussians(fixations.y * height, height, narrowest)
    # einsum, not a matrix product: BLAS would wake a thread per core for a millisecond's work.
    total = np.einsum("nh,nw->hw", down, across)
    density: npt.NDArray[np.float32] = (total / total.sum()).astype(np.float32)
    return density


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

    def density(self, width: int, height: int) -> npt.NDArray[np.float64]:
        """Return the density at the pixel centres, cut off at the picture's edges.

        Args:
            width: columns.
            height: rows.

        Returns:
            float64 (height, width), sum 1.
        """
        stds = max(self.std_x * width, NARROWEST), max(self.std_y * height, NARROWEST)
        across = _gaussians(np.array([self.x * width]), width, stds[0])[0]
        down = _gaussians(np.array([self.y * height]), height, stds[1])[0]
        density = np.outer(down, across)
        scaled: npt.NDArray[np.float64] = density / density.sum()
        return scaled


def _gaussians(
    centres: npt.NDArray[np.float64], samples: int, sigma: float
) -> npt.NDArray[np.float64]:
    """Return float64 (fixations, samples): each Gaussian at the samples' centres."""
    distance = np.arange(samples) + 0.5 - centres[:, None]
    return np.exp(-0.5 * np.square(distance / sigma))
