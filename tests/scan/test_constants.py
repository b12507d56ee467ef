"""Constants: packed values are read as `onnx` reads them, and checked."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from parsed import read, same

import hostile
from eyeline.scan import scan


@pytest.mark.parametrize(
    "tensor",
    [
        onnx.TensorProto(name="t", dims=[3], data_type=1, float_data=[1, 2, 3]),
        onnx.TensorProto(name="t", dims=[3], data_type=7, int64_data=[1, -2, 1 << 62]),
        onnx.TensorProto(name="t", dims=[2], data_type=6, int32_data=[-1, 7]),
        onnx.TensorProto(name="t", dims=[5000], data_type=3, int32_data=[-100, 100] * 2500),
        onnx.TensorProto(name="t", dims=[2], data_type=11, double_data=[0.5, 1e300]),
    ],
    ids=["float", "int64", "int32", "many int8", "double"],
)
def test_it_reads_packed_values_and_admits_them(tensor: Any) -> None:
    model = hostile.base()
    model.graph.initializer.append(tensor)
    data = hostile.dump(model)
    same(read(data), onnx.load_from_string(data))
    findings = scan(data, load=False).findings
    assert {f.code for f in findings} <= {
        "integer"
    }  # 1 << 62 is beyond the policy, and nothing else
    assert bool(findings) == (tensor.data_type == 7)
