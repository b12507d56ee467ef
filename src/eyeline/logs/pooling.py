"""Per-frame numbers to one: the only place that pools a metric over a video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PERCENTILES = (5, 25, 50, 75, 95)

POOLED = ("min", "max", "mean", "harmonic_mean", *(f"p{p}" for p in PERCENTILES))
"""Names of the pooled numbers, in the order of the logs; the first four are libvmaf's."""


def harmonic_mean(values: npt.NDArray[np.float64]) -> float:
    """Harmonic mean shifted by one, so that a score of 0 is allowed: `1 / mean(1 / (x + 1)) - 1`.

    Source: `vmaf_feature_score_pooled` in libvmaf (`libvmaf/src/libvmaf.c`), where
    `VMAF_POOL_METHOD_HARMONIC_MEAN` sums `1 / (x + 1)` and answers `count / sum - 1`.

    Args:
        values: float64 (n,), n at least 1, each above -1.
    """
    with np.errstate(divide="ignore", over="ignore"):
        return float(1.0 / np.mean(1.0 / (values + 1.0)) - 1.0)


def pool(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """Pool one metric over the frames of a video.

    A NaN among the values makes every pooled number NaN, and so does an empty sequence: a frame
    without an answer must not vanish from an average. Percentiles interpolate linearly between
    the two nearest ranks (NumPy's `linear` method).

    Args:
        values: one number a frame.

    Returns:
        A value for each name of `POOLED`.
    """
    x = np.asarray(values, np.float64)
    if not x.size or np.isnan(x).any():
        return dict.fromkeys(POOLED, float("nan"))
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf between infinite ranks
        percentiles = np.percentile(x, PERCENTILES, method="linear")
        numbers = (x.min(), x.max(), x.mean(), harmonic_mean(x), *percentiles)
    return dict(zip(POOLED, map(float, numbers), strict=True))
