"""ONNX graphs rewritten without changing the function: what every exporter here ends with.

Nothing here depends on torch, the clock, the host or a path: the same graph gives the same bytes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from eyeline.errors import ModelError
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME

OPSET = 17
IR_VERSION = 8  # what opset 17 came with (ONNX 1.12)


def load_model(data: bytes, name: str) -> onnx.ModelProto:
    """Parse an ONNX model.

    Raises:
        ModelError: bytes that are none.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.load_from_string(data)
    except DecodeError as exc:
        raise ModelError(f"{name}: not an ONNX model", "is it the right file?") from exc


def keep_output(graph: onnx.GraphProto, index: int) -> None:
    """Drop every output but one, and every node and initializer that it does not need.

    Raises:
        ModelError: no such output.
    """
    if not 0 <= index < len(graph.output):
        raise ModelError(
            f"no output {index}: there are {len(graph.output)}", "check the recipe's head"
        )
    kept = graph.output[index]
    needed, nodes = {kept.name}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    initializers = [t for t in graph.initializer if t.name in needed]
    names = {t.name for t in initializers}
    inputs = [t for t in graph.input if t.name in needed and t.name not in names]
    nodes.reverse()
    for field, values in (
        (graph.node, nodes), (graph.initializer, initializers), (graph.input, inputs),
        (graph.output, [kept]),
    ):  # fmt: skip
        copies = [type(v).FromString(v.SerializeToString()) for v in values]
        del field[:]
        field.extend(copies)


def to_contract(graph: onnx.GraphProto) -> None:
    """Rename the one input and output to the contract's, with N, H and W free.

    Raises:
        ModelError: not one input and one output.
    """
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"{len(graph.input)} inputs and {len(graph.output)} outputs, not one of each",
            "the contract has one input and one output",
        )
    names = {graph.input[0].name: INPUT_NAME, graph.output[0].name: OUTPUT_NAME}
    for node in graph.node:
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                field[i] = names.get(name, name)
    for tensor, name, channels in (
        (graph.input[0], INPUT_NAME, 3),
        (graph.output[0], OUTPUT_NAME, 1),
    ):
        fresh = onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, ["N", channels, "H", "W"]
        )
        tensor.CopyFrom(fresh)
    del graph.value_info[:]  # sizes of the one input that it was traced with


def to_opset(model: onnx.ModelProto, opset: int = OPSET) -> onnx.ModelProto:
    """The same graph at another opset, by ONNX's own converter.

    Raises:
        ModelError: an op that the converter can't carry over.
    """
    if [(o.domain, o.version) for o in model.opset_import] == [("", opset)]:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError) as exc:
        first = " ".join(str(exc).split())[:200]
        raise ModelError(f"can't be carried to opset {opset}: {first}", "export it again") from exc
    converted.ir_version = IR_VERSION
    return converted


def half_pixel(graph: onnx.GraphProto) -> int:
    """Turn `pytorch_half_pixel` resizes into `half_pixel` ones; say how many.

    The two differ only where an output side is one pixel long (ONNX operator `Resize`): there
    `pytorch_half_pixel` samples position 0, `half_pixel` the centre of the input. A net that shrinks
    by halving and grows to the sizes it came from resizes to one pixel from one pixel only, where
    both sample position 0.
    """
    changed = 0
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Resize" else ():
            if attribute.s == b"pytorch_half_pixel":
                attribute.s = b"half_pixel"
                changed += 1
    return changed


def drop_identities(graph: onnx.GraphProto) -> int:
    """Take out Identity nodes, such as a tracer leaves between equal weights; say how many."""
    outputs = {t.name for t in graph.output}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = same.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
        else:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)
    return len(same)


def fold_batch_norm(graph: onnx.GraphProto) -> int:
    """Fold each BatchNormalization into the Conv before it, computed in float64; say how many.

    Each operation is correctly rounded (IEEE 754), so every machine gets the same weights.
    """
    weights = {t.name: t for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            users[name] = users.get(name, 0) + 1
    folded = []
    for norm in graph.node:
        conv = makers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or users[conv.output[0]] != 1:
            continue
        if not {*norm.input[1:], *conv.input[1:]} <= weights.keys() or users[conv.input[1]] != 1:
            continue
        gamma, beta, mean, var = (
            numpy_helper.to_array(weights[n]).astype(np.float64) for n in norm.input[1:]
        )
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(var + float(np.float32(epsilon)))
        weight = numpy_helper.to_array(weights[conv.input[1]]).astype(np.float64)
        bias = (
            numpy_helper.to_array(weights[conv.input[2]]).astype(np.float64)
            if len(conv.input) > 2 else np.zeros(len(scale))
        )  # fmt: skip
        name = f"{conv.input[1]}.bias_folded"
        _put(graph, conv.input[1], weight * scale[:, None, None, None])
        _put(graph, name, (bias - mean) * scale + beta)
        del conv.input[2:]
        conv.input.append(name)
        conv.output[0] = norm.output[0]
        folded.append(norm)
    for norm in folded:
        graph.node.remove(norm)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    return len(folded)


def _put(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    fresh = numpy_helper.from_array(value.astype(np.float32), name)
    for tensor in graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(fresh)
            return
    graph.initializer.append(fresh)


def compact(graph: onnx.GraphProto) -> None:
    """Say the same in fewer bytes: one node for equal ones, numbered tensors, no node names.

    The tracer names every tensor by its module path and repeats the shape computation of each
    resize: more than 10 kB of a model of 300,000 parameters.
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


def finish(model: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """Compact, give it the metadata, check it whole, and serialise deterministically."""
    compact(model.graph)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
