"""Training on gaze at discs made here: losses with known answers, folds, batches, runs and exports."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
pytest.importorskip("lightning")

from eyeline.convert.export import export_run  # noqa: E402
from eyeline.datasets.fixations import fold_of, load_fixation_set  # noqa: E402
from eyeline.digests import sha256_hex  # noqa: E402
from eyeline.errors import DatasetError, TrainingError, UsageError  # noqa: E402
from eyeline.inference.session import Session  # noqa: E402
from eyeline.registry.records import IoSpec  # noqa: E402
from eyeline.registry.registry import Model  # noqa: E402
from eyeline.scan import scan_file  # noqa: E402
from eyeline.training.gaze import GRID, GazeBatches, correlation, divergence, load_gaze_arrays  # noqa: E402
from eyeline.training.material import GazeMaterial, prepare_gaze  # noqa: E402
from eyeline.training.nets import ARCHITECTURES, GazeNet, MobileNetV2  # noqa: E402
from eyeline.training.recipes import Backbone, GazeRecipe, Recipe, load_recipe, parse_recipe  # noqa: E402
from eyeline.training.trainer import fit  # noqa: E402
from training.test_backbone import layers_of, make_tflite  # noqa: E402

COUNT = 40
NET = {"arch": "gaze", "width": 0.25, "channels": 8}


@pytest.fixture(scope="module")
def gaze_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright discs on dark noise; three viewers look at the disc of each picture."""
    root = tmp_path_factory.mktemp("gaze") / "discs"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:48, :64]
    rows = ["image,viewer,x,y,duration_ms"]
    for i in range(COUNT):
        cx, cy = rng.uniform(10, 54), rng.uniform(10, 38)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < 36
        picture = rng.integers(0, 60, (48, 64, 3)) + inside[..., None] * 160
        Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{i:03}.png")
        for viewer in range(3):
            fx, fy = (cx + rng.normal(0, 2)) / 64, (cy + rng.normal(0, 2)) / 48
            rows.append(f"{i:03},{viewer},{fx:.4f},{fy:.4f},200")
    (root / "fixations.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone of width 0.25 whose weights keep features in a sensible range."""
    file = tmp_path_factory.mktemp("backbone") / "quarter.tflite"
    layers = []
    for layer, (weight, bias, _, depthwise) in zip(
        (encoder := MobileNetV2(0.25)).convolutions, layers_of(encoder), strict=True
    ):
        inputs = layer.weight[0].numel()
        layers.append((weight, bias * 0, 1.7 / 74 / inputs**0.5, depthwise))
    file.write_bytes(make_tflite(layers))
    return file


def recipe_of(backbone: Path, **changes: object) -> GazeRecipe:
    data = backbone.read_bytes()
    record = Backbone(
        url="https://example.com/quarter.tflite",
        sha256=sha256_hex(data),
        size=len(data),
        license="Apache-2.0",
        trained_on=["noise"],
    )
    values: dict[str, object] = {
        "name": "tiny",
        "task": "gaze",
        "net": NET,
        "epochs": 4,
        "batch": 4,
        "lr": 3e-3,
        "encoder_lr": 1.0,
        "ema": 0.9,
        "height": 48,
        "width": 64,
        "store": 64,
        "backbone": record,
    }
    return GazeRecipe.model_validate(values | changes)


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


def test_folds_are_decided_by_content_alone() -> None:
    digests = [sha256_hex(str(i).encode()) for i in range(2000)]
    folds = [fold_of(d) for d in digests]
    assert folds.count("select") == pytest.approx(200, abs=50)
    assert folds.count("report") == pytest.approx(200, abs=50)
    assert fold_of("0" * 64) == "select"
    assert fold_of("f" * 64) == "train"


def test_arrays_leave_out_the_fold_that_reports(gaze_set: Path, tmp_path: Path) -> None:
    found = load_fixation_set(gaze_set)
    arrays = load_gaze_arrays([found], 64, tmp_path)
    kept = {f"discs/{s.name}" for s in found.stimuli if fold_of(s.digest) != "report"}
    assert set(arrays.names) == kept
    assert arrays.images.shape == (len(kept), 64, 64, 3)
    assert arrays.densities.shape == (len(kept), *GRID)
    assert arrays.densities.max(axis=(1, 2)).min() == 1
    again = load_gaze_arrays([found], 64, tmp_path)
    np.testing.assert_array_equal(arrays.densities, again.densities)


def test_the_density_lies_where_the_viewers_looked(gaze_set: Path, tmp_path: Path) -> None:
    found = load_fixation_set(gaze_set)
    arrays = load_gaze_arrays([found], 64, tmp_path)
    by_name = {f"discs/{s.name}": s for s in found.stimuli}
    for name, density in zip(arrays.names, arrays.densities, strict=True):
        rows, columns = np.unravel_index(density.argmax(), density.shape)
        fixations = by_name[name].fixations
        assert abs((columns + 0.5) / GRID[1] - fixations.x.mean()) < 0.06
        assert abs((rows + 0.5) / GRID[0] - fixations.y.mean()) < 0.08


def test_batches_depend_on_seed_epoch_and_step_alone(
    gaze_set: Path, backbone: Path, tmp_path: Path
) -> None:
    arrays = load_gaze_arrays([load_fixation_set(gaze_set)], 64, tmp_path)
    device = torch.device("cpu")
    recipe = recipe_of(backbone)
    first = list(GazeBatches(recipe, arrays, None, 1, device))
    again = list(GazeBatches(recipe, arrays, None, 1, device))
    other = list(GazeBatches(recipe, arrays, None, 2, device))
    assert len(first) == arrays.train.sum() // recipe.batch
    for (x, density), (x2, density2) in zip(first, again, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(density, density2)
        torch.testing.assert_close(density.sum((1, 2, 3)), torch.ones(len(density)))
    assert not torch.equal(first[0][0], other[0][0])


def test_a_run_learns_where_viewers_look_and_its_export_keeps_the_contract(
    gaze_set: Path, backbone: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(backbone, epochs=8)
    material = prepare_gaze(recipe, [gaze_set], tmp_path / "cache", backbone=backbone)
    result = fit(recipe, material, tmp_path / "run", progress=False)
    record = json.loads(result.record.read_text())
    curve = record["curve"]
    assert curve[-1]["cc"] > curve[0]["cc"] + 0.1
    assert record["recipe"]["task"] == "gaze"
    assert record["recipe"]["backbone"]["sha256"] == recipe.backbone.sha256
    assert record["data_facts"]["fixations"] == 3 * len(material.arrays.names)
    assert (tmp_path / "run" / "curve.png").stat().st_size > 5000
    assert list((tmp_path / "run" / "examples").glob("*.jpg"))

    onnx = tmp_path / "gaze.onnx"
    export_run(tmp_path / "run", onnx)
    assert scan_file(onnx).admitted
    session = Session(Model("gaze", onnx, IoSpec(multiple=16)), "cpu")
    m = session.run(np.random.default_rng(0).normal(size=(1, 3, 48, 80)).astype(np.float32))
    assert m.shape == (48, 80)
    assert m.max() == 1
    assert m.min() >= 0


def test_unlabelled_pictures_join_each_batch(
    gaze_set: Path, backbone: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(backbone, epochs=1)
    material = prepare_gaze(recipe, [gaze_set], tmp_path / "cache", backbone=backbone)
    fit(recipe, material, tmp_path / "run", progress=False)
    export_run(tmp_path / "run", tmp_path / "teacher.onnx")
    pairs = tmp_path / "pairs"
    for folder in ("images", "masks"):
        (pairs / folder).mkdir(parents=True)
    for i in range(30):
        picture = Image.new("RGB", (40, 30), (i * 8, 90, 40))
        picture.save(pairs / "images" / f"{i}.png")
        mask = Image.new("L", (40, 30))
        mask.paste(255, (5, 5, 20, 20))
        mask.save(pairs / "masks" / f"{i}.png")
    student = recipe_of(backbone, unlabelled=6)
    more = prepare_gaze(
        student, [gaze_set], tmp_path / "cache",
        backbone=backbone, unlabelled=pairs, teacher=tmp_path / "teacher.onnx",
    )  # fmt: skip
    assert more.unlabelled is not None
    assert more.unlabelled.densities.shape == (30, *GRID)
    batches = GazeBatches(student, more.arrays, more.unlabelled, 0, torch.device("cpu"))
    image, density = next(iter(batches))
    assert image.shape[0] == density.shape[0] == 4 + 6
    assert set(more.facts) == {"unlabelled", "unlabelled_digest", "teacher_sha256"}


def test_a_recipe_of_unlabelled_pictures_needs_some(
    gaze_set: Path, backbone: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(backbone, unlabelled=4)
    material = prepare_gaze(recipe, [gaze_set], tmp_path / "cache", backbone=backbone)
    with pytest.raises(TrainingError, match="learns from unlabelled pictures"):
        fit(recipe, material, tmp_path / "run", progress=False)


def test_unlabelled_pictures_and_a_teacher_need_each_other(
    gaze_set: Path, backbone: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is given without"):
        prepare_gaze(
            recipe_of(backbone), [gaze_set], tmp_path, backbone=backbone, unlabelled=gaze_set
        )


def test_masks_do_not_train_gaze(gaze_set: Path, backbone: Path, tmp_path: Path) -> None:
    recipe = recipe_of(backbone)
    material = prepare_gaze(recipe, [gaze_set], tmp_path / "cache", backbone=backbone)
    assert isinstance(material, GazeMaterial)
    with pytest.raises(TrainingError, match="the data are for the other task"):
        fit(load_recipe("smoke"), material, tmp_path / "run", progress=False)


def test_a_set_too_small_for_two_folds_is_refused(gaze_set: Path, tmp_path: Path) -> None:
    found = load_fixation_set(gaze_set)
    alone = [s for s in found.stimuli if fold_of(s.digest) == "train"][:3]
    small = type(found)(
        found.name, "images", tuple(alone), found.viewers, found.digest, found.problems
    )
    with pytest.raises(DatasetError, match="leave a fold empty"):
        load_gaze_arrays([small], 64, tmp_path)


def test_the_map_is_the_density_divided_by_its_maximum_at_any_scale_of_the_logits() -> None:
    net = GazeNet(0.25, 8)
    logits = torch.randn(2, 1, 12, 16) * 4 + torch.tensor([50.0, -50.0])[:, None, None, None]
    m = net.to_map(logits)
    torch.testing.assert_close(m.amax((1, 2, 3)), torch.ones(2))
    density = logits.flatten(1).softmax(1).view_as(logits)
    torch.testing.assert_close(m, density / density.amax((1, 2, 3), keepdim=True))


def test_the_prior_of_videos_is_a_gaussian_of_a_quarter_of_each_side() -> None:
    net = GazeNet(0.25, 8, centre=1.0)
    m = net.to_map(torch.zeros(1, 1, 96, 128))[0, 0]
    row = m[48].log()
    sigma = ((torch.arange(128) + 0.5) / 128 - 0.5)[16].abs() / (-2 * (row[16] - row[64])).sqrt()
    assert float(sigma) == pytest.approx(0.25, rel=0.03)


def test_recipes_of_both_tasks_parse() -> None:
    assert isinstance(load_recipe("gaze_v1"), GazeRecipe)
    assert isinstance(load_recipe("gaze_v1_teacher"), GazeRecipe)
    smoke = load_recipe("smoke")
    assert parse_recipe(smoke.model_dump(mode="json")) == smoke


def test_a_recipe_takes_the_nets_of_its_task_alone() -> None:
    assert {*Recipe.architectures, *GazeRecipe.architectures} == set(ARCHITECTURES)
    content = load_recipe("gaze_v1").model_dump()
    for arch in ("fpn", "resnet", None):
        with pytest.raises(ValidationError, match="nets of this task are: gaze"):
            parse_recipe(content | {"net": content["net"] | {"arch": arch}})
