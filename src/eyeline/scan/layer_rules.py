"""Output sizes and work of layers: convolution, pooling, normalisation, linear.

Formulas: the ONNX operator specification (onnx.ai, "Operators"), shape inference of each op.

What the size rules work on: tensors without their pixels, and nodes without their graph.

Rules of quantised nets (QDQ): what rounds is constant, and can be divided by.

Formulas: the ONNX operator specification (onnx.ai, "Operators": QuantizeLinear, DequantizeLinear).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from eyeline.scan.records import RefusedError, ScanLimits
from eyeline.scan.tensors import FLOATS, MAX_KNOWN, NAME, NUMBER, Constant

Number = int | float
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | Constant


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor at one stated input.

    Attributes:
        dtype: element type, by onnx.proto's number.
        shape: its dimensions.
        values: flat, where they follow from the input's size alone; None for pixels and weights.
        constant: whether it is known at load, so that ONNX Runtime may compute it then.
        scale: see `Constant`; False for what is computed.
    """

    dtype: int
    shape: tuple[int, ...]
    values: tuple[Number, ...] | None = None
    constant: bool = False
    scale: bool = False

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Node:
    """One node, its attributes checked.

    Attributes:
        op_type: as in the file.
        attributes: name to value.
        inputs: names, "" for one left out.
        outputs: names.
        path: for findings.
        opset: version of the default operator set.
        limits: of the policy.
    """

    op_type: str
    attributes: dict[str, Attribute]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    path: str
    opset: int
    limits: ScanLimits = field(repr=False)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise RefusedError("attribute", f"{name} is not an integer")
        return value

    def integers(self, name: str, length: int, default: int) -> tuple[int, ...]:
        """A list of `length` integers; `default` repeated when absent."""
        value = self.attributes.get(name)
        if value is None:
            return (default,) * length
        if not isinstance(value, tuple) or len(value) != length:
            raise RefusedError("attribute", f"{name} is not {length} integers")
        return tuple(int(v) for v in value)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self.attributes.get(name, default))


Inputs = Sequence[Value | None]


def need(inputs: Inputs, index: int) -> Value:
    """An input that must be there."""
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise RefusedError("inputs", f"input {index} is missing")
    return value


def optional(inputs: Inputs, index: int) -> Value | None:
    """An input that may be left out."""
    return inputs[index] if index < len(inputs) else None


def known(value: Value, what: str) -> tuple[Number, ...]:
    """The values of a tensor that says how large another one is."""
    if value.values is None:
        raise RefusedError("unbounded", f"its {what} can't be known before it runs")
    return value.values


def known_integers(value: Value, what: str) -> tuple[int, ...]:
    """As `known`, for sizes, axes and indices."""
    values = known(value, what)
    if not all(isinstance(v, int) for v in values):
        raise RefusedError("types", f"its {what} are not integers")
    return tuple(int(v) for v in values)


