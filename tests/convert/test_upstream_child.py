"""The child process that runs an upstream module: checkpoints, forbidden actions, one-line errors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upstream_nets import expected, run_code, run_one, save, tiny_net

from eyeline.errors import ModelError
from fake_upstream import NET, make_checkout

torch = pytest.importorskip("torch", reason="extra `train` is not installed")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("upstream") / "tinynet")


@pytest.mark.parametrize("form", ["model", "both"])
def test_wrapped_state_dicts_are_unwrapped(checkout: Path, form: str) -> None:
    state = dict(tiny_net().state_dict())
    value = (
        {"model": state, "epoch": 3}
        if form == "model"
        else {"state_dict": {f"module.{k}": v for k, v in state.items()}}
    )
    np.testing.assert_allclose(run_one(checkout, save(value)), expected(), atol=1e-6)


class Harm:
    """Unpickles into a call, as a hostile checkpoint would."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize(
    "kind", ["hostile", "text", "list", "missing key", "extra key", "other shape"]
)
def test_an_invalid_checkpoint_is_one_line(checkout: Path, tmp_path: Path, kind: str) -> None:
    state = dict(tiny_net().state_dict())
    data = {
        "hostile": pickle.dumps(Harm(tmp_path / "mark"), 2),
        "text": b"no weights",
        "list": save([torch.zeros(1)]),
        "missing key": save({k: v for k, v in state.items() if k != "head.bias"}),
        "extra key": save(state | {"more": torch.zeros(1)}),
        "other shape": save(state | {"head.bias": torch.zeros(2)}),
    }[kind]
    with pytest.raises(ModelError) as caught:
        run_one(checkout, data)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "line",
    [
        "torch.os.system('touch MARK')",
        "open('MARK', 'w')",
        "torch.os.remove('/etc/hostname')",
        "open('../../../../../../etc/hostname').read()",
        "__import__('socket').create_connection(('127.0.0.1', 9))",
        "__import__('subprocess').run(['touch', 'MARK'])",
    ],
)
def test_actions_that_inference_never_needs_fail(tmp_path: Path, line: str) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(ModelError, match="the upstream code tried") as caught:
        run_code(tmp_path, NET + "\n" + line.replace("MARK", str(mark)) + "\n")
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_prints_of_the_module_do_not_spoil_the_answers(tmp_path: Path) -> None:
    code = NET + "\nprint('hello')\n"
    np.testing.assert_allclose(run_code(tmp_path, code), expected(), atol=1e-6)
