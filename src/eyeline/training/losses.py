"""Losses on logits. Targets are float32 (N, 1, H, W) in [0, 1]; every loss is a scalar."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def soft_iou(logits: Tensor, target: Tensor) -> Tensor:
    """1 - intersection over union of probabilities, per image (Rahman & Wang, ISVC 2016)."""
    p = logits.sigmoid()
    inter = (p * target).sum((1, 2, 3))
    union = (p + target - p * target).sum((1, 2, 3))
    return (1 - (inter + 1) / (union + 1)).mean()


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - Dice coefficient of probabilities, per image, epsilon 1 (Milletari et al., 3DV 2016)."""
    p = logits.sigmoid()
    inter = (p * target).sum((1, 2, 3))
    total = (p + target).sum((1, 2, 3))
    return (1 - (2 * inter + 1) / (total + 1)).mean()


def edge_weighted_bce(logits: Tensor, target: Tensor, truth: Tensor, edge: float) -> Tensor:
    """Binary cross-entropy, each pixel weighted 1 + edge * |local mean - truth|.

    The weight is the boundary term of the structure loss (Wei et al., "F3Net", AAAI 2020), with a
    window of an eighth of the height, taken at a quarter of the resolution.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if edge == 0:
        return loss.mean()
    coarse = F.avg_pool2d(truth, 4)
    window = max(3, coarse.shape[-2] // 8 | 1)
    local = F.avg_pool2d(coarse, window, stride=1, padding=window // 2, count_include_pad=False)
    local = F.interpolate(local, size=truth.shape[-2:], mode="bilinear", align_corners=False)
    weight = 1 + edge * (local - truth).abs()
    return (loss * weight).sum() / weight.sum()


OVERLAPS = {"iou": soft_iou, "dice": dice}
"""Names of the overlap term in a recipe."""
