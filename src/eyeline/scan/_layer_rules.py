"""Size rules of layers: convolution, pooling, normalisation, linear and quantisation.

A size rule computes the type and shape of the outputs of a node from those of its inputs. All rules
use `Value`, `Node` and the helper functions in this module; `_sizes` contains the rules of the other
ops and the table of all rules. The formulas are those of the ONNX operator specification (onnx.ai).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from eyeline.scan._constants import FLOATS, MAX_KNOWN, NAME, NUMBER, Attribute
from eyeline.scan.records import RefusedError, ScanLimits

Number = int | float

FLOAT32, UINT8, INT8, INT32, INT64 = (
    NUMBER[name] for name in ("float32", "uint8", "int8", "int32", "int64")
)


@dataclass(frozen=True, slots=True)
class Value:
    """Type and shape of a tensor for one input size of the model.

    `dtype` is the number of the element type in onnx.proto. `values` is known only for short tensors
    that do not depend on pixels, such as shapes; else it is None. `constant` is true if ONNX Runtime may
    compute the tensor at load time. `scale` has the same meaning as in `Constant`.
    """

    dtype: int
    shape: tuple[int, ...]
    values: tuple[Number, ...] | None = None
    constant: bool = False
    scale: bool = False

    @property
    def elements(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    def known(self, what: str) -> tuple[Number, ...]:
        """Return the values of a tensor on which the size of another tensor depends."""
        if self.values is None:
            raise RefusedError("unbounded", f"the {what} can't be computed before the model runs")
        return self.values

    def integers(self, what: str) -> tuple[int, ...]:
        """Return the values of a tensor of sizes, axes or indices."""
        values = self.known(what)
        if not all(isinstance(v, int) for v in values):
            raise RefusedError("types", f"the {what} of the node must be integers")
        return tuple(int(v) for v in values)


@dataclass(frozen=True, slots=True)
class Node:
    """A node with checked attributes; the name of an omitted input is ""."""

    op_type: str
    attributes: dict[str, Attribute]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    path: str
    opset: int
    limits: ScanLimits = field(repr=False)

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise RefusedError("attribute", f"the attribute {name} must be an integer")
        return value

    def integers(self, name: str, length: int, default: int) -> tuple[int, ...]:
        """Return an attribute of `length` integers; if it is missing, `default` is repeated."""
        value = self.attributes.get(name, (default,) * length)
        if not isinstance(value, tuple) or len(value) != length:
            raise RefusedError("attribute", f"the attribute {name} must be {length} integers")
        return tuple(int(v) for v in value)

    def axes(self) -> tuple[int, ...] | None:
        """Return the attribute `axes`, None if it is missing."""
        value = self.attributes.get("axes")
        return tuple(int(a) for a in value) if isinstance(value, tuple) else None


class Inputs(tuple[Value | None, ...]):
    """The inputs of a node, None for an omitted one."""

    def need(self, index: int) -> Value:
        """Return a required input."""
        value = self.get(index)
        if value is None:
            raise RefusedError("inputs", f"the required input {index} is missing")
        return value

    def get(self, index: int) -> Value | None:
        """Return an optional input, None if it is omitted."""
        return self[index] if index < len(self) else None


def axis_of(axis: int, rank: int) -> int:
    """Convert an axis, which may be negative, to an index from 0 to `rank` - 1."""
    if not -rank <= axis < rank:
        raise RefusedError("shapes", f"a tensor of rank {rank} has no axis {axis}")
    return axis % rank


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the result shape of an elementwise operation (ONNX "Broadcasting", as in numpy)."""
    rank = max(map(len, shapes))
    result = []
    for dims in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        sides = {d for d in dims if d != 1}
        if len(sides) > 1:
            raise RefusedError("shapes", f"shapes {', '.join(map(str, shapes))} can't be broadcast")
        result.append(sides.pop() if sides else 1)
    return tuple(result)


def as_stored(dtype: int, value: Number) -> Number | None:
    """Round a number to float32 if `dtype` is float32; return None if the result is not finite."""
    if dtype != FLOAT32:
        return value if math.isfinite(value) else None
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return None
    return rounded if math.isfinite(rounded) else None


def select(
    value: Value, kept: Sequence[range], order: tuple[int, ...] | None = None
) -> tuple[Number, ...] | None:
    """Return the values at the indices `kept` of each axis, with the axes in `order`."""
    if value.values is None:
        return None
    strides = [math.prod(value.shape[i + 1 :]) for i in range(len(value.shape))]
    axes = order if order is not None else range(len(value.shape))
    places = product(*([i * strides[a] for i in kept[a]] for a in axes))
    return tuple(value.values[sum(place)] for place in places)


def follow(elements: int, *inputs: Value) -> bool:
    """Return whether the values of a result are computable and few enough to keep."""
    return elements <= MAX_KNOWN and all(v.values is not None for v in inputs)


