"""Image/mask pairs for training: split by content, and held as uint8 arrays.

`load_arrays` decodes a set of `eyeline.datasets.pairs` once into a cache of memory-mapped arrays, which
batches are gathered from. Nothing here knows about nets.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eyeline.datasets.files import file_digest
from eyeline.datasets.pairs import Pair, check_sizes, read_image, read_mask
from eyeline.errors import DatasetError
from eyeline.output import write_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrays:
    """A dataset in memory-mapped arrays, squashed to a square; `aspect` undoes the squash.

    Attributes:
        names: N names.
        images: uint8 (N, S, S, 3), RGB.
        masks: uint8 (N, S, S), 0 or 255 except where the resize blends an edge.
        aspect: float32 (N,), width / height of the original image.
        train: bool (N,), False for the fold that only selects an epoch.
        digest: sha256 hex digest over all pairs, images and masks.
        facts: what the run record says of the data: pairs, empty masks, what was dropped.
    """

    names: list[str]
    images: np.ndarray
    masks: np.ndarray
    aspect: np.ndarray
    train: np.ndarray
    digest: str
    facts: dict[str, Any]


def is_selection_fold(digest: str, share: float) -> bool:
    """Whether an image belongs to the fold that selects an epoch: decided by its content alone.

    Duplicates share a digest, so they can't cross the split.
    """
    return int(digest[:8], 16) / 0xFFFFFFFF < share


def load_arrays(
    pairs: list[Pair],
    size: int,
    selection_share: float,
    cache: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Arrays:
    """Decode a dataset once into `cache`, or map what an earlier call left there.

    Args:
        pairs: see `eyeline.datasets.pairs.find_pairs` and `eyeline.datasets.union.find_union`.
        size: side S of the squashed square, in pixels.
        selection_share: share of the images in the fold that selects an epoch, 0..1.
        cache: folder for the arrays, named by the digest of images and masks.
        on_progress: called with pairs decoded and in all.

    Raises:
        DatasetError: unreadable pictures, sizes that differ, single pixels, masks of one class
            only, or a fold without images.
    """
    digest = hashlib.sha256(
        "\n".join(p.name + p.digest + file_digest(p.mask) for p in pairs).encode()
    ).hexdigest()
    train = np.array([not is_selection_fold(p.digest, selection_share) for p in pairs])
    if not train.any() or train.all():
        raise DatasetError(f"{len(pairs)} pairs leave a fold empty", "add images")
    folder = cache / f"{digest[:16]}-{size}"
    index = folder / "index.json"
    if not index.exists():
        check_sizes(pairs)
        _fill_cache(pairs, size, folder, on_progress)
    facts = json.loads(index.read_text())
    aspect = np.array(facts.pop("aspect"), np.float32)
    _weigh(facts, pairs)
    return Arrays(
        names=[p.name for p in pairs],
        images=np.load(folder / "images.npy", mmap_mode="r"),
        masks=np.load(folder / "masks.npy", mmap_mode="r"),
        aspect=aspect,
        train=train,
        digest=digest,
        facts={"pairs": len(pairs), **facts},
    )


def _weigh(facts: dict[str, Any], pairs: list[Pair]) -> None:
    """Say how many masks hold one class only; refuse a set that holds nothing else."""
    for kind in ("empty", "full"):
        names = facts[f"{kind}_masks"]
        if names:
            log.warning("%d masks are %s, first %s: they are kept", len(names), kind, names[0])
    if len(facts["empty_masks"]) + len(facts["full_masks"]) == len(pairs):
        raise DatasetError(
            f"all {len(pairs)} masks hold one class only",
            "is white the object, and black the rest?",
        )


def _fill_cache(
    pairs: list[Pair], size: int, folder: Path, on_progress: Callable[[int, int], None]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    n = len(pairs)
    create: Callable[..., np.memmap[Any, Any]] = np.lib.format.open_memmap
    images = create(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(n, size, size, 3))
    masks = create(folder / "masks.npy", mode="w+", dtype=np.uint8, shape=(n, size, size))
    aspect = np.empty(n, np.float32)
    share = np.empty(n, np.float32)

    def fill(i: int) -> None:
        image, mask = read_image(pairs[i].image), read_mask(pairs[i].mask)
        aspect[i] = image.width / image.height
        share[i] = np.asarray(mask).mean() / 255
        images[i] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
        masks[i] = np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(fill, range(n)), 1):
            on_progress(done, n)
    images.flush()
    masks.flush()
    facts = {
        "aspect": [float(a) for a in aspect],
        "empty_masks": [p.name for p, s in zip(pairs, share, strict=True) if s == 0],
        "full_masks": [p.name for p, s in zip(pairs, share, strict=True) if s == 1],
    }
    write_bytes(folder / "index.json", json.dumps(facts).encode())


def epoch_batches(count: int, batch: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Index batches of one epoch, int64 (batch,): a permutation that seed and epoch alone decide."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    for start in range(0, count - batch + 1, batch):
        yield order[start : start + batch]
