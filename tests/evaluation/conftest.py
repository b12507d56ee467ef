"""Two models that disagree."""

import pytest

from evaluation.colour_models import BLUE, RED, as_model
from eyeline.registry.registry import Model


@pytest.fixture(scope="session")
def red(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return as_model(tmp_path_factory.mktemp("red"), "red", RED)


@pytest.fixture(scope="session")
def blue(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return as_model(tmp_path_factory.mktemp("blue"), "blue", BLUE)
