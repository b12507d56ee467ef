"""Training on discs made here: it learns, it resumes bit-equally, it stops with one clear line."""

import json
import os
import re
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # two threads on a busy machine wait for each other
pytest.importorskip("lightning")

from eyeline.datasets.pairs import find_pairs  # noqa: E402
from eyeline.digests import file_sha256  # noqa: E402
from eyeline.errors import DatasetError, ModelError, TrainingError  # noqa: E402
from eyeline.training.data import (  # noqa: E402  # noqa: E402
    Augmentation,
    crop_grid,
    is_selection_fold,
    load_arrays,
    photometric,
)
from eyeline.training.material import prepare_material as prepare  # noqa: E402
from eyeline.training.material import soft_maps  # noqa: E402
from eyeline.training.module import Batches, learning_rate_factor  # noqa: E402
from eyeline.training.nets import ARCHITECTURES, build_net, count_parameters, start_from  # noqa: E402
from eyeline.training.recipes import Recipe, Restart, load_recipe, recipe_names  # noqa: E402
from eyeline.training.trainer import (  # noqa: E402
    duration,
    fit,
    train,
)


def make_discs(root: Path, count: int = 40, size: tuple[int, int] = (80, 60)) -> Path:
    """A bright disc on a dark noisy ground, and its mask, as PNG pairs."""
    rng = np.random.default_rng(7)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    width, height = size
    y, x = np.mgrid[:height, :width]
    for i in range(count):
        cx, cy, r = rng.uniform(15, width - 15), rng.uniform(15, height - 15), rng.uniform(8, 14)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r
        picture = rng.integers(0, 60, (height, width, 3)) + inside[..., None] * 160
        Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{i:03}.png")
        Image.fromarray((inside * 255).astype(np.uint8)).save(root / "masks" / f"{i:03}.png")
    return root


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_discs(tmp_path_factory.mktemp("discs") / "set")


def weights_of(path: Path) -> dict[str, "torch.Tensor"]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return state


def command(discs: Path, out: Path) -> list[str]:
    words = ["train", "smoke", "--data", discs, "--out", out, "--quiet"]
    return [sys.executable, "-m", "eyeline", *map(str, words)]


def kill_after_a_checkpoint(process: subprocess.Popen[bytes], out: Path) -> None:
    while not (out / "last.ckpt").exists():
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.02)
    process.kill()
    process.wait()


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


def test_it_learns_discs_and_leaves_a_record(discs: Path, tmp_path: Path) -> None:
    result = train(load_recipe("smoke"), [discs], tmp_path / "run", progress=False)
    record = json.loads(result.record.read_text())
    curve = record["curve"]
    assert [row["epoch"] for row in curve] == [0, 1, 2, 3]
    assert curve[-1]["loss"] < curve[1]["loss"]
    assert record["recipe"]["name"] == "smoke"
    assert record["images"]["train"] + record["images"]["selection"] == 40
    assert record["parameters"] < 6000
    best = max(curve, key=lambda row: row["score"])
    assert record["fit"]["selection"]["iou"] == pytest.approx(best["iou"], abs=1e-5)
    assert 0 < record["fit"]["training"]["iou"] <= 1
    net = build_net(record["recipe"]["net"])
    net.load_state_dict(weights_of(result.weights), strict=True)


def test_a_killed_run_goes_on_bit_equally(discs: Path, tmp_path: Path) -> None:
    whole = train(load_recipe("smoke"), [discs], tmp_path / "whole", progress=False)
    cut = tmp_path / "cut"
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(discs, cut),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=one_thread,
    )
    kill_after_a_checkpoint(process, cut)
    assert not (cut / "weights.pt").exists()
    before = torch.load(cut / "last.ckpt", weights_only=True)["seconds"]
    subprocess.run(command(discs, cut), check=True, capture_output=True, env=one_thread)
    a, b = weights_of(whole.weights), weights_of(cut / "weights.pt")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert whole.weights.read_bytes() == (cut / "weights.pt").read_bytes()
    resumed = torch.load(cut / "last.ckpt", weights_only=True)["seconds"]
    assert resumed > before > 0


