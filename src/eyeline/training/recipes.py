"""Recipes: a training run as data. The built-in ones are TOML files in the folder `recipes/`."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eyeline.errors import TrainingError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Phase(_Strict):
    """A stretch of epochs at its own crop sizes.

    Attributes:
        until: the epoch at which the phase ends, exclusive.
        crops: (height, width) pairs to draw from, one a batch; multiples of 32.
    """

    until: int = Field(gt=0)
    crops: list[tuple[int, int]] = Field(min_length=1)


class Restart(_Strict):
    """A learning rate that rises again.

    Attributes:
        epoch: the epoch that begins with it.
        lr: its height, as a share of the recipe's peak.
    """

    epoch: int = Field(gt=0)
    lr: float = Field(gt=0, le=1)


class Recipe(_Strict):
    """Everything that decides a training run, besides the data and the versions.

    Attributes:
        name: id of the run.
        net: `arch` and its arguments, see `eyeline.training.nets`.
        epochs: passes over the training fold.
        batch: images a step.
        lr: peak learning rate.
        weight_decay: AdamW's decoupled weight decay.
        warmup: share of the steps with a rising learning rate.
        restarts: warm restarts of the cosine, in order of their epochs.
        optimizer: AdamW, or Adam without decay.
        ema: decay of the exponential moving average of the weights; 0 = none.
        overlap: the overlap term beside cross-entropy.
        edge: weight of boundary pixels in the cross-entropy, 0 = uniform.
        teacher: share of the teacher's soft map in the target, 0..1.
        deep: weight of the side heads' losses.
        phases: crop sizes over time.
        augmentation: arguments of `eyeline.training.augment.Augmentation`.
        selection_share: share of the images that select an epoch, 0..1.
        selection_lines: short side, in pixels, at which they are scored: the model's working size.
        store: side of the squashed training arrays, pixels.
        seed: seed of everything random.
        bf16: compute convolutions in bfloat16.
    """

    name: str
    net: dict[str, Any]
    epochs: int = Field(gt=0)
    batch: int = Field(default=32, gt=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    restarts: list[Restart] = []
    optimizer: Literal["adam", "adamw"] = "adamw"
    ema: float = Field(default=0.0, ge=0, lt=1)
    overlap: Literal["iou", "dice"] = "iou"
    edge: float = Field(default=0.0, ge=0)
    teacher: float = Field(default=0.0, ge=0, le=1)
    deep: float = Field(default=0.0, ge=0)
    phases: list[Phase] = Field(min_length=1)
    augmentation: dict[str, Any] = {}
    selection_share: float = Field(default=0.05, gt=0, lt=1)
    selection_lines: int = Field(default=192, ge=32)
    store: int = Field(default=256, gt=0)
    seed: int = 0
    bf16: bool = False

    def crops(self, epoch: int) -> list[tuple[int, int]]:
        """Crop sizes of an epoch."""
        for phase in self.phases:
            if epoch < phase.until:
                return phase.crops
        return self.phases[-1].crops


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    folder = resources.files("eyeline.training") / "recipes"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load_recipe(name_or_path: str) -> Recipe:
    """Read a built-in recipe by name, or any recipe from a TOML file.

    Raises:
        TrainingError: no such recipe, or one that does not parse.
    """
    if name_or_path in recipe_names():
        text = (
            resources.files("eyeline.training") / "recipes" / f"{name_or_path}.toml"
        ).read_text()
    elif Path(name_or_path).is_file():
        text = Path(name_or_path).read_text()
    else:
        raise TrainingError(f"no recipe {name_or_path!r}", f"built in: {', '.join(recipe_names())}")
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as exc:
        first = str(exc).replace("\n", " ")[:300]
        raise TrainingError(f"recipe {name_or_path}: {first}", "fix the recipe") from exc
