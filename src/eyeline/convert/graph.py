"""Rewrite ONNX graphs without changing the function that they compute.

The result depends on no time, host name or path: the same graph always gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.utils import Extractor

from eyeline.errors import ModelError, first_line
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME

OPSET = 17
IR_VERSION = 8  # the IR version of ONNX 1.12, which introduced opset 17


def load_model(data: bytes, name: str) -> onnx.ModelProto:
    """Parse an ONNX model, or raise `ModelError`."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.load_from_string(data)
    except DecodeError as exc:
        raise ModelError(f"{name}: the file is not an ONNX model", "give an .onnx file") from exc


def keep_output(model: onnx.ModelProto, index: int) -> onnx.ModelProto:
    """Return the model with one output, and only the nodes and initializers that this output needs."""
    graph = model.graph
    if not 0 <= index < len(graph.output):
        raise ModelError(
            f"the ONNX model has no output {index}: it has {len(graph.output)} outputs, numbered from 0",
            "correct the field head of the recipe",
        )
    weights = {t.name for t in graph.initializer}
    inputs = [t.name for t in graph.input if t.name not in weights]
    kept = Extractor(model).extract_model(inputs, [graph.output[index].name])
    used = {name for node in kept.graph.node for name in node.input}
    for tensor in [t for t in kept.graph.input if t.name not in used]:
        kept.graph.input.remove(tensor)
    return kept


def to_contract(graph: onnx.GraphProto) -> None:
    """Rename input and output to the names of the tensor contract; make N, H and W dynamic."""
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"the model has {len(graph.input)} inputs and {len(graph.output)} outputs; "
            "the tensor contract allows one input and one output",
            "export the model with one input and one output",
        )
    names = {graph.input[0].name: INPUT_NAME, graph.output[0].name: OUTPUT_NAME}
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for tensor, name, channels in (
        (graph.input[0], INPUT_NAME, 3),
        (graph.output[0], OUTPUT_NAME, 1),
    ):
        tensor.CopyFrom(
            onnx.helper.make_tensor_value_info(
                name, onnx.TensorProto.FLOAT, ["N", channels, "H", "W"]
            )
        )
    del graph.value_info[:]  # value_info holds the tensor sizes of the traced input


def to_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert the model to the opset `OPSET` with the version converter of ONNX."""
    if [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError) as exc:
        raise ModelError(
            f"the model can't be converted to opset {OPSET}: {first_line(exc)}",
            f"export it with opset {OPSET}",
        ) from exc


def half_pixel(graph: onnx.GraphProto) -> int:
    """Change the coordinate mode of `Resize` nodes from `pytorch_half_pixel` to `half_pixel`; count them.

    The two modes differ only if an output side is one pixel long (ONNX operator `Resize`): then
    `pytorch_half_pixel` samples position 0, and `half_pixel` samples the centre of the input. A network
    that halves its input repeatedly and upsamples through the same sizes resizes to one pixel from one
    pixel only. For such a resize, both modes sample position 0.
    """
    changed = 0
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Resize" else ():
            if attribute.s == b"pytorch_half_pixel":
                attribute.s = b"half_pixel"
                changed += 1
    return changed


def drop_identities(graph: onnx.GraphProto) -> None:
    """Remove Identity nodes, which a tracer writes for weights with equal values."""
    outputs = {t.name for t in graph.output}
    same: dict[str, str] = {}
    dropped = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
            dropped.append(node)
    for node in dropped:
        graph.node.remove(node)


def fold_batch_norm(graph: onnx.GraphProto) -> int:
    """Fold each BatchNormalization into the Conv before it, in float64; return the number folded.

    IEEE 754 rounds the operations of the folding correctly, so every machine computes equal weights.
    """
    weights = {t.name: t for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    users = Counter(name for node in graph.node for name in node.input)

    def value(name: str) -> np.ndarray:
        return numpy_helper.to_array(weights[name]).astype(np.float64)

    folded = []
    for norm in graph.node:
        conv = makers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or users[conv.output[0]] != 1:
            continue
        if not {*norm.input[1:], *conv.input[1:]} <= weights.keys() or users[conv.input[1]] != 1:
            continue
        gamma, beta, mean, var = map(value, norm.input[1:])
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(var + float(np.float32(epsilon)))
        bias = value(conv.input[2]) if len(conv.input) > 2 else np.zeros(len(scale))
        weight = value(conv.input[1]) * scale[:, None, None, None]
        name = f"{conv.input[1]}.bias_folded"
        weights[conv.input[1]].CopyFrom(
            numpy_helper.from_array(weight.astype(np.float32), conv.input[1])
        )
        graph.initializer.append(
            numpy_helper.from_array(((bias - mean) * scale + beta).astype(np.float32), name)
        )
        conv.input[:] = [*conv.input[:2], name]
        conv.output[0] = norm.output[0]
        folded.append(norm)
    for norm in folded:
        graph.node.remove(norm)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    return len(folded)


def _compact(graph: onnx.GraphProto) -> None:
    """Merge equal nodes, rename the tensors to short numbered names and remove the node names.

    The tracer names every tensor by its module path and repeats the shape computation of each
    resize, which takes more than 10 kB in a model of 300,000 parameters.
    """
    kept: list[onnx.NodeProto] = []
    first: dict[bytes, onnx.NodeProto] = {}
    names = {t.name: t.name for t in (*graph.input, *graph.output)} | {"": ""}
    for node in graph.node:
        inputs = [names.setdefault(name, f"t{len(names)}") for name in node.input]
        bare = onnx.NodeProto(
            op_type=node.op_type, domain=node.domain, input=inputs, attribute=node.attribute
        )
        key = bare.SerializeToString(deterministic=True)
        is_output = any(name in names for name in node.output)
        if key in first and not is_output:
            names |= dict(zip(node.output, first[key].output, strict=True))
            continue
        bare.output.extend(names.setdefault(name, f"t{len(names)}") for name in node.output)
        first[key] = bare
        kept.append(bare)
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)


def finish(
    model: onnx.ModelProto, metadata: Mapping[str, str], *, name: str | None = None
) -> bytes:
    """Compact a model, set its metadata, check it, and serialise it deterministically.

    Args:
        model: the model; it is changed in place.
        metadata: key-value pairs that replace the metadata of the model.
        name: new name of the graph, and eyeline becomes the producer; None keeps name and producer.

    Raises:
        ModelError: the checker of ONNX rejects the model.
    """
    _compact(model.graph)
    model.ir_version = IR_VERSION
    if name is not None:
        model.producer_name, model.producer_version = "eyeline", ""
        model.doc_string = model.graph.doc_string = ""
        model.graph.name = name
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as exc:
        raise ModelError(
            f"{model.graph.name}: the rewritten graph is not valid ONNX: {first_line(exc)}",
            "report this as a bug, with the model",
        ) from exc
    data: bytes = model.SerializeToString(deterministic=True)
    return data
