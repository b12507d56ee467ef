"""Frame size to working size and back: plan, pad, crop, upscale. Pure NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
