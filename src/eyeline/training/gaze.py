"""Training on recorded gaze: densities as data, batches of them, the loss, and an epoch's scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import IterableDataset

from eyeline.datasets.fixations import FixationSet, Stimulus, fold_of, gaze_density
from eyeline.datasets.pairs import read_image
from eyeline.digests import sha256_hex
from eyeline.errors import DatasetError, TrainingError
from eyeline.files import write_bytes
from eyeline.training.data import Augmentation, epoch_batches, normalise, photometric
from eyeline.training.module import TrainingModule, gather
from eyeline.training.recipes import GazeRecipe

GRID = (96, 128)
"""Rows and columns of the stored densities and of the loss: a blur of 3 % of the width is 4 columns."""

Batch = tuple[Tensor, Tensor]
"""Augmented input (N, 3, H, W) and density (N, 1, *GRID) of sum 1; float32."""


@dataclass(frozen=True)
class GazeArrays:
    """Pictures with the density of their viewers' gaze, in memory-mapped arrays.

    Attributes:
        names: N names, each with its set's name in front.
        images: uint8 (N, S, S, 3), RGB, squashed to a square.
        densities: float16 (N, 96, 128), each divided by its maximum.
        train: bool (N,), False for the fold that only selects an epoch.
        digest: sha256 hex digest over names, pictures and fixation tables.
        facts: what the run record says of the data.
    """

    names: list[str]
    images: np.ndarray
    densities: np.ndarray
    train: np.ndarray
    digest: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Unlabelled:
    """Pictures without recorded gaze, and a teacher's density of each.

    Attributes:
        images: uint8 (M, S, S, 3), RGB, squashed to a square.
        densities: float16 (M, 96, 128), each divided by its maximum.
    """

    images: np.ndarray
    densities: np.ndarray


def load_gaze_arrays(
    sets: Sequence[FixationSet],
    size: int,
    cache: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> GazeArrays:
    """Decode the pictures of fixation sets once into `cache`, or map what an earlier call left.

    The fold that reports (see `eyeline.datasets.fixations.fold_of`) is left out.

    Args:
        sets: sets of images.
        size: side S of the squashed square, pixels.
        cache: folder for the arrays, named by the sets' digests.
        on_progress: called with pictures decoded and in all.

    Raises:
        DatasetError: a set of videos, a picture that cannot be read, or a fold without pictures.
    """
    for s in sets:
        if s.kind != "images":
            raise DatasetError(
                f"{s.name} holds videos, and training needs images", "give fixation sets of images"
            )
    kept = [
        (f"{s.name}/{t.name}", t)
        for s in sets
        for t in s.stimuli
        if len(t.fixations) and fold_of(t.digest) != "report"
    ]
    train = np.array([fold_of(t.digest) == "train" for _, t in kept])
    if not train.any() or train.all():
        raise DatasetError(
            f"{len(kept)} pictures leave a fold empty: some must train, others select the epoch",
            "add pictures",
        )
    digest = sha256_hex("\n".join(s.digest for s in sets).encode())
    folder = cache / f"gaze-{digest[:16]}-{size}"
    if not (folder / "done").exists():
        _fill(kept, size, folder, on_progress)
    facts = {
        "pictures": len(kept),
        "fixations": sum(len(t.fixations) for _, t in kept),
        "problems": {s.name: {p.kind: p.count for p in s.problems} for s in sets},
    }
    return GazeArrays(
        names=[name for name, _ in kept],
        images=np.load(folder / "images.npy", mmap_mode="r"),
        densities=np.load(folder / "densities.npy", mmap_mode="r"),
        train=train,
        digest=digest,
        facts=facts,
    )


def _fill(
    kept: list[tuple[str, Stimulus]],
    size: int,
    folder: Path,
    on_progress: Callable[[int, int], None],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    n, (rows, columns) = len(kept), GRID
    create: Callable[..., np.memmap[Any, Any]] = np.lib.format.open_memmap
    images = create(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(n, size, size, 3))
    densities = create(
        folder / "densities.npy", mode="w+", dtype=np.float16, shape=(n, rows, columns)
    )

    def fill(i: int) -> None:
        stimulus = kept[i][1]
        picture = read_image(stimulus.source)
        images[i] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
        # At the picture's own aspect, then squashed as the picture is: the blur stays round.
        height = max(1, round(columns * picture.height / picture.width))
        density = Image.fromarray(gaze_density(stimulus.fixations, columns, height))
        squashed = np.asarray(density.resize((columns, rows), Image.Resampling.BOX))
        densities[i] = squashed / squashed.max()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(fill, range(n)), 1):
            on_progress(done, n)
    images.flush()
    densities.flush()
    write_bytes(folder / "done", b"")


class GazeBatches(IterableDataset[Batch]):
    """Augmented batches of one epoch: what is in them depends on the seed, the epoch and the step.

    Args:
        recipe: see `eyeline.training.recipes`.
        arrays: pictures with recorded gaze.
        unlabelled: pictures with a teacher's density, or None.
        epoch: which epoch.
        device: where the augmentation runs.
        share: which of how many devices this one is; it takes every n-th image of a batch.
    """

    def __init__(
        self,
        recipe: GazeRecipe,
        arrays: GazeArrays,
        unlabelled: Unlabelled | None,
        epoch: int,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.recipe, self.arrays, self.unlabelled = recipe, arrays, unlabelled
        self.epoch, self.device, self.share = epoch, device, share
        self.augmentation = Augmentation(**recipe.augmentation)
        self.indices = np.flatnonzero(arrays.train)

    def __len__(self) -> int:
        return len(self.indices) // self.recipe.batch

    def __iter__(self) -> Iterator[Batch]:
        r = self.recipe
        rank, world = self.share
        for step, chosen in enumerate(
            epoch_batches(len(self.indices), r.batch, r.seed, self.epoch)
        ):
            yield self.make(np.sort(self.indices[chosen])[rank::world], step)

    def make(self, indices: np.ndarray, step: int) -> Batch:
        """Return one batch: the pictures at `indices`, int64 (N,), then unlabelled ones."""
        r = self.recipe
        seed = (r.seed * 10_007 + self.epoch) * 1_000_003 + step + (self.share[0] << 40)
        g = torch.Generator().manual_seed(seed)
        parts = [self._gather(self.arrays.images, self.arrays.densities, indices)]
        if self.unlabelled is not None and r.unlabelled:
            count = len(self.unlabelled.images)
            chosen = torch.randint(count, (r.unlabelled // self.share[1],), generator=g)
            rows = np.sort(chosen.numpy())
            parts.append(self._gather(self.unlabelled.images, self.unlabelled.densities, rows))
        image = torch.cat([p[0] for p in parts])
        density = torch.cat([p[1] for p in parts])
        flip = (torch.rand(len(image), generator=g) < 0.5).to(self.device)[:, None, None, None]
        image = torch.where(flip, image.flip(3), image)
        density = torch.where(flip, density.flip(3), density)
        image = F.interpolate(image, size=(r.height, r.width), mode="bilinear", antialias=True)
        return normalise(photometric(image, self.augmentation, g)), density

    def _gather(self, images: np.ndarray, densities: np.ndarray, rows: np.ndarray) -> Batch:
        return gather(images, rows, self.device), _densities(densities, rows, self.device)


def _densities(stored: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Stored densities as float32 (N, 1, *GRID) of sum 1."""
    d = torch.from_numpy(np.ascontiguousarray(stored[rows])).to(device)[:, None].float()
    return d / d.sum((1, 2, 3), keepdim=True)


