"""Image/mask pairs for training: split by content, and held as uint8 arrays.

`load_arrays` decodes a set of `eyeline.datasets.pairs` once into a cache of memory-mapped arrays, which
batches are gathered from. Nothing here knows about nets.

Batched augmentation on whichever device holds the batch: geometry, colour, and video's defects.

Each step draws from a generator seeded by (seed, step), so that a resumed run continues
bit-equally and the result does not depend on the number of loader workers (there are none).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from eyeline.datasets.files import file_digest
from eyeline.datasets.pairs import Pair, check_sizes, read_image, read_mask
from eyeline.errors import DatasetError
from eyeline.files import write_bytes
from eyeline.runtime import IMAGENET_MEAN, IMAGENET_STD

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
        pairs: see `eyeline.datasets.pairs.find_pairs` and `eyeline.datasets.pairs.find_union`.
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


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; every probability is per image.

    Attributes:
        scale: side of the crop relative to the largest that fits (above 1 zooms out).
        aspect: largest log2 change of the aspect ratio.
        rotation: largest rotation, degrees.
        jitter: largest relative change of brightness, contrast and saturation.
        warmth: largest relative change of red against blue.
        grey, gamma, blur, noise, blocks: probability of that change.
    """

    scale: tuple[float, float] = (0.55, 1.2)
    aspect: float = 0.25
    rotation: float = 8.0
    jitter: float = 0.3
    warmth: float = 0.1
    grey: float = 0.08
    gamma: float = 0.3
    blur: float = 0.15
    noise: float = 0.15
    blocks: float = 0.2


def _uniform(g: torch.Generator, n: int, low: float, high: float) -> Tensor:
    return torch.rand(n, generator=g) * (high - low) + low


def crop_grid(
    aspect: Tensor, height: int, width: int, a: Augmentation, g: torch.Generator
) -> Tensor:
    """Sampling grid, float32 (N, height, width, 2) in [-1, 1], of one random crop per image.

    The source arrays are squashed squares: the crop is chosen in the image's own geometry and
    then expressed in the square's coordinates, so that objects keep their shape.

    Args:
        aspect: float32 (N,), width / height of the original images.
        height: rows of the crop, pixels.
        width: columns of the crop, pixels.
        a: the ranges.
        g: source of randomness.
    """
    n = len(aspect)
    target = (width / height) * torch.exp2(_uniform(g, n, -a.aspect, a.aspect))
    scale = _uniform(g, n, *a.scale)
    # Half extents of the crop in units of the image's half height; the largest that fits has scale 1.
    half_h = scale * torch.minimum(torch.ones(n), aspect / target)
    half_w = half_h * target
    free_x, free_y = aspect - half_w, 1.0 - half_h
    cx = free_x.abs() * _uniform(g, n, -1, 1)
    cy = free_y.abs() * _uniform(g, n, -1, 1)
    angle = _uniform(g, n, -1, 1) * math.radians(a.rotation)
    flip = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([flip * cos * half_w / aspect, -sin * half_h / aspect, cx / aspect], 1),
            torch.stack([flip * sin * half_w, cos * half_h, cy], 1),
        ],
        1,
    )
    return F.affine_grid(theta, [n, 1, height, width], align_corners=False)


def _jpeg_like(x: Tensor, strength: Tensor) -> Tensor:
    """Quantise 8x8 DCT coefficients, coarser at high frequencies: the blocks of a starved encode."""
    n, c, h, w = x.shape
    k = torch.arange(8, dtype=x.dtype, device=x.device)
    dct = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    dct[0] /= math.sqrt(2)
    blocks = x.reshape(n, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    coefficients = dct @ blocks @ dct.T
    step = (1 + k[:, None] + k[None]) * strength.reshape(n, 1, 1, 1, 1, 1)
    coefficients = torch.round(coefficients / step) * step
    out = (dct.T @ coefficients @ dct).permute(0, 1, 2, 4, 3, 5)
    return out.reshape(n, c, h, w).clamp(0, 1)


def _colour_matrix(n: int, a: Augmentation, g: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and white balance of each image as one (N, 3, 3) matrix."""
    saturation = _uniform(g, n, 1 - 2 * a.jitter, 1 + 2 * a.jitter)
    saturation = torch.where(torch.rand(n, generator=g) < a.grey, torch.zeros(n), saturation)
    identity, mean = torch.eye(3)[None], torch.full((1, 3, 3), 1 / 3)
    matrix = mean + (identity - mean) * saturation[:, None, None]
    warmth = _uniform(g, n, -a.warmth, a.warmth)
    balance = 1 + torch.stack([warmth, torch.zeros(n), -warmth], 1)
    gain = _uniform(g, n, 1 - a.jitter, 1 + a.jitter)
    return matrix * (balance * gain[:, None])[:, :, None]


def photometric(x: Tensor, a: Augmentation, g: torch.Generator) -> Tensor:
    """Change colour, sharpness and noise of RGB in [0, 1], float32 (N, 3, H, W); H, W multiples of 8."""
    n, _, h, w = x.shape

    def rows(probability: float) -> Tensor:
        return torch.nonzero(torch.rand(n, generator=g) < probability).flatten()

    def column(low: float, high: float, count: int) -> Tensor:
        return _uniform(g, count, low, high).to(x)[:, None, None, None]

    matrix = _colour_matrix(n, a, g).to(x)
    contrast = _uniform(g, n, 1 - a.jitter, 1 + a.jitter).to(x)[:, None, None]
    grey_point = torch.einsum("nij,nj->ni", matrix, x.mean((2, 3)))[:, :, None]
    flat = torch.baddbmm(grey_point * (1 - contrast), matrix * contrast, x.flatten(2))
    x = flat.reshape(n, 3, h, w).clamp_(1e-4, 1)
    if len(i := rows(a.gamma)):
        x[i] = x[i] ** torch.exp2(column(-0.7, 0.7, len(i)))
    if len(i := rows(a.blur)):
        half = F.avg_pool2d(x[i], 2)
        x[i] = F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
    if len(i := rows(a.noise)):
        noise = torch.randn((len(i), 3, h, w), generator=g).to(x)
        x[i] = (x[i] + noise * column(0.005, 0.05, len(i))).clamp_(0, 1)
    if len(i := rows(a.blocks)):
        x[i] = _jpeg_like(x[i], _uniform(g, len(i), 0.01, 0.08).to(x))
    return x


def normalise(x: Tensor) -> Tensor:
    """ImageNet-normalise RGB in [0, 1], float32 (N, 3, H, W)."""
    mean = torch.tensor(IMAGENET_MEAN).to(x)[None, :, None, None]
    std = torch.tensor(IMAGENET_STD).to(x)[None, :, None, None]
    return (x - mean) / std
