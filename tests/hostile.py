"""Hostile model files, generated: each with the code of the finding that must refuse it.

Families: docs/scan.md. Nothing here is downloaded; what kills a runtime does so by its graph alone.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tiny_models import OPSET, conv, make_model, plane_model, plane_weights

node = helper.make_node
Model = onnx.ModelProto
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
FLOAT = TensorProto.FLOAT


def base() -> Model:
    """A model that is admitted: what follows spoils it in one way each."""
    return onnx.load_from_string(plane_model())


def dump(model: Model) -> bytes:
    data: bytes = model.SerializeToString()
    return data


def spoiled(change: Callable[[Model], Any]) -> Callable[[], bytes]:
    def make() -> bytes:
        model = base()
        change(model)
        return dump(model)

    return make


def with_nodes(*nodes: Any, **weights: np.ndarray) -> Callable[[], bytes]:
    """Nodes before the convolution, dead or alive."""
    assert not {"w", "b"} & set(weights)  # the convolution's own
    return lambda: make_model([*nodes, conv()], plane_weights((1, 0, 0)) | weights)


def feeding(*nodes: Any, **weights: np.ndarray) -> Callable[[], bytes]:
    """Nodes whose last output is the map."""
    return lambda: make_model([conv(target="y"), *nodes], plane_weights((1, 0, 0)) | weights)


def quantised(
    scale: np.ndarray | None = None,
    zero: np.ndarray | None = None,
    back: np.ndarray | None = None,
    **attributes: int,
) -> Callable[[], bytes]:
    """The map rounded and turned back, by scales and zero points as given; `back` is of the way back."""
    made = zero if zero is not None else np.zeros(1, np.uint8)
    return feeding(
        node("QuantizeLinear", ["y", "s", "z"], ["q"], **attributes),
        node("DequantizeLinear", ["q", "s", "k"], ["saliency_map"], **attributes),
        s=scale if scale is not None else np.full(1, 0.1, np.float32),
        z=made,
        k=back if back is not None else made,
    )


def ints(*values: int, kind: type = np.int64) -> np.ndarray:
    return np.array(values, kind)


# --- the protobuf wire, by hand


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def appended(*extra: bytes) -> Callable[[], bytes]:
    """Bytes after a whole model: protobuf reads them as more fields of it."""
    return lambda: plane_model() + b"".join(extra)


def nested_unknown(path: str) -> Callable[[], bytes]:
    """An unknown field deep inside, where a parser keeps or drops it without a word."""
    unknown = field(99, b"hidden")

    def make() -> bytes:
        model = base()
        graph = model.graph
        target = {
            "graph": graph,
            "node": graph.node[0],
            "tensor": graph.initializer[0],
            "attribute": graph.node[0].attribute[0],
            "dim": graph.input[0].type.tensor_type.shape.dim[0],
        }[path]
        target.MergeFromString(unknown)
        return dump(model)

    return make


def nested(levels: int) -> bytes:
    data = b""
    for _ in range(levels):
        data = field(1, data)  # Sequence.elem_type and Type.sequence_type, in turn
        data = field(4, data)
    return field(7, field(11, field(2, data)))


NUMBER_AND_NAME = field(1, 3) + field(2, b"N")


def in_graph(*extra: bytes) -> Callable[[], bytes]:
    """Bytes at the end of the graph: a second graph would be refused by itself."""

    def make() -> bytes:
        model = base()
        graph = model.graph.SerializeToString() + b"".join(extra)
        model.ClearField("graph")
        return dump(model) + field(7, graph)

    return make


def deep_subgraphs(levels: int = 20) -> bytes:
    """If in If in If."""
    graph = helper.make_graph([node("Identity", ["input"], ["z"])], "leaf", [], [])
    for _ in range(levels):
        inner = node(
            "If",
            ["input"],
            ["z"],
            then_branch=graph,
            else_branch=helper.make_graph([], "e", [], []),
        )
        graph = helper.make_graph([inner], "g", [], [])
    model = base()
    model.graph.node.extend(graph.node)
    return dump(model)


# --- what hides


def branch(*nodes: Any) -> Any:
    value = helper.make_tensor_value_info("out", FLOAT, None)
    return helper.make_graph(list(nodes), "branch", [], [value])


def if_with(*hidden: Any) -> bytes:
    """An If whose branch holds something."""
    cond = numpy_helper.from_array(np.array(True), "cond")
    data = make_model([conv()], plane_weights((1, 0, 0)))
    model = onnx.load_from_string(data)
    model.graph.initializer.append(cond)
    good = branch(node("Identity", ["saliency_map"], ["out"]))
    model.graph.node.append(
        node("If", ["cond"], ["q"], then_branch=branch(*hidden), else_branch=good)
    )
    return dump(model)


def loop(trip: int = INT64_MAX) -> Any:
    """A Loop that never ends."""
    body = helper.make_graph(
        [node("Identity", ["c"], ["c2"]), node("Identity", ["x"], ["out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("out", FLOAT, None),
        ],
    )
    return node("Loop", ["", "", "saliency_map"], ["looped"], body=body)


def sequence_map() -> Any:
    body = helper.make_graph(
        [node("NonZero", ["e"], ["f"])],
        "each",
        [helper.make_tensor_value_info("e", FLOAT, None)],
        [helper.make_tensor_value_info("f", TensorProto.INT64, None)],
    )
    return [
        node("SequenceConstruct", ["saliency_map"], ["seq"]),
        node("SequenceMap", ["seq"], ["mapped"], body=body),
    ]


def billion_laughs(levels: int = 30) -> bytes:
    """Functions that each call the next one twice: 2^30 nodes from two kilobytes."""
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("lol", 1)]
    functions = []
    for k in range(levels):
        op, domain = (f"f{k + 1}", "lol") if k + 1 < levels else ("Identity", "")
        calls = [
            node(op, ["x"], ["a"], domain=domain),
            node(op, ["a"], ["y"], domain=domain),
        ]
        functions.append(helper.make_function("lol", f"f{k}", ["x"], ["y"], calls, imports))
    model = base()
    model.graph.node.append(node("f0", ["saliency_map"], ["q"], domain="lol"))
    model.functions.extend(functions)
    model.opset_import.append(imports[1])
    return dump(model)


def one_function(*hidden: Any) -> bytes:
    imports = [helper.make_opsetid("", OPSET)]
    model = base()
    model.functions.append(helper.make_function("my", "f", ["x"], ["y"], list(hidden), imports))
    return dump(model)


# --- constants


def raw_tensor(name: str, dims: list[int], data_type: int, raw: bytes = b"") -> Any:
    return TensorProto(name=name, dims=dims, data_type=data_type, raw_data=raw)


def with_tensor(tensor: Any) -> Callable[[], bytes]:
    return spoiled(lambda m: m.graph.initializer.append(tensor))


def external(location: str) -> Any:
    tensor = raw_tensor("e", [2], FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def external_without_location_flag() -> Any:
    tensor = external("weights.bin")
    tensor.ClearField("data_location")
    return tensor


def in_constant(tensor: Any) -> Callable[[], bytes]:
    return with_nodes(node("Constant", [], ["k"], value=tensor))


def set_weight(value: float, dtype: type = np.float32) -> Callable[[], bytes]:
    def change(model: Model) -> None:
        w = numpy_helper.to_array(model.graph.initializer[0]).astype(dtype)
        w.flat[1] = value
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(w, "w"))

    return spoiled(change)


def float_data(*values: float) -> Any:
    return TensorProto(name="f", dims=[len(values)], data_type=FLOAT, float_data=values)


def io_type(kind: str, **fields: Any) -> Callable[[], bytes]:
    """Another type for the input or the output."""

    def change(model: Model) -> None:
        target = getattr(model.graph, kind)[0]
        name = target.name
        target.CopyFrom(helper.make_tensor_value_info(name, fields["dtype"], fields["shape"]))

    return spoiled(change)


def sequence_input(model: Model) -> None:
    inner = helper.make_tensor_type_proto(FLOAT, None)
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(inner))


def set_opsets(*pairs: tuple[str, int]) -> Callable[[], bytes]:
    def change(model: Model) -> None:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(d, v) for d, v in pairs)

    return spoiled(change)


def resize(
    *, roi: str = "", scales: list[float] | None = None, **attributes: Any
) -> Callable[[], bytes]:
    s = np.array(scales or [1, 1, 1, 1], np.float32)
    return feeding(node("Resize", ["y", roi, "s"], ["saliency_map"], **attributes), s=s)


def conv_attributes(**attributes: Any) -> Callable[[], bytes]:
    return lambda: make_model(
        [node("Conv", ["input", "w", "b"], ["saliency_map"], **attributes)],
        plane_weights((1, 0, 0)),
    )


def reshape_bomb() -> bytes:
    """The wanted size is in the pixels."""
    return feeding(
        node("Cast", ["y"], ["n"], to=TensorProto.INT64),
        node("Reshape", ["y", "n"], ["saliency_map"]),
    )()


def ort_polyglot() -> bytes:
    """Valid ONNX whose bytes 4 to 8 are those of the ORT format."""
    model = base()
    model.ClearField("ir_version")
    return field(1, 8) + field(2, b"ORTM" + b"x" * 8) + dump(model)


def pickled() -> bytes:
    return pickle.dumps({"state_dict": [1.0, 2.0]}, 2)


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as f:
        f.writestr("archive/data.pkl", pickled())
    return target.getvalue()


def training(model: Model) -> None:
    info = model.training_info.add()
    info.algorithm.CopyFrom(
        helper.make_graph([node("SecretOptimiser", ["w"], ["w2"])], "step", [], [])
    )


def duplicate_initializer(model: Model) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def sparse(model: Model) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sp")
    indices = numpy_helper.from_array(ints(0), "sp_i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**9]))


def wide(name: str) -> Callable[[], bytes]:
    """A constant-folded product of two large matrices: seconds to minutes at load."""
    n = 2000
    tensor = raw_tensor("m", [n, n], FLOAT, bytes(4 * n * n))
    nodes = [node("MatMul", ["m", "m"], ["mm"]), node("MatMul", ["mm", "m"], [name])]

    def change(model: Model) -> None:
        model.graph.initializer.append(tensor)
        model.graph.node.extend(nodes)

    return spoiled(change)


def zoom(times: int) -> Callable[[], bytes]:
    """Each step is within bounds; together they are not."""
    nodes = [
        node("Resize", [f"y{i}" if i else "y", "", "s"], [f"y{i + 1}"], mode="nearest")
        for i in range(times)
    ]
    nodes[-1].output[0] = "saliency_map"
    return feeding(*nodes, s=np.array([1, 1, 8, 8], np.float32))


def control_characters(model: Model) -> None:
    model.graph.node.append(node("Evil\x1b[2J\x07", ["input"], ["q"], name="\x1b]0;owned\x07"))


CORPUS: dict[str, tuple[str, Callable[[], bytes]]] = {
    # --- not what the name says
    "empty file": ("file-kind", lambda: b""),
    "pickle": ("malformed", pickled),
    "torch checkpoint (zip)": ("malformed", zipped),
    "gzip": ("malformed", lambda: b"\x1f\x8b\x08" + bytes(64)),
    "web page": ("malformed", lambda: b"<!DOCTYPE html><html></html>"),
    "Git LFS pointer": ("malformed", lambda: b"version https://git-lfs.github.com/spec/v1\noid"),
    "JSON": ("malformed", lambda: b'{"graph": {}}'),
    "zeros": ("malformed", lambda: bytes(4096)),
    "ORT format": ("ort-format", lambda: struct.pack("<I", 24) + b"ORTM" + bytes(64)),
    "ORT-format polyglot": ("ort-format", ort_polyglot),
    # --- the wire
    "truncated": ("malformed", lambda: plane_model()[:-3]),
    "trailing bytes": ("malformed", appended(b"\x00\x00\x00")),
    "unknown field of the model": ("unknown-field", appended(field(99, b"payload"))),
    "unknown varint field": ("unknown-field", appended(field(77, 1))),
    "unknown field of the graph": ("unknown-field", nested_unknown("graph")),
    "unknown field of a node": ("unknown-field", nested_unknown("node")),
    "unknown field of a tensor": ("unknown-field", nested_unknown("tensor")),
    "unknown field of an attribute": ("unknown-field", nested_unknown("attribute")),
    "unknown field of a side": ("unknown-field", nested_unknown("dim")),
    "a second graph, merged": ("ambiguous", appended(field(7, field(2, b"more")))),
    "a second IR version": ("ambiguous", appended(field(1, 9))),
    "group wire type": ("malformed", appended(b"\x0b\x0c")),
    "over-long integer": ("malformed", lambda: b"\x08" + b"\xff" * 11 + b"\x01" + plane_model()),
    "string of the wrong wire type": ("malformed", appended(field(6, 5))),
    "data type beyond 32 bits": ("ambiguous", in_graph(field(5, field(2, (1 << 32) + 1)))),
    "text that is not UTF-8": ("malformed", appended(field(6, b"\xff\xfe"))),
    "20 MB of empty nodes": ("elements", lambda: field(7, b"\x0a\x00" * 10_000_000)),
    "millions of unpacked floats": (
        "elements",
        lambda: field(7, field(5, b"\x25\x00\x00\x00\x00" * 400_000)),
    ),
    "messages nested in messages": (
        "depth",
        lambda: nested(3000),
    ),
    "If in If in If": ("depth", deep_subgraphs),
    # --- hidden
    "If": ("op", lambda: if_with(node("Identity", ["saliency_map"], ["out"]))),
    "Loop in an If": ("op", lambda: if_with(loop(), node("Identity", ["looped"], ["out"]))),
    "custom op in an If": ("op", lambda: if_with(node("Exec", ["input"], ["out"], domain="evil"))),
    "external data in an If": (
        "op",
        lambda: if_with(node("Constant", [], ["out"], value=external("/etc/passwd"))),
    ),
    "endless Loop": ("op", spoiled(lambda m: m.graph.node.append(loop()))),
    "SequenceMap": ("op", spoiled(lambda m: m.graph.node.extend(sequence_map()))),
    "Scan": (
        "op",
        spoiled(
            lambda m: m.graph.node.append(
                node(
                    "Scan",
                    ["input"],
                    ["q"],
                    num_scan_inputs=1,
                    body=branch(node("Exec", [], ["out"])),
                )
            )
        ),
    ),
    "a graph on an op that takes none": (
        "attribute",
        feeding(node("Relu", ["y"], ["saliency_map"], body=branch(node("Exec", [], ["out"])))),
    ),
    "billion laughs": ("opset-domain", billion_laughs),
    "function": ("function", lambda: one_function(node("Relu", ["x"], ["y"]))),
    "Loop in a function": ("function", lambda: one_function(node("Loop", ["x"], ["y"]))),
    "function with an attribute reference": (
        "function",
        lambda: one_function(node("Exec", ["x"], ["y"], domain="d")),
    ),
    "attribute reference": (
        "attribute",
        spoiled(lambda m: m.graph.node[0].attribute.add(name="group", type=2, ref_attr_name="g")),
    ),
    "training info": ("training", spoiled(training)),
    "device configuration": (
        "device-configuration",
        spoiled(lambda m: m.configuration.add(name="cluster")),
    ),
    "device configuration of a node": (
        "device-configuration",
        spoiled(lambda m: m.graph.node[0].device_configurations.add(configuration_id="c")),
    ),
    "quantisation annotation": (
        "quantization-annotation",
        spoiled(lambda m: m.graph.quantization_annotation.add(tensor_name="input")),
    ),
    # --- ops and domains
    "undeclared com.microsoft op": (
        "domain",
        feeding(node("Gelu", ["y"], ["saliency_map"], domain="com.microsoft")),
    ),
    "declared com.microsoft": ("opset-domain", set_opsets(("", OPSET), ("com.microsoft", 1))),
    "ai.onnx.ml": (
        "domain",
        with_nodes(node("StringConcat", ["input"], ["q"], domain="ai.onnx.ml")),
    ),
    "an admitted op of another domain": (
        "domain",
        feeding(node("Relu", ["y"], ["saliency_map"], domain="org.pytorch.aten")),
    ),
    "custom op": ("op", feeding(node("PyOp", ["y"], ["saliency_map"]))),
    "op name in another case": ("op", feeding(node("relu", ["y"], ["saliency_map"]))),
    "op name with a NUL": ("op", feeding(node("Relu\x00", ["y"], ["saliency_map"]))),
    "control characters in names": ("op", spoiled(control_characters)),
    "overload": ("function", spoiled(lambda m: setattr(m.graph.node[0], "overload", "x"))),
    "RandomNormalLike": ("op", feeding(node("RandomNormalLike", ["y"], ["saliency_map"]))),
    "NonZero": ("op", with_nodes(node("NonZero", ["input"], ["q"]))),
    "Where": ("op", feeding(node("Where", ["c", "y", "y"], ["saliency_map"]), c=np.array(True))),
    # --- opsets and versions
    "no opset": ("opset", set_opsets()),
    "two default opsets": ("opset", set_opsets(("", OPSET), ("ai.onnx", OPSET))),
    "opset of the future": ("opset", set_opsets(("", 1000))),
    "opset before Resize": ("opset", set_opsets(("", 9))),
    "negative opset": ("opset", set_opsets(("", -1))),
    "IR version 3": ("ir-version", spoiled(lambda m: setattr(m, "ir_version", 3))),
    "IR version of the future": ("ir-version", spoiled(lambda m: setattr(m, "ir_version", 99))),
    # --- integers that kill
    "Div(INT64_MIN, -1)": (
        "integer",
        with_nodes(node("Div", ["n", "d"], ["q"]), n=ints(INT64_MIN), d=ints(-1)),
    ),
    "Div(INT32_MIN, -1)": (
        "integer",
        with_nodes(
            node("Div", ["n", "d"], ["q"]),
            n=ints(-(1 << 31), kind=np.int32),
            d=ints(-1, kind=np.int32),
        ),
    ),
    "Div by 0": (
        "integer-division",
        with_nodes(node("Div", ["n", "d"], ["q"]), n=ints(1), d=ints(0)),
    ),
    "Div of long integer constants": (
        "integer-division",
        with_nodes(
            node("Div", ["n", "d"], ["q"]), n=np.ones(100, np.int64), d=np.zeros(100, np.int64)
        ),
    ),
    "integer Div of pixels": (
        "integer-division",
        with_nodes(
            node("Cast", ["input"], ["i"], to=TensorProto.INT64), node("Div", ["i", "i"], ["q"])
        ),
    ),
    "Mod": ("op", with_nodes(node("Mod", ["n", "d"], ["q"]), n=ints(INT64_MIN + 1), d=ints(-1))),
    "INT64_MIN made by arithmetic": (
        "integer",
        with_nodes(
            node("Mul", ["n", "n"], ["aa"]),
            node("Mul", ["aa", "c"], ["m"]),
            node("Mul", ["m", "c"], ["q"]),
            n=ints(-2147483647),
            c=ints(4),
        ),
    ),
    "INT64_MAX in arithmetic": (
        "integer",
        with_nodes(node("Add", ["n", "d"], ["q"]), n=ints(INT64_MAX), d=ints(1)),
    ),
    "integers in a Constant": (
        "integer",
        in_constant(numpy_helper.from_array(ints(INT64_MIN), "k")),
    ),
    "value_int beyond bounds": (
        "attribute",
        with_nodes(node("Constant", [], ["k"], value_int=INT64_MIN)),
    ),
    "a million integers": ("integer", with_tensor(raw_tensor("n", [1 << 20], 7, bytes(8 << 20)))),
    # --- bombs
    "constant-folded MatMul": ("constant-work", wide("q")),
    "ConstantOfShape": (
        "tensor-size",
        with_nodes(node("ConstantOfShape", ["n"], ["q"]), n=ints(1 << 15, 1 << 15)),
    ),
    "Expand": ("op", with_nodes(node("Expand", ["input", "n"], ["q"]), n=ints(999, 3, 99, 99))),
    "Tile": ("op", with_nodes(node("Tile", ["input", "n"], ["q"]), n=ints(1, 999, 99, 99))),
    "Range": (
        "op",
        with_nodes(node("Range", ["n", "d", "c"], ["q"]), n=ints(0), d=ints(9), c=ints(1)),
    ),
    "Resize by 1000": ("resize", resize(scales=[1, 1, 1000, 1000])),
    "Resize by 8, four times": ("size", zoom(4)),
    "Resize by 8, then 4 channels": (
        "tensor-size",
        feeding(
            node("Resize", ["y", "", "s"], ["big"], mode="nearest"),
            node("Conv", ["big", "w4"], ["four"], kernel_shape=[1, 1]),
            node("ReduceMean", ["four"], ["saliency_map"], axes=[1]),
            s=np.array([1, 1, 8, 8], np.float32),
            w4=np.ones((4, 1, 1, 1), np.float32),
        ),
    ),
    "Resize of the channels": ("resize", resize(scales=[1, 64, 1, 1])),
    "Resize by NaN": ("not-finite", resize(scales=[1, 1, float("nan"), 1])),
    "Resize to a size in the pixels": (
        "unbounded",
        feeding(
            node("Cast", ["y"], ["n"], to=TensorProto.INT64),
            node("Resize", ["y", "", "", "n"], ["saliency_map"], mode="nearest"),
        ),
    ),
    "Reshape to a size in the pixels": ("unbounded", reshape_bomb),
    "Pad": (
        "size",
        feeding(node("Pad", ["y", "p"], ["saliency_map"]), p=ints(0, 0, 0, 0, 0, 0, 30000, 30000)),
    ),
    "Pad of the batch": (
        "tensor-size",
        feeding(node("Pad", ["y", "p"], ["saliency_map"]), p=ints(0, 0, 0, 0, 9999, 99, 0, 0)),
    ),
    "ConvTranspose": (
        "tensor-size",
        lambda: make_model(
            [node("ConvTranspose", ["input", "t"], ["saliency_map"], strides=[32, 32])],
            {"t": np.ones((3, 1, 31, 31), np.float32)},
        ),
    ),
    "broadcast bomb": (
        "tensor-size",
        feeding(
            node("Unsqueeze", ["y", "ax"], ["y5"]),
            node("Transpose", ["y5"], ["t5"]),
            node("Add", ["y5", "t5"], ["q"]),
            node("Relu", ["y"], ["saliency_map"]),
            ax=ints(4),
        ),
    ),
    "peak memory": (
        "memory",
        lambda: make_model(
            [
                *(node("Conv", ["input", "w16"], [f"c{i}"], kernel_shape=[1, 1]) for i in range(9)),
                node("Concat", [f"c{i}" for i in range(9)], ["k"], axis=1),
                node("Conv", ["k", "last"], ["saliency_map"], kernel_shape=[1, 1]),
            ],
            {
                "w16": np.ones((64, 3, 1, 1), np.float32),
                "last": np.ones((1, 576, 1, 1), np.float32),
            },
        ),
    ),
    "too much work": (
        "work",
        lambda: make_model(
            [
                node("Conv", ["input", "w"], ["c"], kernel_shape=[31, 31], pads=[15] * 4),
                node("Conv", ["c", "v"], ["d"], kernel_shape=[31, 31], pads=[15] * 4),
                node("ReduceMean", ["d"], ["saliency_map"], axes=[1], keepdims=1),
            ],
            {
                "w": np.zeros((64, 3, 31, 31), np.float32),
                "v": np.zeros((64, 64, 31, 31), np.float32),
            },
        ),
    ),
    # --- data elsewhere
    "external data": ("external-data", with_tensor(external("weights.bin"))),
    "external data, absolute path": ("external-data", with_tensor(external("/etc/passwd"))),
    "external data, parent folder": ("external-data", with_tensor(external("../../secret"))),
    "external data without its flag": (
        "external-data",
        with_tensor(external_without_location_flag()),
    ),
    "external data in a Constant": ("external-data", in_constant(external("weights.bin"))),
    "external data in memory": (
        "external-data",
        with_tensor(external("*/_ORT_MEM_ADDR_/*")),
    ),
    "sparse initializer": ("sparse", spoiled(sparse)),
    "sparse attribute": (
        "attribute",
        with_nodes(
            node(
                "Constant",
                [],
                ["k"],
                sparse_value=helper.make_sparse_tensor(
                    numpy_helper.from_array(np.ones(1, np.float32), "v"),
                    numpy_helper.from_array(ints(0), "i"),
                    [10**9],
                ),
            )
        ),
    ),
    # --- tensors
    "duplicate initializer": ("duplicate-name", spoiled(duplicate_initializer)),
    "initializer named as the input": (
        "duplicate-name",
        with_tensor(numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32), "input")),
    ),
    "initializer without a name": (
        "undefined",
        with_tensor(numpy_helper.from_array(np.ones(1, np.float32), "")),
    ),
    "NaN weight": ("not-finite", set_weight(float("nan"))),
    "infinite weight": ("not-finite", set_weight(float("inf"))),
    "infinite weights that cancel": (
        "not-finite",
        with_tensor(numpy_helper.from_array(np.array([np.inf, -np.inf], np.float32), "f")),
    ),
    "NaN in float16": (
        "not-finite",
        with_tensor(numpy_helper.from_array(np.array([1, np.nan], np.float16), "h")),
    ),
    "infinity in float64": (
        "not-finite",
        with_tensor(numpy_helper.from_array(np.array([1, np.inf]), "d")),
    ),
    "NaN in float_data": ("not-finite", with_tensor(float_data(1.0, float("nan")))),
    "NaN in a Constant": (
        "not-finite",
        in_constant(numpy_helper.from_array(np.array([np.nan], np.float32), "k")),
    ),
    "NaN attribute": (
        "attribute",
        feeding(node("LeakyRelu", ["y"], ["saliency_map"], alpha=float("nan"))),
    ),
    "string tensor": ("element-type", with_tensor(helper.make_tensor("s", 8, [1], [b"x"]))),
    "complex tensor": ("element-type", with_tensor(raw_tensor("c", [1], 14, bytes(8)))),
    "unknown element type": ("element-type", with_tensor(raw_tensor("u", [1], 77, bytes(8)))),
    "too few bytes": ("tensor-data", with_tensor(raw_tensor("f", [64], FLOAT, bytes(8)))),
    "too many bytes": ("tensor-data", with_tensor(raw_tensor("f", [2], FLOAT, bytes(99)))),
    "values twice": (
        "ambiguous",
        with_tensor(
            TensorProto(name="f", dims=[1], data_type=FLOAT, float_data=[1], raw_data=bytes(4))
        ),
    ),
    "values in the wrong field": (
        "tensor-data",
        with_tensor(TensorProto(name="f", dims=[1], data_type=FLOAT, int64_data=[1])),
    ),
    "negative dimension": ("dimension", with_tensor(raw_tensor("f", [-4], FLOAT))),
    "empty, with a huge side": ("dimension", with_tensor(raw_tensor("f", [0, 1 << 62], FLOAT))),
    "dimensions that overflow": (
        "tensor-size",
        with_tensor(raw_tensor("f", [1 << 40, 1 << 40], FLOAT)),
    ),
    "dimensions that overflow to 0": (
        "tensor-size",
        with_tensor(raw_tensor("f", [1 << 32, 1 << 32], FLOAT)),
    ),
    "rank 9": ("rank", with_tensor(raw_tensor("f", [1] * 9, FLOAT, bytes(4)))),
    "segment": (
        "segment",
        with_tensor(
            TensorProto(
                name="f",
                dims=[1],
                data_type=1,
                raw_data=bytes(4),
                segment=TensorProto.Segment(begin=0, end=9),
            )
        ),
    ),
    # --- attributes
    "Resize cubic": ("attribute", resize(mode="cubic")),
    "Resize tf_crop_and_resize": (
        "attribute",
        resize(coordinate_transformation_mode="tf_crop_and_resize"),
    ),
    "Resize half_pixel_symmetric": (
        "attribute",
        resize(coordinate_transformation_mode="half_pixel_symmetric"),
    ),
    "Resize antialias": ("attribute", resize(antialias=1)),
    "Resize not_larger": ("attribute", resize(keep_aspect_ratio_policy="not_larger")),
    "Resize exclude_outside": ("attribute", resize(exclude_outside=1)),
    "Resize without sizes": (
        "inputs",
        feeding(node("Resize", ["y"], ["saliency_map"], mode="nearest")),
    ),
    "Conv of many groups": ("attribute", conv_attributes(group=1 << 40)),
    "Conv with stride 0": ("attribute", conv_attributes(strides=[0, 0])),
    "Conv with negative pads": ("attribute", conv_attributes(pads=[-1, -1, -1, -1])),
    "Conv with a huge dilation": ("attribute", conv_attributes(dilations=[1 << 20, 1])),
    "Conv with another kernel": ("shapes", conv_attributes(kernel_shape=[3, 3])),
    "Conv with a short bias": (
        "shapes",
        lambda: make_model([conv()], plane_weights((1, 0, 0)) | {"b": np.zeros(0, np.float32)}),
    ),
    "Conv of two maps with one bias": (
        "shapes",
        feeding(
            node("Conv", ["y", "k", "c"], ["two"]),
            node("ReduceMean", ["two"], ["saliency_map"], axes=[1]),
            k=np.ones((2, 1, 1, 1), np.float32),
            c=np.zeros(1, np.float32),
        ),
    ),
    "normalisation with one scale for 3 channels": (
        "shapes",
        with_nodes(
            node("InstanceNormalization", ["input", "o", "o"], ["q"]), o=np.ones(1, np.float32)
        ),
    ),
    "scales of another axis": (
        "shapes",
        feeding(
            node("QuantizeLinear", ["y", "s", "z"], ["q"], axis=1),
            node("DequantizeLinear", ["q", "s", "z"], ["saliency_map"], axis=1),
            s=np.ones(7, np.float32),
            z=np.zeros(7, np.uint8),
        ),
    ),
    **{
        f"quantisation with {what}": (code, quantised(**given))
        for what, (code, given) in {
            "a scale of 0": ("scale", {"scale": np.zeros(1, np.float32)}),
            "a negative scale": ("scale", {"scale": np.array([-0.1], np.float32)}),
            "a scale that has no inverse": ("scale", {"scale": np.array([1e-40], np.float32)}),
            "one scale of 0 among many": (
                "scale",
                {"scale": np.array([1.0] * 99 + [0.0], np.float32), "axis": 1},
            ),
            "a scale of NaN": ("not-finite", {"scale": np.array([np.nan], np.float32)}),
            "an infinite scale": ("not-finite", {"scale": np.array([np.inf], np.float32)}),
            "a scale in two rows": ("scale", {"scale": np.ones((1, 1), np.float32)}),
            "a scale of another float type": ("types", {"scale": np.ones(1, np.float64)}),
            "an integer for a scale": ("types", {"scale": np.ones(1, np.int32)}),
            "a zero point of another type": ("types", {"back": np.zeros(1, np.int8)}),
            "a zero point of int32": ("types", {"zero": np.zeros(1, np.int32)}),
            "a float for a zero point": ("types", {"zero": np.zeros(1, np.float32)}),
            "many zero points for one scale": ("shapes", {"zero": np.zeros(3, np.uint8)}),
            "an axis beyond the tensor": ("shapes", {"axis": 4}),
            "an axis before the tensor": ("shapes", {"axis": -5}),
            "an axis beyond the policy": ("attribute", {"axis": 1 << 40}),
        }.items()
    },
    "quantisation with a computed scale": (
        "scale",
        feeding(
            node("ReduceMax", ["y"], ["s"], keepdims=0),
            node("QuantizeLinear", ["y", "s"], ["q"]),
            node("DequantizeLinear", ["q", "s"], ["saliency_map"]),
        ),
    ),
    "quantisation with a computed zero point": (
        "scale",
        feeding(
            node("ReduceMax", ["y"], ["m"], keepdims=0),
            node("Cast", ["m"], ["z"], to=TensorProto.UINT8),
            node("QuantizeLinear", ["y", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["saliency_map"]),
            s=np.array(0.1, np.float32),
        ),
    ),
    "floats to turn back from integers": (
        "types",
        feeding(
            node("DequantizeLinear", ["y", "s"], ["saliency_map"]), s=np.array(0.1, np.float32)
        ),
    ),
    "integers to round": (
        "types",
        feeding(
            node("Cast", ["y"], ["i"], to=TensorProto.INT32),
            node("QuantizeLinear", ["i", "s"], ["q"]),
            node("DequantizeLinear", ["q", "s"], ["saliency_map"]),
            s=np.array(0.1, np.float32),
        ),
    ),
    "pool that pads a whole kernel": (
        "shapes",
        feeding(node("MaxPool", ["y"], ["saliency_map"], kernel_shape=[2, 2], pads=[2, 2, 2, 2])),
    ),
    "Pad by reflection beyond the side": (
        "size",
        feeding(
            node("Pad", ["y", "p"], ["saliency_map"], mode="reflect"),
            p=ints(0, 0, 0, 0, 0, 0, 5000, 0),
        ),
    ),
    "Pad that cuts more than there is": (
        "size",
        feeding(
            node("Pad", ["y", "p"], ["saliency_map"]),
            p=ints(0, 0, -(10**9), 0, 0, 0, 10**9, 0),
        ),
    ),
    "Conv with an unknown attribute": ("attribute", conv_attributes(backdoor=1)),
    "attribute twice": (
        "ambiguous",
        spoiled(lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0])),
    ),
    "attribute of two types": (
        "ambiguous",
        spoiled(lambda m: setattr(m.graph.node[0].attribute[0], "i", 5)),
    ),
    "attribute without a type": (
        "ambiguous",
        spoiled(lambda m: m.graph.node[0].attribute[0].ClearField("type")),
    ),
    "BatchNormalization in training": (
        "attribute",
        feeding(
            node(
                "BatchNormalization", ["y", "o", "o", "o", "o"], ["saliency_map"], training_mode=1
            ),
            o=np.ones(1, np.float32),
        ),
    ),
    "Dropout in training": (
        "training",
        feeding(
            node("Dropout", ["y", "r", "t"], ["saliency_map"]),
            r=np.array(0.5, np.float32),
            t=np.array(True),
        ),
    ),
    "Cast to text": ("attribute", feeding(node("Cast", ["y"], ["saliency_map"], to=8))),
    "Cast of infinity to an integer": (
        "integer",
        with_nodes(node("Constant", [], ["k"], value_float=3e38), node("Cast", ["k"], ["q"], to=7)),
    ),
    # --- inputs and outputs
    "a depth input": (
        "input",
        spoiled(
            lambda m: m.graph.input.append(
                helper.make_tensor_value_info("depth", FLOAT, ["N", 1, "H", "W"])
            )
        ),
    ),
    "int64 input": ("input", io_type("input", dtype=7, shape=["N", 3, "H", "W"])),
    "text input": ("element-type", io_type("input", dtype=8, shape=[1])),
    "5-D input": ("input", io_type("input", dtype=1, shape=[1, 3, 4, 8, 8])),
    "4 channels": ("input", io_type("input", dtype=1, shape=["N", 4, "H", "W"])),
    "a huge fixed input": ("input", io_type("input", dtype=1, shape=[1, 3, 1 << 20, 1 << 20])),
    "negative input side": ("dimension", io_type("input", dtype=1, shape=[1, 3, -8, 8])),
    "no shape": ("input", io_type("input", dtype=1, shape=None)),
    "sequence input": ("type", spoiled(sequence_input)),
    "no input": ("input", spoiled(lambda m: m.graph.ClearField("input"))),
    "no output": ("output", spoiled(lambda m: m.graph.ClearField("output"))),
    "flat output": (
        "output",
        lambda: make_model(
            [conv(target="y"), node("Flatten", ["y"], ["saliency_map"])],
            plane_weights((1, 0, 0)),
            outputs={"saliency_map": (FLOAT, None)},  # type: ignore[dict-item]
        ),
    ),
    "side that is a number and a name": (
        "ambiguous",
        in_graph(
            field(
                13,
                field(1, b"v")
                + field(2, field(1, field(1, 1) + field(2, field(1, NUMBER_AND_NAME)))),
            )
        ),
    ),
    # --- the graph
    "no graph": ("empty", lambda: field(1, 8) + field(8, field(2, 17))),
    "no nodes": ("empty", spoiled(lambda m: m.graph.ClearField("node"))),
    "input computed nowhere": ("undefined", with_nodes(node("Relu", ["ghost"], ["q"]))),
    "cycle": (
        "undefined",
        with_nodes(node("Relu", ["b2"], ["a2"]), node("Relu", ["a2"], ["b2"])),
    ),
    "output computed nowhere": (
        "undefined",
        spoiled(lambda m: setattr(m.graph.output[0], "name", "ghost")),
    ),
    "value computed twice": ("duplicate-name", with_nodes(conv())),
    "node without an output": ("outputs", with_nodes(node("Relu", ["input"], []))),
    "a name of 100 kB": ("name", with_nodes(node("Relu", ["input"], ["q" * 100_000]))),
    # --- metadata
    "metadata of 1 MB": (
        "metadata",
        spoiled(lambda m: m.metadata_props.add(key="k", value="v" * (1 << 20))),
    ),
    "documentation of 5 MB": (
        "metadata",
        spoiled(lambda m: setattr(m.graph, "doc_string", "d" * 5_000_000)),
    ),
    "a metadata key twice": (
        "ambiguous",
        spoiled(lambda m: [m.metadata_props.add(key="licence", value=v) for v in ("MIT", "none")]),
    ),
    # --- admitted by the static scan, refused by the runtime
    "an op that its opset does not have": (
        "load",
        feeding(node("Gelu", ["y"], ["saliency_map"])),
    ),
}
"""Name to (code of the finding that must be there, maker of the bytes)."""