def _window(node: Node, sides: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Return the spatial output sizes of a sliding window, such as a convolution kernel."""
    n = len(sides)
    strides, dilations = node.integers("strides", n, 1), node.integers("dilations", n, 1)
    pads, auto = node.integers("pads", 2 * n, 0), str(node.attributes.get("auto_pad", "NOTSET"))
    ceil = node.integer("ceil_mode", 0)
    result = []
    for i, side in enumerate(sides):
        span = (kernel[i] - 1) * dilations[i] + 1
        if auto.startswith("SAME"):
            result.append(-(-side // strides[i]))
            continue
        padding = 0 if auto == "VALID" else pads[i] + pads[n + i]
        rest = side + padding - span
        if rest < 0:
            raise RefusedError(
                "shapes",
                f"a window of {span} is larger than the padded axis of {side}",
            )
        out = (-(-rest // strides[i]) if ceil else rest // strides[i]) + 1
        if ceil and (out - 1) * strides[i] >= side + pads[i]:
            out -= 1  # ONNX drops a window that would start in the padding
        result.append(out)
    return tuple(result)


def _spatial(value: Value) -> tuple[int, int, tuple[int, ...]]:
    if not 3 <= len(value.shape) <= 5:
        raise RefusedError("shapes", f"the input has rank {len(value.shape)}; allowed are 3 to 5")
    return value.shape[0], value.shape[1], value.shape[2:]


def _check_length(inputs: Inputs, index: int, length: int, what: str) -> None:
    # The kernel of the runtime would read memory outside a vector that is too short.
    value = inputs.get(index)
    if value is not None and value.elements != length:
        raise RefusedError("shapes", f"{what} has {value.elements} values; {length} are needed")


def _kernel(node: Node, weight: Value, sides: tuple[int, ...]) -> tuple[int, ...]:
    kernel = weight.shape[2:]
    stated = node.integers("kernel_shape", len(sides), 0)
    if len(kernel) != len(sides) or (any(stated) and stated != kernel):
        raise RefusedError("shapes", f"the kernel {kernel} does not fit an input of size {sides}")
    return kernel


def conv(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the output of a convolution with weights (M, C / group, k...)."""
    x, w = inputs.need(0), inputs.need(1)
    batch, channels, sides = _spatial(x)
    kernel, group = _kernel(node, w, sides), node.integer("group", 1)
    if w.shape[1] * group != channels or w.shape[0] % group:
        raise RefusedError(
            "shapes", f"weights {w.shape} do not fit {channels} channels in {group} groups"
        )
    _check_length(inputs, 2, w.shape[0], "the bias")
    return [Value(x.dtype, (batch, w.shape[0], *_window(node, sides, kernel)))]


def conv_transpose(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the output of a transposed convolution with weights (C, M / group, k...)."""
    x, w = inputs.need(0), inputs.need(1)
    batch, channels, sides = _spatial(x)
    kernel, group, n = _kernel(node, w, sides), node.integer("group", 1), len(sides)
    if w.shape[0] != channels or channels % group:
        raise RefusedError(
            "shapes", f"weights {w.shape} do not fit {channels} channels in {group} groups"
        )
    strides, dilations = node.integers("strides", n, 1), node.integers("dilations", n, 1)
    pads, extra = node.integers("pads", 2 * n, 0), node.integers("output_padding", n, 0)
    spans = [(kernel[i] - 1) * dilations[i] + 1 for i in range(n)]
    out = [
        strides[i] * (sides[i] - 1) + extra[i] + spans[i] - pads[i] - pads[n + i] for i in range(n)
    ]
    _check_length(inputs, 2, w.shape[1] * group, "the bias")
    return [Value(x.dtype, (batch, w.shape[1] * group, *out))]


def pool(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the outputs of MaxPool and AveragePool."""
    x = inputs.need(0)
    batch, channels, sides = _spatial(x)
    kernel = node.integers("kernel_shape", len(sides), 0)
    if not all(kernel):
        raise RefusedError("attribute", "the attribute kernel_shape is missing")
    pads = node.integers("pads", 2 * len(sides), 0)
    if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        raise RefusedError("shapes", f"the pads {pads} must be smaller than the kernel {kernel}")
    shape = (batch, channels, *_window(node, sides, kernel))
    return [Value(x.dtype, shape), Value(INT64, shape)][: len(node.outputs)]


def global_pool(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the output of global pooling: one number per channel."""
    x = inputs.need(0)
    batch, channels, sides = _spatial(x)
    return [Value(x.dtype, (batch, channels, *(1 for _ in sides)))]


def reduce(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the output of the Reduce ops, whose axes are an input since opset 13 or 18."""
    x, given = inputs.need(0), inputs.get(1)
    rank = len(x.shape)
    axes = given.integers("axes") if given is not None else node.axes()
    if not axes:
        axes = () if node.integer("noop_with_empty_axes", 0) else tuple(range(rank))
    reduced = {axis_of(a, rank) for a in axes}
    keep = node.integer("keepdims", 1)
    shape = [1 if i in reduced else d for i, d in enumerate(x.shape) if keep or i not in reduced]
    return [Value(x.dtype, tuple(shape))]


def normalise(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the output of a normalisation op, which has the shape of its input."""
    x = inputs.need(0)
    if len([o for o in node.outputs if o]) != 1:
        raise RefusedError("outputs", "only one output is allowed: the others are for training")
    if node.op_type == "LayerNormalization":
        axis = axis_of(node.integer("axis", -1), len(x.shape))
        length, vectors = math.prod(x.shape[axis:]), 2
    elif node.op_type == "GroupNormalization":
        groups, channels = node.integer("num_groups", 0), _spatial(x)[1]
        if groups < 1 or channels % groups:
            raise RefusedError("shapes", f"{channels} channels can't be split into {groups} groups")
        length, vectors = channels if node.opset >= 21 else groups, 2
    else:
        length, vectors = _spatial(x)[1], len(inputs) - 1
    inputs.need(1)
    for index in range(1, vectors + 1):
        _check_length(inputs, index, length, "a scale or statistics input")
    return [Value(x.dtype, x.shape)]


def gemm(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the output of a matrix product with a bias."""
    a, b, bias = inputs.need(0), inputs.need(1), inputs.get(2)
    if len(a.shape) == len(b.shape) == 2:
        rows, inner = a.shape[::-1] if node.integer("transA", 0) else a.shape
        inner_b, columns = b.shape[::-1] if node.integer("transB", 0) else b.shape
        out = (rows, columns)
        if inner == inner_b and (bias is None or broadcast(bias.shape, out) == out):
            return [Value(a.dtype, out)]
    raise RefusedError("shapes", f"matrices {a.shape} and {b.shape} do not match")


def matmul(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the output of a matrix product over the last two dimensions."""
    a, b = inputs.need(0), inputs.need(1)
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
        raise RefusedError("shapes", f"matrices {a.shape} and {b.shape} do not match")
    return [Value(a.dtype, (*broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))]


def quantize(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the output of a quantisation to the type of the zero point; uint8 without zero point."""
    x, zero = inputs.need(0), inputs.get(2)
    if x.dtype not in FLOATS or inputs.need(1).dtype != x.dtype:
        raise RefusedError("types", "the input and its scale must be floats of the same type")
    if zero is not None and zero.dtype not in (INT8, UINT8):
        raise RefusedError("types", f"the zero point is {NAME.get(zero.dtype)}, not int8 or uint8")
    _check_scale(node, inputs)
    return [Value(zero.dtype if zero is not None else UINT8, x.shape)]


def dequantize(node: Node, inputs: Inputs) -> list[Value]:
    """Compute the output of a dequantisation to the type of the scale."""
    x, scale, zero = inputs.need(0), inputs.need(1), inputs.get(2)
    if x.dtype not in (INT8, UINT8, INT32) or scale.dtype not in FLOATS:
        raise RefusedError(
            "types",
            f"a tensor of {NAME.get(x.dtype)} can't have a scale of {NAME.get(scale.dtype)}",
        )
    if zero is not None and zero.dtype != x.dtype:
        raise RefusedError(
            "types",
            f"the zero point is {NAME.get(zero.dtype)}, but the tensor is {NAME.get(x.dtype)}",
        )
    _check_scale(node, inputs)
    return [Value(scale.dtype, x.shape)]


def _check_scale(node: Node, inputs: Inputs) -> None:
    """Check that scale and zero point are constants of one value, or of one value per channel."""
    x, scale, zero = inputs.need(0), inputs.need(1), inputs.get(2)
    if not scale.scale:
        raise RefusedError("scale", "the scale must be a constant of positive normal numbers")
    if zero is not None and not zero.constant:
        raise RefusedError("scale", "the zero point must be a constant")
    if scale.elements != 1 or "axis" in node.attributes:
        side = axis_of(node.integer("axis", 1), len(x.shape))
        if scale.elements != 1 and scale.shape != (x.shape[side],):
            raise RefusedError("shapes", f"scales {scale.shape} do not fit a tensor {x.shape}")
    if zero is not None and zero.elements != scale.elements:
        raise RefusedError("shapes", f"zero points {zero.shape} do not fit scales {scale.shape}")


def work(node: Node, inputs: Inputs, outputs: list[Value]) -> int:
    """Return the multiply-adds of a node; for other ops the number of input and output elements."""
    out = outputs[0].elements
    if node.op_type == "Shape":
        return out  # Shape reads no values
    if node.op_type == "Conv":
        return out * math.prod(inputs.need(1).shape[1:])
    if node.op_type == "ConvTranspose":
        return inputs.need(0).elements * math.prod(inputs.need(1).shape[1:])
    if node.op_type == "MatMul":
        return out * inputs.need(0).shape[-1]
    if node.op_type == "Gemm":
        return out * inputs.need(0).shape[0 if node.integer("transA", 0) else 1]
    if node.op_type in ("MaxPool", "AveragePool"):
        return out * math.prod(node.integers("kernel_shape", len(outputs[0].shape) - 2, 1))
    return out + sum(v.elements for v in inputs if v is not None)
