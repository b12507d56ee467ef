"""Sizes of layers worked out by the scanner are those that ONNX Runtime produces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sized import OUT, case, compare, i64, node

import benign

CASES: dict[str, bytes] = {
    "pool, ceil": case(
        node("MaxPool", ["y"], [OUT], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1)
    ),
    "pool, window in the padding": case(
        node("MaxPool", ["y"], [OUT], kernel_shape=[2, 2], strides=[3, 3], pads=[0, 0, 1, 1], ceil_mode=1)
    ),
    "pool, dilated": case(node("MaxPool", ["y"], [OUT], kernel_shape=[2, 3], dilations=[3, 2])),
    "pool with indices": case(node("MaxPool", ["y"], [OUT, "i"], kernel_shape=[2, 2])),
    "average pool, same": case(
        node("AveragePool", ["y"], [OUT], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    ),
    "conv, same lower": case(
        node("Conv", ["y", "k"], [OUT], strides=[3, 2], auto_pad="SAME_LOWER"),
        k=np.ones((1, 1, 5, 4), np.float32),
    ),
    "conv, dilated": case(
        node("Conv", ["y", "k"], [OUT], dilations=[2, 3], pads=[1, 2, 3, 4]),
        k=np.ones((2, 1, 3, 3), np.float32),
    ),
    "transposed conv": case(
        node("ConvTranspose", ["y", "k"], [OUT], strides=[3, 2], output_padding=[1, 0], pads=[1, 0, 1, 1]),
        k=np.ones((1, 3, 4, 3), np.float32),
    ),
    "reduce some": case(node("ReduceMean", ["y"], [OUT], axes=[-1, -2], keepdims=1)),
    "reduce by input": case(node("ReduceSum", ["y", "a"], [OUT], keepdims=1), a=i64(2)),
    "matmul": case(node("MatMul", ["y", "k"], [OUT]), k=np.ones((96, 7), np.float32)),
    "gemm": case(
        node("Flatten", ["y"], ["f"]),
        node("Gemm", ["f", "k"], ["g"], transB=1),
        node("Unsqueeze", ["g", "a"], [OUT]),
        k=np.ones((5, 64 * 96), np.float32), a=i64(0, 3),
    ),
    "group normalisation, 18": case(
        node("Concat", ["y", "y"], ["c"], axis=1),
        node("GroupNormalization", ["c", "o", "o"], ["g"], num_groups=1),
        node("ReduceL2", ["g", "a"], [OUT]),
        opset=18, o=np.ones(1, np.float32), a=i64(1),
    ),
    "instance normalisation": case(
        node("InstanceNormalization", ["y", "o", "o"], [OUT]), o=np.ones(1, np.float32)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_rule(name: str) -> None:
    compare(CASES[name], (64, 96))


def test_a_quantised_net(tmp_path: Path) -> None:
    compare(benign.quantised(tmp_path), (64, 32))
