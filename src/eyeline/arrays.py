"""Array helpers that several packages share: block means, and reading `.npz` archives."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

Real = TypeVar("Real", np.float32, np.float64)

_ONE_AT_A_TIME = threading.Lock()


def block_edges(length: int, block: int) -> npt.NDArray[np.intp]:
    """Return the edges of blocks of `block` samples that cover `length` samples, both at least 1.

    The edges are intp (blocks + 1,), from 0 to `length`. The last block may be smaller.
    """
    return np.append(np.arange(0, length, block), length)


def block_means(
    values: npt.NDArray[Real], rows: npt.NDArray[Any], columns: npt.NDArray[Any]
) -> npt.NDArray[Real]:
    """Return the mean of every block of an array.

    If an edge cuts a sample, each block counts the share of the sample that lies within it.

    Args:
        values: float32 or float64 (H, W). The sums have the same dtype.
        rows: edges of the blocks in samples, rising from 0 to H; edges may be fractional.
        columns: the same for columns, from 0 to W.

    Returns:
        (len(rows) - 1, len(columns) - 1), with the dtype of `values`.
    """
    # A matrix product would be slower: BLAS wakes one thread per core for less than 1 ms of work.
    heights, widths = (np.diff(edges).astype(values.dtype)[:, None] for edges in (rows, columns))
    if rows.dtype.kind == columns.dtype.kind == "f":
        down = _sums_down(values, rows)
        down /= heights
        across = _sums_down(np.ascontiguousarray(down.T), columns)
        across /= widths
        return across.T
    # With integer edges, divide only once, at the end, so that the mean of a mask is exact.
    sums = _sums_down(np.ascontiguousarray(_sums_down(values, rows).T), columns).T
    sums /= heights * widths.T
    return sums


def _sums_down(values: npt.NDArray[Real], edges: npt.NDArray[Any]) -> npt.NDArray[Real]:
    whole = np.minimum(edges.astype(np.intp), len(values) - 1)
    sums: npt.NDArray[Real] = np.add.reduceat(values, whole[:-1], 0)  # the last block ends at H
    if edges.dtype.kind == "f":
        sums[:-1][whole[1:-1] == whole[:-2]] = 0  # a block within one sample
        shares = (edges - whole).astype(values.dtype)[:-1, None] * values[whole[:-1]]
        sums -= shares
        sums[:-1] += shares[1:]
    return sums


def read_member(archive: NpzFile, name: str) -> npt.NDArray[Any]:
    """Read one array of an archive that `numpy.load(..., allow_pickle=False)` opened.

    NumPy parses the header of an array with `ast.literal_eval`, which is not thread-safe before Python
    3.12.1: two calls at once may raise `SystemError: AST constructor recursion depth mismatch` (CPython
    issue 106905). So only one thread reads at a time.

    Raises:
        KeyError: the archive has no array of this name.
        ValueError: the member is not an array, or reading it would need pickle.
    """
    with _ONE_AT_A_TIME:
        array: npt.NDArray[Any] = np.asarray(archive[name])
    return array
