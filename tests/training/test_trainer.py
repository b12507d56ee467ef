"""Runs on discs made here: they learn, resume bit-equally, and stop with one clear line."""

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # two threads on a busy machine wait for each other
pytest.importorskip("lightning")

from eyeline.cli import main  # noqa: E402
from eyeline.convert.export import export_run  # noqa: E402
from eyeline.digests import file_sha256  # noqa: E402
from eyeline.errors import OutputError, TrainingError  # noqa: E402
from eyeline.inference.session import Session  # noqa: E402
from eyeline.registry.records import IoSpec  # noqa: E402
from eyeline.registry.registry import Model  # noqa: E402
from eyeline.scan import scan_file  # noqa: E402
from eyeline.training._backbone import load_backbone  # noqa: E402
from eyeline.training.material import TrainingMaterial, prepare_objects  # noqa: E402
from eyeline.training.nets import MobileNetV2, build_net  # noqa: E402
from eyeline.training.recipes import Recipe, load_recipe  # noqa: E402
from eyeline.training.trainer import fit  # noqa: E402
from training.samples import deeper, make_discs, pyramid_recipe  # noqa: E402


@pytest.fixture(scope="module")
def smoke(disc_material: TrainingMaterial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("smoke")
    fit(load_recipe("smoke"), disc_material, out, progress=False)
    return out


def weights_of(path: Path) -> dict[str, "torch.Tensor"]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return state


def fork(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a child that has torch imported already."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process


def run_quietly(recipe: Recipe, material: TrainingMaterial, out: Path) -> None:
    fit(recipe, material, out, progress=False)


def kill_after_a_checkpoint(process: BaseProcess, out: Path) -> None:
    while not (out / "last.ckpt").exists():
        assert process.is_alive(), "it ended before its first checkpoint"
        time.sleep(0.01)
    process.kill()
    process.join()


def test_it_learns_discs_and_leaves_a_record(smoke: Path) -> None:
    record = json.loads((smoke / "run.json").read_text())
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
    net.load_state_dict(weights_of(smoke / "weights.pt"), strict=True)


def test_a_run_leaves_its_curve_and_examples_as_pictures(smoke: Path) -> None:
    with Image.open(smoke / "curve.png") as plot:
        assert plot.size == (900, 400)
    sheets = sorted((smoke / "examples").iterdir())
    assert [s.name for s in sheets] == [f"epoch_{i:03}.jpg" for i in range(4)]
    with Image.open(sheets[-1]) as sheet:
        rows = np.asarray(sheet.convert("L"), np.float32)
    truth, prediction = rows[128:248], rows[252:372]
    assert np.corrcoef(truth.ravel(), prediction.ravel())[0, 1] > 0.5


def test_the_command_finishes_a_killed_run_bit_equally(
    smoke: Path,
    disc_material: TrainingMaterial,
    discs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut = tmp_path / "cut"
    process = fork(run_quietly, load_recipe("smoke"), disc_material, cut)
    kill_after_a_checkpoint(process, cut)
    assert not (cut / "weights.pt").exists()
    before = torch.load(cut / "last.ckpt", weights_only=True)["seconds"]
    words = ["eyeline", "train", "smoke", "--data", str(discs), "--out", str(cut), "--quiet"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out == f"wrote {cut / 'weights.pt'} and {cut / 'run.json'}\n"
    assert (smoke / "weights.pt").read_bytes() == (cut / "weights.pt").read_bytes()
    resumed = torch.load(cut / "last.ckpt", weights_only=True)["seconds"]
    assert resumed > before > 0


@pytest.mark.slow
def test_two_devices_share_each_batch(discs: Path, tmp_path: Path) -> None:
    words = ["train", "smoke", "--data", discs, "--out", tmp_path / "run", "--devices", "2", "-q"]
    two = [sys.executable, "-m", "eyeline", *map(str, words)]
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


def test_a_batch_that_devices_do_not_divide_is_refused(
    disc_material: TrainingMaterial, tmp_path: Path
) -> None:
    recipe = load_recipe("smoke")
    with pytest.raises(
        TrainingError, match=rf"a batch of {recipe.batch} cannot be shared equally by 3 devices"
    ):
        fit(recipe, disc_material, tmp_path / "run", devices=3)
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_another_runs_weights(
    smoke: Path, disc_material: TrainingMaterial, tmp_path: Path
) -> None:
    recipe = deeper(load_recipe("smoke"), "dense").model_copy(update={"epochs": 1})
    first = smoke / "weights.pt"
    second = fit(recipe, disc_material, tmp_path / "second", start=first, progress=False)
    record = json.loads(second.record.read_text())
    assert record["started_from"]["weights_sha256"] == file_sha256(first)
    assert len(record["started_from"]["new_blocks"]) == 1
    before = json.loads((smoke / "run.json").read_text())["curve"]
    assert record["curve"][0]["iou"] > before[1]["iou"]


def test_weights_that_do_not_fit_are_refused(
    disc_material: TrainingMaterial, tmp_path: Path
) -> None:
    torch.save(build_net(load_recipe("student_v3").net).state_dict(), tmp_path / "v3.pt")
    (tmp_path / "words.pt").write_text("words")
    for name, message in (
        ("v3", r"belong to another network: stem\.0\.weight does not fit"),
        ("words", r"words\.pt: is not a file with weights"),
        ("gone", r"gone\.pt: can't be read: No such file"),
    ):
        with pytest.raises(TrainingError, match=message):
            start = tmp_path / f"{name}.pt"
            fit(load_recipe("smoke"), disc_material, tmp_path, start=start, progress=False)


def test_every_epoch_leaves_a_checkpoint_however_it_scores(
    disc_material: TrainingMaterial, tmp_path: Path
) -> None:
    still = load_recipe("smoke").model_copy(update={"lr": 1e-12, "ema": 0.0, "epochs": 2})
    fit(still, disc_material, tmp_path, progress=False)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 1


def test_a_loss_that_turns_nan_stops_the_run(
    disc_material: TrainingMaterial, tmp_path: Path
) -> None:
    wild = load_recipe("smoke").model_copy(update={"lr": 1e30, "warmup": 0.0})
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch \d+, batch \d+"):
        fit(wild, disc_material, tmp_path / "run", progress=False)


def test_a_recipe_that_wants_a_teacher_says_so(
    disc_material: TrainingMaterial, tmp_path: Path
) -> None:
    wants = load_recipe("smoke").model_copy(update={"teacher": 0.5})
    with pytest.raises(TrainingError, match="learns from a teacher's maps"):
        fit(wants, disc_material, tmp_path / "run", progress=False)


def test_a_checkpoint_of_another_recipe_is_refused(
    smoke: Path, disc_material: TrainingMaterial, tmp_path: Path
) -> None:
    shutil.copy(smoke / "last.ckpt", tmp_path)
    recipe = load_recipe("smoke")
    wider = recipe.model_copy(update={"net": recipe.net | {"lateral": 12}, "epochs": 5})
    with pytest.raises(TrainingError, match=r"another recipe wrote .*: net, epochs differ"):
        fit(wider, disc_material, tmp_path, progress=False)


def test_a_checkpoint_from_before_a_recipes_key_is_taken(
    smoke: Path, disc_material: TrainingMaterial, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(smoke, run)
    (run / "weights.pt").unlink()
    old = torch.load(run / "last.ckpt", weights_only=True)
    del old["recipe"]["selection_lines"]
    torch.save(old, run / "last.ckpt")
    recipe = load_recipe("smoke")
    again = fit(recipe, disc_material, run, progress=False)
    assert again.weights.read_bytes() == (smoke / "weights.pt").read_bytes()
    at_other_lines = recipe.model_copy(update={"selection_lines": 64})
    with pytest.raises(TrainingError, match=r"another recipe wrote .*: selection_lines differ"):
        fit(at_other_lines, disc_material, run, progress=False)


def run_on_a_full_disk(
    recipe: Recipe, material: TrainingMaterial, out: Path, answers: Connection
) -> None:
    signal.signal(
        signal.SIGXFSZ, signal.SIG_IGN
    )  # a write beyond the limit fails, as on a full disk
    limit = 2_000_000  # above a batch in shared memory
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        fit(recipe, material, out, progress=False)
    except OutputError as exc:
        answers.send((exc.exit_code, exc.message))
    answers.close()


def test_a_full_disk_leaves_the_old_checkpoint(
    disc_material: TrainingMaterial, tmp_path: Path
) -> None:
    smoke = load_recipe("smoke")
    net = json.loads(re.sub(r'"channels": \d+', '"channels": 128', json.dumps(smoke.net)))
    wide = smoke.model_copy(update={"net": net})
    process = fork(run_quietly, wide, disc_material, tmp_path)
    kill_after_a_checkpoint(process, tmp_path)
    assert (tmp_path / "last.ckpt").stat().st_size > 2_000_000
    epoch = torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"]
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = fork(run_on_a_full_disk, wide, disc_material, tmp_path, theirs)
    theirs.close()
    code, message = ours.recv()
    process.join()
    assert code == 2
    assert "File too large" in message
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == epoch


def test_a_union_learns_from_each_picture_once(discs: Path, tmp_path: Path) -> None:
    other = make_discs(tmp_path / "other", count=12, size=(96, 64))
    for folder in ("images", "masks"):
        (other / folder / "twin.png").write_bytes((discs / folder / "003.png").read_bytes())
    one = load_recipe("smoke").model_copy(update={"epochs": 1})
    material = prepare_objects(one, [discs, other], tmp_path / "cache")
    record = json.loads(fit(one, material, tmp_path / "run", progress=False).record.read_text())
    assert record["data"] == ["set", "other"]
    assert record["data_facts"]["dropped"] == 1
    assert sum(record["images"].values()) == 40 + 12


def test_a_run_starts_from_the_backbone_and_its_export_keeps_the_contract(
    discs: Path, backbone: Path, tmp_path: Path
) -> None:
    recipe = pyramid_recipe(backbone)
    material = prepare_objects(recipe, [discs], tmp_path / "cache", backbone=backbone)
    result = fit(recipe, material, tmp_path / "run", progress=False)
    record = json.loads(result.record.read_text())
    assert record["curve"][-1]["iou"] > 0.6
    assert record["recipe"]["backbone"]["sha256"] == file_sha256(backbone)

    pretrained = MobileNetV2(0.25)
    load_backbone(pretrained, backbone.read_bytes())
    learned = weights_of(result.weights)["encoder.stem.weight"]
    moved = (learned - pretrained.stem.weight).norm() / pretrained.stem.weight.norm()
    assert 0 < moved < 0.2

    onnx = tmp_path / "pyramid.onnx"
    export_run(tmp_path / "run", onnx)
    assert scan_file(onnx).admitted
    session = Session(Model("pyramid", onnx, IoSpec(multiple=1)), "cpu")
    m = session.run(np.random.default_rng(0).normal(size=(1, 3, 45, 77)).astype(np.float32))
    assert m.shape == (45, 77)