def axis_of(axis: int, rank: int) -> int:
    """An axis that may be negative, as an index below `rank`."""
    if not -rank <= axis < rank:
        raise RefusedError("shapes", f"axis {axis} of a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an element-by-element operation (ONNX "Broadcasting": numpy's rules)."""
    rank = max(map(len, shapes))
    result = []
    for dims in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        sides = {d for d in dims if d != 1}
        if len(sides) > 1:
            raise RefusedError("shapes", f"{' and '.join(map(str, shapes))} don't fit each other")
        result.append(sides.pop() if sides else 1)
    return tuple(result)


def as_stored(dtype: int, value: Number) -> Number | None:
    """A number as its element type holds it: float32 rounds, and sizes hang on how; None beyond it."""
    if dtype != 1:
        return value if math.isfinite(value) else None
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return None
    return rounded if math.isfinite(rounded) else None


def select(
    value: Value, kept: Sequence[range], order: tuple[int, ...] | None = None
) -> tuple[Number, ...] | None:
    """Followed values at some indices of each axis, with the axes in another order."""
    if value.values is None:
        return None
    strides = [math.prod(value.shape[i + 1 :]) for i in range(len(value.shape))]
    axes = order if order is not None else tuple(range(len(value.shape)))
    places = product(*([i * strides[a] for i in kept[a]] for a in axes))
    return tuple(value.values[sum(place)] for place in places)


def follow(elements: int, *inputs: Value) -> bool:
    """Whether the values of a result are worth following."""
    return elements <= MAX_KNOWN and all(v.values is not None for v in inputs)


def _window(
    node: Node, sides: tuple[int, ...], kernel: tuple[int, ...], *, ceil: bool = False
) -> tuple[int, ...]:
    """Sides after a sliding window."""
    n = len(sides)
    strides, dilations = node.integers("strides", n, 1), node.integers("dilations", n, 1)
    pads, auto = node.integers("pads", 2 * n, 0), node.text("auto_pad", "NOTSET")
    result = []
    for i, side in enumerate(sides):
        span = (kernel[i] - 1) * dilations[i] + 1
        if auto.startswith("SAME"):
            result.append(-(-side // strides[i]))
            continue
        padding = 0 if auto == "VALID" else pads[i] + pads[n + i]
        room = side + padding - span
        if room < 0:
            raise RefusedError("shapes", f"a window of {span} on a side of {side}")
        out = (-(-room // strides[i]) if ceil else room // strides[i]) + 1
        if ceil and (out - 1) * strides[i] >= side + pads[i]:
            out -= 1  # a window that would start in the padding is left out
        result.append(out)
    return tuple(result)


def _spatial(value: Value) -> tuple[int, int, tuple[int, ...]]:
    if not 3 <= len(value.shape) <= 5:
        raise RefusedError("shapes", f"an image tensor of rank {len(value.shape)}")
    return value.shape[0], value.shape[1], value.shape[2:]


def _kernel(node: Node, weight: Value, sides: tuple[int, ...]) -> tuple[int, ...]:
    kernel = weight.shape[2:]
    if len(kernel) != len(sides) or node.integers("kernel_shape", len(sides), 0) not in (
        kernel,
        (0,) * len(sides),
    ):
        raise RefusedError("shapes", f"a kernel of {kernel} on sides {sides}")
    return kernel


def conv(node: Node, inputs: Inputs) -> list[Value]:
    """Convolution: weights (M, C / group, k...)."""
    x, w = need(inputs, 0), need(inputs, 1)
    batch, channels, sides = _spatial(x)
    kernel, group = _kernel(node, w, sides), node.integer("group", 1)
    if w.shape[1] * group != channels or w.shape[0] % group:
        raise RefusedError("shapes", f"weights {w.shape} in {group} groups for {channels} channels")
    _check_length(inputs, 2, w.shape[0], "bias")
    return [Value(x.dtype, (batch, w.shape[0], *_window(node, sides, kernel)))]


def conv_transpose(node: Node, inputs: Inputs) -> list[Value]:
    """Transposed convolution: weights (C, M / group, k...)."""
    x, w = need(inputs, 0), need(inputs, 1)
    batch, channels, sides = _spatial(x)
    kernel, group, n = _kernel(node, w, sides), node.integer("group", 1), len(sides)
    if w.shape[0] != channels or channels % group:
        raise RefusedError("shapes", f"weights {w.shape} in {group} groups for {channels} channels")
    strides, dilations = node.integers("strides", n, 1), node.integers("dilations", n, 1)
    pads = node.integers("pads", 2 * n, 0)
    extra = node.integers("output_padding", n, 0)
    out = tuple(
        strides[i] * (sides[i] - 1)
        + extra[i]
        + (kernel[i] - 1) * dilations[i]
        + 1
        - (pads[i] + pads[n + i])
        for i in range(n)
    )
    _check_length(inputs, 2, w.shape[1] * group, "bias")
    return [Value(x.dtype, (batch, w.shape[1] * group, *out))]


def pool(node: Node, inputs: Inputs) -> list[Value]:
    """MaxPool and AveragePool."""
    x = need(inputs, 0)
    batch, channels, sides = _spatial(x)
    kernel = node.integers("kernel_shape", len(sides), 0)
    if not all(kernel):
        raise RefusedError("attribute", "kernel_shape is missing")
    pads = node.integers("pads", 2 * len(sides), 0)
    if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        raise RefusedError("shapes", f"pads {pads} hold a whole kernel {kernel}")
    shape = (
        batch,
        channels,
        *_window(node, sides, kernel, ceil=bool(node.integer("ceil_mode", 0))),
    )
    return [Value(x.dtype, shape), Value(7, shape)][: len(node.outputs)]


def global_pool(node: Node, inputs: Inputs) -> list[Value]:
    """One number a channel."""
    x = need(inputs, 0)
    batch, channels, sides = _spatial(x)
    return [Value(x.dtype, (batch, channels, *(1 for _ in sides)))]


def reduce(node: Node, inputs: Inputs) -> list[Value]:
    """ReduceMean and its kin: axes as an attribute, or as an input since opset 13 / 18."""
    x, given = need(inputs, 0), optional(inputs, 1)
    rank = len(x.shape)
    if given is not None:
        axes = known_integers(given, "axes")
    else:
        value = node.attributes.get("axes", ())
        axes = tuple(int(a) for a in value) if isinstance(value, tuple) else ()
    if not axes:
        axes = () if node.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    gone = {axis_of(a, rank) for a in axes}
    keep = node.integer("keepdims", 1)
    shape = [1 if i in gone else d for i, d in enumerate(x.shape) if keep or i not in gone]
    return [Value(x.dtype, tuple(shape))]


def normalise(node: Node, inputs: Inputs) -> list[Value]:
    """Batch, instance, layer and group normalisation: one output, of the input's shape."""
    x = need(inputs, 0)
    if len([o for o in node.outputs if o]) != 1:
        raise RefusedError("outputs", "only the first output is admitted, as at inference")
    if node.op_type == "LayerNormalization":
        axis = axis_of(node.integer("axis", -1), len(x.shape))
        length, vectors = math.prod(x.shape[axis:]), 2
    elif node.op_type == "GroupNormalization":
        groups, channels = node.integer("num_groups", 0), _spatial(x)[1]
        if groups < 1 or channels % groups:
            raise RefusedError("shapes", f"{channels} channels in {groups} groups")
        length, vectors = channels if node.opset >= 21 else groups, 2
    else:
        length, vectors = _spatial(x)[1], len(inputs) - 1
    need(inputs, 1)
    for index in range(1, vectors + 1):
        _check_length(inputs, index, length, "scale or statistics")
    return [Value(x.dtype, x.shape)]


def _check_length(inputs: Inputs, index: int, length: int, what: str) -> None:
    """A vector of the wrong length makes a kernel read what is not its own."""
    value = optional(inputs, index)
    if value is not None and value.elements != length:
        raise RefusedError("shapes", f"{what} of {value.elements} values for {length} channels")


def gemm(node: Node, inputs: Inputs) -> list[Value]:
    """Matrix product of two matrices, with a bias."""
    a, b = need(inputs, 0), need(inputs, 1)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise RefusedError("shapes", f"Gemm of {a.shape} and {b.shape}")
    rows, inner = a.shape[::-1] if node.integer("transA", 0) else a.shape
    inner_b, columns = b.shape[::-1] if node.integer("transB", 0) else b.shape
    bias = optional(inputs, 2)
    if inner != inner_b or (
        bias is not None and broadcast(bias.shape, (rows, columns)) != (rows, columns)
    ):
        raise RefusedError("shapes", f"Gemm of {a.shape} and {b.shape}")
    return [Value(a.dtype, (rows, columns))]


def matmul(node: Node, inputs: Inputs) -> list[Value]:
    """Matrix product over the last two dimensions."""
    a, b = need(inputs, 0), need(inputs, 1)
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
        raise RefusedError("shapes", f"MatMul of {a.shape} and {b.shape}")
    batch = broadcast(a.shape[:-2], b.shape[:-2]) if a.shape[2:] or b.shape[2:] else ()
    return [Value(a.dtype, (*batch, a.shape[-2], b.shape[-1]))]


def work(node: Node, inputs: Inputs, outputs: list[Value]) -> int:
    """Multiply-adds of a node; its elements, in and out, where it is no product."""
    out = outputs[0].elements
    if node.op_type == "Shape":
        return out  # it looks at no pixel
    if node.op_type == "Conv":
        return out * math.prod(need(inputs, 1).shape[1:])
    if node.op_type == "ConvTranspose":
        return need(inputs, 0).elements * math.prod(need(inputs, 1).shape[1:])
    if node.op_type == "MatMul":
        return out * need(inputs, 0).shape[-1]
    if node.op_type == "Gemm":
        return out * need(inputs, 0).shape[0 if node.integer("transA", 0) else 1]
    if node.op_type in ("MaxPool", "AveragePool"):
        return out * math.prod(node.integers("kernel_shape", len(outputs[0].shape) - 2, 1))
    return out + sum(v.elements for v in inputs if v is not None)


UINT8, INT32 = NUMBER["uint8"], NUMBER["int32"]
BYTES = (NUMBER["int8"], UINT8)


def quantize(node: Node, inputs: Inputs) -> list[Value]:
    """Float to int8, or to uint8 when no zero point says so."""
    x, zero = need(inputs, 0), optional(inputs, 2)
    if x.dtype not in FLOATS or need(inputs, 1).dtype != x.dtype:
        raise RefusedError("types", "not floats of its scale's type")
    if zero is not None and zero.dtype not in BYTES:
        raise RefusedError("types", f"zero points of {NAME.get(zero.dtype)}")
    _check_scale(node, inputs)
    return [Value(zero.dtype if zero is not None else UINT8, x.shape)]


def dequantize(node: Node, inputs: Inputs) -> list[Value]:
    """Integers to the type of their scale."""
    x, scale, zero = need(inputs, 0), need(inputs, 1), optional(inputs, 2)
    if x.dtype not in (*BYTES, INT32) or scale.dtype not in FLOATS:
        raise RefusedError("types", f"{NAME.get(x.dtype)} in scales of {NAME.get(scale.dtype)}")
    if zero is not None and zero.dtype != x.dtype:
        raise RefusedError(
            "types", f"zero points of {NAME.get(zero.dtype)} for {NAME.get(x.dtype)}"
        )
    _check_scale(node, inputs)
    return [Value(scale.dtype, x.shape)]


def _check_scale(node: Node, inputs: Inputs) -> None:
    """One constant scale, or one for each entry of an axis; as many constant zero points."""
    x, scale, zero = need(inputs, 0), need(inputs, 1), optional(inputs, 2)
    if not scale.scale:
        raise RefusedError("scale", "its scale is no constant, or not of positive normal numbers")
    if zero is not None and not zero.constant:
        raise RefusedError("scale", "its zero point is computed")
    if scale.elements != 1 or "axis" in node.attributes:
        side = axis_of(node.integer("axis", 1), len(x.shape))
        if scale.elements != 1 and scale.shape != (x.shape[side],):
            raise RefusedError("shapes", f"scales {scale.shape} for {x.shape}")
    if zero is not None and zero.elements != scale.elements:
        raise RefusedError("shapes", f"zero points {zero.shape} for scales {scale.shape}")
