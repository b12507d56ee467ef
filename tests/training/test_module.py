"""Steps and epochs of runs on object masks: learning rate, and shares of a batch."""

from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
pytest.importorskip("lightning")

from eyeline.training.material import TrainingMaterial  # noqa: E402
from eyeline.training.module import ObjectBatches, ObjectModule, learning_rate_factor  # noqa: E402
from eyeline.training.recipes import Restart, load_recipe  # noqa: E402
from training.samples import pyramid_recipe  # noqa: E402


def test_the_learning_rate_warms_up_falls_and_restarts() -> None:
    recipe = load_recipe("smoke").model_copy(
        update={"epochs": 10, "warmup": 0.1, "restarts": [Restart(epoch=6, lr=0.5)]}
    )
    factors = [learning_rate_factor(recipe, step, 100) for step in range(100)]
    assert factors[4] == 0.5
    assert factors[10] == 1.0
    assert factors[35] == pytest.approx(0.5)
    assert factors[59] < 0.002
    assert factors[60] == 0.5
    assert factors[80] == pytest.approx(0.25)
    assert factors[99] < 0.001


def test_a_pretrained_encoder_learns_slower(
    disc_material: TrainingMaterial, backbone: Path
) -> None:
    module = ObjectModule(pyramid_recipe(backbone), disc_material)
    module.trainer = SimpleNamespace(estimated_stepping_batches=100)  # type: ignore[assignment]
    optimizer = module.configure_optimizers()["optimizer"]
    rates = {id(p): g["initial_lr"] for g in optimizer.param_groups for p in g["params"]}
    for name, p in module.net.named_parameters():
        assert rates[id(p)] == (1.5e-3 if name.startswith("encoder.") else 3e-3), name


def test_shares_of_a_batch_are_the_batch(disc_material: TrainingMaterial) -> None:
    recipe = load_recipe("smoke").model_copy(update={"batch": 6})
    cpu, taken = torch.device("cpu"), []
    for share in ((0, 1), (0, 2), (1, 2)):
        batches = ObjectBatches(recipe, disc_material, 3, cpu, share)
        batches.make = lambda indices, step: indices  # type: ignore[method-assign,assignment]
        taken.append(list(batches))
    whole, *parts = taken
    for a, b, c in zip(whole, *parts, strict=True):
        assert len(b) == len(c) == 3
        assert sorted([*b, *c]) == list(a)  # type: ignore[misc]
