"""What a training step and an epoch are: batches, losses, averaged weights, the selection score.

Losses on logits. Targets are float32 (N, 1, H, W) in [0, 1]; every loss is a scalar.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics import MeanMetric

from eyeline.errors import TrainingError
from eyeline.training.data import (
    Arrays,
    Augmentation,
    crop_grid,
    epoch_batches,
    normalise,
    photometric,
)
from eyeline.training.nets import Net, build_net
from eyeline.training.recipes import GazeRecipe, Recipe


def soft_iou(logits: Tensor, target: Tensor) -> Tensor:
    """1 - intersection over union of probabilities, per image (Rahman & Wang, ISVC 2016)."""
    p = logits.sigmoid()
    inter = (p * target).sum((1, 2, 3))
    union = (p + target - p * target).sum((1, 2, 3))
    return (1 - (inter + 1) / (union + 1)).mean()


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - Dice coefficient of probabilities, per image, epsilon 1 (Milletari et al., 3DV 2016)."""
    p = logits.sigmoid()
    inter = (p * target).sum((1, 2, 3))
    total = (p + target).sum((1, 2, 3))
    return (1 - (2 * inter + 1) / (total + 1)).mean()


def edge_weighted_bce(logits: Tensor, target: Tensor, truth: Tensor, edge: float) -> Tensor:
    """Binary cross-entropy, each pixel weighted 1 + edge * |local mean - truth|.

    The weight is the boundary term of the structure loss (Wei et al., "F3Net", AAAI 2020), with a
    window of an eighth of the height, taken at a quarter of the resolution.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if edge == 0:
        return loss.mean()
    coarse = F.avg_pool2d(truth, 4)
    window = max(3, coarse.shape[-2] // 8 | 1)
    local = F.avg_pool2d(coarse, window, stride=1, padding=window // 2, count_include_pad=False)
    local = F.interpolate(local, size=truth.shape[-2:], mode="bilinear", align_corners=False)
    weight = 1 + edge * (local - truth).abs()
    return (loss * weight).sum() / weight.sum()


OVERLAPS = {"iou": soft_iou, "dice": dice}
"""Names of the overlap term in a recipe."""


Batch = tuple[Tensor, Tensor, Tensor]
"""Augmented input (N, 3, H, W), ground truth (N, 1, H, W), training target (N, 1, H, W); float32."""


def gather(source: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
    """uint8 rows of a memory-mapped array as float32 (N, C, h, w) in [0, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(source[indices])).to(device)
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return x.float().div_(255)


