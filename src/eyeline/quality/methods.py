"""Two older ways to look at a region with VMAF, for comparison: both are biased, and say so.

`mask`: outside the region the distorted picture is replaced by the reference; libvmaf runs on the
result. Biased upward: the perfect background counts in every mean, so the score saturates, and the
seam's own edges count too.

`crop`: libvmaf runs on a window of half the width and height that follows the map's centre. Unbiased
for a rectangle that stands still; here it measures a rectangle, not the subject, and where the window
moves VMAF's motion feature takes that for motion.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from eyeline.media.planes import Planes
from eyeline.quality.weights import Weights, resample
from eyeline.saliency.features import map_features

Method = Literal["crop", "mask"]

BIAS = {
    "mask": "background replaced by the reference: biased upward, saturates",
    "crop": "window of half the width and height on the map's centre: a rectangle, not the subject; "
    "its movement counts as motion",
}
"""What to know of each method; travels in the log's provenance."""

INSIDE = 0.5
"""A sample is inside the region where the map exceeds this."""


def mask(reference: Planes, distorted: Planes, weights: Weights) -> tuple[Planes, Planes]:
    """The pair with the reference's samples outside the region."""
    planes = []
    for r, d in zip(reference.planes, distorted.planes, strict=True):
        height, width = r.shape
        planes.append(np.where(resample(weights.saliency, width, height) > INSIDE, d, r))
    return reference, Planes(tuple(planes), distorted.depth)


def crop_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the window of `crop`: a half each, even."""
    return max(2, width // 4 * 2), max(2, height // 4 * 2)


def crop(reference: Planes, distorted: Planes, weights: Weights) -> tuple[Planes, Planes]:
    """The pair's window about the map's centre, inside the picture, on even samples."""
    height, width = reference.luma.shape
    w, h = crop_size(width, height)
    features = map_features(weights.saliency, None)
    x = round(features["saliency_cx"] * width - w / 2)
    y = round(features["saliency_cy"] * height - h / 2)
    x, y = (max(0, min(x, width - w)) // 2 * 2, max(0, min(y, height - h)) // 2 * 2)
    return reference.cropped(w, h, x, y), distorted.cropped(w, h, x, y)