def divergence(logits: Tensor, density: Tensor) -> Tensor:
    """Return KL(recorded density, predicted density) per picture, nats, float32 (N,).

    Args:
        logits: float32 (N, 1, h, w); their softmax is the predicted density.
        density: float32 (N, 1, h, w), sum 1.
    """
    t, log_p = density.flatten(1), F.log_softmax(logits.flatten(1), 1)
    return (torch.xlogy(t, t) - t * log_p).sum(1)


def correlation(logits: Tensor, density: Tensor) -> Tensor:
    """Return Pearson's correlation of predicted and recorded density per picture, float32 (N,).

    Args:
        logits: float32 (N, 1, h, w); their softmax is the predicted density.
        density: float32 (N, 1, h, w), sum 1.
    """
    p, t = logits.flatten(1).softmax(1), density.flatten(1)
    p, t = p - p.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
    return F.cosine_similarity(p, t, dim=1, eps=1e-12)


class GazeModule(TrainingModule):
    """Training on recorded gaze.

    Args:
        recipe: the run's recipe.
        arrays: pictures with recorded gaze.
        unlabelled: pictures with a teacher's density, or None.

    Raises:
        TrainingError: the recipe needs unlabelled pictures, and there are none.
    """

    measures = ("kl", "cc")

    def __init__(
        self, recipe: GazeRecipe, arrays: GazeArrays, unlabelled: Unlabelled | None
    ) -> None:
        super().__init__(recipe, arrays.train)
        if recipe.unlabelled and unlabelled is None:
            raise TrainingError(
                f"recipe {recipe.name} learns from unlabelled pictures, and none were given",
                "add --unlabelled SET and --teacher MODEL, or set unlabelled = 0 in the recipe",
            )
        self.arrays, self.unlabelled = arrays, unlabelled

    def batches(self, share: tuple[int, int]) -> IterableDataset[Batch]:
        """Return this epoch's batches for one device."""
        return GazeBatches(
            self.recipe, self.arrays, self.unlabelled, self.current_epoch, self.device, share
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW's groups: the encoder learns slower than the rest."""
        r = self.recipe
        groups = []
        for name, module in self.net.named_children():
            lr = r.lr * (r.encoder_lr if name == "encoder" else 1.0)
            decayed = [p for p in module.parameters() if p.ndim > 1]
            plain = [p for p in module.parameters() if p.ndim <= 1]
            groups.append({"params": decayed, "weight_decay": r.weight_decay, "lr": lr})
            groups.append({"params": plain, "weight_decay": 0.0, "lr": lr})
        own = list(self.net.parameters(recurse=False))
        return [*groups, {"params": own, "weight_decay": 0.0, "lr": r.lr}]

    def logits(self, net: torch.nn.Module, image: Tensor) -> Tensor:
        """Return a net's logits at the resolution of the densities, float32 (N, 1, *GRID)."""
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            y: Tensor = net(image)[0]
        return F.interpolate(y.float(), size=GRID, mode="bilinear", align_corners=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Divergence less weighted correlation, a mean over pictures."""
        image, density = batch
        logits = self.logits(self.net, image)
        loss = divergence(logits, density) - self.recipe.correlation * correlation(logits, density)
        return self.finish_step(loss.mean(), batch_idx)

    @torch.no_grad()
    def predict_one(self, index: int) -> tuple[Tensor, Tensor]:
        """Predict the logits of one stored picture with the averaged net.

        Returns:
            Logits, and the recorded density of sum 1, float32 (1, 1, *GRID).
        """
        r, rows = self.recipe, np.array([index])
        image = gather(self.arrays.images, rows, self.device)
        image = F.interpolate(image, size=(r.height, r.width), mode="bilinear", antialias=True)
        density = _densities(self.arrays.densities, rows, self.device)
        return self.logits(self.best_net, normalise(image)), density

    def score_one(self, index: int) -> dict[str, Tensor]:
        """Score the averaged net on one stored picture: divergence in nats, and correlation."""
        logits, density = self.predict_one(index)
        return {"kl": divergence(logits, density)[0], "cc": correlation(logits, density)[0]}

    def example(self, index: int) -> tuple[tuple[np.ndarray, ...], float]:
        """Return one stored picture, its density and the predicted one, uint8, and 4:3."""
        logits, density = self.predict_one(index)
        shown = [logits.flatten(1).softmax(1).view_as(logits), density]
        predicted, recorded = (
            np.round((d / d.max())[0, 0].cpu().numpy() * 255).astype(np.uint8) for d in shown
        )
        return (self.arrays.images[index], recorded, predicted), 4 / 3

    def selection_score(self, means: dict[str, float]) -> float:
        """Return the correlation less the divergence."""
        return means.get("cc", 0.0) - means.get("kl", 10.0)
