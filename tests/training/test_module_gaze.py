"""Training on gaze at discs made here: losses with known answers, batches, a run and its export."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
pytest.importorskip("lightning")

from eyeline.convert.export import export_run  # noqa: E402
from eyeline.digests import sha256_hex  # noqa: E402
from eyeline.errors import TrainingError  # noqa: E402
from eyeline.inference.session import Session  # noqa: E402
from eyeline.registry.records import IoSpec  # noqa: E402
from eyeline.registry.registry import Model  # noqa: E402
from eyeline.scan import scan_file  # noqa: E402
from eyeline.training.material import GAZE_GRID, TrainingMaterial, prepare_gaze  # noqa: E402
from eyeline.training.module import GazeBatches, correlation, divergence  # noqa: E402
from eyeline.training.recipes import load_recipe  # noqa: E402
from eyeline.training.trainer import fit  # noqa: E402
from training.samples import gaze_recipe  # noqa: E402


def test_the_divergence_of_equal_densities_is_zero_and_their_correlation_one() -> None:
    density = torch.rand(2, 1, 6, 8).double()
    density /= density.sum((1, 2, 3), keepdim=True)
    logits = density.log() + 3.0
    assert divergence(logits, density).abs().max() < 1e-12
    torch.testing.assert_close(correlation(logits, density), torch.ones(2).double())


def test_the_divergence_of_one_point_from_a_uniform_prediction_is_the_log_of_the_count() -> None:
    density = torch.zeros(1, 1, 6, 8)
    density[0, 0, 2, 3] = 1
    torch.testing.assert_close(
        divergence(torch.zeros(1, 1, 6, 8), density), torch.tensor([48.0]).log()
    )


def test_batches_depend_on_seed_epoch_and_step_alone(
    gaze_material: TrainingMaterial, backbone: Path
) -> None:
    device = torch.device("cpu")
    recipe = gaze_recipe(backbone)
    first = list(GazeBatches(recipe, gaze_material, 1, device))
    again = list(GazeBatches(recipe, gaze_material, 1, device))
    other = list(GazeBatches(recipe, gaze_material, 2, device))
    assert len(first) == gaze_material.arrays.train.sum() // recipe.batch
    for (x, density), (x2, density2) in zip(first, again, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(density, density2)
        torch.testing.assert_close(density.sum((1, 2, 3)), torch.ones(len(density)))
    assert not torch.equal(first[0][0], other[0][0])


@pytest.fixture(scope="module")
def run(
    gaze_material: TrainingMaterial, backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a finished run, with its export `gaze.onnx`."""
    out = tmp_path_factory.mktemp("gaze-run")
    fit(gaze_recipe(backbone, epochs=8), gaze_material, out, progress=False)
    export_run(out, out / "gaze.onnx")
    return out


def test_a_run_learns_where_viewers_look(
    run: Path, gaze_material: TrainingMaterial, backbone: Path
) -> None:
    record = json.loads((run / "run.json").read_text())
    curve = record["curve"]
    assert curve[-1]["cc"] > curve[0]["cc"] + 0.1
    assert record["recipe"]["task"] == "gaze"
    assert record["recipe"]["backbone"]["sha256"] == sha256_hex(backbone.read_bytes())
    assert record["data_facts"]["fixations"] == 3 * len(gaze_material.arrays.names)
    assert (run / "curve.png").stat().st_size > 5000
    assert list((run / "examples").glob("*.jpg"))


def test_an_export_keeps_the_contract(run: Path) -> None:
    assert scan_file(run / "gaze.onnx").admitted
    session = Session(Model("gaze", run / "gaze.onnx", IoSpec(multiple=16)), "cpu")
    m = session.run(np.random.default_rng(0).normal(size=(1, 3, 48, 80)).astype(np.float32))
    assert m.shape == (48, 80)
    assert m.max() == 1
    assert m.min() >= 0


def test_unlabelled_pictures_join_each_batch(
    run: Path, gaze_set: Path, backbone: Path, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs"
    for folder in ("images", "masks"):
        (pairs / folder).mkdir(parents=True)
    for i in range(30):
        picture = Image.new("RGB", (40, 30), (i * 8, 90, 40))
        picture.save(pairs / "images" / f"{i}.png")
        mask = Image.new("L", (40, 30))
        mask.paste(255, (5, 5, 20, 20))
        mask.save(pairs / "masks" / f"{i}.png")
    student = gaze_recipe(backbone, unlabelled=6)
    more = prepare_gaze(
        student, [gaze_set], tmp_path / "cache",
        backbone=backbone, unlabelled=pairs, teacher=run / "gaze.onnx",
    )  # fmt: skip
    assert more.unlabelled is not None
    assert more.unlabelled.targets.shape == (30, *GAZE_GRID)
    image, density = next(iter(GazeBatches(student, more, 0, torch.device("cpu"))))
    assert image.shape[0] == density.shape[0] == 4 + 6
    added = set(more.facts) - set(more.arrays.facts)
    assert added == {"unlabelled", "unlabelled_digest", "teacher_sha256"}


def test_a_recipe_of_unlabelled_pictures_needs_some(
    gaze_material: TrainingMaterial, backbone: Path, tmp_path: Path
) -> None:
    recipe = gaze_recipe(backbone, unlabelled=4)
    with pytest.raises(TrainingError, match="learns from unlabelled pictures"):
        fit(recipe, gaze_material, tmp_path / "run", progress=False)


def test_gaze_does_not_train_masks(gaze_material: TrainingMaterial, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the data are for the other task"):
        fit(load_recipe("smoke"), gaze_material, tmp_path / "run", progress=False)
