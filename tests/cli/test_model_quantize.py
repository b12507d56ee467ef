"""`eyeline model quantize` as people run it: real files, exit codes, and commands that take the result."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clips import moving, write_clip
from commands import run
from quantisable import make_images, net

pytest.importorskip("py_sod_metrics")

QUICK = ("--images", "2", "--check", "1", "--method", "minmax")


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here() -> Here:
    """The same command line in this process: seconds less for each case."""

    def run_here(*words: str | Path) -> tuple[int, str, str]:
        done = run(*words)
        return done.returncode, done.stdout, done.stderr

    return run_here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, the default model quantised, and its report."""
    place = tmp_path_factory.mktemp("int8")
    make_images(place / "pictures")
    done = run(
        "model", "quantize", "saliency_student_v3", "--calibration", place / "pictures",
        "-o", place / "small.onnx", *QUICK, "--report", place / "report.json", "--force",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "compared on 1 others" in done.stdout
    assert "times as fast" in done.stdout
    return place


def test_the_report_is_the_parity_paper(folder: Path) -> None:
    assert (folder / "report.json").read_bytes() == (folder / "small.parity.json").read_bytes()
    report = json.loads((folder / "report.json").read_text())
    assert report["source"]["name"] == "saliency_student_v3"
    assert [loss["lines"] for loss in report["losses"]] == [192, 144, 384]
    assert report["calibration"]["images"] == 2


def test_extract_takes_it(folder: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving(3))
    done = run("extract", clip, "--model", folder / "small.onnx", "-o", tmp_path / "log.json", "-q")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "log.json").read_text())["frames"]


@pytest.mark.slow
def test_evaluate_takes_it(folder: Path) -> None:
    done = run(
        "evaluate", "--model", folder / "small.onnx", "--data", folder / "pictures", "-o", "-"
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)["results"][0]
    assert (
        row["model_sha256"] == json.loads((folder / "report.json").read_text())["model"]["sha256"]
    )
    assert 0 <= row["estimates"]["mae"]["value"] < 1


def test_a_gate_that_says_no_is_exit_code_1_and_no_file(
    folder: Path, tmp_path: Path, here: Here
) -> None:
    (tmp_path / "net.onnx").write_bytes(net())
    (tmp_path / "net.json").write_text('{"working_lines": 32, "multiple": 1}')
    words = (
        "model", "quantize", tmp_path / "net.onnx", "--calibration", folder / "pictures",
        "-o", tmp_path / "q.onnx", *QUICK, "--max-shift", "0", "--report", "-",
    )  # fmt: skip
    code, out, err = here(*words)
    assert code == 1
    assert "saliency_mean moves by" in err
    assert "not written; --force" in err
    assert not (tmp_path / "q.onnx").exists()
    assert json.loads(out)["passed"] is False
    code, _, err = here(*words, "--force")
    assert code == 0
    assert "saliency_mean moves by" in err
    assert (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("saliency_student_v3", "-o", "q.txt"), "end in .onnx"),
        (("saliency_student_v3", "-o", "q.onnx", "--method", "guess"), "--method 'guess'"),
        (("saliency_student_v3", "-o", "q.onnx", "--keep-float", "Conv:99"), "Conv:0 to Conv:"),
        (("no_such_model", "-o", "q.onnx"), "no model 'no_such_model'"),
        (("placeholder", "-o", "absent/q.onnx"), "can't be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, tmp_path: Path, here: Here, words: tuple[str, ...], said: str
) -> None:
    placed = [str(tmp_path / w) if w.endswith(("q.txt", "q.onnx")) else w for w in words]
    code, _, err = here("model", "quantize", *placed, "--calibration", folder / "pictures")
    assert code == 2
    assert said in err
    assert err.count("\n") <= 2
    assert not list(tmp_path.iterdir())
