"""Sums: accurate, and the same to the bit wherever a plane lies in memory."""

import math

import numpy as np
import pytest

from eyeline.quality._vmaf_features import sum_of
from eyeline.quality.sw_vmaf import FramePart, LumaPair, SwVmaf, load_model

LINE = 64  # bytes of a cache line, the widest that vector instructions align to


def placed(a: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins `offset` bytes behind a cache line's start."""
    memory = np.empty(a.nbytes + 2 * LINE, np.uint8)
    first = -memory.ctypes.data % LINE + offset
    copy = memory[first : first + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def wide(shape: tuple[int, int], kind: type = np.float32) -> np.ndarray:
    """Values of many magnitudes, whose sum depends on the order."""
    return np.exp(np.random.default_rng(0).normal(0, 4, shape)).astype(kind)


@pytest.mark.parametrize("shape", [(144, 176), (1, 500), (33, 1), (37, 481)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_sum_is_that_of_float64(shape: tuple[int, int], kind: type) -> None:
    plane = wide(shape, kind)
    assert sum_of(plane) == pytest.approx(math.fsum(plane.ravel().tolist()), rel=1e-13)
    assert sum_of(plane[:, shape[1] // 3 :]) == pytest.approx(
        math.fsum(plane[:, shape[1] // 3 :].ravel().tolist()), rel=1e-13
    )


def test_a_sum_does_not_depend_on_where_a_plane_lies() -> None:
    plane = wide((272, 640))
    assert len({sum_of(placed(plane, offset)) for offset in range(0, LINE, 4)}) == 1


def test_features_do_not_depend_on_what_memory_is_free() -> None:
    rng = np.random.default_rng(1)
    r, d = (rng.integers(0, 255, (144, 177)).astype(np.uint8) for _ in range(2))
    weight = wide(r.shape)
    engine = SwVmaf(load_model("vmaf_v0.6.1"))
    found: set[FramePart] = set()
    held = []
    for i in range(12):
        held.append(np.empty(16 * i * i + 8, np.uint8))  # what is allocated next moves on
        planes = [placed(p, i) for p in (r, d)]
        pair = LumaPair(*planes, 8, placed(weight, 4 * i))
        found.add(engine.part(pair, pair._replace(reference=d)))
    assert len(found) == 1
