"""Compute the sizes of all tensors of a graph, and the largest memory and work.

This module contains the size rules of ops that move, reshape or compute elementwise; `_layer_rules`
contains those of layers. A rule computes output shapes, and also the values of short tensors, because
a graph computes the sizes for a `Resize` or `Reshape` with ordinary ops. To allow a new op, write its
rule here or in `_layer_rules`, add it to `RULES`, and add a row to `policy.toml`. The formulas are
those of the ONNX operator specification (onnx.ai, "Operators").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from eyeline.scan import _layer_rules as layers
from eyeline.scan._constants import FLOATS, MAX_KNOWN, NAME, NUMBER, SLICE_ENDS, Constant, is_scale
from eyeline.scan._layer_rules import (
    FLOAT32,
    INT32,
    INT64,
    Inputs,
    Node,
    Number,
    Value,
    as_stored,
    axis_of,
    broadcast,
    follow,
    select,
    work,
)
from eyeline.scan.records import RefusedError, ScanPolicy, WorstCase, printable

_MOVES_NUMBERS = frozenset(
    ("Slice", "Identity", "Unsqueeze", "Squeeze", "Concat", "Cast", "Reshape", "Gather")
)
"""Ops that may have `SLICE_ENDS` as an input, because they copy numbers and do not compute."""


def _shape(node: Node, inputs: Inputs) -> list[Value]:
    dims = inputs.need(0).shape
    part = dims[slice(node.integer("start", 0), node.integer("end", len(dims)))]
    return [Value(INT64, (len(part),), part, constant=True)]


def _constant(node: Node, inputs: Inputs) -> list[Value]:
    if inputs or len(node.attributes) != 1:
        raise RefusedError("attribute", "the Constant must have exactly one value and no inputs")
    name, value = next(iter(node.attributes.items()))
    if isinstance(value, Constant):
        return [Value(value.dtype, value.shape, value.values, True, value.scale)]
    if isinstance(value, str):
        raise RefusedError("attribute", "the value of the Constant is text, which is not allowed")
    values = value if isinstance(value, tuple) else (value,)
    shape = (len(values),) if isinstance(value, tuple) else ()
    kept = values if len(values) <= MAX_KNOWN else None
    if name == "value_ints" or isinstance(value, int):
        return [Value(INT64, shape, kept, constant=True)]
    return [Value(FLOAT32, shape, kept, constant=True, scale=is_scale(values))]


def _constant_of_shape(node: Node, inputs: Inputs) -> list[Value]:
    # Only short tensors are allowed, as a long one has few bytes in the file but needs much memory.
    dims = inputs.need(0).integers("shape")
    elements = math.prod(dims)
    if any(d < 0 for d in dims) or elements > node.limits.max_integer_elements:
        raise RefusedError("tensor-size", f"a ConstantOfShape of {dims} is too large or negative")
    value = node.attributes.get("value")
    dtype, fill = FLOAT32, (0.0,)
    if isinstance(value, Constant):
        if value.values is None or len(value.values) != 1:
            raise RefusedError("attribute", "the value of a ConstantOfShape must be one number")
        dtype, fill = value.dtype, value.values
    return [Value(dtype, dims, fill * elements if elements <= MAX_KNOWN else None, constant=True)]


def _identity(_: Node, inputs: Inputs) -> list[Value]:
    return [inputs.need(0)]


def _dropout(node: Node, inputs: Inputs) -> list[Value]:
    flag = inputs.get(2)
    if flag is not None and any(flag.known("training flag")):
        raise RefusedError("training", "the Dropout is in training mode")
    x = inputs.need(0)
    return [x, Value(NUMBER["bool"], x.shape)][: len(node.outputs)]


def _cast(node: Node, inputs: Inputs) -> list[Value]:
    x, to = inputs.need(0), node.integer("to", 0)
    values = x.values
    if values is not None and to not in FLOATS:
        if not all(math.isfinite(v) and abs(v) < 1 << 63 for v in values):
            raise RefusedError("integer", "the Cast gets a number that fits no integer type")
        values = tuple(int(v) for v in values)
    elif values is not None:
        values = _all_known([as_stored(to, float(v)) for v in values])
    return [Value(to, x.shape, values)]


def _all_known(values: Sequence[Number | None]) -> tuple[Number, ...] | None:
    kept = tuple(v for v in values if v is not None)
    return kept if len(kept) == len(values) else None


def _concat(node: Node, inputs: Inputs) -> list[Value]:
    parts = [inputs.need(i) for i in range(len(inputs))]
    first = inputs.need(0)
    if "axis" not in node.attributes:
        raise RefusedError("attribute", "the attribute axis is missing")
    axis = axis_of(node.integer("axis", 0), len(first.shape))
    rest = {(*p.shape[:axis], *p.shape[axis + 1 :], len(p.shape)) for p in parts}
    if len(rest) > 1 or len({p.dtype for p in parts}) > 1:
        shapes = ", ".join(str(p.shape) for p in parts[:4])
        raise RefusedError("shapes", f"shapes {shapes} can't be concatenated along axis {axis}")
    dims = list(first.shape)
    dims[axis] = sum(p.shape[axis] for p in parts)
    values = None
    if len(dims) == 1 and follow(dims[0], *parts):
        values = tuple(v for p in parts for v in p.known("values"))
    return [Value(first.dtype, tuple(dims), values)]


def _split(node: Node, inputs: Inputs) -> list[Value]:
    x, given, count = inputs.need(0), inputs.get(1), len(node.outputs)
    axis = axis_of(node.integer("axis", 0), len(x.shape))
    side = x.shape[axis]
    if given is not None:
        sizes = given.integers("parts")
    elif "split" in node.attributes:
        sizes = node.integers("split", count, 0)
    else:
        part = -(-side // count)
        sizes = tuple(min(part, side - i * part) for i in range(count))
    if len(sizes) != count or sum(sizes) != side or min(sizes) < 1:
        raise RefusedError("shapes", f"an axis of length {side} can't be split into {sizes}")
    flat = x.values if len(x.shape) == 1 else None
    return [
        Value(
            x.dtype,
            (*x.shape[:axis], size, *x.shape[axis + 1 :]),
            flat[start : start + size] if flat is not None else None,
        )
        for start, size in zip(accumulate(sizes, initial=0), sizes, strict=False)
    ]


def _slice(_: Node, inputs: Inputs) -> list[Value]:
    x = inputs.need(0)
    starts = inputs.need(1).integers("starts")
    ends = inputs.need(2).integers("ends")
    axes_in, steps_in = inputs.get(3), inputs.get(4)
    axes = axes_in.integers("axes") if axes_in else tuple(range(len(starts)))
    steps = steps_in.integers("steps") if steps_in else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise RefusedError(
            "shapes",
            "starts, ends, axes and steps of the Slice do not match",
        )
    kept = [range(side) for side in x.shape]
    for start, end, axis_given, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(axis_given, len(kept))
        if kept[axis] != range(x.shape[axis]):
            raise RefusedError("shapes", "the Slice has an axis twice")
        kept[axis] = range(*slice(start, end, step).indices(x.shape[axis]))
    return [Value(x.dtype, tuple(map(len, kept)), select(x, kept))]


def _gather(node: Node, inputs: Inputs) -> list[Value]:
    x, indices = inputs.need(0), inputs.need(1)
    axis = axis_of(node.integer("axis", 0), len(x.shape))
    side = x.shape[axis]
    chosen = indices.integers("indices")
    if not all(-side <= i < side for i in chosen):
        raise RefusedError("shapes", f"an index of the Gather is outside an axis of length {side}")
    flat = x.values if len(x.shape) == 1 else None
    values = tuple(flat[i] for i in chosen) if flat is not None else None
    return [Value(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), values)]


def _axes(node: Node, inputs: Inputs) -> tuple[int, ...] | None:
    given = inputs.get(1)
    return given.integers("axes") if given is not None else node.axes()


def _unsqueeze(node: Node, inputs: Inputs) -> list[Value]:
    x, axes = inputs.need(0), _axes(node, inputs)
    if not axes:
        raise RefusedError("attribute", "the axes are missing")
    rank = len(x.shape) + len(axes)
    added = {axis_of(a, rank) for a in axes}
    if len(added) != len(axes):
        raise RefusedError("shapes", "the Unsqueeze has an axis twice")
    rest = iter(x.shape)
    return [Value(x.dtype, tuple(1 if i in added else next(rest) for i in range(rank)), x.values)]


def _squeeze(node: Node, inputs: Inputs) -> list[Value]:
    x, axes = inputs.need(0), _axes(node, inputs)
    ones = {i for i, side in enumerate(x.shape) if side == 1}
    removed = {axis_of(a, len(x.shape)) for a in axes} if axes else ones
    if removed - ones:
        raise RefusedError(
            "shapes", f"the Squeeze removes an axis of {x.shape} whose length is not 1"
        )
    return [Value(x.dtype, tuple(d for i, d in enumerate(x.shape) if i not in removed), x.values)]


def _reshape(node: Node, inputs: Inputs) -> list[Value]:
    x, wanted = inputs.need(0), list(inputs.need(1).integers("new shape"))
    if not node.integer("allowzero", 0):
        for i, side in enumerate(wanted):
            if side == 0:
                if i >= len(x.shape):
                    raise RefusedError(
                        "shapes",
                        f"the input {x.shape} has no axis {i} to keep",
                    )
                wanted[i] = x.shape[i]
    if any(d < -1 for d in wanted) or wanted.count(-1) > 1:
        raise RefusedError("shapes", f"the new shape {wanted} is not valid")
    if -1 in wanted:
        rest = -math.prod(wanted)
        wanted[wanted.index(-1)] = x.elements // rest if rest else 0
    if math.prod(wanted) != x.elements:
        raise RefusedError("shapes", f"a tensor of shape {x.shape} can't be reshaped to {wanted}")
    return [Value(x.dtype, tuple(wanted), x.values)]


def _flatten(node: Node, inputs: Inputs) -> list[Value]:
    x, axis = inputs.need(0), node.integer("axis", 1)
    if not -len(x.shape) <= axis <= len(x.shape):
        raise RefusedError("shapes", f"a tensor of rank {len(x.shape)} has no axis {axis}")
    axis += len(x.shape) if axis < 0 else 0
    return [Value(x.dtype, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), x.values)]


def _transpose(node: Node, inputs: Inputs) -> list[Value]:
    x = inputs.need(0)
    order = node.attributes.get("perm", tuple(reversed(range(len(x.shape)))))
    if not isinstance(order, tuple) or sorted(order) != list(range(len(x.shape))):
        raise RefusedError("shapes", f"perm {order} is not a permutation of {len(x.shape)} axes")
    axes = tuple(int(i) for i in order)
    sides = [range(d) for d in x.shape]
    return [Value(x.dtype, tuple(x.shape[i] for i in axes), select(x, sides, axes))]


def _pad(node: Node, inputs: Inputs) -> list[Value]:
    x, axes_in = inputs.need(0), inputs.get(3)
    pads = inputs.need(1).integers("pads")
    axes = axes_in.integers("axes") if axes_in else tuple(range(len(x.shape)))
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise RefusedError("shapes", f"{len(pads)} pads do not fit {len(axes)} axes")
    dims = list(x.shape)
    for i, axis_given in enumerate(axes):
        axis, ends = axis_of(axis_given, len(dims)), (pads[i], pads[len(axes) + i])
        side = dims[axis]
        reflects = node.attributes.get("mode") == "reflect"
        most = side - 1 if reflects else node.limits.max_side
        if any(not -side < p <= most for p in ends):
            raise RefusedError("size", f"pads {ends} are too large for an axis of length {side}")
        dims[axis] = side + sum(ends)
    return [Value(x.dtype, _bounded(node, dims))]


def _resize(node: Node, inputs: Inputs) -> list[Value]:
    x, scales_in, sizes_in = inputs.need(0), inputs.get(2), inputs.get(3)
    rank, given = len(x.shape), node.axes()
    axes = tuple(axis_of(a, rank) for a in given) if given is not None else tuple(range(rank))
    scales = scales_in.known("scales") if scales_in is not None else ()
    if scales:
        limit = node.limits.max_scale
        if not all(1 / limit <= s <= limit for s in scales):
            raise RefusedError("resize", f"a scale of the Resize is not from 1/{limit} to {limit}")
        wanted: Sequence[int] = [
            math.floor(as_stored(FLOAT32, x.shape[a] * s) or 0)
            for a, s in zip(axes, scales, strict=False)
        ]
    elif sizes_in is not None:
        wanted = sizes_in.integers("sizes")
    else:
        raise RefusedError("inputs", "the Resize has neither scales nor sizes")
    if len(wanted) != len(axes) or (scales and len(scales) != len(axes)):
        raise RefusedError("shapes", f"{len(wanted)} sizes do not fit {len(axes)} axes")
    dims = list(x.shape)
    for a, side in zip(axes, wanted, strict=True):
        dims[a] = side
    if tuple(dims[:2]) != x.shape[:2]:
        raise RefusedError("resize", "the Resize changes the batch or the channels")
    return [Value(x.dtype, _bounded(node, dims))]


def _bounded(node: Node, dims: list[int]) -> tuple[int, ...]:
    if any(not 1 <= d <= node.limits.max_side for d in dims):
        raise RefusedError("size", f"an axis of {dims} is not from 1 to {node.limits.max_side}")
    return tuple(dims)


def _blocks(node: Node, inputs: Inputs) -> list[Value]:
    x, b = inputs.need(0), node.integer("blocksize", 0)
    if len(x.shape) == 4 and b > 0:
        n, c, h, w = x.shape
        if node.op_type == "DepthToSpace" and not c % (b * b):
            return [Value(x.dtype, (n, c // (b * b), h * b, w * b))]
        if node.op_type == "SpaceToDepth" and not (h % b or w % b):
            return [Value(x.dtype, (n, c * b * b, h // b, w // b))]
    raise RefusedError("shapes", f"a tensor of shape {x.shape} can't be split into blocks of {b}")


def _unary(node: Node, inputs: Inputs) -> list[Value]:
    x = inputs.need(0)  # the other inputs of `Clip` are scalars
    compute = _UNARY_VALUES.get(node.op_type)
    values = None
    if compute is not None and x.values is not None:
        # These functions are exact, so the result needs no rounding.
        values = tuple(float(compute(v)) if x.dtype in FLOATS else compute(v) for v in x.values)
    return [Value(x.dtype, x.shape, values)]


def _binary(node: Node, inputs: Inputs) -> list[Value]:
    parts = [inputs.need(i) for i in range(len(inputs))]
    first = inputs.need(0)
    if node.op_type != "Pow" and len({p.dtype for p in parts}) > 1:
        raise RefusedError("types", "the inputs have different element types")
    shape = broadcast(*(p.shape for p in parts))
    compute, elements = _BINARY_VALUES.get(node.op_type), math.prod(shape)
    integer = first.dtype not in FLOATS
    if integer and compute is None:
        raise RefusedError("types", "the op is not allowed on integers")
    if compute is None or len(parts) != 2 or len(shape) > 1 or not follow(elements, *parts):
        # An integer division by 0 kills the process, so all divisors must be known.
        if integer and node.op_type == "Div":
            raise RefusedError(
                "integer-division",
                "the values of the division can't be computed before the model runs",
            )
        return [Value(first.dtype, shape)]
    a, b = (v * elements if len(v) == 1 else v for v in (p.known("values") for p in parts))
    values = [compute(x, y) for x, y in zip(a, b, strict=True)]
    if integer:
        limit = {INT32: 1 << 31, INT64: 1 << 63}.get(first.dtype, 1 << 7)
        if any(v is None or not -limit <= v < limit for v in values):
            code = "integer-division" if None in values else "integer"
            raise RefusedError(code, "an integer overflows or is divided by 0")
    stored = [as_stored(first.dtype, v) if v is not None else None for v in values]
    return [Value(first.dtype, shape, _all_known(stored))]


def _divide(a: Number, b: Number) -> Number | None:
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)  # ONNX rounds towards zero
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

RULES: dict[str, Callable[[Node, Inputs], list[Value]]] = {
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "QuantizeLinear": layers.quantize,
    "DequantizeLinear": layers.dequantize,
    "Resize": _resize,
    "DepthToSpace": _blocks,
    "SpaceToDepth": _blocks,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Shape": _shape,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Cast": _cast,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Identity": _identity,
    "Dropout": _dropout,
    **dict.fromkeys(("MaxPool", "AveragePool"), layers.pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), layers.global_pool),
    **dict.fromkeys(
        ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2"), layers.reduce
    ),
    **dict.fromkeys(
        (f"{kind}Normalization" for kind in ("Batch", "Instance", "Layer", "Group")),
        layers.normalise,
    ),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu"), _binary),
    **dict.fromkeys(
        (
            *("Relu", "LeakyRelu", "Elu", "Gelu", "Erf", "Sigmoid", "HardSigmoid", "HardSwish"),
            *("Tanh", "Softplus", "Softmax", "Clip", "Sqrt", "Exp", "Log", "Reciprocal"),
            *("Neg", "Abs", "Floor", "Ceil"),
        ),
        _unary,
    ),
}
"""Maps each op type to its size rule; a policy can't allow an op without a rule."""