@pytest.mark.slow
def test_two_devices_share_each_batch(discs: Path, tmp_path: Path) -> None:
    two = [*command(discs, tmp_path / "run"), "--devices", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(two, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote") == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["devices"] == 2
    assert [row["epoch"] for row in record["curve"]] == [0, 1, 2, 3]
    assert record["curve"][-1]["loss"] < record["curve"][1]["loss"]
    best = max(record["curve"], key=lambda row: row["score"])  # of all images, on one device
    assert record["fit"]["selection"]["iou"] == pytest.approx(best["iou"], abs=1e-5)


def test_shares_of_a_batch_are_the_batch(discs: Path, tmp_path: Path) -> None:
    recipe = load_recipe("smoke").model_copy(update={"batch": 6})
    arrays = prepare(recipe, [discs], tmp_path).arrays
    cpu, taken = torch.device("cpu"), []
    for share in ((0, 1), (0, 2), (1, 2)):
        batches = Batches(recipe, arrays, None, 3, cpu, share)
        batches.make = lambda indices, step: indices  # type: ignore[method-assign,assignment]
        taken.append(list(batches))
    whole, *parts = taken
    for a, b, c in zip(whole, *parts, strict=True):
        assert len(b) == len(c) == 3
        assert sorted([*b, *c]) == list(a)  # type: ignore[misc]


def test_a_batch_that_devices_do_not_divide_is_refused(discs: Path, tmp_path: Path) -> None:
    recipe = load_recipe("smoke")
    material = prepare(recipe, [discs], tmp_path / "cache")
    with pytest.raises(TrainingError, match=rf"3 devices don't divide a batch of {recipe.batch}"):
        fit(recipe, material, tmp_path / "run", devices=3)
    assert not (tmp_path / "run").exists()


def test_what_takes_long_before_training_is_counted(discs: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    prepare(load_recipe("smoke"), [discs], tmp_path, on_step=lambda *step: said.append(step))
    assert said[0][0] == "decoding pictures"
    assert said[-1] == ("decoding pictures", 40, 40)


def test_the_time_left_reads_as_people_say_it() -> None:
    said = [duration(s) for s in (0.4, 45, 119, 200, 3599, 7500)]
    assert said == ["0 s", "45 s", "2 min", "3 min", "1 h 00 min", "2 h 05 min"]


def deeper(recipe: Recipe, kind: str = "separable") -> Recipe:
    """The recipe with a block more in its last stage."""
    net = json.loads(json.dumps(recipe.net))
    last = net["stages"][-1]
    last["block"] = kind
    last["dilations"] = [*last["dilations"], 2]
    return recipe.model_copy(update={"net": net})


def test_a_deeper_net_begins_as_the_function_it_starts_from() -> None:
    torch.manual_seed(3)
    small = deeper(load_recipe("student_v3_separable"))
    net, grown = build_net(small.net), build_net(deeper(small).net)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    new = start_from(grown, net.state_dict())
    assert new == ["stages.3.6"]
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(net.eval()(x)[0], grown.eval()(x)[0])
    grown.train()(x)[0].sum().backward()
    assert max(float(p.grad.abs().max()) for p in grown.stages[3][6].parameters()) > 0


def test_a_wider_net_begins_as_the_function_it_starts_from() -> None:
    torch.manual_seed(4)
    recipe = load_recipe("student_v3_separable").net
    net = build_net(recipe)
    wide = json.loads(json.dumps(recipe)) | {"stem": 24, "lateral": 40, "context": 32}
    for stage in wide["stages"]:
        stage["channels"] += 8
    grown = build_net(wide)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    assert "stem.0.weight" in start_from(grown, net.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(x)[0], grown.eval()(x)[0], rtol=1e-4, atol=1e-4)
    grown.train()(x)[0].sum().backward()
    for name, p in grown.named_parameters():
        if name.startswith(("stem", "stages", "laterals", "fuse")):
            assert float(p.grad.abs().max()) > 0, name  # what is new learns, too


def test_a_net_with_concatenated_skips_is_not_widened() -> None:
    net = build_net(load_recipe("student_v2").net)
    wide = build_net(load_recipe("student_v2").net | {"bottleneck": 72})
    with pytest.raises(TrainingError, match="of another net"):
        start_from(wide, net.state_dict())


def test_a_run_starts_from_another_runs_weights(discs: Path, tmp_path: Path) -> None:
    smoke = load_recipe("smoke")
    first = train(smoke, [discs], tmp_path / "first", progress=False)
    second = train(
        deeper(smoke, "dense"), [discs], tmp_path / "second", start=first.weights, progress=False
    )
    record = json.loads(second.record.read_text())
    assert record["started_from"]["weights_sha256"] == file_sha256(first.weights)
    assert len(record["started_from"]["new_blocks"]) == 1
    before = json.loads(first.record.read_text())["curve"]
    assert record["curve"][0]["iou"] > before[1]["iou"]


def test_weights_that_do_not_fit_are_refused(discs: Path, tmp_path: Path) -> None:
    smoke = load_recipe("smoke")
    torch.save(build_net(load_recipe("student_v3").net).state_dict(), tmp_path / "v3.pt")
    with pytest.raises(TrainingError, match=r"of another net: stem\.0\.weight does not fit"):
        train(smoke, [discs], tmp_path / "run", start=tmp_path / "v3.pt", progress=False)
    (tmp_path / "words.pt").write_text("words")
    with pytest.raises(TrainingError, match=r"words\.pt: holds no weights"):
        train(smoke, [discs], tmp_path / "run", start=tmp_path / "words.pt", progress=False)
    with pytest.raises(TrainingError, match=r"gone\.pt: can't be read: No such file"):
        train(smoke, [discs], tmp_path / "run", start=tmp_path / "gone.pt", progress=False)


def test_every_epoch_leaves_a_checkpoint_however_it_scores(discs: Path, tmp_path: Path) -> None:
    still = load_recipe("smoke").model_copy(update={"lr": 1e-12, "ema": 0.0})
    train(still, [discs], tmp_path, progress=False)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == still.epochs - 1


def test_a_loss_that_turns_nan_stops_the_run(discs: Path, tmp_path: Path) -> None:
    wild = load_recipe("smoke").model_copy(update={"lr": 1e30, "warmup": 0.0})
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch \d+, batch \d+"):
        train(wild, [discs], tmp_path / "run", progress=False)


@pytest.mark.parametrize(("name", "parameters"), [("student_v1", 112_841), ("student_v2", 123_721)])
def test_the_reference_students_have_their_parameters(name: str, parameters: int) -> None:
    assert count_parameters(build_net(load_recipe(name).net)) == parameters


def test_the_reference_recipes_differ_in_one_line() -> None:
    a, b = (load_recipe(n).model_dump() for n in ("student_v1", "student_v2"))
    a["net"].pop("upsample"), b["net"].pop("upsample")
    assert {k for k in a if a[k] != b[k]} == {"name"}


@pytest.mark.parametrize("name", recipe_names())
def test_built_in_recipes_build_nets_that_answer_at_the_input_size(name: str) -> None:
    recipe = load_recipe(name)
    net = build_net(recipe.net).eval()
    assert recipe.net["arch"] in ARCHITECTURES
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 96))[0].shape == (1, 1, 64, 96)


def test_v3_keeps_its_parameter_budget() -> None:
    assert count_parameters(build_net(load_recipe("student_v3").net)) <= 300_000


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(TrainingError, match="student_v3"):
        load_recipe("student_v9")


def test_a_recipe_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('name = "x"\nlearning_rate = 1\n')
    with pytest.raises(TrainingError, match="learning_rate"):
        load_recipe(str(path))


def test_a_recipe_that_wants_a_teacher_says_so(discs: Path, tmp_path: Path) -> None:
    wants = load_recipe("smoke").model_copy(update={"teacher": 0.5})
    with pytest.raises(TrainingError, match="teacher"):
        train(wants, [discs], tmp_path / "run", progress=False)


def test_the_split_is_by_content() -> None:
    folds = [is_selection_fold(f"{i:08x}" + "0" * 56, 0.25) for i in range(0, 2**32, 2**26)]
    assert 0.2 < np.mean(folds) < 0.3


def test_a_duplicate_image_stays_on_its_side(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    for folder in ("images", "masks"):
        (root / folder / "copy.png").write_bytes((root / folder / "003.png").read_bytes())
    arrays = load_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache")
    side = dict(zip(arrays.names, arrays.train, strict=True))
    assert side["copy"] == side["003"]


def test_an_image_without_its_mask_is_named(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=4)
    (root / "masks" / "002.png").unlink()
    with pytest.raises(DatasetError, match="002"):
        find_pairs(root)


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    (root / "images" / "004.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"004\.png"):
        load_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache")


def test_a_size_mismatch_is_named(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    Image.new("L", (5, 5)).save(root / "masks" / "006.png")
    with pytest.raises(DatasetError, match="006"):
        load_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache")


def test_an_edited_mask_is_decoded_again(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    before = load_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache")
    Image.new("L", (80, 60), 255).save(root / "masks" / "007.png")
    after = load_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache")
    assert after.digest != before.digest
    assert after.masks[7].min() == 255 > before.masks[7].min()
    assert after.facts["full_masks"] == ["007"]


def test_empty_masks_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_discs(tmp_path / "set", count=20)
    for name in ("003", "009"):
        Image.new("L", (80, 60), 0).save(root / "masks" / f"{name}.png")
    with caplog.at_level("WARNING"):
        arrays = load_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache")
    assert arrays.facts["empty_masks"] == ["003", "009"]
    assert "2 masks are empty, first 003" in caplog.text


def test_masks_of_one_class_are_refused(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    for mask in (root / "masks").iterdir():
        Image.new("L", (80, 60), 0).save(mask)
    with pytest.raises(DatasetError, match="all 20 masks hold one class"):
        load_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache")


def test_images_of_one_pixel_are_refused(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=20)
    for folder in ("images", "masks"):
        Image.new("L", (1, 1), 255).save(root / folder / "005.png")
    with pytest.raises(DatasetError, match=r"1 images are a single pixel, first 005"):
        load_arrays(find_pairs(root), 32, 0.3, tmp_path / "cache")


def test_a_fold_without_images_is_refused(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", count=2)
    with pytest.raises(DatasetError, match="2 pairs leave a fold empty"):
        load_arrays(find_pairs(root), 32, 1e-9, tmp_path / "cache")


def test_a_checkpoint_of_another_recipe_is_refused(discs: Path, tmp_path: Path) -> None:
    smoke = load_recipe("smoke")
    train(smoke.model_copy(update={"epochs": 1}), [discs], tmp_path, progress=False)
    wider = smoke.model_copy(update={"net": smoke.net | {"lateral": 12}})
    with pytest.raises(TrainingError, match=r"another recipe: net, epochs differ"):
        train(wider, [discs], tmp_path, progress=False)


def test_a_checkpoint_from_before_a_recipes_key_is_taken(discs: Path, tmp_path: Path) -> None:
    smoke = load_recipe("smoke")
    first = train(smoke, [discs], tmp_path, progress=False).weights.read_bytes()
    old = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del old["recipe"]["selection_lines"]
    torch.save(old, tmp_path / "last.ckpt")
    assert train(smoke, [discs], tmp_path, progress=False).weights.read_bytes() == first
    at_other_lines = smoke.model_copy(update={"selection_lines": 64})
    with pytest.raises(TrainingError, match="another recipe: selection_lines differ"):
        train(at_other_lines, [discs], tmp_path, progress=False)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from eyeline.errors import OutputError
from eyeline.training.recipes import load_recipe
from eyeline.training.trainer import train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))  # above a batch in shared memory
try:
    train(load_recipe(sys.argv[3]), [Path(sys.argv[1])], Path(sys.argv[2]), progress=False)
except OutputError as exc:
    print(exc.message)
    sys.exit(exc.exit_code)
"""


def test_a_full_disk_leaves_the_old_checkpoint(discs: Path, tmp_path: Path) -> None:
    wide = (resources.files("eyeline.training") / "recipes/smoke.toml").read_text()
    recipe = tmp_path / "wide.toml"
    recipe.write_text(re.sub(r"channels = \d+", "channels = 128", wide))
    words = [str(recipe) if w == "smoke" else w for w in command(discs, tmp_path)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    kill_after_a_checkpoint(process, tmp_path)
    assert (tmp_path / "last.ckpt").stat().st_size > 2_000_000
    epoch = torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"]
    words = [sys.executable, "-c", FULL_DISK, str(discs), str(tmp_path), str(recipe)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stdout
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == epoch


def test_a_run_leaves_its_curve_and_examples_as_pictures(discs: Path, tmp_path: Path) -> None:
    train(load_recipe("smoke"), [discs], tmp_path, progress=False)
    with Image.open(tmp_path / "curve.png") as plot:
        assert plot.size == (900, 400)
    strips = sorted((tmp_path / "examples").iterdir())
    assert [s.name for s in strips] == [f"epoch_{i:03}.jpg" for i in range(4)]
    with Image.open(strips[-1]) as strip:
        rows = np.asarray(strip.convert("L"), np.float32)
    truth, prediction = rows[128:248], rows[252:372]
    assert np.corrcoef(truth.ravel(), prediction.ravel())[0, 1] > 0.5


def test_a_union_learns_from_each_picture_once(discs: Path, tmp_path: Path) -> None:
    other = make_discs(tmp_path / "other", count=12, size=(96, 64))
    for folder in ("images", "masks"):
        (other / folder / "twin.png").write_bytes((discs / folder / "003.png").read_bytes())
    one = load_recipe("smoke").model_copy(update={"epochs": 1})
    result = train(one, [discs, other], tmp_path / "run", progress=False)
    record = json.loads(result.record.read_text())
    assert record["data"] == ["set", "other"]
    assert record["data_facts"]["dropped"] == 1
    assert sum(record["images"].values()) == 40 + 12


def test_geometry_moves_image_and_mask_alike() -> None:
    """A crop's grid applied to a picture equals the same grid applied to its own threshold."""
    g = torch.Generator().manual_seed(3)
    aspect = torch.tensor([1.5, 0.6, 1.0])
    grid = crop_grid(aspect, 48, 96, Augmentation(), g)
    x = torch.linspace(-1, 1, 64)
    disc = ((x[None] ** 2 + x[:, None] ** 2) < 0.2).float().expand(3, 1, 64, 64)
    one = torch.nn.functional.grid_sample(disc, grid, align_corners=False, padding_mode="border")
    two = torch.nn.functional.grid_sample(
        disc * 2, grid, align_corners=False, padding_mode="border"
    )
    assert torch.equal(one * 2, two)
    assert one.mean() > 0.02


def test_objects_keep_their_shape_in_a_crop() -> None:
    """A circle of the original image is a circle in the crop, whatever the squash and the crop's aspect."""
    still = Augmentation(scale=(1.0, 1.0), aspect=0.0, rotation=0.0)
    grid = crop_grid(torch.tensor([2.0]), 64, 128, still, torch.Generator().manual_seed(0))
    # In the squashed square a circle of a 2:1 image is an ellipse half as wide.
    x = torch.linspace(-1, 1, 256)
    ellipse = (((x[None] * 2) ** 2 + x[:, None] ** 2) < 0.25).float()[None, None]
    crop = torch.nn.functional.grid_sample(ellipse, grid, align_corners=False)[0, 0] > 0.5
    rows, columns = crop.any(1).sum(), crop.any(0).sum()
    assert abs(int(rows) - int(columns)) <= 2
    assert int(rows) == pytest.approx(32, abs=2)


def test_colour_changes_stay_in_range_and_are_repeatable() -> None:
    x = torch.rand(16, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    always = Augmentation(grey=0.5, gamma=1.0, blur=0.5, noise=1.0, blocks=1.0)
    a, b = (photometric(x.clone(), always, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.min() >= 0 and a.max() <= 1
    assert not torch.equal(a, x)


def test_a_teacher_is_run_once_and_resumed(discs: Path, tmp_path: Path) -> None:
    from tiny_models import plane_model

    model = tmp_path / "teacher.onnx"
    model.write_bytes(plane_model(gain=0.5, offset=0.25))
    pairs = find_pairs(discs)
    maps = soft_maps(pairs, model, tmp_path / "cache")
    assert maps.shape == (40, 160, 160)
    note = next((tmp_path / "cache").glob("teacher-*/done.json"))
    note.write_text("0")
    again = soft_maps(pairs, model, tmp_path / "cache")
    assert np.array_equal(maps, again)
    before = note.stat().st_mtime_ns
    soft_maps(pairs, model, tmp_path / "cache")
    assert note.stat().st_mtime_ns == before


def test_a_teacher_that_is_none_is_refused(discs: Path, tmp_path: Path) -> None:
    path = tmp_path / "teacher.onnx"
    path.write_bytes(b"words, not a model")
    with pytest.raises(ModelError, match=r"teacher\.onnx"):
        soft_maps(find_pairs(discs), path, tmp_path / "cache")


def test_recipes_know_their_crops() -> None:
    recipe: Recipe = load_recipe("smoke")
    assert recipe.crops(1) == [(32, 32)]
    assert recipe.crops(3) == [(32, 64), (64, 32)]
