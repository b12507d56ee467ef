"""A float ONNX graph to a quantised one (QDQ), by ONNX Runtime's static quantisation.

Activations are uint8 with a zero point, weights int8, symmetric, one scale an output channel. What is
ours: stable node names to keep some in float, bounded calibration, and a graph at the end that says
no more than it must. The same images and versions give the same bytes on the same machine; a CPU of
another kind may compute an activation with another last bit, and a scale with it.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import onnx

from eyeline.errors import ModelError, UsageError
from eyeline.models.calibration import Reader
from eyeline.models.rewrite import (
    IR_VERSION,
    OPSET,
    drop_identities,
    finish,
    fold_batch_norm,
    load_model,
    to_opset,
)
from eyeline.saliency.runtime import first_line, import_runtime, runtime_errors

Method = Literal["minmax", "percentile", "entropy"]
METHODS: dict[Method, str] = {
    "minmax": "MinMax",
    "percentile": "Percentile",
    "entropy": "Entropy",
}
"""How the range of an activation follows from what the images made of it, and ONNX Runtime's name of it."""

OPS = ("Conv", "Relu", "Add")
"""Quantised. With `Relu`, a convolution's output is rounded once, behind the activation; without it, before
and behind. Layouts and resizes gain nothing: ONNX Runtime moves them past the rounding by itself."""


def node_names(graph: onnx.GraphProto) -> list[str]:
    """Name every node `TYPE:NUMBER`, numbered by type in the order of the file; the names."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        node.name = f"{node.op_type}:{seen[node.op_type]}"
        seen[node.op_type] += 1
    return [node.name for node in graph.node]


def quantize_graph(
    data: bytes,
    name: str,
    reader: Reader,
    *,
    method: Method,
    keep_float: Sequence[str] = (),
    reduce_range: bool = True,
    metadata: Mapping[str, str],
) -> bytes:
    """Quantise a model.

    Args:
        data: a float ONNX model.
        name: for errors.
        reader: the calibration images.
        method: see `METHODS`.
        keep_float: nodes to leave as they are: `Conv:0`, or `Conv:-1` for the last one.
        reduce_range: weights of 7 bits: two products of them and of uint8 fit the 16 bits that x86
            without VNNI adds them up in. With 8 bits they may saturate there.
        metadata: of the result.

    Returns:
        ONNX bytes: opset 17, the same input and output.

    Raises:
        ModelError: quantised already, no convolution, or ONNX Runtime can't.
        UsageError: a node to keep that is not there.
    """
    model = to_opset(load_model(data, name))
    graph = model.graph
    ops = {node.op_type for node in graph.node}
    if "DequantizeLinear" in ops or any(node.domain for node in graph.node):
        raise ModelError(f"{name}: quantised already, or not of ONNX's own ops", "give the float")
    if "Conv" not in ops:
        raise ModelError(f"{name}: no convolution", "there is nothing to quantise")
    drop_identities(graph)
    fold_batch_norm(graph)
    kept = _find(keep_float, node_names(graph))
    with tempfile.TemporaryDirectory() as folder:
        made = _by_runtime(model, Path(folder), name, reader, method, kept, reduce_range)
    _read_shapes_early(made.graph)
    made.ir_version = IR_VERSION
    del made.opset_import[:], made.functions[:]
    made.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    made.producer_name, made.producer_version, made.doc_string = "eyeline", "", ""
    made.graph.name, made.graph.doc_string = "quantised", ""
    try:
        return finish(made, dict(metadata))
    except onnx.checker.ValidationError as exc:
        raise ModelError(
            f"{name}: the quantised graph is not valid: {first_line(exc)}", "report it"
        ) from exc


def _find(asked: Sequence[str], names: Sequence[str]) -> list[str]:
    """Full names of nodes, numbers from the end resolved."""
    found = []
    for text in asked:
        kind, _, number = text.partition(":")
        same = [n for n in names if n.partition(":")[0] == kind]
        try:
            found.append(same[int(number)])
        except (ValueError, IndexError) as exc:
            known = f"{kind}:0 to {kind}:{len(same) - 1}" if same else f"no {kind or 'such op'}"
            raise UsageError(f"--keep-float {text}: no such node", f"there is {known}") from exc
    return found


def _by_runtime(
    model: onnx.ModelProto,
    folder: Path,
    name: str,
    reader: Reader,
    method: Method,
    kept: Sequence[str],
    reduce_range: bool,
) -> onnx.ModelProto:
    import_runtime()  # first: an import of any part of it starts its telemetry
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, out = folder / "prepared.onnx", folder / "quantised.onnx"
    errors: tuple[type[Exception], ...] = (
        *runtime_errors(),
        onnx.shape_inference.InferenceError,
        TypeError,
    )
    chatter = io.StringIO()  # the histogram methods print to stdout
    try:
        with contextlib.redirect_stdout(chatter):
            # Its optimiser is left out: what it folds depends on its version, and ours is folded.
            quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                out,
                reader,
                op_types_to_quantize=list(OPS),
                nodes_to_exclude=list(kept),
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=getattr(CalibrationMethod, METHODS[method]),
                # One image at a time: sizes differ, and histograms keep every activation meanwhile.
                extra_options={"CalibStridedMinMax": 1},
            )
    except errors as exc:
        raise ModelError(
            f"{name}: ONNX Runtime can't quantise it: {first_line(exc)}", "is its I/O spec right?"
        ) from exc
    return onnx.load(out)


def _read_shapes_early(graph: onnx.GraphProto) -> None:
    """Let `Shape` read integers before they become floats again: sizes are the same, a pass is saved."""
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "Shape" else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            node.input[0] = maker.input[0]
