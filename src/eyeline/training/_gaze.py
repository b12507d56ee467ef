"""Train on recorded gaze: batches of pictures and gaze densities, the loss, and the scores of an epoch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eyeline.errors import TrainingError
from eyeline.training._augment import normalise, photometric
from eyeline.training.material import GAZE_GRID, Arrays, TrainingMaterial
from eyeline.training.module import Batches, TrainingModule, gather
from eyeline.training.recipes import GazeRecipe


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
