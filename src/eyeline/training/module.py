"""Define a training step and an epoch: batches, losses, averaged weights, and the selection score.

`Batches` and `TrainingModule` are base classes. `ObjectBatches` and `ObjectModule` train on object masks,
`GazeBatches` and `GazeModule` on recorded gaze.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics import MeanMetric

from eyeline.errors import TrainingError
from eyeline.training._augment import Augmentation, crop_grid, normalise, photometric
from eyeline.training.material import GAZE_GRID, Arrays, TrainingMaterial
from eyeline.training.nets import SaliencyNet, build_net
from eyeline.training.recipes import AnyRecipe, GazeRecipe, Recipe


def overlap_loss(kind: str, logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 - overlap of the probabilities with the target, averaged over the images.

    `iou` follows Rahman & Wang, ISVC 2016; `dice` follows Milletari et al., 3DV 2016.
    """
    p = logits.sigmoid()
    inter = (p * target).sum((1, 2, 3))
    if kind == "dice":
        return (1 - (2 * inter + 1) / ((p + target).sum((1, 2, 3)) + 1)).mean()
    return (1 - (inter + 1) / ((p + target - p * target).sum((1, 2, 3)) + 1)).mean()


def edge_weighted_bce(logits: Tensor, target: Tensor, truth: Tensor, edge: float) -> Tensor:
    """Return the binary cross-entropy with a weight of 1 + edge * |local mean - truth| per pixel.

    The weight is the boundary term of the structure loss (Wei et al., "F3Net", AAAI 2020). The local
    mean has a window of 1/8 of the height and is computed at a quarter of the resolution.
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


def learning_rate_factor(recipe: AnyRecipe, step: int, total: int) -> float:
    """Return the learning rate after `step` of `total` steps, as a share of its peak.

    The rate rises linearly, then falls to zero along a cosine. The cosine starts again at each of the
    `restarts` of the recipe (SGDR, arXiv 1608.03983, section 3).
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


