"""Op type to its size rule: an op without one can't be admitted by any policy.

To admit a new op, write its rule here or beside its kin, and give it a row in `policy.toml`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from eyeline.models.scan import layer_rules as layers
from eyeline.models.scan import layout_rules as layout
from eyeline.models.scan import quantise_rules as rounding
from eyeline.models.scan.report import Problem
from eyeline.models.scan.tensors import FLOATS
from eyeline.models.scan.values import (
    Inputs,
    Node,
    Number,
    Value,
    as_stored,
    broadcast,
    follow,
    need,
)

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
        raise Problem("types", "its inputs are of different types")
    shape = broadcast(*(p.shape for p in parts))
    compute, elements = _BINARY_VALUES.get(node.op_type), math.prod(shape)
    integer = first.dtype not in FLOATS
    if integer and compute is None:
        raise Problem("types", "not of integers")
    # One tensor may have more elements than are followed: integer division must be seen whole.
    if not follow(elements, *parts) or len(parts) != 2 or len(shape) > 1 or compute is None:
        if integer and node.op_type == "Div":
            raise Problem("integer-division", "integers that can't be known before it runs")
        return [Value(first.dtype, shape)]
    a, b = (_spread(p, elements) for p in parts)
    values = [compute(x, y) for x, y in zip(a, b, strict=True)]
    if integer:
        limit = _LIMITS.get(first.dtype, 1 << 7)
        if any(v is None or not -limit <= v < limit for v in values):
            raise Problem("integer-division" if None in values else "integer", "it overflows")
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
    "Resize": layout.resize,
    "DepthToSpace": layout.depth_to_space,
    "SpaceToDepth": layout.space_to_depth,
    "Concat": layout.concat,
    "Split": layout.split,
    "Slice": layout.slice_,
    "Pad": layout.pad,
    "Shape": layout.shape,
    "Gather": layout.gather,
    "Unsqueeze": layout.unsqueeze,
    "Squeeze": layout.squeeze,
    "Reshape": layout.reshape,
    "Flatten": layout.flatten,
    "Transpose": layout.transpose,
    "Cast": layout.cast,
    "Constant": layout.constant,
    "ConstantOfShape": layout.constant_of_shape,
    "Identity": layout.identity,
    "Dropout": layout.dropout,
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
