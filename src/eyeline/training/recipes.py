"""Recipes: a training run as data. The built-in ones are TOML files in the folder `recipes/`."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
)

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


class Run(_Strict):
    """What recipes of both tasks state.

    Attributes:
        name: id of the run.
        net: `arch` and its arguments, see `eyeline.training.nets`.
        epochs: passes over the training fold.
        batch: images per step.
        lr: peak learning rate.
        weight_decay: AdamW's decoupled weight decay.
        warmup: share of the steps with a rising learning rate.
        restarts: warm restarts of the cosine, in order of their epochs.
        optimizer: AdamW, or Adam without decay.
        ema: decay of the exponential moving average of the weights; 0 = none.
        augmentation: arguments of `eyeline.training.data.Augmentation`.
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
    augmentation: dict[str, Any] = {}
    store: int = Field(default=256, gt=0)
    seed: int = 0
    bf16: bool = False

    architectures: ClassVar[tuple[str, ...]] = ()

    @field_validator("net")
    @classmethod
    def _of_this_task(cls, net: dict[str, Any]) -> dict[str, Any]:
        if net.get("arch") not in cls.architectures:
            known = ", ".join(cls.architectures)
            raise ValueError(f"arch is {net.get('arch')!r}; nets of this task are: {known}")
        return net


class Recipe(Run):
    """Everything that decides a training run on object masks, besides the data and the versions.

    Attributes:
        overlap: the overlap term beside cross-entropy.
        edge: weight of boundary pixels in the cross-entropy, 0 = uniform.
        teacher: share of the teacher's soft map in the target, 0..1.
        deep: weight of the side heads' losses.
        phases: crop sizes over time.
        selection_share: share of the images that select an epoch, 0..1.
        selection_lines: short side, in pixels, at which they are scored: the model's working size.
    """

    architectures: ClassVar[tuple[str, ...]] = ("fpn", "unet")

    task: Literal["objects"] = "objects"
    overlap: Literal["iou", "dice"] = "iou"
    edge: float = Field(default=0.0, ge=0)
    teacher: float = Field(default=0.0, ge=0, le=1)
    deep: float = Field(default=0.0, ge=0)
    phases: list[Phase] = Field(min_length=1)
    selection_share: float = Field(default=0.05, gt=0, lt=1)
    selection_lines: int = Field(default=192, ge=32)

    def crops(self, epoch: int) -> list[tuple[int, int]]:
        """Crop sizes of an epoch."""
        for phase in self.phases:
            if epoch < phase.until:
                return phase.crops
        return self.phases[-1].crops


class Backbone(_Strict):
    """The pretrained weights that an encoder starts from.

    Attributes:
        url: public address of the TensorFlow Lite file.
        sha256: hex digest of its bytes.
        size: bytes.
        license: SPDX id of its terms.
        trained_on: data sets that it learned from.
    """

    url: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(gt=0)
    license: str
    trained_on: list[str]


class GazeRecipe(Run):
    """Everything that decides a training run on recorded gaze, besides the data and the versions.

    Attributes:
        backbone: what the encoder starts from.
        encoder_lr: learning rate of the encoder, as a share of `lr`.
        height: rows of the training pictures, pixels.
        width: columns of the training pictures, pixels.
        correlation: weight of the correlation beside the Kullback-Leibler divergence in the loss.
        unlabelled: pictures per step whose density a teacher predicts; 0 = none.
    """

    architectures: ClassVar[tuple[str, ...]] = ("gaze",)

    task: Literal["gaze"]
    backbone: Backbone
    encoder_lr: float = Field(default=0.1, gt=0, le=1)
    height: int = Field(default=192, ge=32)
    width: int = Field(default=256, ge=32)
    correlation: float = Field(default=1.0, ge=0)
    unlabelled: int = Field(default=0, ge=0)


AnyRecipe = Annotated[
    Annotated[Recipe, Tag("objects")] | Annotated[GazeRecipe, Tag("gaze")],
    Discriminator(lambda v: v.get("task", "objects") if isinstance(v, dict) else v.task),
]
_ANY: TypeAdapter[Recipe | GazeRecipe] = TypeAdapter(AnyRecipe)


def parse_recipe(content: Any) -> Recipe | GazeRecipe:
    """Read a recipe from its JSON or TOML values.

    Raises:
        ValidationError: a missing, unknown or invalid key.
    """
    return _ANY.validate_python(content)


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    folder = resources.files("eyeline.training") / "recipes"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load_recipe(name_or_path: str) -> Recipe | GazeRecipe:
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
        return parse_recipe(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as exc:
        first = str(exc).replace("\n", " ")[:300]
        raise TrainingError(f"recipe {name_or_path}: {first}", "fix the recipe") from exc
