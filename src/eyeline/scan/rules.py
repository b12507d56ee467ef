"""Op type to its size rule: an op without one can't be admitted by any policy.

To admit a new op, write its rule here or beside its kin, and give it a row in `policy.toml`.

Output sizes, and values where they follow from sizes, of everything that moves or shapes data.

Formulas: the ONNX operator specification (onnx.ai, "Operators"). Values of short tensors are
followed exactly, since that is how a graph works out the size of a `Resize` or `Reshape`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

from eyeline.scan import layer_rules as layers
from eyeline.scan import layer_rules as rounding
from eyeline.scan.layer_rules import (
    Inputs,
    Node,
    Number,
    Value,
    as_stored,
    axis_of,
    broadcast,
    follow,
    known,
    known_integers,
    need,
    optional,
    select,
)
from eyeline.scan.records import RefusedError
from eyeline.scan.tensors import FLOATS, MAX_KNOWN, Constant, is_scale

INT64 = 7
FLOAT32 = 1


def shape(node: Node, inputs: Inputs) -> list[Value]:
    """The sides of a tensor, as values."""
    dims = need(inputs, 0).shape
    end = node.integer("end", len(dims))
    part = dims[slice(node.integer("start", 0), end)]
    return [Value(INT64, (len(part),), part, constant=True)]


def constant(node: Node, inputs: Inputs) -> list[Value]:
    """A constant node: exactly one attribute holds it."""
    if inputs or len(node.attributes) != 1:
        raise RefusedError("attribute", "a Constant with no value, or with several")
    value = next(iter(node.attributes.values()))
    if isinstance(value, Constant):
        return [Value(value.dtype, value.shape, value.values, True, value.scale)]
    if isinstance(value, int | float):
        kind = INT64 if isinstance(value, int) else FLOAT32
        return [Value(kind, (), (value,), True, kind == FLOAT32 and is_scale((value,)))]
    if isinstance(value, tuple):
        kind = INT64 if "value_ints" in node.attributes else FLOAT32
        values = value if len(value) <= MAX_KNOWN else None
        return [Value(kind, (len(value),), values, True, kind == FLOAT32 and is_scale(value))]
    raise RefusedError("attribute", "a Constant of text")


def constant_of_shape(node: Node, inputs: Inputs) -> list[Value]:
    """A short tensor filled with one value: longer ones are how bombs are made."""
    dims = known_integers(need(inputs, 0), "shape")
    elements = math.prod(dims)
    if any(d < 0 for d in dims) or elements > node.limits.max_integer_elements:
        raise RefusedError("tensor-size", f"a filled tensor of shape {dims}")
    value = node.attributes.get("value")
    if isinstance(value, Constant):
        if value.values is None or len(value.values) != 1:
            raise RefusedError("attribute", "value is not one number")
        dtype, fill = value.dtype, value.values[0]
    else:
        dtype, fill = FLOAT32, 0.0
    values = (fill,) * elements if elements <= MAX_KNOWN else None
    return [Value(dtype, dims, values, constant=True)]


def identity(node: Node, inputs: Inputs) -> list[Value]:
    """The same tensor."""
    return [need(inputs, 0)]


def dropout(node: Node, inputs: Inputs) -> list[Value]:
    """Nothing, at inference: the training flag must be absent or false."""
    flag = optional(inputs, 2)
    if flag is not None and any(known(flag, "training flag")):
        raise RefusedError("training", "Dropout in training mode")
    x = need(inputs, 0)
    return [x, Value(9, x.shape)][: len(node.outputs)]


def cast(node: Node, inputs: Inputs) -> list[Value]:
    """Another element type, towards zero."""
    x, to = need(inputs, 0), node.integer("to", 0)
    values = x.values
    if values is not None and to not in FLOATS:
        if not all(math.isfinite(v) and abs(v) < 1 << 63 for v in values):
            raise RefusedError("integer", "a cast of a number that no integer can hold")
        values = tuple(int(v) for v in values)
    elif values is not None:
        floats = [as_stored(to, float(v)) for v in values]
        kept = tuple(v for v in floats if v is not None)
        values = kept if len(kept) == len(floats) else None
    return [Value(to, x.shape, values)]


def concat(node: Node, inputs: Inputs) -> list[Value]:
    """Joined along an axis."""
    parts = [need(inputs, i) for i in range(len(inputs))]
    first = need(parts, 0)
    if "axis" not in node.attributes:
        raise RefusedError("attribute", "axis is missing")
    axis = axis_of(node.integer("axis", 0), len(first.shape))
    rest = {(*p.shape[:axis], *p.shape[axis + 1 :], len(p.shape)) for p in parts}
    if len(rest) > 1 or len({p.dtype for p in parts}) > 1:
        raise RefusedError(
            "shapes", f"{' and '.join(str(p.shape) for p in parts[:4])} can't be joined"
        )
    dims = list(first.shape)
    dims[axis] = sum(p.shape[axis] for p in parts)
    values = None
    if len(dims) == 1 and follow(dims[0], *parts):
        values = tuple(v for p in parts for v in known(p, "values"))
    return [Value(first.dtype, tuple(dims), values)]


def split(node: Node, inputs: Inputs) -> list[Value]:
    """Cut along an axis: equal parts unless sizes are given."""
    x, given, count = need(inputs, 0), optional(inputs, 1), len(node.outputs)
    axis = axis_of(node.integer("axis", 0), len(x.shape))
    side = x.shape[axis]
    if given is not None:
        sizes = known_integers(given, "parts")
    elif "split" in node.attributes:
        sizes = node.integers("split", count, 0)
    else:
        part = -(-side // count)
        sizes = tuple(min(part, side - i * part) for i in range(count))
    if len(sizes) != count or sum(sizes) != side or min(sizes) < 1:
        raise RefusedError("shapes", f"a side of {side} can't be split so")
    starts = accumulate(sizes, initial=0)
    flat = x.values if len(x.shape) == 1 else None
    return [
        Value(
            x.dtype,
            (*x.shape[:axis], n, *x.shape[axis + 1 :]),
            flat[start : start + n] if flat is not None else None,
        )
        for start, n in zip(starts, sizes, strict=False)
    ]


def slice_(node: Node, inputs: Inputs) -> list[Value]:
    """A range along some axes, cut off at the ends as Python does."""
    x = need(inputs, 0)
    starts = known_integers(need(inputs, 1), "starts")
    ends = known_integers(need(inputs, 2), "ends")
    axes_in, steps_in = optional(inputs, 3), optional(inputs, 4)
    axes = known_integers(axes_in, "axes") if axes_in else tuple(range(len(starts)))
    steps = known_integers(steps_in, "steps") if steps_in else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise RefusedError("shapes", "a slice whose starts, ends, axes and steps don't fit")
    kept = [range(side) for side in x.shape]
    for start, end, axis_given, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(axis_given, len(kept))
        if kept[axis] != range(x.shape[axis]):
            raise RefusedError("shapes", "a slice that names an axis twice")
        kept[axis] = range(*slice(start, end, step).indices(x.shape[axis]))
    return [Value(x.dtype, tuple(map(len, kept)), select(x, kept))]


def gather(node: Node, inputs: Inputs) -> list[Value]:
    """Entries along an axis."""
    x, indices = need(inputs, 0), need(inputs, 1)
    axis = axis_of(node.integer("axis", 0), len(x.shape))
    dims = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    values = None
    if indices.values is not None:
        chosen = known_integers(indices, "indices")
        side = x.shape[axis]
        if not all(-side <= i < side for i in chosen):
            raise RefusedError("shapes", f"an index beyond a side of {side}")
        if x.values is not None and len(x.shape) == 1:
            values = tuple(x.values[i] for i in chosen)
    else:
        raise RefusedError("unbounded", "its indices can't be known before it runs")
    return [Value(x.dtype, dims, values)]


def _axes(node: Node, inputs: Inputs) -> tuple[int, ...] | None:
    given = optional(inputs, 1)
    if given is not None:
        return known_integers(given, "axes")
    value = node.attributes.get("axes")
    return tuple(int(a) for a in value) if isinstance(value, tuple) else None


def unsqueeze(node: Node, inputs: Inputs) -> list[Value]:
    """Sides of 1 put in."""
    x, axes = need(inputs, 0), _axes(node, inputs)
    if not axes:
        raise RefusedError("attribute", "axes are missing")
    rank = len(x.shape) + len(axes)
    put = {axis_of(a, rank) for a in axes}
    if len(put) != len(axes):
        raise RefusedError("shapes", "an axis named twice")
    rest = iter(x.shape)
    return [Value(x.dtype, tuple(1 if i in put else next(rest) for i in range(rank)), x.values)]


def squeeze(node: Node, inputs: Inputs) -> list[Value]:
    """Sides of 1 taken out."""
    x, axes = need(inputs, 0), _axes(node, inputs)
    rank = len(x.shape)
    gone = {axis_of(a, rank) for a in axes} if axes else {i for i in range(rank) if x.shape[i] == 1}
    if any(x.shape[i] != 1 for i in gone):
        raise RefusedError("shapes", f"sides of {x.shape} that are not 1 can't be taken out")
    return [Value(x.dtype, tuple(d for i, d in enumerate(x.shape) if i not in gone), x.values)]


def reshape(node: Node, inputs: Inputs) -> list[Value]:
    """Another shape of the same elements: 0 keeps a side, one -1 takes the rest."""
    x, wanted = need(inputs, 0), list(known_integers(need(inputs, 1), "new shape"))
    if not node.integer("allowzero", 0):
        for i, side in enumerate(wanted):
            if side == 0:
                if i >= len(x.shape):
                    raise RefusedError("shapes", f"{x.shape} has no side {i} to keep")
                wanted[i] = x.shape[i]
    if any(d < -1 for d in wanted) or wanted.count(-1) > 1:
        raise RefusedError("shapes", f"no shape: {wanted}")
    if -1 in wanted:
        rest = -math.prod(wanted)
        if not rest or x.elements % rest:
            raise RefusedError("shapes", f"{x.shape} to {wanted}")
        wanted[wanted.index(-1)] = x.elements // rest
    if math.prod(wanted) != x.elements:
        raise RefusedError("shapes", f"{x.shape} to {wanted}")
    return [Value(x.dtype, tuple(wanted), x.values)]


def flatten(node: Node, inputs: Inputs) -> list[Value]:
    """A matrix: the sides before an axis, and those from it."""
    x, axis = need(inputs, 0), node.integer("axis", 1)
    if not -len(x.shape) <= axis <= len(x.shape):
        raise RefusedError("shapes", f"axis {axis} of a tensor of rank {len(x.shape)}")
    axis += len(x.shape) if axis < 0 else 0
    return [Value(x.dtype, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), x.values)]


def transpose(node: Node, inputs: Inputs) -> list[Value]:
    """Axes in another order, reversed unless stated."""
    x = need(inputs, 0)
    order = node.attributes.get("perm", tuple(reversed(range(len(x.shape)))))
    if not isinstance(order, tuple) or sorted(order) != list(range(len(x.shape))):
        raise RefusedError("shapes", f"{order} does not order {len(x.shape)} axes")
    axes = tuple(int(i) for i in order)
    sides = [range(d) for d in x.shape]
    return [Value(x.dtype, tuple(x.shape[i] for i in axes), select(x, sides, axes))]


def pad(node: Node, inputs: Inputs) -> list[Value]:
    """Sides made longer or shorter."""
    x, axes_in = need(inputs, 0), optional(inputs, 3)
    pads = known_integers(need(inputs, 1), "pads")
    axes = known_integers(axes_in, "axes") if axes_in else tuple(range(len(x.shape)))
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise RefusedError("shapes", f"{len(pads)} pads for {len(axes)} axes")
    dims = list(x.shape)
    reflects = node.text("mode", "constant") == "reflect"
    for i, axis in enumerate(axes):
        side, ends = dims[axis_of(axis, len(dims))], (pads[i], pads[len(axes) + i])
        most = side - 1 if reflects else node.limits.max_side
        if any(not -side < p <= most for p in ends):
            raise RefusedError("size", f"pads of {ends} on a side of {side}")
        dims[axis_of(axis, len(dims))] = side + sum(ends)
    return [Value(x.dtype, _bounded(node, dims))]


def resize(node: Node, inputs: Inputs) -> list[Value]:
    """Sides scaled: by `scales`, or to `sizes`."""
    x, scales_in, sizes_in = need(inputs, 0), optional(inputs, 2), optional(inputs, 3)
    rank, value = len(x.shape), node.attributes.get("axes")
    axes = tuple(axis_of(int(a), rank) for a in value) if isinstance(value, tuple) else None
    axes = axes if axes is not None else tuple(range(rank))
    dims = list(x.shape)
    scales = known(scales_in, "scales") if scales_in is not None else ()
    if scales:
        limit = node.limits.max_scale
        if not all(1 / limit <= s <= limit for s in scales):
            raise RefusedError("resize", f"a scale outside 1/{limit} to {limit}")
        wanted: Sequence[int] = [
            math.floor(as_stored(1, x.shape[a] * s) or 0)
            for a, s in zip(axes, scales, strict=False)
        ]
    elif sizes_in is not None:
        wanted = known_integers(sizes_in, "sizes")
    else:
        raise RefusedError("inputs", "a Resize with neither scales nor sizes")
    if len(wanted) != len(axes) or (scales and len(scales) != len(axes)):
        raise RefusedError("shapes", f"{len(wanted)} sizes for {len(axes)} axes")
    for a, side in zip(axes, wanted, strict=True):
        dims[a] = side
    if tuple(dims[:2]) != x.shape[:2]:
        raise RefusedError("resize", "a Resize of the batch or of the channels")
    return [Value(x.dtype, _bounded(node, dims))]


def _bounded(node: Node, dims: list[int]) -> tuple[int, ...]:
    if any(not 1 <= d <= node.limits.max_side for d in dims):
        raise RefusedError("size", f"sides of {dims}, beyond 1 to {node.limits.max_side}")
    return tuple(dims)


def depth_to_space(node: Node, inputs: Inputs) -> list[Value]:
    """Channels to pixels."""
    x, b = need(inputs, 0), node.integer("blocksize", 0)
    if len(x.shape) != 4 or b < 1 or x.shape[1] % (b * b):
        raise RefusedError("shapes", f"{x.shape} in blocks of {b}")
    n, c, h, w = x.shape
    return [Value(x.dtype, (n, c // (b * b), h * b, w * b))]


def space_to_depth(node: Node, inputs: Inputs) -> list[Value]:
    """Pixels to channels."""
    x, b = need(inputs, 0), node.integer("blocksize", 0)
    if len(x.shape) != 4 or b < 1 or x.shape[2] % b or x.shape[3] % b:
        raise RefusedError("shapes", f"{x.shape} in blocks of {b}")
    n, c, h, w = x.shape
    return [Value(x.dtype, (n, c * b * b, h // b, w // b))]


Rule = Callable[[Node, Inputs], list[Value]]

_LIMITS = {6: 1 << 31, 7: 1 << 63}  # int32, int64


def _unary(node: Node, inputs: Inputs) -> list[Value]:
    """Element by element, of one tensor; the further inputs of `Clip` are scalars."""
    x = need(inputs, 0)
    compute = _UNARY_VALUES.get(node.op_type)
    values = None
    if compute is not None and x.values is not None:
        values = tuple(float(compute(v)) if x.dtype in FLOATS else compute(v) for v in x.values)
        # Floor, Neg and their like are exact: nothing is rounded.
    return [Value(x.dtype, x.shape, values)]


def _binary(node: Node, inputs: Inputs) -> list[Value]:
    """Element by element, of tensors that fit each other."""
    parts = [need(inputs, i) for i in range(len(inputs))]
    first = need(parts, 0)
    if node.op_type != "Pow" and len({p.dtype for p in parts}) > 1:
        raise RefusedError("types", "its inputs are of different types")
    shape = broadcast(*(p.shape for p in parts))
    compute, elements = _BINARY_VALUES.get(node.op_type), math.prod(shape)
    integer = first.dtype not in FLOATS
    if integer and compute is None:
        raise RefusedError("types", "not of integers")
    # One tensor may have more elements than are followed: integer division must be seen whole.
    if not follow(elements, *parts) or len(parts) != 2 or len(shape) > 1 or compute is None:
        if integer and node.op_type == "Div":
            raise RefusedError("integer-division", "integers that can't be known before it runs")
        return [Value(first.dtype, shape)]
    a, b = (_spread(p, elements) for p in parts)
    values = [compute(x, y) for x, y in zip(a, b, strict=True)]
    if integer:
        limit = _LIMITS.get(first.dtype, 1 << 7)
        if any(v is None or not -limit <= v < limit for v in values):
            raise RefusedError("integer-division" if None in values else "integer", "it overflows")
    stored = [as_stored(first.dtype, v) for v in values if v is not None]
    numbers = tuple(v for v in stored if v is not None)
    return [Value(first.dtype, shape, numbers if len(numbers) == elements else None)]


def _spread(value: Value, elements: int) -> tuple[Number, ...]:
    values = value.values or ()
    return values * elements if len(values) == 1 else values


def _divide(a: Number, b: Number) -> Number | None:
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)  # towards zero
    return a / b


_BINARY_VALUES: dict[str, Callable[[Number, Number], Number | None]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divide,
    "Min": min,
    "Max": max,
}
_UNARY_VALUES: dict[str, Callable[[Number], Number]] = {
    "Floor": math.floor,
    "Ceil": math.ceil,
    "Neg": lambda a: -a,
    "Abs": abs,
    "Relu": lambda a: max(a, 0),
}

RULES: dict[str, Rule] = {
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "MaxPool": layers.pool,
    "AveragePool": layers.pool,
    "GlobalAveragePool": layers.global_pool,
    "GlobalMaxPool": layers.global_pool,
    "ReduceMean": layers.reduce,
    "ReduceMax": layers.reduce,
    "ReduceMin": layers.reduce,
    "ReduceSum": layers.reduce,
    "ReduceL2": layers.reduce,
    "BatchNormalization": layers.normalise,
    "InstanceNormalization": layers.normalise,
    "LayerNormalization": layers.normalise,
    "GroupNormalization": layers.normalise,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "Resize": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Pad": pad,
    "Shape": shape,
    "Gather": gather,
    "Unsqueeze": unsqueeze,
    "Squeeze": squeeze,
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Cast": cast,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Identity": identity,
    "Dropout": dropout,
    "QuantizeLinear": rounding.quantize,
    "DequantizeLinear": rounding.dequantize,
}
RULES |= dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu"), _binary)
RULES |= dict.fromkeys(
    (
        *("Relu", "LeakyRelu", "Elu", "Gelu", "Erf", "Sigmoid", "HardSigmoid", "HardSwish"),
        *("Tanh", "Softplus", "Softmax", "Clip", "Sqrt", "Exp", "Log", "Reciprocal", "Neg", "Abs"),
        *("Floor", "Ceil"),
    ),
    _unary,
)
