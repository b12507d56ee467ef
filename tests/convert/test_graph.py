"""Rewritten graphs: the same function, and a refusal where the contract has no place for one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, load_from_string, numpy_helper
from test_mirror import asset_bytes

from eyeline.convert.graph import fold_batch_norm, keep_output, to_contract
from eyeline.errors import ModelError
from eyeline.runtime import open_runtime_session


def norm_graph(bias: bool) -> Any:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 3, 1, 1)), "g": rng.uniform(0.5, 2, 4),
        "b": rng.standard_normal(4), "m": rng.standard_normal(4), "v": rng.uniform(0.1, 3, 4),
    }  # fmt: skip
    weights |= {"c": rng.standard_normal(4)} if bias else {}
    nodes = [
        helper.make_node(
            "Conv", ["input", "w", *(["c"] if bias else [])], ["x"], kernel_shape=[1, 1]
        ),
        helper.make_node(
            "BatchNormalization", ["x", "g", "b", "m", "v"], ["saliency_map"], epsilon=1e-3
        ),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("saliency_map", TensorProto.FLOAT, ["N", 4, "H", "W"])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_folded_batch_normalisation_is_the_same_function(bias: bool) -> None:
    model = norm_graph(bias)
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 7)).astype(np.float32)
    before = open_runtime_session(model.SerializeToString(), "a", "cpu").run(None, {"input": x})[0]
    assert fold_batch_norm(model.graph) == 1
    assert [n.op_type for n in model.graph.node] == ["Conv"]
    assert len(model.graph.initializer) == 2
    after = open_runtime_session(model.SerializeToString(), "b", "cpu").run(None, {"input": x})[0]
    np.testing.assert_allclose(after, before, atol=2e-5, rtol=0)


def test_a_convolution_that_is_used_twice_is_not_folded() -> None:
    model = norm_graph(bias=False)
    model.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))
    assert fold_batch_norm(model.graph) == 0


def test_graphs_that_have_no_place_in_the_contract() -> None:
    model = load_from_string(asset_bytes())
    with pytest.raises(ModelError, match="2 outputs"):
        to_contract(model.graph)
    with pytest.raises(ModelError, match="no output 2"):
        keep_output(model, 2)
