"""Array helpers that several packages share: block means, and members of `.npz` archives."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

Real = TypeVar("Real", np.float32, np.float64)

_ONE_AT_A_TIME = threading.Lock()


def block_edges(length: int, block: int) -> npt.NDArray[np.intp]:
    """Return the edges of the blocks that cover `length` samples; the last block may be smaller.

    Args:
        length: samples, at least 1.
        block: samples per block, at least 1.

    Returns:
        intp (blocks + 1,), from 0 to `length`.
    """
    return np.append(np.arange(0, length, block), length)


def block_means(
    values: npt.NDArray[Real], rows: npt.NDArray[Any], columns: npt.NDArray[Any]
) -> npt.NDArray[Real]:
    """Return the mean of every block of an array. A sample that an edge cuts counts by its share.

    Args:
        values: float32 or float64 (H, W). The sums have the same dtype.
        rows: edges of the blocks in samples, rising from 0 to H; they may be fractions.
        columns: the same from 0 to W.

    Returns:
        (len(rows) - 1, len(columns) - 1), the dtype of `values`.
    """
    # No matrix product: BLAS would wake a thread per core for a fraction of a millisecond's work.
    heights, widths = (np.diff(edges).astype(values.dtype)[:, None] for edges in (rows, columns))
    if rows.dtype.kind == columns.dtype.kind == "f":
        down = _sums_down(values, rows)
        down /= heights
        across = _sums_down(np.ascontiguousarray(down.T), columns)
        across /= widths
        return across.T
    # Whole samples are divided once, at the end, so that the mean of a mask is exact.
    sums = _sums_down(np.ascontiguousarray(_sums_down(values, rows).T), columns).T
    sums /= heights * widths.T
    return sums


def _sums_down(values: npt.NDArray[Real], edges: npt.NDArray[Any]) -> npt.NDArray[Real]:
    whole = np.minimum(edges.astype(np.intp), len(values) - 1)
    sums: npt.NDArray[Real] = np.add.reduceat(values, whole[:-1], 0)  # the last reaches the end
    if edges.dtype.kind == "f":
        sums[:-1][whole[1:-1] == whole[:-2]] = 0  # several blocks within one sample
        shares = (edges - whole).astype(values.dtype)[:-1, None] * values[whole[:-1]]
        sums -= shares
        sums[:-1] += shares[1:]
    return sums


def read_member(archive: NpzFile, name: str) -> npt.NDArray[Any]:
    """Return one array of an archive that `numpy.load` opened.

    NumPy reads an array's header by `ast.literal_eval`, which is not thread-safe before Python 3.12.1:
    two at once may end in `SystemError: AST constructor recursion depth mismatch` (CPython issue
    106905). So members are read one at a time.

    Args:
        archive: what `numpy.load(..., allow_pickle=False)` returned.
        name: of the member.

    Raises:
        KeyError: the archive has no such member.
        ValueError: the member is no array, or would have to be unpickled.
    """
    with _ONE_AT_A_TIME:
        array: npt.NDArray[Any] = np.asarray(archive[name])
    return array
