"""Fixtures of training, made once: data of both tasks, and what runs learn from."""

from pathlib import Path

import pytest

pytest.importorskip("torch").set_num_threads(1)  # two threads on a busy machine wait for each other
pytest.importorskip("lightning")
pytest.importorskip("tflite")

from eyeline.training.material import TrainingMaterial, prepare_gaze, prepare_objects  # noqa: E402
from eyeline.training.recipes import load_recipe  # noqa: E402
from training.samples import gaze_recipe, make_discs, make_gaze_set, sensible_backbone  # noqa: E402


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_discs(tmp_path_factory.mktemp("discs") / "set")


@pytest.fixture(scope="session")
def disc_material(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingMaterial:
    return prepare_objects(load_recipe("smoke"), [discs], tmp_path_factory.mktemp("discs-cache"))


@pytest.fixture(scope="session")
def gaze_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gaze_set(tmp_path_factory.mktemp("gaze") / "discs")


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("backbone") / "quarter.tflite"
    file.write_bytes(sensible_backbone())
    return file


@pytest.fixture(scope="session")
def gaze_material(
    gaze_set: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainingMaterial:
    cache = tmp_path_factory.mktemp("gaze-cache")
    return prepare_gaze(gaze_recipe(backbone), [gaze_set], cache, backbone=backbone)