class Batches(IterableDataset[Batch]):
    """Augmented batches of one epoch: what is in them depends on the seed, the epoch and the step.

    Args:
        recipe: see `eyeline.training.recipes`.
        arrays: training data.
        teacher: uint8 (N, h, w) soft maps, or None.
        epoch: which epoch.
        device: where the augmentation runs.
        share: which of how many devices this one is; it takes every n-th image of a batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        arrays: Arrays,
        teacher: np.ndarray | None,
        epoch: int,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.share = share
        self.recipe, self.arrays, self.teacher = recipe, arrays, teacher
        self.epoch, self.device = epoch, device
        self.augmentation = Augmentation(**recipe.augmentation)
        self.indices = np.flatnonzero(arrays.train)

    def __len__(self) -> int:
        return len(self.indices) // self.recipe.batch

    def __iter__(self) -> Iterator[Batch]:
        r = self.recipe
        for step, chosen in enumerate(
            epoch_batches(len(self.indices), r.batch, r.seed, self.epoch)
        ):
            rank, world = self.share
            yield self.make(np.sort(self.indices[chosen])[rank::world], step)

    def make(self, indices: np.ndarray, step: int) -> Batch:
        """One batch of the images at `indices`, int64 (N,)."""
        r = self.recipe
        seed = (r.seed * 10_007 + self.epoch) * 1_000_003 + step
        g = torch.Generator().manual_seed(seed)
        crops = r.crops(self.epoch)
        height, width = crops[int(torch.randint(len(crops), (1,), generator=g))]
        if rank := self.share[0]:  # one size on all devices, other changes on each
            g.manual_seed(seed + (rank << 40))
        aspect = torch.from_numpy(self.arrays.aspect[indices])
        grid = crop_grid(aspect, height, width, self.augmentation, g).to(self.device)

        def sample(source: np.ndarray) -> Tensor:
            x = gather(source, indices, self.device)
            return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

        image = sample(self.arrays.images)
        truth = sample(self.arrays.masks)
        target = truth
        if self.teacher is not None and r.teacher > 0:
            target = truth.lerp(sample(self.teacher), r.teacher)
        return normalise(photometric(image, self.augmentation, g)), truth, target


def learning_rate_factor(recipe: Recipe | GazeRecipe, step: int, total: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then cosine to zero.

    With `restarts` the cosine begins anew at each of them (SGDR, arXiv 1608.03983, section 3).

    Args:
        recipe: its `warmup` is a share of all steps.
        step: optimiser steps done.
        total: optimiser steps of the run.
    """
    rising = max(1, int(total * recipe.warmup))
    if step < rising:
        return (step + 1) / rising
    starts = [(rising, 1.0)]
    starts += [(round(total * r.epoch / recipe.epochs), r.lr) for r in recipe.restarts]
    ends = [start for start, _ in starts[1:]] + [total]
    (start, peak), end = max((s, e) for s, e in zip(starts, ends, strict=True) if s[0] <= step)
    share = min(1.0, (step - start) / max(1, end - start))
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def _ema_update(decay: float) -> Any:
    """Averaging that starts fast and settles at `decay` (the warm-up of TensorFlow's EMA)."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        d = min(decay, (1 + int(count)) / (10 + int(count)))
        for a, c in zip(averaged, current, strict=True):
            if a.is_floating_point():
                a.lerp_(c, 1 - d)
            else:  # BatchNorm's batch counter
                a.copy_(c)

    return update


class TrainingModule(L.LightningModule):
    """A net, its averaged copy, and what every run does: subclasses add a step and its scores.

    Args:
        recipe: the run's recipe.
        train: bool (N,), which images are learned from; the others select an epoch.

    Attributes:
        measures: names of the selection fold's scores.
        curve: one row per epoch.
    """

    measures: tuple[str, ...] = ()

    def __init__(self, recipe: Recipe | GazeRecipe, train: np.ndarray) -> None:
        super().__init__()
        self.recipe: Any = recipe
        self.train_fold = train
        self.net: Net = build_net(recipe.net)
        self.average = AveragedModel(
            self.net, multi_avg_fn=_ema_update(recipe.ema), use_buffers=True
        )
        self.average.requires_grad_(False)
        # Not Lightning's own means: over devices with unequal counts these are wrong (2.6).
        self.means = nn.ModuleDict({name: MeanMetric() for name in self.measures})
        self.curve: list[dict[str, float]] = []
        self._begun = time.monotonic()

    def batches(self, share: tuple[int, int]) -> IterableDataset[Any]:
        """Return this epoch's batches for one device, see `Batches`."""
        raise NotImplementedError

    def score_one(self, index: int) -> dict[str, Tensor]:
        """Score the averaged net on one stored image: a scalar for each of `measures`."""
        raise NotImplementedError

    def example(self, index: int) -> tuple[tuple[np.ndarray, ...], float]:
        """Return one stored image, its ground truth and the prediction, uint8, and its aspect."""
        raise NotImplementedError

    def selection_score(self, means: dict[str, float]) -> float:
        """Return the number that selects an epoch, greater is better."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        """Return this epoch's batches: made by one worker on a CPU, on the device itself otherwise."""
        on_cpu = self.device.type == "cpu"
        data = self.batches((self.trainer.global_rank, self.trainer.world_size))
        return DataLoader(data, batch_size=None, num_workers=1 if on_cpu else 0)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Return indices of the selection fold, one at a time: each image keeps its own aspect."""
        mine = slice(self.trainer.global_rank, None, self.trainer.world_size)
        indices = torch.from_numpy(np.flatnonzero(~self.train_fold)[mine])
        return DataLoader(indices, batch_size=None)  # type: ignore[arg-type]

    def finish_step(self, loss: Tensor, batch_idx: int) -> Tensor:
        """Log a step's loss and return it.

        Raises:
            TrainingError: the loss is not finite.
        """
        if not torch.isfinite(loss):
            raise TrainingError(
                f"loss is {loss.item()} in epoch {self.current_epoch}, batch {batch_idx}",
                "lower lr; the last good checkpoint is kept",
            )
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the averaged weights."""
        if self.recipe.ema:
            self.average.update_parameters(self.net)

    @property
    def seconds(self) -> float:
        """Wall-clock time so far, that of interrupted calls up to their last checkpoint included."""
        return time.monotonic() - self._begun

    @property
    def best_net(self) -> nn.Module:
        """The net whose quality counts: the averaged one when the recipe averages."""
        return self.average.module if self.recipe.ema else self.net

    def validation_step(self, index: Tensor, batch_idx: int) -> None:
        """Score one image of the selection fold."""
        scores = self.score_one(int(index))
        for name, mean in self.means.items():
            assert isinstance(mean, MeanMetric)  # noqa: S101 - as `__init__` made it
            mean.update(scores[name])
            self.log(name, mean, prog_bar=True, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        """Add a row to the curve; `score` selects the checkpoint."""
        m = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        score = self.selection_score(m)
        self.log("score", score)
        if not self.trainer.sanity_checking:
            self.curve.append({"epoch": float(self.current_epoch), **m, "score": score})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW's groups: no decay on norms and biases."""
        r = self.recipe
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        return [
            {"params": decayed, "weight_decay": r.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]

    def configure_optimizers(self) -> Any:
        """Return AdamW or Adam with a linear warm-up and a cosine to zero."""
        r = self.recipe
        kind = torch.optim.AdamW if r.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(self.parameter_groups(), lr=r.lr)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(r, step, total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the curve and the recipe to the weights."""
        checkpoint["curve"] = self.curve
        checkpoint["seconds"] = self.seconds
        checkpoint["recipe"] = self.recipe.model_dump(mode="json")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the curve, of the same recipe only.

        Raises:
            TrainingError: the checkpoint was left by another recipe.
        """
        now, then = self.recipe.model_dump(mode="json"), dict(checkpoint.get("recipe", {}))
        # Keys that came later count as they were before.
        for key, field in type(self.recipe).model_fields.items():
            if not field.is_required():
                then.setdefault(key, field.get_default(call_default_factory=True))
        changed = [key for key in now if now[key] != then.get(key)]
        if changed:
            raise TrainingError(
                f"the checkpoint there is of another recipe: {', '.join(changed)} differ",
                "name another folder, or go on with the recipe that began it",
            )
        self.curve = list(checkpoint.get("curve", []))
        self._begun = time.monotonic() - float(checkpoint.get("seconds", 0))


class StudentModule(TrainingModule):
    """Training on object masks.

    Args:
        recipe: the run's recipe.
        arrays: training data, memory-mapped.
        teacher: uint8 (N, h, w) soft maps of a teacher, or None.
    """

    measures = ("iou", "mae")

    def __init__(self, recipe: Recipe, arrays: Arrays, teacher: np.ndarray | None) -> None:
        super().__init__(recipe, arrays.train)
        if recipe.teacher > 0 and teacher is None:
            raise TrainingError(
                f"recipe {recipe.name} learns from a teacher's maps, and none were given",
                "give --teacher u2netp.onnx, or set teacher = 0 in the recipe",
            )
        self.arrays, self.teacher = arrays, teacher

    def batches(self, share: tuple[int, int]) -> IterableDataset[Batch]:
        """Return this epoch's batches for one device."""
        return Batches(
            self.recipe, self.arrays, self.teacher, self.current_epoch, self.device, share
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Weighted sum of the losses of all heads."""
        r = self.recipe
        image, truth, target = batch
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=r.bf16):
            logits = self.net(image)
        total = image.new_zeros(())
        for i, raw in enumerate(logits):
            head = raw.float()
            y, t = truth, target
            if head.shape[-2:] != t.shape[-2:]:
                y = F.interpolate(y, size=head.shape[-2:], mode="area")
                t = F.interpolate(t, size=head.shape[-2:], mode="area")
            loss = edge_weighted_bce(head, t, y, r.edge if i == 0 else 0.0)
            loss = loss + OVERLAPS[r.overlap](head, y)
            total = total + loss * (1.0 if i == 0 else r.deep)
        return self.finish_step(total, batch_idx)

    @torch.no_grad()
    def predict_one(self, index: int) -> tuple[Tensor, Tensor]:
        """The averaged net's answer for one stored image, at the selection's size.

        Returns:
            Prediction and ground truth, float32 (1, 1, S, S) in [0, 1].
        """
        i = np.array([index])
        aspect = float(self.arrays.aspect[i[0]])
        lines = self.recipe.selection_lines
        height = lines if aspect >= 1 else int(lines / aspect)
        width = int(height * aspect)
        size = (max(32, height // 32 * 32), max(32, width // 32 * 32))
        image = F.interpolate(gather(self.arrays.images, i, self.device), size=size, mode="area")
        truth = gather(self.arrays.masks, i, self.device)
        image = normalise(image).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            logits = self.best_net(image)[0]
        p = logits.float().sigmoid()
        return F.interpolate(p, size=truth.shape[-2:], mode="bilinear", align_corners=False), truth

    def score_one(self, index: int) -> dict[str, Tensor]:
        """MAE and IoU at .5 of the averaged net's answer for one stored image."""
        p, truth = self.predict_one(index)
        positive, gt = p > 0.5, truth > 0.5
        union = (positive | gt).sum().clamp(min=1)
        return {"mae": (p - truth).abs().mean(), "iou": (positive & gt).sum() / union}

    def example(self, index: int) -> tuple[tuple[np.ndarray, ...], float]:
        """Return one stored image, its mask and the prediction, uint8, and its aspect."""
        prediction, _ = self.predict_one(index)
        grey = np.round(prediction[0, 0].float().cpu().numpy() * 255).astype(np.uint8)
        a = self.arrays
        return (a.images[index], a.masks[index], grey), float(a.aspect[index])

    def selection_score(self, means: dict[str, float]) -> float:
        """Return IoU less MAE."""
        return means.get("iou", 0.0) - means.get("mae", 1.0)
