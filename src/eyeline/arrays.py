"""Reading `.npz` archives from any thread."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

_ONE_AT_A_TIME = threading.Lock()


def read_member(archive: NpzFile, name: str) -> npt.NDArray[Any]:
    """One array of an archive that `numpy.load` opened.

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
