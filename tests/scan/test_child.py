"""The first load: what kills a runtime kills a child, and no more."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import hostile
from eyeline.scan.child import load_in_child
from tiny_models import conv, make_model, plane_model, plane_weights

SHAPE = (1, 3, 16, 16)
node = hostile.node

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")


def test_a_model_is_loaded_and_run() -> None:
    load = load_in_child(plane_model(), SHAPE)
    assert (load.outcome, load.detail) == ("loaded", "")
    assert load.seconds > 0


def test_a_crash_is_reported() -> None:
    data = hostile.CORPUS["Div(INT64_MIN, -1)"][1]()
    load = load_in_child(data, SHAPE)
    assert (load.outcome, load.detail) == ("crashed", "killed by SIGFPE")


def test_a_hang_is_killed() -> None:
    load = load_in_child(hostile.CORPUS["constant-folded MatMul"][1](), SHAPE, seconds=0.01)
    assert load.outcome == "timeout"
    assert load.seconds < 60


@linux
def test_a_memory_bomb_is_refused() -> None:
    big = hostile.with_nodes(
        node("ConstantOfShape", ["n"], ["q"]), n=hostile.ints(1 << 15, 1 << 15)
    )
    alive = make_model(
        [
            conv(target="y"),
            node("ConstantOfShape", ["n"], ["big"]),
            node("ReduceMean", ["big"], ["one"], keepdims=0),
            node("Add", ["y", "one"], ["saliency_map"]),
        ],
        plane_weights((1, 0, 0)) | {"n": np.array([1 << 15, 1 << 15], np.int64)},
    )
    assert load_in_child(big(), SHAPE).outcome in (
        "loaded",
        "refused",
    )  # a dead node may be dropped
    load = load_in_child(alive, SHAPE)
    assert load.outcome == "refused"
    assert load.memory_limit == 2 << 30


def test_what_the_runtime_refuses_is_one_line() -> None:
    load = load_in_child(b"no model", SHAPE)
    assert load.outcome == "refused"
    assert load.detail
    assert "\n" not in load.detail


def test_a_run_that_fails_is_a_refusal() -> None:
    data = make_model(
        [conv(target="y"), node("Reshape", ["y", "n"], ["saliency_map"])],
        plane_weights((1, 0, 0)) | {"n": np.array([1, 1, 7, 7], np.int64)},
    )
    assert load_in_child(data, SHAPE).outcome == "refused"


def test_the_child_has_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.setenv("PYTHONSTARTUP", "/nonexistent")
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")  # would stop an interpreter that read it
    assert load_in_child(plane_model(), SHAPE).outcome == "loaded"
