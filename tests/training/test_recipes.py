"""Recipes: TOML files of both tasks parse, and wrong keys are refused by name."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from eyeline.errors import TrainingError
from eyeline.training.recipes import GazeRecipe, Recipe, load_recipe, parse_recipe


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(TrainingError, match="student_v3"):
        load_recipe("student_v9")


def test_a_recipe_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('name = "x"\nlearning_rate = 1\n')
    with pytest.raises(TrainingError, match="learning_rate"):
        load_recipe(str(path))


def test_the_reference_recipes_differ_in_one_line() -> None:
    a, b = (load_recipe(n).model_dump() for n in ("student_v1", "student_v2"))
    a["net"].pop("upsample"), b["net"].pop("upsample")
    assert {k for k in a if a[k] != b[k]} == {"name"}


def test_recipes_of_both_tasks_parse() -> None:
    assert isinstance(load_recipe("gaze_v1"), GazeRecipe)
    assert isinstance(load_recipe("gaze_v1_teacher"), GazeRecipe)
    smoke = load_recipe("smoke")
    assert parse_recipe(smoke.model_dump(mode="json")) == smoke


def test_a_recipe_takes_the_nets_of_its_task_alone() -> None:
    nets = pytest.importorskip("eyeline.training.nets", exc_type=ImportError)
    assert {*Recipe.architectures, *GazeRecipe.architectures} == set(nets.ARCHITECTURES)
    content = load_recipe("gaze_v1").model_dump()
    for arch in ("fpn", "resnet", None):
        with pytest.raises(
            ValidationError, match="not a network of this task; choose one of: gaze"
        ):
            parse_recipe(content | {"net": content["net"] | {"arch": arch}})


def test_a_pyramid_needs_a_backbone_and_other_nets_take_none() -> None:
    pyramid, other = (load_recipe(name).model_dump() for name in ("student_v6", "smoke"))
    with pytest.raises(ValidationError, match=r"needs a table \[backbone\]"):
        parse_recipe(pyramid | {"backbone": None})
    with pytest.raises(ValidationError, match="no other arch takes one"):
        parse_recipe(other | {"backbone": pyramid["backbone"]})


def test_recipes_know_their_crops() -> None:
    recipe: Recipe = load_recipe("smoke")
    assert recipe.crops(1) == [(32, 32)]
    assert recipe.crops(3) == [(32, 64), (64, 32)]
