"""Compare the sizes that the scanner works out with those that ONNX Runtime produces."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from eyeline.runtime import open_runtime_session
from eyeline.scan import load_policy
from eyeline.scan._sizes import GraphPlan, infer
from eyeline.scan._wire import WireReader
from eyeline.scan.scanner import Walk
from tiny_models import conv, make_model, plane_weights

OUT = "saliency_map"
node = onnx.helper.make_node


def plan_of(data: bytes) -> GraphPlan:
    policy = load_policy()
    walk = Walk(policy)
    plan = walk.model(WireReader(data, 200_000, 40).read())
    assert plan is not None, walk.findings
    return plan


def run_all(data: bytes, shape: tuple[int, ...]) -> dict[str, Any]:
    """Every tensor that ONNX Runtime computes, by name."""
    model = onnx.load_from_string(data)
    del model.graph.output[:]
    names = [name for n in model.graph.node for name in n.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_runtime_session(model.SerializeToString(), "model", "cpu")
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    values = session.run(names, {session.get_inputs()[0].name: x})
    return dict(zip(names, values, strict=True))


def compare(data: bytes, size: tuple[int, int]) -> int:
    """Shapes, element types, and every value that was followed; how many values were."""
    plan = plan_of(data)
    shape = plan.input_shape(size)
    inferred, _ = infer(plan, load_policy(), shape)
    followed = 0
    for name, array in run_all(data, shape).items():
        value = inferred[name]
        assert value.shape == array.shape, name
        assert onnx.helper.tensor_dtype_to_np_dtype(value.dtype) == array.dtype, name
        if value.values is not None:
            followed += 1
            np.testing.assert_allclose(
                np.array(value.values), array.ravel(), rtol=1e-6, err_msg=name
            )
    return followed


def case(*nodes: Any, opset: int = 17, **weights: np.ndarray) -> bytes:
    """Nodes on the map `y`, float32 (1, 1, H, W); their last output is the map."""
    data = make_model([conv(target="y"), *nodes], plane_weights((1, 0, 0)) | weights)
    model = onnx.load_from_string(data)
    model.opset_import[0].version = opset
    result: bytes = model.SerializeToString()
    return result


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)
