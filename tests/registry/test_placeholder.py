"""The smoke model: deterministic bytes, and an answer that is known in closed form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eyeline.inference import Session
from eyeline.registry.registry import resolve_model
from tiny_models import PLACEHOLDER

ROOT = Path(__file__).parents[2]


def test_the_tool_writes_the_shipped_file(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    out = tmp_path / "made.onnx"
    subprocess.run([sys.executable, ROOT / "tools/placeholder.py", str(out)], check=True)
    assert out.read_bytes() == PLACEHOLDER
    assert len(PLACEHOLDER) < 600


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 23), (64, 96)])
def test_its_answer_is_the_sigmoid_of_a_weighted_sum(height: int, width: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)
    logit = np.tensordot(np.array((0.25, 0.5, 0.25)), x[0].astype(np.float64), 1)
    y = Session(resolve_model("placeholder"), "cpu").run(x)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-logit)), rtol=0, atol=2e-7)
