"""Models with known answers over datasets made here: rows, resuming, reports, the contact sheet."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands import run
from tiny_models import plane_model, write_registry

pytest.importorskip("py_sod_metrics")

from evaluation.colour_models import as_model
from eyeline.errors import DatasetError, OutputError, UsageError
from eyeline.evaluation.benchmark import evaluate, load_dataset
from eyeline.evaluation.gaze import EvaluateOptions, GazeOptions
from eyeline.evaluation.report import CELL, GAP, LINE, contact_sheet, html_page, markdown
from eyeline.evaluation.results import EvaluationReport
from eyeline.evaluation.rows import Size, predict
from eyeline.inference.session import Session
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model

COUNT, WIDTH, HEIGHT = 14, 80, 60


def make_discs(root: Path, count: int = COUNT, *, sub: str = "") -> Path:
    """Red discs on a blue ground: a model that answers red is right, one that answers blue is wrong."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for folder in ("images", "masks"):
        (root / folder / sub).mkdir(parents=True)
    for i in range(count):
        step = i % COUNT  # further ones repeat: all stay inside the picture
        inside = (x - 25 - 2 * step) ** 2 + (y - 22 - step) ** 2 < (8 + step / 2) ** 2
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        picture[inside, 0] = 255
        picture[~inside, 2] = 255 - 10 * step
        Image.fromarray(picture).save(root / "images" / sub / f"{i:02}.png")
        mask = Image.fromarray(inside.astype(np.uint8) * 255)
        mask.save(root / "masks" / sub / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_discs(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="module")
def report(discs: Path, red: Model, blue: Model) -> EvaluationReport:
    return evaluate([red, blue], [discs], EvaluateOptions(draws=200))


def numbers(report: EvaluationReport) -> list[list[object]]:
    """All of a report that does not depend on the clock."""
    fields = report.to_json()
    for result in fields["results"]:
        del result["latency_ms"]
    return [fields["results"], fields["comparisons"]]


def test_the_right_model_scores_one_and_the_wrong_one_nothing(report: EvaluationReport) -> None:
    good, bad = report.results
    assert (good.model, bad.model) == ("red", "blue")
    assert good.estimates["iou"].value == good.estimates["max_fmeasure_dataset"].value == 1
    assert good.estimates["mae"].value == pytest.approx(0, abs=1e-6)
    assert bad.estimates["iou"].value == 0
    assert bad.estimates["mae"].value == pytest.approx(1, abs=1e-6)


def test_the_wrong_model_is_significantly_worse(report: EvaluationReport) -> None:
    [comparison] = report.comparisons
    assert (comparison.model, comparison.other) == ("blue", "red")
    assert comparison.differences["iou"].value == -1
    assert comparison.differences["iou"].p_value == pytest.approx(2 / 201)


def test_the_report_says_where_its_numbers_come_from(report: EvaluationReport, red: Model) -> None:
    fields = json.loads(report.dumps())
    first = fields["results"][0]
    assert first["model_sha256"] == red.sha256
    assert first["working_size"] == [WIDTH, HEIGHT]
    assert first["latency_ms"] > 0
    assert len(first["dataset_digest"]) == 64
    assert {"eyeline", "pysodmetrics", "onnxruntime"} <= set(fields["about"]["versions"])
    assert "stretches every map to [0, 1]" in " ".join(fields["notes"])
    assert str(red.path.parent) not in report.dumps()


def test_the_parameters_are_those_of_the_record(discs: Path, tmp_path: Path) -> None:
    from eyeline.registry.registry import Registry

    folder = write_registry(tmp_path / "r", {"known": plane_model(gain=0.9, offset=0.05)})
    result = evaluate([Registry(folder).get("known")], [discs], EvaluateOptions(draws=10))
    assert result.results[0].parameters == 4


def test_processes_change_nothing(discs: Path, red: Model, report: EvaluationReport) -> None:
    spread = evaluate([red], [discs], EvaluateOptions(draws=200, workers=2))
    [[alone], _], [[first, _], _] = numbers(spread), numbers(report)
    assert alone == first


def test_an_archive_is_its_folder(discs: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "discs.tar", "w") as tar:
        tar.add(discs, "wrapped")
    assert load_dataset(tmp_path / "discs.tar").digest == load_dataset(discs).digest


def test_a_changed_mask_changes_the_digest(discs: Path, tmp_path: Path) -> None:
    other = make_discs(tmp_path / "discs")
    assert load_dataset(other).digest == load_dataset(discs).digest
    Image.new("L", (WIDTH, HEIGHT), 255).save(other / "masks" / "03.png")
    assert load_dataset(other).digest != load_dataset(discs).digest


@pytest.mark.parametrize(
    ("size", "seen"), [(None, (80, 60)), (30, (40, 30)), ((24, 24), (24, 24)), ("native", (80, 60))]
)
def test_the_working_size_is_what_was_asked_for(
    discs: Path, red: Model, size: Size, seen: tuple[int, int]
) -> None:
    result = evaluate([red], [discs], EvaluateOptions(size=size, draws=10)).results[0]
    assert result.working_size == seen
    assert result.estimates["iou"].value > 0.9


def test_a_model_that_squashes_does_so_unless_lines_are_asked_for(discs: Path, red: Model) -> None:
    squashed = Model(red.id, red.path, IoSpec(squash=(32, 32), multiple=1))
    seen = [
        evaluate([squashed], [discs], EvaluateOptions(size=size, draws=10)).results[0].working_size
        for size in (None, 30)
    ]
    assert seen == [(32, 32), (40, 30)]


def test_images_are_scaled_by_area(red: Model) -> None:
    """Columns of red and black in turn: their areas are half red, whatever the phase."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0] = 255
    answer = predict(Session(red, "cpu"), Image.fromarray(stripes), 32)
    assert answer.shape == (64, 64)
    assert answer == pytest.approx(0.5, abs=0.01)


def test_a_map_lies_where_its_image_does(red: Model) -> None:
    """A portrait that the working size does not divide: nothing is shifted by scaling or padding."""
    picture = np.zeros((150, 90, 3), np.uint8)
    picture[30:60, 20:70, 0] = 255
    padded = Model(red.id, red.path, IoSpec(working_lines=48, multiple=32))
    answer = predict(Session(padded, "cpu"), Image.fromarray(picture)) >= 0.5
    rows, columns = np.flatnonzero(answer.any(1)), np.flatnonzero(answer.any(0))
    assert (rows[0], rows[-1] + 1) == pytest.approx((30, 60), abs=1)
    assert (columns[0], columns[-1] + 1) == pytest.approx((20, 70), abs=1)


def test_empty_masks_are_named_and_stay(tmp_path: Path, red: Model) -> None:
    root = make_discs(tmp_path / "set", 4)
    Image.new("L", (WIDTH, HEIGHT)).save(root / "masks" / "02.png")
    result = evaluate([red], [root], EvaluateOptions(draws=10))
    assert result.results[0].empty_masks == ["02"]
    assert result.results[0].without_plcc == 1
    assert result.results[0].estimates["iou"].value == pytest.approx(3 / 4)
    assert "4 images, 1 with an empty mask" in markdown(result)


def test_masks_of_zero_and_one_are_refused(tmp_path: Path) -> None:
    root = make_discs(tmp_path / "set", 3)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    with pytest.raises(DatasetError, match="no mask has a pixel above 127"):
        load_dataset(root)


def test_a_video_has_its_stability(tmp_path: Path, red: Model) -> None:
    """Four frames, the third with a mask that the model misses: IoU 1, 1, 0, 1."""
    root = make_discs(tmp_path / "set", 4, sub="bear")
    flipped = 255 - np.asarray(Image.open(root / "masks" / "bear" / "02.png"))
    Image.fromarray(flipped).save(root / "masks" / "bear" / "02.png")
    [video] = evaluate([red], [root], EvaluateOptions(draws=10)).results[0].videos
    assert (video.name, video.frames) == ("bear", 4)
    assert video.iou == pytest.approx(3 / 4)
    assert video.iou_change == pytest.approx(2 / 3)


def test_the_same_model_or_dataset_twice_is_refused(discs: Path, red: Model) -> None:
    with pytest.raises(UsageError, match="--model names a model twice"):
        evaluate([red, red], [discs])
    with pytest.raises(UsageError, match="--data names a dataset twice"):
        evaluate([red], [discs, discs])


def test_models_of_one_file_name_are_told_apart(discs: Path, red: Model, tmp_path: Path) -> None:
    other = as_model(tmp_path, "red", (0.0, 1.0, 0.0))
    labels = [r.model for r in evaluate([red, other], [discs], EvaluateOptions(draws=10)).results]
    assert labels == [f"red@{red.sha256[:8]}", f"red@{other.sha256[:8]}"]


# Resuming


def test_a_torn_row_is_made_again(discs: Path, red: Model, tmp_path: Path) -> None:
    options = EvaluateOptions(draws=50, resume=tmp_path / "rows")
    whole = evaluate([red], [discs], options)
    [path] = (tmp_path / "rows").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]) + lines[6][:100])
    done: list[int] = []
    again = evaluate([red], [discs], options, lambda _, n, total: done.append(n))
    assert done[0] == 5
    assert numbers(again) == numbers(whole)
    assert path.read_bytes() == b"".join(lines)


def test_kept_rows_are_those_of_the_same_question(
    discs: Path, red: Model, blue: Model, tmp_path: Path
) -> None:
    rows = tmp_path / "rows"
    for model, size in ((red, None), (red, 40), (blue, None)):
        evaluate([model], [discs], EvaluateOptions(size=size, draws=10, resume=rows))
    assert len(list(rows.iterdir())) == 3


def test_damaged_rows_are_refused(discs: Path, red: Model, tmp_path: Path) -> None:
    options = EvaluateOptions(draws=10, resume=tmp_path / "rows")
    evaluate([red], [discs], options)
    [path] = (tmp_path / "rows").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + b"".join(lines[2:]))
    with pytest.raises(OutputError, match="the rows of an earlier run are damaged"):
        evaluate([red], [discs], options)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, red: Model
) -> tuple[Path, dict[str, Any]]:
    """A dataset of 60 images, and what an evaluation that nobody kills says of it."""
    root = make_discs(tmp_path_factory.mktemp("sixty") / "set", 60)
    side = Model(red.id, red.path, IoSpec())
    return root, json.loads(evaluate([side], [root], EvaluateOptions(size=60)).dumps())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_evaluation_goes_on_and_leaves_no_process(
    tmp_path: Path, red: Model, undisturbed: tuple[Path, dict[str, Any]], workers: int
) -> None:
    psutil = pytest.importorskip("psutil")
    (root, whole), rows = undisturbed, tmp_path / "rows"
    words = ["evaluate", "-q", "-m", red.path, "-d", root, "--size", "60"]
    words += ["--resume", rows, "-o", tmp_path / "report.json", "--workers"]
    command = [sys.executable, "-m", "eyeline", *map(str, words)]
    process = subprocess.Popen([*command, str(workers)], stderr=subprocess.DEVNULL)
    path: Path | None = None
    while path is None or path.read_bytes().count(b"\n") <= 5:
        assert process.poll() is None
        time.sleep(0.005)
        path = next(rows.iterdir(), None) if rows.is_dir() else None
    process.send_signal(signal.SIGSTOP)  # it does not go on while we look
    below = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 5 < path.read_bytes().count(b"\n") < 60, "killed in the middle"
    assert len(below) >= workers if workers > 1 else not below
    _, alive = psutil.wait_procs(below, 60)
    assert not alive
    assert run(*words, 1).returncode == 0
    resumed = json.loads((tmp_path / "report.json").read_text())
    for fields in (resumed, whole):
        fields["results"][0].pop("latency_ms", None)
    assert resumed == whole


# What people look at


def test_markdown_has_a_row_a_model_with_intervals(report: EvaluationReport) -> None:
    text = markdown(report)
    rows = {line.split(" | ")[0]: line for line in text.splitlines()}
    assert "1.000 [1.000, 1.000]" in rows["| red"]
    assert "-1.000 [-1.000, -1.000] (p 0.010)" in rows["| blue - red"]
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| red")}
    assert widths == {text.splitlines()[2].count(" | ")}


def test_html_shows_names_as_text(discs: Path, tmp_path: Path) -> None:
    model = as_model(tmp_path, "<b>|bold", (1.0, 0.0, 0.0))
    found = evaluate([model], [discs], EvaluateOptions(draws=10))
    page = html_page(found)
    assert "&lt;b&gt;|bold" in page
    assert "<b>|bold" not in page
    assert "<b>\\|bold" in markdown(found)
    assert page.count("<tr>") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (EvaluateOptions(gaze=GazeOptions(fold="report")), "--fold"),
        (EvaluateOptions(gaze=GazeOptions(pixels_per_degree=40)), "--pixels-per-degree"),
        (EvaluateOptions(gaze=GazeOptions(frames=3)), "--frames"),
        (EvaluateOptions(prior=(Path("osie"),)), "--prior"),
    ],
)
def test_options_of_fixation_sets_are_refused_for_masks(
    discs: Path, red: Model, options: EvaluateOptions, said: str
) -> None:
    with pytest.raises(UsageError, match=f"{said} has no effect without a fixation set"):
        evaluate([red], [discs], options)


def test_the_contact_sheet_shows_the_worst_images_first(tmp_path: Path, red: Model) -> None:
    root = make_discs(tmp_path / "set")
    Image.new("L", (WIDTH, HEIGHT), 255).save(root / "masks" / "09.png")
    options = EvaluateOptions(draws=10)
    found = evaluate([red], [root], options)
    assert len(found.results[0].worst) == 12
    assert found.results[0].worst[0] == "09"
    sheet = Image.open(io.BytesIO(contact_sheet(found, [red], [root], options)))
    top, left = 3 * LINE + CELL[1] // 2, [GAP + i * (CELL[0] + GAP) for i in range(3)]
    corner = [sheet.getpixel((x + 2, top)) for x in left]  # ground, far from the disc
    assert corner[0][2] > 100 and corner[0][0] < 10  # blue
    assert corner[1] == (255, 255, 255)  # the mask that was replaced
    assert max(corner[2]) < 3  # the map


# Numbers of the literature


def columns_of_ecssd(model: Model, shared_data: Path) -> dict[str, float]:
    options = EvaluateOptions(resample="bilinear", draws=10)
    found = evaluate([model], [shared_data / "ecssd.tar"], options).results[0].estimates
    return {name: estimate.value for name, estimate in found.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_u2netp_reproduces_its_published_row(shared_data: Path, tmp_path: Path) -> None:
    """ECSSD max F .943, MAE .041 (Qin et al., 2020), at their 320x320 squash, dataset-mean PR."""
    import onnx

    net = onnx.load(shared_data / "u2netp" / "u2netp.onnx")
    first = net.graph.output[0].name
    del net.graph.output[1:]
    for node in net.graph.node:
        for names, old, new in (
            (node.input, "input.1", "input"),
            (node.output, first, "saliency_map"),
            (node.input, first, "saliency_map"),
        ):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    net.graph.input[0].name, net.graph.output[0].name = "input", "saliency_map"
    path = tmp_path / "u2netp.onnx"
    path.write_bytes(net.SerializeToString())
    io = IoSpec(scale="max", output="minmax", squash=(320, 320), multiple=1)
    found = columns_of_ecssd(Model(str(path), path, io), shared_data)
    assert found["max_fmeasure_dataset"] == pytest.approx(0.943, abs=0.001)
    assert found["mae"] == pytest.approx(0.041, abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "max_f", "mae", "smeasure", "iou"),
    [("v1", 0.698, 0.212, 0.706, 0.558), ("v2", 0.735, 0.173, 0.746, 0.602)],
)
def test_the_reference_students_have_their_known_rows(
    shared_data: Path, name: str, max_f: float, mae: float, smeasure: float, iou: float
) -> None:
    """Measured by another program at 256x256; it scaled a little differently."""
    path = shared_data / "reference" / f"saliency_student_{name}.onnx"
    found = columns_of_ecssd(Model(name, path, IoSpec(squash=(256, 256), multiple=8)), shared_data)
    assert found["max_fmeasure_mean"] == pytest.approx(max_f, abs=0.003)
    assert found["mae"] == pytest.approx(mae, abs=0.003)
    assert found["smeasure"] == pytest.approx(smeasure, abs=0.003)
    assert found["iou"] == pytest.approx(iou, abs=0.003)
