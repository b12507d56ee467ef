"""The smoke model: deterministic bytes, and an answer that is known in closed form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eyeline.convert.placeholder import BIAS, WEIGHTS, placeholder_bytes
from eyeline.inference.session import Session
from eyeline.registry.registry import BUILTIN, resolve_model

pytest.importorskip("onnx")


def test_the_shipped_file_is_what_the_code_makes() -> None:
    assert placeholder_bytes() == (BUILTIN / "placeholder.onnx").read_bytes()


def test_the_module_writes_it(tmp_path: Path) -> None:
    out = tmp_path / "made.onnx"
    subprocess.run([sys.executable, "-m", "eyeline.convert.placeholder", str(out)], check=True)
    assert out.read_bytes() == (BUILTIN / "placeholder.onnx").read_bytes()


def test_it_is_tiny() -> None:
    assert len(placeholder_bytes()) < 600


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 23), (64, 96)])
def test_its_answer_is_the_sigmoid_of_a_weighted_sum(height: int, width: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)
    logit = np.tensordot(np.array(WEIGHTS), x[0].astype(np.float64), 1) + BIAS
    y = Session(resolve_model("placeholder"), "cpu").run(x)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-logit)), rtol=0, atol=2e-7)
