"""Means over blocks, and members of an `.npz` that many threads read at once."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.arrays import block_edges, block_means, read_member


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


def test_partial_edge_blocks_are_kept() -> None:
    x = np.arange(35, dtype=np.float32).reshape(5, 7)
    means = block_means(x, block_edges(5, 4), block_edges(7, 4))
    assert means.dtype == np.float32
    assert means.tolist() == [
        [x[:4, :4].mean(), x[:4, 4:].mean()],
        [x[4:, :4].mean(), x[4:, 4:].mean()],
    ]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**16))
def test_blocks_weighted_by_their_area_give_the_mean(h: int, w: int, side: int, seed: int) -> None:
    x = np.random.default_rng(seed).random((h, w))
    rows, columns = block_edges(h, side), block_edges(w, side)
    means = block_means(x, rows, columns)
    assert means.shape == (-(-h // side), -(-w // side))
    areas = np.outer(np.diff(rows), np.diff(columns))
    assert (means * areas).sum() == pytest.approx(x.sum())


def test_a_sample_on_an_edge_counts_by_its_share() -> None:
    x = np.array([[1.0, 2.0, 4.0]])
    means = block_means(x, np.array([0, 1]), np.array([0.0, 1.5, 3.0]))
    assert means.tolist() == [[(1 + 2 / 2) / 1.5, (2 / 2 + 4) / 1.5]]


def test_several_blocks_fit_within_one_sample() -> None:
    means = block_means(np.array([[3.0, 5.0]]), np.array([0, 1]), np.linspace(0, 2, 9))
    assert means.tolist() == [[3.0] * 4 + [5.0] * 4]
