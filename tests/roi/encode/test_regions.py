"""Grids of levels become few rectangles, and nothing is lost."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eyeline.roi.encode._regions import Region, rectangles

grids = arrays(
    np.int16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-3, 3)
)


def paint(regions: list[Region], width: int, height: int, block: int) -> np.ndarray:
    """The grid as an encoder reads the regions: the first one wins, a block partly covered counts."""
    grid = np.zeros((-(-height // block), -(-width // block)), np.int16)
    for top, bottom, left, right, offset in reversed(regions):
        grid[top // block : -(-bottom // block), left // block : -(-right // block)] = offset
    return grid


@given(grids)
def test_rectangles_paint_back_the_grid(levels: np.ndarray) -> None:
    rows, columns = levels.shape
    width, height = columns * 16 - 5, rows * 16 - 3
    regions = rectangles(levels, width, height, 16)
    assert (paint(regions, width, height, 16) == levels).all()
    assert all(r.right <= width and r.bottom <= height for r in regions)


@given(grids, st.integers(1, 5))
def test_rectangles_are_never_more_than_asked(levels: np.ndarray, most: int) -> None:
    rows, columns = levels.shape
    assert len(rectangles(levels, columns * 16, rows * 16, 16, most)) <= most


def test_a_block_of_one_level_is_one_rectangle() -> None:
    levels = np.zeros((8, 8), np.int16)
    levels[2:6, 1:5] = -4
    assert rectangles(levels, 128, 128, 16) == [(32, 96, 16, 80, -4)]
