"""A frame to a model's input, and its output to a map, by the model's I/O spec."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from eyeline.models.records import IoSpec
from eyeline.saliency.contract import IMAGENET_MEAN, IMAGENET_STD
from eyeline.saliency.resize import pad_to_multiple, working_size

Map = npt.NDArray[np.float32]

LUMA_REC601 = np.array([0.299, 0.587, 0.114], np.float32)
"""Luma of R, G, B (ITU-R BT.601-7): what models with tiled luma were trained on."""


def input_size(
    width: int, height: int, io: IoSpec, lines: int | Literal["native"] | None = None
) -> tuple[int, int]:
    """Size that a frame is scaled to for a model, before padding.

    Args:
        width: display width, pixels.
        height: display height, pixels.
        io: the model's I/O spec.
        lines: short side, or `native` for the frame's own size, either with the aspect kept; None
            for what the spec says.

    Returns:
        (width, height), pixels.
    """
    if lines is None and io.squash is not None:
        return io.squash
    chosen = lines or io.working_lines
    return working_size(width, height, None if chosen == "native" else chosen)


def prepare(rgb: npt.NDArray[np.uint8], io: IoSpec) -> Map:
    """Planar RGB to a model's input.

    Args:
        rgb: uint8 (3, h, w).
        io: the model's I/O spec.

    Returns:
        float32 (1, 3, H, W), ImageNet-normalised, padded to the spec's multiple.
    """
    std = np.array(IMAGENET_STD, np.float32)[:, None, None]
    mean = np.array(IMAGENET_MEAN, np.float32)[:, None, None]
    x = rgb.astype(np.float32)
    if io.channels == "luma_tiled":
        r, g, b = LUMA_REC601
        x[:] = r * x[0] + g * x[1] + b * x[2]  # a BLAS product would wait for its own threads
    top = 255.0 if io.scale == "255" else max(1.0, float(x.max()))
    x *= 1 / (np.float32(top) * std)
    x -= mean / std
    return pad_to_multiple(x, io.multiple)[None]


def finish(y: Map, height: int, width: int, io: IoSpec) -> Map:
    """Crop a model's output to the visible frame and apply the spec's output rule.

    Args:
        y: float32 (H, W) in [0, 1].
        height: visible rows at the working scale.
        width: visible columns at the working scale.
        io: the model's I/O spec.
    """
    m = np.ascontiguousarray(y[:height, :width])
    if io.output == "minmax":
        low, high = m.min(), m.max()
        m = (m - low) / (high - low) if high > low else np.zeros_like(m)
    return m
