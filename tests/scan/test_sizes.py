"""Sizes worked out by the scanner are those that ONNX Runtime produces."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from mutations import rearrange
from sized import OUT, case, compare, i64, node, plan_of
from test_layer_rules import CASES as LAYERS

import benign
from eyeline.errors import ModelError
from eyeline.registry.registry import BUILTIN
from eyeline.runtime import runtime_errors
from eyeline.scan import load_policy, scan
from eyeline.scan._sizes import RULES, infer


@pytest.mark.parametrize("size", [(64, 96), (192, 320), (96, 64)])
def test_the_default_model(size: tuple[int, int]) -> None:
    assert compare((BUILTIN / "saliency_student_v3.onnx").read_bytes(), size) > 30


@pytest.mark.parametrize("name", benign.MADE)
def test_nets_made_here(name: str) -> None:
    compare(benign.MADE[name](), (64, 64))


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 11), (False, 18), (True, 18)])
@pytest.mark.parametrize("size", [(64, 96), (66, 130)])
def test_torch_exports(dynamo: bool, opset: int, size: tuple[int, int]) -> None:
    pytest.importorskip("onnxscript", reason="extra `train` is not installed")
    data = benign.exported(dynamo=dynamo, opset=opset)
    assert compare(data, size) > 5


def test_u2netp(shared_data: Path) -> None:
    data = (shared_data / "u2netp" / "u2netp.onnx").read_bytes()
    assert compare(data, (320, 320)) > 300
    compare(benign.dynamic_input(data), (101, 77))


CASES: dict[str, bytes] = {
    "split": case(node("Split", ["y"], ["p", OUT], axis=3)),
    "split in parts": case(node("Split", ["y", "s"], ["p", OUT], axis=2), s=i64(10, 54)),
    "slice, negative step": case(
        node("Slice", ["y", "s", "e", "a", "t"], [OUT]),
        s=i64(-1), e=i64(-(2**31) + 1), a=i64(3), t=i64(-5),
    ),
    "slice to the end": case(
        node("Slice", ["y", "s", "e", "a"], [OUT]), s=i64(3), e=i64(2**63 - 1), a=i64(2)
    ),
    "pad": case(node("Pad", ["y", "p"], [OUT], mode="reflect"), p=i64(0, 0, 1, 2, 0, 0, 3, 4)),
    "depth and space": case(
        node("SpaceToDepth", ["y"], ["d"], blocksize=4), node("DepthToSpace", ["d"], [OUT], blocksize=2)
    ),
    "reshape and back": case(
        node("Shape", ["y"], ["n"]),
        node("Flatten", ["y"], ["f"], axis=3),
        node("Transpose", ["f"], ["t"]),
        node("Transpose", ["t"], ["f2"], perm=[1, 0]),
        node("Reshape", ["f2", "n"], [OUT]),
    ),
    "reshape with 0 and -1": case(node("Reshape", ["y", "n"], [OUT]), n=i64(0, 4, -1, 0)),
    "resize by scales, downwards": case(
        node("Resize", ["y", "", "s"], [OUT], mode="linear"), s=np.array([1, 1, 0.37, 1.51], np.float32)
    ),
    "resize to what only float32 rounds up": case(
        node("Slice", ["y", "s0", "e10", "a2"], ["ten"]),
        node("Resize", ["ten", "", "s"], [OUT], mode="nearest"),
        s=np.array([1, 1, 0.7, 0.7], np.float32), s0=i64(0), e10=i64(10), a2=i64(2),
    ),
    "size arithmetic that only float32 rounds up": case(
        node("Mul", ["ten", "scale"], ["m"]),
        node("Floor", ["m"], ["fl"]),
        node("Cast", ["fl"], ["c"], to=7),
        node("Concat", ["one", "c", "c"], ["full"], axis=0),
        node("Resize", ["y", "", "", "full"], [OUT], mode="nearest"),
        ten=np.array([10], np.float32), scale=np.array([0.7], np.float32), one=i64(1, 1),
    ),
    "resize of two axes": case(
        node("Resize", ["y", "", "", "s"], [OUT], mode="nearest", axes=[2, 3]), opset=18, s=i64(11, 200)
    ),
    "size arithmetic": case(
        node("Shape", ["y"], ["n"], start=2),
        node("Cast", ["n"], ["nf"], to=1),
        node("Mul", ["nf", "half"], ["m"]),
        node("Floor", ["m"], ["fl"]),
        node("Cast", ["fl"], ["c"], to=7),
        node("Div", ["c", "three"], ["d"]),
        node("Sub", ["d", "c"], ["neg"]),
        node("Neg", ["neg"], ["pos"]),
        node("Max", ["pos", "three"], ["mx"]),
        node("Concat", ["one", "mx"], ["full"], axis=0),
        node("Resize", ["y", "", "", "full"], [OUT], mode="nearest"),
        half=np.array(0.37, np.float32), three=i64(3), one=i64(1, 1),
    ),
    "division towards zero": case(
        node("Div", ["n", "d"], ["q"]), node("Relu", ["y"], [OUT]), n=i64(-7, 7, -8), d=i64(2, -2, -3)
    ),
    "filled": case(
        node("ConstantOfShape", ["n"], ["c"], value=onnx.numpy_helper.from_array(np.array([3], np.int64))),
        node("Reshape", ["c", "m"], ["p"]),
        node("Slice", ["p", "s", "e", "a", "t"], ["r"]),
        node("Reshape", ["r", "flat"], ["pads"]),
        node("Pad", ["y", "pads"], [OUT]),
        n=i64(8), m=i64(-1, 2), s=i64(-1), e=i64(-(2**63) + 1), a=i64(0), t=i64(-1), flat=i64(-1),
    ),
    "slopes": case(node("PRelu", ["y", "k"], [OUT]), k=np.ones((1, 1, 1), np.float32)),
    "squeeze and unsqueeze": case(
        node("Squeeze", ["y", "a"], ["s"]), node("Unsqueeze", ["s", "a"], [OUT]), a=i64(0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_rule(name: str) -> None:
    compare(CASES[name], (64, 96))


@pytest.mark.slow
def test_rearranged_nets_are_as_large_as_worked_out() -> None:
    """Random changes of every case; where ONNX Runtime still takes it, all sizes must agree."""
    rng, compared = random.Random(3), 0
    seeds = [*CASES.values(), *LAYERS.values(), *(make() for make in benign.MADE.values())]
    while compared < 500:
        data = rearrange(rng.choice(seeds), rng)
        if scan(data, load=False).admitted:
            try:
                compare(data, (64, 96))
            except (ModelError, *runtime_errors()):
                continue  # ONNX Runtime refuses it, at load or at run
            compared += 1


def test_every_admitted_op_has_a_rule() -> None:
    assert set(load_policy().ops) <= set(RULES)


def test_the_peak_of_a_chain_is_two_tensors_and_the_weights() -> None:
    nodes = [
        node("Relu", ["y"], ["r"]),
        node("Relu", ["r"], ["r2"]),
        node("Sigmoid", ["r2"], [OUT]),
    ]
    _, worst = infer(plan_of(case(*nodes)), load_policy(), (1, 3, 100, 200))
    pixels, weights = 100 * 200, 4
    # At the convolution: the input's three planes and the output; later only two planes live.
    assert worst.peak_bytes == 4 * (4 * pixels + weights)
    assert worst.largest_tensor_bytes == 4 * 3 * pixels
    # 3 multiply-adds a pixel, then 2 elements touched a pixel in each of 3 nodes.
    assert worst.work == 3 * pixels + 3 * 2 * pixels
