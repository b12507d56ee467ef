"""Maps to grids of blocks: means over each block, partial ones at the right and the bottom kept.

A map may have any size: it covers the whole upright picture, and each of its values an equal share.
Blocks lie in the *coded* picture, which a display rotation turns and non-square samples stretch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.errors import MediaError

Floats = npt.NDArray[np.float32]

ASPECT_TOLERANCE = 0.04
"""How far a map's aspect may lie from the picture's: rounding to a few dozen lines makes 3 %."""


def grid_size(width: int, height: int, block: int) -> tuple[int, int]:
    """(rows, columns) of blocks that cover a picture of `width` x `height` pixels."""
    return -(-height // block), -(-width // block)


def _means_down(values: Floats, length: int, block: int) -> Floats:
    """Means of blocks along the first axis: sums of whole samples, and shares of those at the edges.

    Args:
        values: float32 (samples, ...), which cover `length` pixels in equal shares.
        length: pixels along the axis.
        block: pixels of a block.

    Returns:
        float32 (blocks, ...).
    """
    samples = len(values)
    at = np.append(np.arange(0, length, block), length) / length * samples
    whole = np.minimum(at.astype(np.intp), samples - 1)
    sums: Floats = np.add.reduceat(values, whole[:-1], 0)  # the last one reaches the end
    sums[:-1][whole[1:-1] == whole[:-2]] = 0  # several blocks within one sample
    edges = (at - whole).astype(np.float32)[:-1, None] * values[whole[:-1]]
    sums -= edges
    sums[:-1] += edges[1:]
    sums /= np.diff(at).astype(np.float32)[:, None]
    return sums


def block_means(saliency: Floats, width: int, height: int, block: int) -> Floats:
    """Mean of a map over every block of a picture.

    Args:
        saliency: float32 (h, w), the whole picture in coded orientation, any size.
        width: of the picture, pixels.
        height: of the picture, pixels.
        block: side of a block, pixels.

    Returns:
        float32 (ceil(height / block), ceil(width / block)).
    """
    # No matrix product: BLAS would wake a thread a core for what takes a fraction of a millisecond.
    down = _means_down(saliency.astype(np.float32, copy=False), height, block)
    means = _means_down(np.ascontiguousarray(down.T), width, block).T
    # Differences of sums round: a mean stays within the values that it is of.
    return np.clip(means, saliency.min(), saliency.max())


def to_coded(saliency: Floats, rotation: int) -> Floats:
    """Turn an upright map into the orientation in which the picture is coded.

    Args:
        saliency: (h, w), upright.
        rotation: clockwise degrees that make the coded picture upright: 0, 90, 180 or 270.
    """
    return np.rot90(saliency, rotation // 90)  # counterclockwise: back


def check_map(saliency: npt.NDArray[np.generic], display: tuple[int, int], where: str) -> Floats:
    """Refuse a map that can't be one of this picture.

    Args:
        saliency: what was read.
        display: upright (width, height) of the picture, square pixels.
        where: what and which frame, for the message.

    Returns:
        float32 (h, w) in [0, 1].

    Raises:
        MediaError: not two-dimensional, of another aspect, not finite, or outside [0, 1].
    """
    if saliency.ndim != 2 or 0 in saliency.shape:
        raise MediaError(f"{where}: the map has shape {saliency.shape}", "give rows x columns")
    h, w = saliency.shape
    ratio = (w / h) / (display[0] / display[1])
    slack = ASPECT_TOLERANCE + 0.5 / w + 0.5 / h
    if (w, h) != display and not 1 - slack < ratio < 1 + slack:
        raise MediaError(
            f"{where}: the map is {w}x{h}, the picture {display[0]}x{display[1]}",
            "a map has the picture's upright size, or its aspect at a smaller size",
        )
    values = saliency.astype(np.float32, copy=False)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also what is not a number
        raise MediaError(
            f"{where}: the map has values from {low:g} to {high:g}; they must be between 0 and 1",
            "divide the map by its largest possible value",
        )
    return values


def block_activity(luma: npt.NDArray[Any], block: int, bits: int = 8) -> Floats:
    """How much there is to code in every block: mean absolute step between neighbours in a row.

    A stand-in for the bits that a block will take, from every eighth line; the constant added
    keeps flat blocks from weighing nothing.

    Args:
        luma: unsigned integers (height, width).
        block: side of a block, pixels; a multiple of 8.
        bits: of a sample.

    Returns:
        float32 (rows, columns), positive, in 8-bit codes per sample.
    """
    # 15 bits and fewer: half the memory to move.
    lines: npt.NDArray[Any] = luma[::8, ::2].astype(np.int16 if bits <= 15 else np.int32)
    down, across = block // 8, block // 2  # sampled lines and columns of a block
    rows, columns = -(-lines.shape[0] // down), -(-lines.shape[1] // across)
    steps = np.zeros((rows * down, columns * across), np.int32)
    steps[: lines.shape[0], 1 : lines.shape[1]] = np.abs(lines[:, 1:] - lines[:, :-1])
    folded = sum(steps[i::down] for i in range(down))
    sums = np.asarray(folded).reshape(rows, columns, across).sum(-1)
    count = np.diff(np.append(np.arange(0, len(lines), down), len(lines)))
    wide = np.diff(np.append(np.arange(0, lines.shape[1], across), lines.shape[1]))
    scale = 255 / ((1 << bits) - 1)
    means: Floats = (sums / (count[:, None] * wide) * scale + 1).astype(np.float32)
    return means
