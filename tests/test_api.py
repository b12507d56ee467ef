"""The public names, and what importing them costs."""

from __future__ import annotations

import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import eyeline
from eyeline import errors

HEAVY = {"torch", "onnxruntime", "av", "numpy", "onnx", "cv2", "pydantic", "matplotlib", "pyarrow"}


def python(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cpu_seconds(*command: str) -> float:
    """User and system time of a child process, the best of five."""
    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best, spent)
    return best


def slowness() -> float:
    """How many times longer than 10 ms of CPU an empty interpreter takes here and now; at least 1.

    Where others use the machine's caches, everything takes longer, and that is no fault of ours.
    """
    return max(1.0, cpu_seconds("-c", "pass") / 0.01)


def test_all_is_what_loads_lazily() -> None:
    assert set(eyeline.__all__) == {*eyeline._HOMES, "__version__"}
    assert len(eyeline.__all__) == len(set(eyeline.__all__))


@pytest.mark.parametrize("name", eyeline.__all__)
def test_a_public_name_is_the_one_of_its_home(name: str) -> None:
    value = getattr(eyeline, name)
    if name != "__version__":
        assert value is getattr(importlib.import_module(eyeline._HOMES[name]), name)
        assert value.__doc__


def test_star_import_brings_every_name() -> None:
    out = python("from eyeline import *; import eyeline; print(set(eyeline.__all__) - set(dir()))")
    assert out == "set()\n"


def test_dir_shows_the_public_names() -> None:
    assert dir(eyeline) == sorted(eyeline.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = eyeline.nothing


def test_every_error_is_in_the_tree_drawn_in_its_module() -> None:
    kinds = {k for k, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception)}
    drawn = {word for word in (errors.__doc__ or "").replace("-", " ").split() if "Error" in word}
    assert kinds <= drawn
    assert all(issubclass(getattr(errors, k), errors.EyelineError) for k in kinds)


def test_an_error_is_its_message_and_its_mend() -> None:
    error = errors.MediaError("clip.mp4: not a video", "name a video")
    assert str(error) == "clip.mp4: not a video (name a video)"
    assert str(errors.MediaError("clip.mp4: not a video")) == "clip.mp4: not a video"


def test_exit_codes() -> None:
    codes = {
        k: v.exit_code
        for k, v in vars(errors).items()
        if isinstance(v, type) and issubclass(v, errors.EyelineError)
    }
    other = {k: code for k, code in codes.items() if code != 2}
    assert other == {"DamagedMediaError": 3, "ScanError": 1, "LicenceError": 1}


def test_import_loads_nothing_heavy() -> None:
    out = python("import sys, eyeline; print(*{m.partition('.')[0] for m in sys.modules})")
    assert not HEAVY & set(out.split())


def test_help_loads_no_runtime() -> None:
    program = (
        "import sys\n"
        "sys.argv = ['eyeline', '--help']\n"
        "import eyeline.cli\n"
        "try: eyeline.cli.main()\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(' '.join({m.partition('.')[0] for m in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "extract" in done.stdout
    assert not HEAVY & set(done.stderr.split())


def test_a_session_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from eyeline.registry import resolve_model\n"
        "from eyeline.inference.session import Session\n"
        "Session(resolve_model('placeholder'))\n"
        "print('torch' in sys.modules, 'onnx' in sys.modules)\n"
    )
    assert python(program) == "False False\n"


def test_import_takes_less_than_a_tenth_of_a_second() -> None:
    assert cpu_seconds("-c", "import eyeline") < 0.1 * slowness()


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    assert cpu_seconds("-m", "eyeline", "--help") < 0.3 * slowness()


def test_a_session_writes_nothing_and_says_nothing(tmp_path: Path) -> None:
    # ONNX Runtime keeps telemetry under the home folder, but not where CI is set.
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "GITHUB_ACTIONS")}
    for name in [n for n in environment if n.startswith(("XDG_", "ORT_"))]:
        del environment[name]
    program = (
        "import numpy as np\n"
        "from eyeline.registry import resolve_model\n"
        "from eyeline.inference.session import Session\n"
        "session = Session(resolve_model())\n"
        "session.run(np.zeros((1, 3, 64, 96), np.float32))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment | {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.rglob("*")) == []


def test_the_telemetry_check_would_see_it(tmp_path: Path) -> None:
    # The control of the test above: the runtime, imported without us, does write there.
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "GITHUB_ACTIONS")}
    for name in [n for n in environment if n.startswith(("XDG_", "ORT_"))]:
        del environment[name]
    program = "import onnxruntime; onnxruntime.get_available_providers()"
    subprocess.run(
        [sys.executable, "-c", program], env=environment | {"HOME": str(tmp_path)}, check=True
    )
    if not list(tmp_path.rglob("*")):
        pytest.skip("this ONNX Runtime keeps no telemetry")
