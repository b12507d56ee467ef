"""Image/mask pairs for training: found, checked, split by content, and held as uint8 arrays.

`find_pairs` names every problem of a dataset; `load_arrays` decodes it once into a cache of
memory-mapped arrays, which batches are gathered from. Nothing here knows about nets.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from eyeline.errors import DatasetError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
IMAGE_FOLDERS = ("images", "DUTS-TR-Image", "DUTS-TE-Image", "Image")
MASK_FOLDERS = ("masks", "DUTS-TR-Mask", "DUTS-TE-Mask", "GT")
MASK_THRESHOLD = 127  # a pixel is foreground above this value, as the sets' authors evaluate


@dataclass(frozen=True)
class Pair:
    """One image and its ground-truth mask.

    Attributes:
        name: file name without suffix, unique in its dataset.
        image: path of the image.
        mask: path of the mask.
        digest: sha256 hex digest of the image file's bytes; decides the split.
    """

    name: str
    image: Path
    mask: Path
    digest: str


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


def _subfolder(root: Path, candidates: Iterable[str]) -> Path:
    names = list(candidates)
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DatasetError(f"{root}: no folder of images and masks here", f"expected one of {names}")


def find_pairs(root: Path) -> list[Pair]:
    """List the image/mask pairs of a dataset folder, sorted by name.

    Args:
        root: folder with `images/` + `masks/`, or DUTS's own folder names.

    Raises:
        DatasetError: no such folder, no pairs, or an image without its mask (or the reverse).
    """
    image_dir, mask_dir = _subfolder(root, IMAGE_FOLDERS), _subfolder(root, MASK_FOLDERS)
    images = {p.stem: p for p in image_dir.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES}
    masks = {p.stem: p for p in mask_dir.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES}
    lonely = sorted(images.keys() ^ masks.keys())
    if lonely:
        raise DatasetError(
            f"{root}: {len(lonely)} files without a partner, first {lonely[0]!r}",
            "every image needs a mask of the same name",
        )
    if not images:
        raise DatasetError(f"{root}: no images found", f"suffixes read: {IMAGE_SUFFIXES}")
    return [
        Pair(name, images[name], masks[name], hashlib.sha256(images[name].read_bytes()).hexdigest())
        for name in sorted(images)
    ]


def is_selection_fold(digest: str, share: float) -> bool:
    """Whether an image belongs to the fold that selects an epoch: decided by its content alone.

    Duplicates share a digest, so they can't cross the split.
    """
    return int(digest[:8], 16) / 0xFFFFFFFF < share


def read_image(path: Path) -> Image.Image:
    """Open an image as upright 8-bit RGB.

    Raises:
        DatasetError: unreadable or truncated file.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError) as exc:
        raise DatasetError(
            f"{path}: unreadable image: {exc}", "replace or remove the pair"
        ) from exc


def read_mask(path: Path) -> Image.Image:
    """Open a mask as 8-bit grey holding only 0 and 255.

    Raises:
        DatasetError: unreadable or truncated file.
    """
    try:
        with Image.open(path) as image:
            return image.convert("L").point(lambda v: 255 if v > MASK_THRESHOLD else 0)
    except (OSError, SyntaxError, ValueError) as exc:
        raise DatasetError(f"{path}: unreadable mask: {exc}", "replace or remove the pair") from exc


def load_arrays(root: Path, size: int, selection_share: float, cache: Path) -> Arrays:
    """Decode a dataset once into `cache`, or map what an earlier call left there.

    Args:
        root: dataset folder, see `find_pairs`.
        size: side S of the squashed square, in pixels.
        selection_share: share of the images in the fold that selects an epoch, 0..1.
        cache: folder for the arrays; they are replaced when the dataset's digest changes.

    Raises:
        DatasetError: see `find_pairs`, `read_image`, `read_mask`; or a fold without images.
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
