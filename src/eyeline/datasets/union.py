"""Several datasets as one, without the pictures that they share.

A picture that two sets have in common, whether copied, scaled or compressed again, would count
twice in training, or leak from a test set into it. `find_union` keeps the first and names the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from eyeline.datasets.pairs import Pair, find_pairs, read_image
from eyeline.errors import DatasetError

HASH_SIDE = 16  # 16 x 16 comparisons = 256 bits
NEAR = 28
"""Bits that may differ between two versions of one picture. Measured on 300 images of ECSSD scaled to
288 and compressed as WebP at quality 60: 7 in the median, 27 at most; the nearest of 10,553 unrelated
pictures differs in 36 or more (1,000 images)."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Union:
    """Pairs of several datasets.

    Attributes:
        pairs: what is kept; with several sets, names begin with the set's name.
        dropped: (name of the pair left out, name of the picture that it repeats).
    """

    pairs: list[Pair]
    dropped: list[tuple[str, str]]


def difference_hash(image: Image.Image) -> Hashes:
    """Signs of horizontal differences of a 17 x 16 thumbnail, uint64 (4,).

    The dHash of N. Krawetz, "Kind of Like That" (hackerfactor.com, 2013), at 16 in place of 8 lines.
    """
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def find_union(
    roots: Sequence[Path],
    without: Sequence[Path] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Union:
    """The pairs of all `roots`, in order, less near-duplicates of an earlier set.

    One set alone is returned as it stands: its own duplicates share a fold and do no harm.

    Args:
        roots: datasets, see `eyeline.datasets.pairs.find_pairs`.
        without: datasets that are kept apart for testing: what resembles one of their pictures is
            dropped as well.
        on_progress: called with pictures compared and in all.

    Raises:
        DatasetError: see `find_pairs`; two sets of one name; or nothing is left.
    """
    sets = [find_pairs(root) for root in roots]
    if len(sets) == 1 and not without:
        return Union(sets[0], [])
    names = [root.stem for root in roots]
    if len(set(names)) < len(names):
        raise DatasetError(f"two datasets are named {names[-1]}", "rename one of the folders")
    apart = [find_pairs(root) for root in without]
    total = sum(map(len, sets)) + sum(map(len, apart))
    done = 0
    seen: Hashes = np.empty((0, 4), np.uint64)
    seen_names: list[str] = []

    def remember(prefix: str, pairs: list[Pair], hashes: Hashes) -> None:
        nonlocal seen
        seen = np.concatenate([seen, hashes])
        seen_names.extend(f"{prefix}/{p.name}" for p in pairs)

    def hashes_of(pairs: list[Pair]) -> Hashes:
        nonlocal done
        rows = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for row in pool.map(lambda p: difference_hash(read_image(p.image)), pairs):
                rows.append(row)
                done += 1
                on_progress(done, total)
        return np.array(rows, np.uint64).reshape(-1, 4)

    for root, pairs in zip(without, apart, strict=True):
        remember(root.stem, pairs, hashes_of(pairs))
    kept: list[Pair] = []
    dropped: list[tuple[str, str]] = []
    for name, pairs in zip(names, sets, strict=True):
        hashes = hashes_of(pairs)
        twin = [_twin(h, seen) for h in hashes]
        dropped += [
            (f"{name}/{p.name}", seen_names[t]) for p, t in zip(pairs, twin, strict=True) if t >= 0
        ]
        own = [p for p, t in zip(pairs, twin, strict=True) if t < 0]
        remember(name, own, hashes[[t < 0 for t in twin]])
        kept += [replace(p, name=f"{name}/{p.name}") for p in own] if len(sets) > 1 else own
    if not kept:
        raise DatasetError(
            f"{', '.join(names)}: every picture repeats one that is kept apart", "name other sets"
        )
    return Union(kept, dropped)


def _twin(one: Hashes, others: Hashes) -> int:
    """Index of the nearest of `others` within `NEAR` bits, or -1."""
    if not len(others):
        return -1
    distances = np.bitwise_count(others ^ one).sum(1)
    nearest = int(distances.argmin())
    return nearest if distances[nearest] <= NEAR else -1
