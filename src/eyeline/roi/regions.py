"""Grids of levels to few rectangles, and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.int16]


class Region(NamedTuple):
    """A rectangle of one offset; edges in pixels of the coded picture, bottom and right exclusive."""

    top: int
    bottom: int
    left: int
    right: int
    offset: int


def _runs(levels: Levels) -> list[tuple[int, int, int, int]]:
    """(row, start, end, level) of every run of one level that is not zero, in reading order."""
    rows, columns = levels.shape
    change = np.ones((rows, columns), bool)
    np.not_equal(levels[:, 1:], levels[:, :-1], out=change[:, 1:])
    starts = np.flatnonzero(change)
    ends = np.append(starts[1:], rows * columns)  # a run never crosses rows: each begins one
    values = levels.ravel()[starts]
    keep = values != 0
    starts, ends, values = starts[keep], ends[keep], values[keep]
    row = starts // columns
    base = row * columns
    return list(
        zip(
            row.tolist(),
            (starts - base).tolist(),
            (ends - base).tolist(),
            values.tolist(),
            strict=True,
        )
    )


def rectangles(
    levels: Levels, width: int, height: int, block: int, most: int = 1 << 30
) -> list[Region]:
    """Cover what is not zero by rectangles that do not overlap.

    Runs of one level that stand exactly above one another are merged. Where that leaves more than
    `most`, blocks are joined two by two (their mean, rounded to a level that occurs) until it does
    not.

    Args:
        levels: int16 (rows, columns), QP.
        width: of the picture, pixels.
        height: of the picture, pixels.
        block: side of a block, pixels.
        most: how many there may be; at least 1.

    Returns:
        Rectangles within the picture.
    """
    while True:
        open_runs: dict[tuple[int, int, int], list[int]] = {}
        done: list[tuple[int, int, int, int, int]] = []
        for row, start, end, level in _runs(levels):
            key = (start, end, level)
            span = open_runs.get(key)
            if span is not None and span[1] == row:
                span[1] = row + 1
                continue
            if span is not None:
                done.append((*span, *key))  # type: ignore[arg-type]
            open_runs[key] = [row, row + 1]
        done += [(*span, *key) for key, span in open_runs.items()]  # type: ignore[misc]
        if len(done) <= most or levels.size == 1:
            break
        levels, block = _halve(levels), 2 * block
    return [
        Region(t * block, min(b * block, height), x * block, min(r * block, width), level)
        for t, b, x, r, level in done
    ]


def _halve(levels: Levels) -> Levels:
    """Blocks joined two by two: the level that occurs and lies nearest to their mean."""
    rows, columns = levels.shape
    padded = np.pad(levels, ((0, rows % 2), (0, columns % 2)), mode="edge").astype(np.float32)
    means = (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4
    known = np.unique(levels)
    nearest = np.abs(means[..., None] - known).argmin(-1)
    out: Levels = known[nearest].astype(np.int16)
    return out


def paint(regions: list[Region], width: int, height: int, block: int) -> Levels:
    """The grid that regions stand for, as an encoder reads it: the first one wins.

    Args:
        regions: in order of precedence.
        width: of the picture, pixels.
        height: of the picture, pixels.
        block: side of an encoder's block, pixels; one that is partly covered counts whole.

    Returns:
        int16 (rows, columns), QP.
    """
    grid = np.zeros((-(-height // block), -(-width // block)), np.int16)
    for top, bottom, left, right, offset in reversed(regions):
        grid[top // block : -(-bottom // block), left // block : -(-right // block)] = offset
    return grid
