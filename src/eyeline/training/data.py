"""Image/mask pairs for training: split by content, and held as uint8 arrays.

`load_arrays` decodes a set of `eyeline.datasets` once into a cache of memory-mapped arrays, which
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

from eyeline.datasets import Pair, find_pairs, read_image, read_mask
from eyeline.errors import DatasetError

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
        digest: sha256 hex digest over all pairs.
    """

    names: list[str]
    images: np.ndarray
    masks: np.ndarray
    aspect: np.ndarray
    train: np.ndarray
    digest: str


def is_selection_fold(digest: str, share: float) -> bool:
    """Whether an image belongs to the fold that selects an epoch: decided by its content alone.

    Duplicates share a digest, so they can't cross the split.
    """
    return int(digest[:8], 16) / 0xFFFFFFFF < share


def load_arrays(root: Path, size: int, selection_share: float, cache: Path) -> Arrays:
    """Decode a dataset once into `cache`, or map what an earlier call left there.

    Args:
        root: folder, tar or zip, see `eyeline.datasets.find_pairs`.
        size: side S of the squashed square, in pixels.
        selection_share: share of the images in the fold that selects an epoch, 0..1.
        cache: folder for the arrays; they are replaced when the dataset's digest changes.

    Raises:
        DatasetError: see `eyeline.datasets`; or a fold without images.
    """
    pairs = find_pairs(root)
    digest = hashlib.sha256("\n".join(p.name + p.digest for p in pairs).encode()).hexdigest()
    train = np.array([not is_selection_fold(p.digest, selection_share) for p in pairs])
    if not train.any() or train.all():
        raise DatasetError(f"{root}: {len(pairs)} pairs leave a fold empty", "add images")
    folder = cache / f"{digest[:16]}-{size}"
    index = folder / "index.json"
    if not index.exists():
        _fill_cache(pairs, size, folder)
    aspect = np.array(json.loads(index.read_text())["aspect"], np.float32)
    return Arrays(
        names=[p.name for p in pairs],
        images=np.load(folder / "images.npy", mmap_mode="r"),
        masks=np.load(folder / "masks.npy", mmap_mode="r"),
        aspect=aspect,
        train=train,
        digest=digest,
    )


def _fill_cache(pairs: list[Pair], size: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    log.info("decoding %d pairs into %s", len(pairs), folder)
    n = len(pairs)
    create: Callable[..., np.memmap[Any, Any]] = np.lib.format.open_memmap
    images = create(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(n, size, size, 3))
    masks = create(folder / "masks.npy", mode="w+", dtype=np.uint8, shape=(n, size, size))
    aspect = np.empty(n, np.float32)

    def fill(i: int) -> None:
        image, mask = read_image(pairs[i].image), read_mask(pairs[i].mask)
        if image.size != mask.size:
            raise DatasetError(
                f"{pairs[i].name}: image is {image.size}, mask is {mask.size}", "fix the pair"
            )
        aspect[i] = image.width / image.height
        images[i] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
        masks[i] = np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(n)):
            pass
    images.flush()
    masks.flush()
    (folder / "index.json").write_text(json.dumps({"aspect": [float(a) for a in aspect]}))


def epoch_batches(count: int, batch: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Index batches of one epoch, int64 (batch,): a permutation that seed and epoch alone decide."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    for start in range(0, count - batch + 1, batch):
        yield order[start : start + batch]
