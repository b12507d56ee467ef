"""A frame to a model's input, and its output to a map, by the model's I/O spec.

Frame size to working size and back: plan, pad, crop, upscale. Pure NumPy.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from eyeline.registry.records import IoSpec
from eyeline.runtime import IMAGENET_MEAN, IMAGENET_STD

MAX_ASPECT = (
    6.0  # a long side beyond this many short sides is squeezed: keeps a banner's cost bounded
)


def working_size(width: int, height: int, lines: int | None) -> tuple[int, int]:
    """Size that a frame is scaled to: its short side becomes `lines`, its aspect is kept.

    Args:
        width: display width, pixels.
        height: display height, pixels.
        lines: short side, pixels; None for the frame's own size.

    Returns:
        (width, height), each at least 1.
    """
    if lines is None:
        return width, height
    aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
    if aspect >= 1:
        return round(lines * aspect), lines
    return lines, round(lines / aspect)


def pad_to_multiple(x: npt.NDArray[np.float32], multiple: int) -> npt.NDArray[np.float32]:
    """Extend (..., H, W) at the bottom and the right by its own edge, to multiples of `multiple`."""
    h, w = x.shape[-2:]
    below, right = -h % multiple, -w % multiple
    if not below and not right:
        return x
    out = np.empty((*x.shape[:-2], h + below, w + right), x.dtype)
    out[..., :h, :w] = x
    out[..., :h, w:] = x[..., :, -1:]
    out[..., h:, :] = out[..., h - 1 : h, :]
    return out


def _taps(size_in: int, size_out: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Left sample and the weight of its right neighbour, half-pixel centres, clamped at the edges."""
    at = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    at = np.clip(at, 0, size_in - 1)
    left = at.astype(np.intp)
    # A float32 weight of 1 - 2**-23 at most: then a + (b - a) * w can't round past b.
    return left, np.minimum(at - left, 1 - 2.0**-23).astype(np.float32)


def upscale(x: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    """Bilinear resize of a map, half-pixel centres (the `half_pixel` mode of ONNX `Resize`).

    A constant map stays that constant, and no value leaves the range of the input's.

    Args:
        x: float32 (h, w).
        width: columns of the result.
        height: rows of the result.

    Returns:
        float32 (height, width).
    """
    if x.shape == (height, width):
        return x
    left, wx = _taps(x.shape[1], width)
    top, wy = _taps(x.shape[0], height)
    right, below = np.minimum(left + 1, x.shape[1] - 1), np.minimum(top + 1, x.shape[0] - 1)
    row = np.take(x, left, axis=1)  # x[:, left] would lie by columns, and be slow
    row += (np.take(x, right, axis=1) - row) * wx
    out = row[top]
    out += (row[below] - out) * wy[:, None]
    return out


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