def gather(source: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
    """Return rows of a uint8 array as float32 (N, C, h, w) in [0, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(source[indices])).to(device)
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return x.float().div_(255)


class Batches(IterableDataset[tuple[Tensor, ...]]):
    """Augmented batches of one epoch; their content depends on seed, epoch and step only.

    `share` is the rank of this device and the number n of devices; each device takes every n-th image
    of a batch. The augmentation runs on `device`.
    """

    def __init__(
        self,
        recipe: AnyRecipe,
        material: TrainingMaterial,
        epoch: int,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.recipe: Any = recipe
        self.material, self.arrays = material, material.arrays
        self.epoch, self.device = epoch, device
        self.rank, self.world = share
        self.augmentation = Augmentation(**recipe.augmentation)
        self.indices = np.flatnonzero(self.arrays.train)

    def __len__(self) -> int:
        return len(self.indices) // int(self.recipe.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        batch = self.recipe.batch
        order = np.random.default_rng([self.recipe.seed, self.epoch]).permutation(self.indices)
        for step in range(len(self)):
            chosen = np.sort(order[step * batch : (step + 1) * batch])
            yield self.make(chosen[self.rank :: self.world], step)

    def seed(self, step: int, rank: int) -> int:
        """Return the seed for the augmentation of one batch on one device."""
        return int(self.recipe.seed * 10_007 + self.epoch) * 1_000_003 + step + (rank << 40)

    def make(self, indices: np.ndarray, step: int) -> tuple[Tensor, ...]:
        """Return one batch of the images at `indices`, int64 (N,)."""
        raise NotImplementedError


class ObjectBatches(Batches):
    """Batches of input (N, 3, H, W), mask (N, 1, H, W) and training target (N, 1, H, W); float32."""

    def make(self, indices: np.ndarray, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return one batch of random crops."""
        r = self.recipe
        g = torch.Generator().manual_seed(self.seed(step, 0))
        crops = r.crops(self.epoch)
        height, width = crops[int(torch.randint(len(crops), (1,), generator=g))]
        if self.rank:  # all devices use one crop size, but different random changes
            g.manual_seed(self.seed(step, self.rank))
        aspect = torch.from_numpy(self.arrays.aspect[indices])
        grid = crop_grid(aspect, height, width, self.augmentation, g).to(self.device)

        def sample(source: np.ndarray) -> Tensor:
            x = gather(source, indices, self.device)
            return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

        image, truth = sample(self.arrays.images), sample(self.arrays.targets)
        target = truth
        if self.material.teacher is not None and r.teacher > 0:
            target = truth.lerp(sample(self.material.teacher), r.teacher)
        return normalise(photometric(image, self.augmentation, g)), truth, target


def _ema_update(decay: float) -> Any:
    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        d = min(decay, (1 + int(count)) / (10 + int(count)))  # the warm-up of TensorFlow's EMA
        for a, c in zip(averaged, current, strict=True):
            if a.is_floating_point():
                a.lerp_(c, 1 - d)
            else:  # the batch counter of BatchNorm
                a.copy_(c)

    return update


class TrainingModule(L.LightningModule):
    """A network and a copy of it with averaged weights; base class for the two tasks.

    A subclass sets the class attributes and implements `training_step`, `predict_one`, `score` and
    `show`.

    Attributes:
        batch_kind: class of the batches.
        measures: names of the scores on the selection fold.
        gain, cost: the epoch with the largest `gain - cost` is selected; names of two measures.
        curve: one row of scores per epoch.
    """

    batch_kind: ClassVar[type[Batches]]
    measures: ClassVar[tuple[str, str]]
    gain: ClassVar[str]
    cost: ClassVar[str]

    def __init__(self, recipe: AnyRecipe, material: TrainingMaterial) -> None:
        super().__init__()
        self.recipe: Any = recipe
        self.material, self.arrays = material, material.arrays
        self.net: SaliencyNet = build_net(recipe.net)
        self.average = AveragedModel(
            self.net, multi_avg_fn=_ema_update(recipe.ema), use_buffers=True
        )
        self.average.requires_grad_(False)
        # Lightning 2.6 averages wrongly if devices have different numbers of images.
        self.means = nn.ModuleDict({name: MeanMetric() for name in self.measures})
        self.curve: list[dict[str, float]] = []
        self._begun = time.monotonic()

    def predict_one(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the prediction of `best_net` and the target for one picture."""
        raise NotImplementedError

    def score(self, prediction: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Return a scalar per name in `measures`."""
        raise NotImplementedError

    def show(self, prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target and the prediction as maps with values from 0 to 1."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of this epoch. On a CPU, a worker process makes them."""
        share = self.trainer.global_rank, self.trainer.world_size
        data = self.batch_kind(self.recipe, self.material, self.current_epoch, self.device, share)
        return DataLoader(data, batch_size=None, num_workers=int(self.device.type == "cpu"))

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Return indices of the selection fold, one per step, because images differ in aspect ratio."""
        mine = slice(self.trainer.global_rank, None, self.trainer.world_size)
        indices = torch.from_numpy(np.flatnonzero(~self.arrays.train)[mine])
        return DataLoader(indices, batch_size=None)  # type: ignore[arg-type]

    def finish_step(self, loss: Tensor, batch_idx: int) -> Tensor:
        """Log the loss of a step and return it.

        Raises:
            TrainingError: the loss is not finite.
        """
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}, batch {batch_idx}",
                "set a lower lr in the recipe; the last good checkpoint is kept",
            )
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the averaged weights."""
        if self.recipe.ema:
            self.average.update_parameters(self.net)

    @property
    def seconds(self) -> float:
        """Wall-clock time so far; for a resumed run, including the time up to its last checkpoint."""
        return time.monotonic() - self._begun

    @property
    def best_net(self) -> nn.Module:
        """The network that is evaluated and saved: the one with averaged weights if `recipe.ema` is set."""
        return self.average.module if self.recipe.ema else self.net

    def validation_step(self, index: Tensor, batch_idx: int) -> None:
        """Score one image of the selection fold."""
        scores = self.score(*self.predict_one(int(index)))
        for name, mean in self.means.items():
            assert isinstance(mean, MeanMetric)  # noqa: S101 - `__init__` made the means
            mean.update(scores[name])
            self.log(name, mean, prog_bar=True, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        """Add a row to the curve. The epoch with the best `score` becomes the best checkpoint."""
        m = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        score = m[self.gain] - m[self.cost]
        self.log("score", score)
        self.curve.append({"epoch": float(self.current_epoch), **m, "score": score})

    def configure_optimizers(self) -> Any:
        """Return the optimizer: a lower rate for an encoder, and weight decay for kernels only."""
        r = self.recipe
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, p in self.net.named_parameters():
            key = name.startswith("encoder."), "." in name and p.ndim > 1
            groups.setdefault(key, []).append(p)
        kind = torch.optim.AdamW if r.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(
            [
                {
                    "params": parameters,
                    "weight_decay": r.weight_decay if kernels else 0.0,
                    "lr": r.lr * (r.encoder_lr if encoder else 1.0),
                }
                for (encoder, kernels), parameters in groups.items()
            ]
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(r, step, total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the learning curve, the elapsed time and the recipe to the checkpoint."""
        checkpoint["curve"] = self.curve
        checkpoint["seconds"] = self.seconds
        checkpoint["recipe"] = self.recipe.model_dump(mode="json")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the curve of an interrupted run.

        Raises:
            TrainingError: another recipe wrote the checkpoint.
        """
        now, then = self.recipe.model_dump(mode="json"), dict(checkpoint.get("recipe", {}))
        # A recipe key that was added after the checkpoint was written gets its default value.
        for key, field in type(self.recipe).model_fields.items():
            if not field.is_required():
                then.setdefault(key, field.get_default(call_default_factory=True))
        if changed := [key for key in now if now[key] != then.get(key)]:
            raise TrainingError(
                f"another recipe wrote the checkpoint in this folder: {', '.join(changed)} differ",
                "give another folder with --out, or use the recipe that began the run",
            )
        self.curve = list(checkpoint.get("curve", []))
        self._begun = time.monotonic() - float(checkpoint.get("seconds", 0))


class ObjectModule(TrainingModule):
    """Training on object masks.

    Raises:
        TrainingError: the recipe uses a teacher, but the material has no maps of a teacher.
    """

    batch_kind = ObjectBatches
    measures = ("iou", "mae")
    gain, cost = "iou", "mae"

    def __init__(self, recipe: Recipe, material: TrainingMaterial) -> None:
        super().__init__(recipe, material)
        if recipe.teacher > 0 and material.teacher is None:
            raise TrainingError(
                f"recipe {recipe.name} learns from a teacher's maps, but no teacher was given",
                "give --teacher u2netp.onnx, or set teacher = 0 in the recipe",
            )

    def logits(self, net: nn.Module, image: Tensor) -> list[Tensor]:
        """Return the logits of all heads of a network, float32, finest first."""
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            heads = net(image)
        return [head.float() for head in heads]

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the weighted sum of the losses of all heads."""
        r = self.recipe
        image, truth, target = batch
        total = image.new_zeros(())
        for i, head in enumerate(self.logits(self.net, image)):
            y, t = truth, target
            if head.shape[-2:] != t.shape[-2:]:
                y = F.interpolate(y, size=head.shape[-2:], mode="area")
                t = F.interpolate(t, size=head.shape[-2:], mode="area")
            loss = edge_weighted_bce(head, t, y, r.edge if i == 0 else 0.0)
            loss = loss + overlap_loss(r.overlap, head, y)
            total = total + loss * (1.0 if i == 0 else r.deep)
        return self.finish_step(total, batch_idx)

    @torch.no_grad()
    def predict_one(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the prediction and the mask of one picture, float32 (1, 1, S, S) in [0, 1]."""
        i = np.array([index])
        aspect = float(self.arrays.aspect[index])
        lines = self.recipe.selection_lines
        height = lines if aspect >= 1 else int(lines / aspect)
        width = int(height * aspect)
        size = (max(32, height // 32 * 32), max(32, width // 32 * 32))
        image = F.interpolate(gather(self.arrays.images, i, self.device), size=size, mode="area")
        truth = gather(self.arrays.targets, i, self.device)
        p = self.logits(self.best_net, normalise(image))[0].sigmoid()
        return F.interpolate(p, size=truth.shape[-2:], mode="bilinear", align_corners=False), truth

    def score(self, prediction: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Return the mean absolute error, and the IoU at a threshold of 0.5."""
        positive, gt = prediction > 0.5, truth > 0.5
        union = (positive | gt).sum().clamp(min=1)
        return {"mae": (prediction - truth).abs().mean(), "iou": (positive & gt).sum() / union}

    def show(self, prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask and the prediction."""
        return truth, prediction


class GazeBatches(Batches):
    """Batches of input (N, 3, H, W) and gaze density (N, 1, *GAZE_GRID), which sums to 1; float32."""

    def make(self, indices: np.ndarray, step: int) -> tuple[Tensor, Tensor]:
        """Return one batch: the pictures at `indices`, then randomly chosen unlabelled pictures."""
        r, unlabelled = self.recipe, self.material.unlabelled
        g = torch.Generator().manual_seed(self.seed(step, self.rank))
        parts = [_load(self.arrays, indices, self.device)]
        if unlabelled is not None and r.unlabelled:
            count = len(unlabelled.images)
            chosen = torch.randint(count, (r.unlabelled // self.world,), generator=g)
            parts.append(_load(unlabelled, np.sort(chosen.numpy()), self.device))
        image, density = (torch.cat(part) for part in zip(*parts, strict=True))
        flip = (torch.rand(len(image), generator=g) < 0.5).to(self.device)[:, None, None, None]
        image = torch.where(flip, image.flip(3), image)
        density = torch.where(flip, density.flip(3), density)
        image = F.interpolate(image, size=(r.height, r.width), mode="bilinear", antialias=True)
        return normalise(photometric(image, self.augmentation, g)), density


def _load(arrays: Arrays, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    stored = torch.from_numpy(np.ascontiguousarray(arrays.targets[rows]))
    density = stored.to(device)[:, None].float()
    return gather(arrays.images, rows, device), density / density.sum((1, 2, 3), keepdim=True)


def divergence(logits: Tensor, density: Tensor) -> Tensor:
    """Return the KL divergence of softmax(logits) from the density per picture, nats, float32 (N,)."""
    t, log_p = density.flatten(1), F.log_softmax(logits.flatten(1), 1)
    return (torch.xlogy(t, t) - t * log_p).sum(1)


def correlation(logits: Tensor, density: Tensor) -> Tensor:
    """Return the Pearson correlation of softmax(logits) with the density per picture, float32 (N,)."""
    p, t = logits.flatten(1).softmax(1), density.flatten(1)
    p, t = p - p.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
    return F.cosine_similarity(p, t, dim=1, eps=1e-12)


class GazeModule(TrainingModule):
    """Training on recorded gaze.

    Raises:
        TrainingError: the recipe uses unlabelled pictures, but the material has none.
    """

    batch_kind = GazeBatches
    measures = ("kl", "cc")
    gain, cost = "cc", "kl"

    def __init__(self, recipe: GazeRecipe, material: TrainingMaterial) -> None:
        super().__init__(recipe, material)
        if recipe.unlabelled and material.unlabelled is None:
            raise TrainingError(
                f"recipe {recipe.name} learns from unlabelled pictures, but no set of them was given",
                "add --unlabelled SET and --teacher MODEL, or set unlabelled = 0 in the recipe",
            )

    def logits(self, net: torch.nn.Module, image: Tensor) -> Tensor:
        """Return the logits of a network at the resolution of the densities, float32 (N, 1, *GAZE_GRID)."""
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            y: Tensor = net(image)[0]
        return F.interpolate(y.float(), size=GAZE_GRID, mode="bilinear", align_corners=False)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss: KL divergence minus weighted correlation, averaged over the pictures."""
        image, density = batch
        logits = self.logits(self.net, image)
        loss = divergence(logits, density) - self.recipe.correlation * correlation(logits, density)
        return self.finish_step(loss.mean(), batch_idx)

    @torch.no_grad()
    def predict_one(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the logits and the recorded density of one picture, float32 (1, 1, *GAZE_GRID)."""
        r = self.recipe
        image, density = _load(self.arrays, np.array([index]), self.device)
        image = F.interpolate(image, size=(r.height, r.width), mode="bilinear", antialias=True)
        return self.logits(self.best_net, normalise(image)), density

    def score(self, prediction: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Return the KL divergence in nats, and the correlation."""
        return {"kl": divergence(prediction, truth)[0], "cc": correlation(prediction, truth)[0]}

    def show(self, prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the recorded and the predicted density, each divided by its maximum."""
        density = prediction.flatten(1).softmax(1).view_as(truth)
        return truth / truth.max(), density / density.max()
