"""OpenCV, which every metric here filters with, and memory that threads work in."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from eyeline.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    Plane = NDArray[np.floating]

FLOAT = np.dtype(np.float32)
DOUBLE = np.dtype(np.float64)


def opencv() -> ModuleType:
    """OpenCV, which filters float32 planes with vector instructions and without the GIL.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import cv2
    except ImportError as exc:
        raise MissingExtraError("opencv-python-headless", "vmaf") from exc
    return cv2


class Scratch(threading.local):
    """Memory that a thread works in, kept from frame to frame.

    A plane of a frame is large enough for the allocator to ask the system for it each time and to
    give it back, and the page faults of that would double the time.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, np.dtype[Any]], NDArray[Any]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array that is not set, valid until the same name is asked for again."""
        size = math.prod(shape)
        plane = self._kept.get((name, dtype))
        if plane is None or plane.size < size:
            plane = self._kept[name, dtype] = np.empty(size, dtype)
        return plane[:size].reshape(shape)


scratch = Scratch()


def sum_of(plane: Plane) -> float:
    """Sum of a plane's samples in float64, in one order wherever the plane lies in memory.

    OpenCV's own `sumElems` adds up in an order that depends on the address, so that the last bits
    would change from run to run.

    Args:
        plane: float32 or float64 (H, W).
    """
    cv2 = opencv()
    return float(cv2.reduce(plane, 0, cv2.REDUCE_SUM, dtype=cv2.CV_64F).sum())


def sum_of_products(a: Plane, b: Plane) -> float:
    """Sum of a * b, float32 within a row; a BLAS product would wait for threads of its own."""
    return float(np.einsum("ij,ij->i", a, b).sum(dtype=np.float64))
