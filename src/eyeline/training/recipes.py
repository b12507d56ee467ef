"""Read recipes, which are TOML files that describe a training run; `recipes/` has the built-in ones."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter, field_validator, model_validator

from eyeline.errors import TrainingError
from eyeline.validation import Strict

_BUILTIN = resources.files("eyeline.training") / "recipes"


class Phase(Strict):
    """A range of epochs that use the same crop sizes.

    Attributes:
        until: the epoch at which the phase ends, exclusive.
        crops: crop sizes (height, width), multiples of 32; one of them is chosen at random per batch.
    """

    until: int = Field(gt=0)
    crops: list[tuple[int, int]] = Field(min_length=1)


class Restart(Strict):
    """A warm restart of the learning rate.

    Attributes:
        epoch: epoch at the start of which the learning rate is raised.
        lr: new learning rate, as a share of the peak rate.
    """

    epoch: int = Field(gt=0)
    lr: float = Field(gt=0, le=1)


class Backbone(Strict):
    """Pretrained weights of an encoder.

    Attributes:
        url: URL of the TensorFlow Lite file.
        sha256: SHA-256 of the file in hex.
        size: size of the file, bytes.
        license: SPDX id of the licence.
        trained_on: datasets that the weights were trained on.
    """

    url: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(gt=0)
    license: str
    trained_on: list[str]


class BaseRecipe(Strict):
    """Keys of the recipes of both tasks.

    Attributes:
        name: id of the run.
        net: `arch` and its arguments (classes in `eyeline.training.nets`).
        backbone: pretrained weights of the encoder; None for a network without a pretrained encoder.
        encoder_lr: learning rate of the pretrained encoder, as a share of `lr`.
        epochs: passes over the training fold.
        batch: images per step.
        lr: peak learning rate.
        weight_decay: decoupled weight decay of AdamW.
        warmup: share of the steps in which the learning rate rises.
        restarts: warm restarts of the learning rate, in the order of their epochs.
        optimizer: `adamw`, or `adam` without weight decay.
        ema: decay of the exponential moving average of the weights; 0 = no average.
        augmentation: arguments of `eyeline.training._augment.Augmentation`.
        store: side of the stored square pictures, pixels.
        seed: seed of all random numbers.
        bf16: compute convolutions in bfloat16.
    """

    name: str
    net: dict[str, Any]
    backbone: Backbone | None = None
    encoder_lr: float = Field(default=0.1, gt=0, le=1)
    epochs: int = Field(gt=0)
    batch: int = Field(default=32, gt=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    restarts: list[Restart] = Field(default_factory=list)
    optimizer: Literal["adam", "adamw"] = "adamw"
    ema: float = Field(default=0.0, ge=0, lt=1)
    augmentation: dict[str, Any] = Field(default_factory=dict)
    store: int = Field(default=256, gt=0)
    seed: int = 0
    bf16: bool = False

    architectures: ClassVar[tuple[str, ...]] = ()

    @field_validator("net")
    @classmethod
    def _of_this_task(cls, net: dict[str, Any]) -> dict[str, Any]:
        if net.get("arch") not in cls.architectures:
            known = ", ".join(cls.architectures)
            raise ValueError(
                f"arch {net.get('arch')!r} is not a network of this task; choose one of: {known}"
            )
        return net


class Recipe(BaseRecipe):
    """A training run on object masks.

    Attributes:
        overlap: overlap loss that is added to the cross-entropy.
        edge: additional weight of boundary pixels in the cross-entropy; 0 = uniform weights.
        teacher: weight of the teacher's map in the training target, 0..1.
        deep: weight of the losses of the side heads.
        phases: crop sizes for ranges of epochs.
        selection_share: share of the images in the fold that selects the best epoch, 0..1.
        selection_lines: short side of the images of that fold when they are scored, pixels.
    """

    architectures: ClassVar[tuple[str, ...]] = ("fpn", "unet", "pyramid")

    task: Literal["objects"] = "objects"
    overlap: Literal["iou", "dice"] = "iou"
    edge: float = Field(default=0.0, ge=0)
    teacher: float = Field(default=0.0, ge=0, le=1)
    deep: float = Field(default=0.0, ge=0)
    phases: list[Phase] = Field(min_length=1)
    selection_share: float = Field(default=0.05, gt=0, lt=1)
    selection_lines: int = Field(default=192, ge=32)

    @model_validator(mode="after")
    def _backbone_fits_net(self) -> Recipe:
        if (self.net["arch"] == "pyramid") != (self.backbone is not None):
            raise ValueError("arch 'pyramid' needs a table [backbone], and no other arch takes one")
        return self

    def crops(self, epoch: int) -> list[tuple[int, int]]:
        """Return the crop sizes of an epoch."""
        return next((p.crops for p in self.phases if epoch < p.until), self.phases[-1].crops)


class GazeRecipe(BaseRecipe):
    """A training run on recorded gaze.

    Attributes:
        height: rows of the training pictures, pixels.
        width: columns of the training pictures, pixels.
        correlation: weight of the correlation in the loss; the KL divergence has the weight 1.
        unlabelled: number of pictures per step with a density predicted by a teacher; 0 = none.
    """

    architectures: ClassVar[tuple[str, ...]] = ("gaze",)

    task: Literal["gaze"]
    backbone: Backbone
    height: int = Field(default=192, ge=32)
    width: int = Field(default=256, ge=32)
    correlation: float = Field(default=1.0, ge=0)
    unlabelled: int = Field(default=0, ge=0)


AnyRecipe = Recipe | GazeRecipe
_ANY: TypeAdapter[AnyRecipe] = TypeAdapter(
    Annotated[
        Annotated[Recipe, Tag("objects")] | Annotated[GazeRecipe, Tag("gaze")],
        Discriminator(lambda v: v.get("task", "objects") if isinstance(v, dict) else v.task),
    ]
)


def parse_recipe(content: Any) -> AnyRecipe:
    """Validate the values of a recipe, as read from JSON or TOML.

    Raises:
        ValidationError: a key is missing, unknown or invalid.
    """
    return _ANY.validate_python(content)


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes."""
    return sorted(f.name.removesuffix(".toml") for f in _BUILTIN.iterdir())


def load_recipe(name_or_path: str) -> AnyRecipe:
    """Read a built-in recipe by name, or any recipe from a TOML file.

    Raises:
        TrainingError: the name is unknown, or the file is not a valid recipe.
    """
    names = recipe_names()
    if name_or_path in names:
        data = (_BUILTIN / f"{name_or_path}.toml").read_bytes()
    elif Path(name_or_path).is_file():
        data = Path(name_or_path).read_bytes()
    else:
        raise TrainingError(
            f"{name_or_path!r} is neither a built-in recipe nor a TOML file",
            f"choose one of: {', '.join(names)}",
        )
    try:
        return parse_recipe(tomllib.loads(data.decode()))
    except ValueError as exc:  # the errors of the decoder, of tomllib and of pydantic
        first = str(exc).replace("\n", " ")[:300]
        raise TrainingError(
            f"recipe {name_or_path} is invalid: {first}", "correct the recipe at this place"
        ) from exc
