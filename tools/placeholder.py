"""Write the model `placeholder`: a 1x1 Conv and a Sigmoid, for tests. It does not predict saliency.

    python tools/placeholder.py FILE

The file has the same bytes as `src/eyeline/registry/builtin/placeholder.onnx`. The script needs
onnx.
"""

from __future__ import annotations

import sys
from pathlib import Path

from onnx import TensorProto, helper

from eyeline.runtime import INPUT_NAME, OUTPUT_NAME

# The output is only the brightness of a pixel, so nobody takes it for saliency.
WEIGHTS = (0.25, 0.5, 0.25)


def main() -> None:
    """Write the file."""
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1, 3, 1, 1], WEIGHTS)
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [1], [0.0])
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
        graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="eyeline"
    )
    model.ir_version = 8  # the IR version of opset 17 (ONNX 1.12)
    Path(sys.argv[1]).write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
