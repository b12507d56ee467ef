"""Output sizes and work of layers: convolution, pooling, normalisation, linear.

Formulas: the ONNX operator specification (onnx.ai, "Operators"), shape inference of each op.
"""

from __future__ import annotations

import math

from eyeline.models.scan.report import Problem
from eyeline.models.scan.values import (
    Inputs,
    Node,
    Value,
    axis_of,
    broadcast,
    known_integers,
    need,
    optional,
)


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
            raise Problem("shapes", f"a window of {span} on a side of {side}")
        out = (-(-room // strides[i]) if ceil else room // strides[i]) + 1
        if ceil and (out - 1) * strides[i] >= side + pads[i]:
            out -= 1  # a window that would start in the padding is left out
        result.append(out)
    return tuple(result)


def _spatial(value: Value) -> tuple[int, int, tuple[int, ...]]:
    if not 3 <= len(value.shape) <= 5:
        raise Problem("shapes", f"an image tensor of rank {len(value.shape)}")
    return value.shape[0], value.shape[1], value.shape[2:]


def _kernel(node: Node, weight: Value, sides: tuple[int, ...]) -> tuple[int, ...]:
    kernel = weight.shape[2:]
    if len(kernel) != len(sides) or node.integers("kernel_shape", len(sides), 0) not in (
        kernel,
        (0,) * len(sides),
    ):
        raise Problem("shapes", f"a kernel of {kernel} on sides {sides}")
    return kernel


def conv(node: Node, inputs: Inputs) -> list[Value]:
    """Convolution: weights (M, C / group, k...)."""
    x, w = need(inputs, 0), need(inputs, 1)
    batch, channels, sides = _spatial(x)
    kernel, group = _kernel(node, w, sides), node.integer("group", 1)
    if w.shape[1] * group != channels or w.shape[0] % group:
        raise Problem("shapes", f"weights {w.shape} in {group} groups for {channels} channels")
    _check_length(inputs, 2, w.shape[0], "bias")
    return [Value(x.dtype, (batch, w.shape[0], *_window(node, sides, kernel)))]


def conv_transpose(node: Node, inputs: Inputs) -> list[Value]:
    """Transposed convolution: weights (C, M / group, k...)."""
    x, w = need(inputs, 0), need(inputs, 1)
    batch, channels, sides = _spatial(x)
    kernel, group, n = _kernel(node, w, sides), node.integer("group", 1), len(sides)
    if w.shape[0] != channels or channels % group:
        raise Problem("shapes", f"weights {w.shape} in {group} groups for {channels} channels")
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
        raise Problem("attribute", "kernel_shape is missing")
    pads = node.integers("pads", 2 * len(sides), 0)
    if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        raise Problem("shapes", f"pads {pads} hold a whole kernel {kernel}")
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
        raise Problem("outputs", "only the first output is admitted, as at inference")
    if node.op_type == "LayerNormalization":
        axis = axis_of(node.integer("axis", -1), len(x.shape))
        length, vectors = math.prod(x.shape[axis:]), 2
    elif node.op_type == "GroupNormalization":
        groups, channels = node.integer("num_groups", 0), _spatial(x)[1]
        if groups < 1 or channels % groups:
            raise Problem("shapes", f"{channels} channels in {groups} groups")
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
        raise Problem("shapes", f"{what} of {value.elements} values for {length} channels")


def gemm(node: Node, inputs: Inputs) -> list[Value]:
    """Matrix product of two matrices, with a bias."""
    a, b = need(inputs, 0), need(inputs, 1)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise Problem("shapes", f"Gemm of {a.shape} and {b.shape}")
    rows, inner = a.shape[::-1] if node.integer("transA", 0) else a.shape
    inner_b, columns = b.shape[::-1] if node.integer("transB", 0) else b.shape
    bias = optional(inputs, 2)
    if inner != inner_b or (
        bias is not None and broadcast(bias.shape, (rows, columns)) != (rows, columns)
    ):
        raise Problem("shapes", f"Gemm of {a.shape} and {b.shape}")
    return [Value(a.dtype, (rows, columns))]


def matmul(node: Node, inputs: Inputs) -> list[Value]:
    """Matrix product over the last two dimensions."""
    a, b = need(inputs, 0), need(inputs, 1)
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
        raise Problem("shapes", f"MatMul of {a.shape} and {b.shape}")
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
