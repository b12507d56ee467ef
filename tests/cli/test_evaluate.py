"""`eyeline evaluate` as people run it: real files, exit codes, and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import commands
from tiny_models import plane_model, write_registry

pytest.importorskip("py_sod_metrics")


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here() -> Here:
    """The same command line in this process: seconds less for each case."""

    def run_here(*words: str | Path) -> tuple[int, str, str]:
        done = commands.run("evaluate", *words)
        return done.returncode, done.stdout, done.stderr

    return run_here


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    root = tmp_path / "squares"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(3):
        mask = np.zeros((40, 56), np.uint8)
        mask[8 : 20 + 4 * i, 10:40] = 255
        picture = np.stack([mask, mask // 8, 200 - mask // 2], -1)
        Image.fromarray(picture).save(root / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return root


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    models = {
        n: plane_model(mix, 0.998, 0.001) for n, mix in (("red", (1, 0, 0)), ("blue", (0, 0, 1)))
    }
    return write_registry(tmp_path / "registry", models)


def test_every_output_in_one_command(squares: Path, registry: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("r.json", "t.md", "p.html", "worst.jpg")]
    words = ["-m", "red", "-m", "blue", "-d", squares, "--registry", registry, "--size", "40"]
    words += ["-o", outputs[0], "--markdown", outputs[1], "--html", outputs[2]]
    done = commands.run("evaluate", *words, "--contact-sheet", outputs[3], "--workers", "1")
    assert done.returncode == 0, done.stderr
    report = json.loads(outputs[0].read_text())
    assert [r["model"] for r in report["results"]] == ["red", "blue"]
    assert report["results"][0]["estimates"]["iou"]["value"] == 1
    assert report["results"][0]["parameters"] == 4
    assert done.stdout == outputs[1].read_text()
    assert "squares, 3 images" in outputs[2].read_text()
    assert Image.open(outputs[3]).format == "JPEG"


def test_json_alone_on_stdout(squares: Path, registry: Path) -> None:
    words = ["-m", "red", "-d", squares, "--registry", registry, "-o", "-", "--workers", "1"]
    done = commands.run_process("evaluate", *words)
    assert json.loads(done.stdout)["results"][0]["dataset"] == "squares"
    assert done.stderr == ""


def test_the_default_model_is_the_registrys(squares: Path, here: Here) -> None:
    code, out, _ = here("-d", squares, "--workers", "1")
    assert code == 0
    assert "| saliency_student_v4 |" in out


def test_a_smoke_model_is_told(squares: Path, here: Here) -> None:
    _, out, err = here("-m", "placeholder", "-d", squares, "--workers", "1")
    assert "its numbers mean nothing" in err
    assert "placeholder (smoke: numbers mean nothing)" in out


def test_ctrl_c_keeps_what_is_finished(squares: Path, tmp_path: Path) -> None:
    for i in range(3, 120):
        for folder in ("images", "masks"):
            (squares / folder / f"{i}.png").write_bytes((squares / folder / "0.png").read_bytes())
    words = [
        "evaluate",
        "-d",
        squares,
        "--size",
        "320",
        "--workers",
        "1",
        "--resume",
        tmp_path / "k",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "eyeline", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    rows = b""
    while rows.count(b"\n") < 4:
        assert process.poll() is None, process.communicate()
        rows = b"".join(p.read_bytes() for p in (tmp_path / "k").glob("*.jsonl"))
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert err == f"interrupted: finished images are kept in {tmp_path / 'k'}\n"


BROKEN = {
    "missing folder": "nowhere: no such dataset",
    "image without mask": "1 images or masks have no counterpart, the first is '1'",
    "unreadable image": "1.png: unreadable image",
    "size mismatch": "1 masks differ in size from their image, the first is 1: image 56x40, mask 3x3",
    "truncated image": "1.png: unreadable image",
    "masks of 0 and 1": "no mask has a pixel above 127",
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_data_is_one_clear_line(case: str, squares: Path, here: Here) -> None:
    if case == "image without mask":
        (squares / "masks" / "1.png").unlink()
    elif case == "unreadable image":
        (squares / "images" / "1.png").write_bytes(b"words")
    elif case == "size mismatch":
        Image.new("L", (3, 3)).save(squares / "masks" / "1.png")
    elif case == "truncated image":
        path = squares / "images" / "1.png"
        path.write_bytes(path.read_bytes()[:-40])
    elif case == "masks of 0 and 1":
        for path in (squares / "masks").iterdir():
            Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    data = squares.parent / "nowhere" if case == "missing folder" else squares
    code, out, err = here("-d", data, "--workers", "1", "-q")
    assert (code, out) == (2, "")
    line, hint = err.splitlines()
    assert line.startswith("error: ")
    assert BROKEN[case] in line
    assert hint.startswith("  ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "big"], "--size 'big' is not a size"),
        (["--size", "8"], "--size '8' is not a size"),
        (["-m", "unknown"], "no model 'unknown'"),
        (["--contact-sheet", "worst.gif"], "cannot be written as .gif"),
        (["-o", "nowhere/r.json"], "nowhere/r.json: its folder does not exist"),
        (["-o", "/"], "/: the path is a folder"),
        (["-o", "x", "--html", "x"], "x: another output has the same name"),
        (["--resume", "/dev/null"], "/dev/null"),
    ],
)
def test_bad_options_are_one_clear_line(
    words: list[str], message: str, squares: Path, here: Here
) -> None:
    code, _, err = here("-d", squares, "--workers", "1", *words)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize("absent", ["py_sod_metrics", "PIL", "cv2"])
def test_a_missing_extra_is_named(absent: str, squares: Path, tmp_path: Path) -> None:
    """A `sitecustomize` that refuses the import stands in for an installation without the extra."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {absent!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    words = ["evaluate", "-d", squares, "--workers", "1"]
    done = commands.run_process(*words, env={"PYTHONPATH": path})
    assert done.returncode == 2
    assert f"error: {absent} is not installed" in done.stderr
    assert "pip install 'eyeline[eval]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fixation_set_and_masks_in_one_command(
    squares: Path, registry: Path, tmp_path: Path, here: Here
) -> None:
    root = tmp_path / "gaze"
    (root / "images").mkdir(parents=True)
    rows = ["image,viewer,x,y,duration_ms", "0,0,1.5,0.5,100"]
    for i in range(3):
        (root / "images" / f"{i}.png").write_bytes((squares / "images" / f"{i}.png").read_bytes())
        rows += [f"{i},{viewer},0.4{viewer},0.3{i},200" for viewer in range(4)]
    (root / "fixations.csv").write_text("\n".join(rows) + "\n")
    words = ["-m", "red", "-m", "blue", "-d", squares, "-d", root, "--registry", registry]
    report, sheet = tmp_path / "r.json", tmp_path / "worst.png"
    words += ["--workers", "1", "--pixels-per-degree", "4", "-o", report, "--contact-sheet", sheet]
    code, out, err = here(*words)
    assert code == 0, err
    assert err == "warning: gaze: outside the picture: 1, first 0, line 2: x = 1.5\n"
    assert "### squares, 3 images" in out
    assert "### gaze: 3 images, 12 fixations of 4 viewers" in out
    for row in ("| red |", "| uniform |", "| centre prior |", "| inter-observer |"):
        assert row in out
    assert json.loads(report.read_text())["gaze"]["sets"][0]["problems"][0]["count"] == 1
    assert Image.open(sheet).size[1] > 400


def test_gaze_options_out_of_range_are_one_clear_line(squares: Path, here: Here) -> None:
    code, _, err = here("-d", squares, "--frames", "0", "--workers", "1")
    assert code == 2
    assert err.splitlines()[0] == "error: --frames is 0; it must be 1 or more"
