"""The deterministic smoke model: a 1x1 Conv + Sigmoid that proves the path and answers nothing.

`python -m eyeline.convert.placeholder FILE` writes the very bytes that the wheel ships (needs onnx).
"""

from __future__ import annotations

import sys

from eyeline.files import write_bytes
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME

OPSET = 17
IR_VERSION = 8  # what opset 17 came with (ONNX 1.12)

WEIGHTS = (0.25, 0.5, 0.25)  # brighter pixels, higher numbers: easy to recognise as no saliency
BIAS = 0.0


def placeholder_bytes() -> bytes:
    """The placeholder as ONNX: 3 to 1 channels, contract names, dynamic sizes."""
    from onnx import TensorProto, helper

    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1, 3, 1, 1], WEIGHTS)
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [1], [BIAS])
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", [INPUT_NAME, "weight", "bias"], ["logit"], kernel_shape=[1, 1]
            ),
            helper.make_node("Sigmoid", ["logit"], [OUTPUT_NAME]),
        ],
        "placeholder",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [weight, bias],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="eyeline"
    )
    model.ir_version = IR_VERSION
    data: bytes = model.SerializeToString(deterministic=True)
    return data


if __name__ == "__main__":
    write_bytes(sys.argv[1], placeholder_bytes())
