"""All metrics of one pair of frames: the part that runs on worker threads, without any state.

Two older ways to look at a region with VMAF, for comparison: both are biased, and say so.

`mask`: outside the region the distorted picture is replaced by the reference; libvmaf runs on the
result. Biased upward: the perfect background counts in every mean, so the score saturates, and the
seam's own edges count too.

`crop`: libvmaf runs on a window of half the width and height that follows the map's centre. Unbiased
for a rectangle that stands still; here it measures a rectangle, not the subject, and where the window
moves VMAF's motion feature takes that for motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from eyeline.media.colour import Planes
from eyeline.quality import psnr
from eyeline.quality.ssim import ms_ssim, ssim
from eyeline.quality.weights import Weights, resample
from eyeline.saliency.features import map_features

if TYPE_CHECKING:
    from eyeline.quality.sw_vmaf import FramePart, FrameScore, LumaPair, SwVmaf

PLANE_NAMES = ("y", "cb", "cr")
SW_FEATURES = ("vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "adm2", "motion2")

Metrics = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """One pair and its weights, ready to be measured.

    Attributes:
        reference, distorted: planes of one size and depth.
        weights: of the frame.
    """

    reference: Planes
    distorted: Planes
    weights: Weights

    def luma_pair(self) -> LumaPair:
        """What `SwVmaf` takes."""
        from eyeline.quality.sw_vmaf import LumaPair

        height, width = self.reference.luma.shape
        weight = self.weights.at(width, height) if self.weights.strength else None
        return LumaPair(self.reference.luma, self.distorted.luma, self.reference.depth, weight)


def columns(metrics: tuple[str, ...], grey: bool) -> list[str]:
    """Columns that `measure` and `vmaf_columns` fill, plain and weighted side by side."""
    names: list[str] = []
    if "psnr" in metrics:
        planes = ("y",) if grey else (*PLANE_NAMES, "611")
        names += [f"{prefix}psnr_{plane}" for plane in planes for prefix in ("", "sw_")]
    if "ssim" in metrics:
        names += ["float_ssim", "sw_ssim"]
    if "ms_ssim" in metrics:
        names += ["float_ms_ssim", "sw_ms_ssim"]
    if "sw_vmaf" in metrics:
        names += ["eyeline_vmaf", "sw_vmaf", *(f"sw_{feature}" for feature in SW_FEATURES)]
    return names


def measure(
    pair: Measured, previous: Measured | None, metrics: tuple[str, ...], engine: SwVmaf | None
) -> tuple[Metrics, FramePart | None]:
    """Every metric that needs no later frame.

    Args:
        pair: the frame.
        previous: the frame before, None for the first.
        metrics: which.
        engine: of `sw_vmaf`, or None.

    Raises:
        QualityError: a picture too small for a metric.
    """
    found: Metrics = {}
    depth = pair.reference.depth
    weights = pair.weights if pair.weights.strength else None  # uniform: the whole frame's numbers
    if "psnr" in metrics:
        found |= _psnr(pair)
    luma = pair.reference.luma, pair.distorted.luma, depth, weights
    for name, index, plain in (("ssim", ssim, "float_ssim"), ("ms_ssim", ms_ssim, "float_ms_ssim")):
        if name in metrics:
            whole, weighted = index(*luma)
            found |= {plain: whole, f"sw_{name}": whole if weighted is None else weighted}
    if engine is None:
        return found, None
    before = None if previous is None else previous.luma_pair()
    return found, engine.part(pair.luma_pair(), before)


def vmaf_columns(score: FrameScore) -> Metrics:
    """Columns of a finished frame: the engine's plain VMAF, the weighted one and its features."""
    weighted = score.weighted or score.whole
    found = {"eyeline_vmaf": score.whole["vmaf"], "sw_vmaf": weighted["vmaf"]}
    return found | {f"sw_{feature}": weighted[feature] for feature in SW_FEATURES}


def _psnr(pair: Measured) -> Metrics:
    found: Metrics = {}
    depth = pair.reference.depth
    planes = zip(PLANE_NAMES, pair.reference.planes, pair.distorted.planes, strict=False)
    for name, r, d in planes:
        error = psnr.squared_error(r, d, pair.weights)
        found[f"psnr_{name}"] = psnr.decibels(error.whole, depth)
        found[f"sw_psnr_{name}"] = psnr.decibels(error.weighted, depth)
    if "psnr_cr" in found:
        for p in ("", "sw_"):
            found[f"{p}psnr_611"] = psnr.combined(*(found[f"{p}psnr_{n}"] for n in PLANE_NAMES))
    return found


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
