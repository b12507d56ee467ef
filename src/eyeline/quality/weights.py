"""How much each sample of a frame counts: a saliency map, blended with uniform weights.

With a strength k the weight of a sample is (1 - k) + k * m / mean(m), m the map: its level is of no
matter, its shape is. k = 0 is uniform, k = 1 the map alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eyeline.errors import QualityError
from eyeline.quality.kernels import FLOAT, opencv, scratch

Map = npt.NDArray[np.float32]


class Weights:
    """The weights of one frame, at any resolution.

    A coarser map is interpolated linearly, a finer one averaged over each sample's area.

    Args:
        saliency: float32 (h, w), finite, not negative, of any size with the frame's aspect.
        strength: k, 0..1.
        where: begins an error message, such as `frame 12`.

    Raises:
        QualityError: NaN, infinite or negative values, or zero everywhere.
    """

    def __init__(self, saliency: Map, strength: float = 1.0, where: str = "the map") -> None:
        low, high = float(saliency.min()), float(saliency.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise QualityError(f"{where}: the map holds NaN or infinite values", "mend the map")
        if low < 0:
            raise QualityError(f"{where}: the map holds negative values ({low:g})", "mend the map")
        if high == 0 and strength > 0:
            raise QualityError(
                f"{where}: the map is zero everywhere, so nothing has weight",
                "give another map, or --weight 0 for uniform weights",
            )
        self.saliency = np.ascontiguousarray(saliency, np.float32)
        self.strength = strength
        self.level = float(saliency.mean(dtype=np.float64)) or 1.0

    def map_at(self, width: int, height: int) -> Map:
        """The map alone, float32 (height, width), in memory that the thread's next call reuses."""
        out = scratch("map", (height, width), FLOAT)
        return resample(self.saliency, width, height, out)

    def blend(self, plain: float, salient: float) -> float:
        """The weighted sum of what sums up to `plain`, and to `salient` times the map."""
        return (1 - self.strength) * plain + self.strength / self.level * salient

    def at(self, width: int, height: int) -> Map:
        """Weights, float32 (height, width), mean about 1."""
        m = self.map_at(width, height) * np.float32(self.strength / self.level)
        m += np.float32(1 - self.strength)
        return m


def resample(m: Map, width: int, height: int, out: Map | None = None) -> Map:
    """A map at another size: linear upwards, area averages downwards.

    Upwards between half-pixel centres and level beyond the outermost, as `saliency.resize.upscale`
    does without OpenCV.

    Args:
        m: float32 (h, w).
        width: columns of the result.
        height: rows of the result.
        out: float32 (height, width) to write to, where the map has another size.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    if m.shape[0] > height:
        m = _averaged(m, height)
    if m.shape[1] > width:
        m = _averaged(m.T, width).T
    m = np.ascontiguousarray(m)
    if m.shape == (height, width):
        return m
    cv2 = opencv()
    larger: Map = cv2.resize(m, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    return larger


def _averaged(m: Map, rows: int) -> Map:
    """Mean of each output row's share of the input's rows; no BLAS, whose threads stall a busy machine."""
    if len(m) % rows == 0:
        by = len(m) // rows
        total: Map = m[::by].copy()
        for i in range(1, by):
            total += m[i::by]
        total *= np.float32(1 / by)
        return total
    # Differences of the running sum, read linearly between rows.
    running = np.zeros((len(m) + 1, m.shape[1]))
    np.cumsum(m, axis=0, out=running[1:])
    edges = np.arange(rows + 1) * (len(m) / rows)
    left = np.minimum(edges.astype(np.intp), len(m) - 1)
    at = running[left] + (running[left + 1] - running[left]) * (edges - left)[:, None]
    means = np.diff(at, axis=0) * (rows / len(m))
    # A difference of sums may come out a rounding error below what it averages.
    return np.maximum(means, 0).astype(np.float32)
