"""Measure all metrics of one pair of frames. The functions hold no state and run on worker threads.

`crop` supports `--method crop`, an older way to measure a region with VMAF, kept for comparison. `crop`
runs libvmaf on a window of half the width and height around the centre of the map. The method is
biased: it measures a rectangle and not the subject, and VMAF's motion feature counts the movement of
the window as motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eyeline.media.colour import Planes
from eyeline.quality import psnr
from eyeline.quality.ssim import ms_ssim, ssim
from eyeline.quality.weights import Weights
from eyeline.saliency.features import map_features

if TYPE_CHECKING:
    from eyeline.quality.sw_vmaf import FramePart, LumaPair, SwVmaf, VmafScore

PLANE_NAMES = ("y", "cb", "cr")
SW_FEATURES = ("vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3", "adm2", "motion2")

CROP_BIAS = (
    "window of half the width and height around the centre of the map: it measures a rectangle, "
    "not the subject, and its movement counts as motion"
)
"""Description of the bias of `crop`, for the provenance of the log."""

Metrics = dict[str, float]


@dataclass(frozen=True)
class MeasuredPair:
    """The planes of a reference and a distorted frame, of equal size and depth, and their weights."""

    reference: Planes
    distorted: Planes
    weights: Weights

    def luma(self) -> LumaPair:
        """Return the luma planes and weights in the form that `SwVmaf` takes."""
        from eyeline.quality.sw_vmaf import LumaPair

        height, width = self.reference.luma.shape
        weight = self.weights.at(width, height) if self.weights.strength else None
        return LumaPair(self.reference.luma, self.distorted.luma, self.reference.depth, weight)


def columns(metrics: tuple[str, ...], *, grey: bool) -> list[str]:
    """Return the names of the columns that `measure` and `vmaf_columns` fill."""
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
    pair: MeasuredPair,
    previous: MeasuredPair | None,
    metrics: tuple[str, ...],
    engine: SwVmaf | None,
) -> tuple[Metrics, FramePart | None]:
    """Measure a pair with every metric that does not need the next frame.

    `previous` is None for the first pair. `engine` is None if `sw_vmaf` is not measured.

    Raises:
        QualityError: the frames are too small for a metric.
    """
    found: Metrics = {}
    depth = pair.reference.depth
    # With strength 0 every sample weighs the same, so only the whole metric is computed.
    weights = pair.weights if pair.weights.strength else None
    if "psnr" in metrics:
        found |= _psnr(pair)
    luma = pair.reference.luma, pair.distorted.luma, depth, weights
    for name, index, plain in (("ssim", ssim, "float_ssim"), ("ms_ssim", ms_ssim, "float_ms_ssim")):
        if name in metrics:
            whole, weighted = index(*luma)
            found |= {plain: whole, f"sw_{name}": whole if weighted is None else weighted}
    if engine is None:
        return found, None
    return found, engine.part(pair.luma(), None if previous is None else previous.luma())


def vmaf_columns(score: VmafScore) -> Metrics:
    """Return the columns of a frame: whole VMAF, weighted VMAF and the weighted features."""
    weighted = score.weighted or score.whole
    found = {"eyeline_vmaf": score.whole["vmaf"], "sw_vmaf": weighted["vmaf"]}
    return found | {f"sw_{feature}": weighted[feature] for feature in SW_FEATURES}


def _psnr(pair: MeasuredPair) -> Metrics:
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


def crop_size(width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) of the window of `crop`: half of the frame's, rounded to even."""
    return max(2, width // 4 * 2), max(2, height // 4 * 2)


def crop(pair: MeasuredPair) -> tuple[Planes, Planes]:
    """Crop both frames to a window around the centre of the map, inside the frame, at even x and y."""
    height, width = pair.reference.luma.shape
    w, h = crop_size(width, height)
    features = map_features(pair.weights.saliency, None)
    x = round(features["saliency_cx"] * width - w / 2)
    y = round(features["saliency_cy"] * height - h / 2)
    x, y = (max(0, min(x, width - w)) // 2 * 2, max(0, min(y, height - h)) // 2 * 2)
    return pair.reference.cropped(w, h, x, y), pair.distorted.cropped(w, h, x, y)