@dataclass(frozen=True)
class GraphPlan:
    """A checked graph; `dims` is the declared input shape, with None for dynamic axes."""

    input: str
    dims: tuple[int | None, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: dict[str, Constant]

    def input_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the input shape for (height, width); declared axes have their declared length."""
        wanted = (1, 3, *size)
        return tuple(w if d is None else d for d, w in zip(self.dims, wanted, strict=True))


def worst_case(plan: GraphPlan, policy: ScanPolicy) -> WorstCase:
    """Compute the sizes of a graph at every input size of the policy; return the largest.

    Raises:
        RefusedError: a tensor, the memory or the work exceeds the policy or can't be computed.
    """
    shapes = dict.fromkeys(plan.input_shape(size) for size in policy.worst_case)
    return max((infer(plan, policy, s)[1] for s in shapes), key=lambda case: case.peak_bytes)


def infer(
    plan: GraphPlan, policy: ScanPolicy, shape: tuple[int, ...]
) -> tuple[dict[str, Value], WorstCase]:
    """Compute the sizes of a graph for one input shape; return all tensors by name, and the totals.

    A size that depends on pixels is an error. Shapes that the file declares for inner tensors are
    ignored.
    """
    values = {
        n: Value(c.dtype, c.shape, c.values, True, c.scale) for n, c in plan.constants.items()
    }
    values[plan.input] = Value(FLOAT32, shape)
    alive = {name: _bytes(value, policy) for name, value in values.items()}
    last_use = {name: i for i, node in enumerate(plan.nodes) for name in node.inputs}
    last_use |= dict.fromkeys(plan.outputs, len(plan.nodes))
    total = peak = sum(alive.values())
    largest = max(alive.values())
    all_work = constant_work = 0
    for i, node in enumerate(plan.nodes):
        inputs = Inputs(values[name] if name else None for name in node.inputs)
        try:
            outputs = _run(node, inputs)
            for name, value in zip(node.outputs, outputs, strict=False):
                size = _bytes(value, policy)
                _check("tensor-size", size, policy.limits.max_tensor_bytes, "bytes in a tensor")
                if name:
                    values[name], alive[name] = value, size
                    total += size
                    largest = max(largest, size)
            cost = work(node, inputs, outputs)
            all_work += cost
            constant_work += cost if all(v.constant for v in outputs) else 0
            peak = max(peak, total)
            limits = policy.limits
            _check("memory", peak, limits.max_peak_bytes, "bytes of tensors in memory at once")
            _check("work", all_work, limits.max_work, "multiply-adds")
            what = "elements and multiply-adds at load time"
            _check("constant-work", constant_work, limits.max_constant_work, what)
        except RefusedError as exc:
            reason = f"{exc.reason}, at input {'x'.join(map(str, shape))}"
            raise RefusedError(exc.code, reason, node.path, node.op_type) from None
        for name in {*node.inputs, *node.outputs}:
            if name and last_use.get(name, -1) <= i and name not in plan.constants:
                total -= alive.pop(name, 0)
    for name in plan.outputs:
        value = values[name]
        if value.dtype != FLOAT32 or len(value.shape) != 4:
            found = f"{NAME.get(value.dtype)} of rank {len(value.shape)}"
            reason = f"the output is {found}; it must be float32 of rank 4"
            raise RefusedError("output", reason, f"graph/output:{printable(name)}")
    return values, WorstCase(shape, largest, peak, all_work)


def _check(code: str, number: int, limit: int, what: str) -> None:
    if number > limit:
        raise RefusedError(code, f"{number:,} {what} are more than the limit of {limit:,}")


def _bytes(value: Value, policy: ScanPolicy) -> int:
    return value.elements * policy.elements.get(value.dtype, 8)


def _run(node: Node, inputs: Inputs) -> list[Value]:
    for index, value in enumerate(inputs):
        numbers = value.values if value is not None else None
        if numbers and not SLICE_ENDS.isdisjoint(numbers):
            allowed = node.op_type in _MOVES_NUMBERS and (
                node.op_type != "Slice" or index in (0, 2)
            )
            if not allowed:
                raise RefusedError("integer", "only the end of a Slice may be the largest int64")
    outputs = RULES[node.op_type](node, inputs)
    if len(node.outputs) > len(outputs):
        reason = f"the node has {len(node.outputs)} outputs; {len(outputs)} are allowed"
        raise RefusedError("outputs", reason)
    constant = all(v.constant for v in inputs if v is not None)
    checked = []
    for value in outputs:
        if len(value.shape) > node.limits.max_rank:
            raise RefusedError("rank", f"an output has more than {node.limits.max_rank} dimensions")
        # Exporters write an omitted input, such as the roi of a Resize, as an empty constant.
        if any(d < 1 for d in value.shape) and node.op_type != "Constant":
            raise RefusedError("shapes", f"an output is empty: its shape is {value.shape}")
        short = value.values if value.elements <= MAX_KNOWN else None
        checked.append(replace(value, values=short, constant=value.constant or constant))
    return checked
