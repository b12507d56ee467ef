"""Arrays of an `.npz` are read whole, from many threads at once too."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from eyeline.arrays import read_member


class Garbage:
    """A cycle whose end runs Python code: wherever it is collected, another thread may come in."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        for _ in range(20):
            pass


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that switch, and garbage that is collected, as often as can be."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("restless")
def test_threads_read_one_archive_each_at_the_same_time(tmp_path: Path) -> None:
    maps = {str(i): np.full((3, 5), i, np.float32) for i in range(300)}
    np.savez(tmp_path / "maps.npz", **maps)  # type: ignore[arg-type]

    def total(_: int) -> float:
        found = 0.0
        with np.load(tmp_path / "maps.npz", allow_pickle=False) as archive:
            for name in maps:
                Garbage()
                found += float(read_member(archive, name).sum())
        return found

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(total, range(8))) == {15.0 * sum(range(300))}


def test_a_member_that_is_absent_is_a_key_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(2))
    with (
        np.load(tmp_path / "a.npz", allow_pickle=False) as archive,
        pytest.raises(KeyError, match="y is not a file in the archive"),
    ):
        read_member(archive, "y")
