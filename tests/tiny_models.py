"""Tiny ONNX models whose answers are known in closed form; nothing here is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from eyeline.digests import sha256_hex
from eyeline.registry.registry import BUILTIN
from eyeline.runtime import IMAGENET_MEAN, IMAGENET_STD

OPSET = 17
PLACEHOLDER = (BUILTIN / "placeholder.onnx").read_bytes()
RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def make_model(
    nodes: list[NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    inputs: dict[str, tuple[int, list[object]]] | None = None,
    outputs: dict[str, tuple[int, list[object]]] | None = None,
) -> bytes:
    """ONNX bytes; inputs and outputs are name -> (element type, shape), the contract's by default."""
    inputs = inputs or {"input": (TensorProto.FLOAT, ["N", 3, "H", "W"])}
    outputs = outputs or {"saliency_map": (TensorProto.FLOAT, ["N", 1, "H", "W"])}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(k, *v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(k, *v) for k, v in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()],
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def plane_weights(
    mix: tuple[float, float, float], gain: float = 1.0, offset: float = 0.0
) -> dict[str, np.ndarray]:
    """Weights of a 1x1 convolution that undoes ImageNet's normalisation and mixes R, G, B in [0, 1]."""
    mean, std, m = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD), np.array(mix)
    return {
        "w": (gain * m * std).reshape(1, 3, 1, 1).astype(np.float32),
        "b": np.array([gain * float(m @ mean) + offset], np.float32),
    }


def conv(source: str = "input", target: str = "saliency_map") -> NodeProto:
    """The 1x1 convolution that goes with `plane_weights`."""
    return helper.make_node("Conv", [source, "w", "b"], [target], kernel_shape=[1, 1])


def plane_model(
    mix: tuple[float, float, float] = RED, gain: float = 1.0, offset: float = 0.0
) -> bytes:
    """The map is gain * (mix of R, G, B in [0, 1]) + offset, with nothing to keep it in [0, 1]."""
    return make_model([conv()], plane_weights(mix, gain, offset))


def write_registry(
    folder: Path, models: dict[str, bytes], *, schema_version: int = 1, **fields: object
) -> Path:
    """A registry folder with a file per id; `fields` override those of every record."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for model_id, data in models.items():
        (folder / f"{model_id}.onnx").write_bytes(data)
        records.append(record_fields(model_id, data) | fields)
    (folder / "registry.json").write_text(
        json.dumps({"schema_version": schema_version, "models": records})
    )
    return folder


def record_fields(model_id: str, data: bytes) -> dict[str, object]:
    """A valid record of a registry, as JSON values."""
    return {
        "id": model_id,
        "file": f"{model_id}.onnx",
        "sha256": sha256_hex(data),
        "role": "candidate",
        "opset": OPSET,
        "license": "Apache-2.0",
        "description": "A test's model.",
        "provenance": "tests/tiny_models.py",
        "parameters": 4,
        "io": {"working_lines": 16, "multiple": 1},
    }
