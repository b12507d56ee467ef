"""Rules of quantised nets (QDQ): what rounds is constant, and can be divided by.

Formulas: the ONNX operator specification (onnx.ai, "Operators": QuantizeLinear, DequantizeLinear).
"""

from __future__ import annotations

from eyeline.models.scan.report import Problem
from eyeline.models.scan.tensors import FLOATS, NAME, NUMBER
from eyeline.models.scan.values import Inputs, Node, Value, axis_of, need, optional

UINT8, INT32 = NUMBER["uint8"], NUMBER["int32"]
BYTES = (NUMBER["int8"], UINT8)


def quantize(node: Node, inputs: Inputs) -> list[Value]:
    """Float to int8, or to uint8 when no zero point says so."""
    x, zero = need(inputs, 0), optional(inputs, 2)
    if x.dtype not in FLOATS or need(inputs, 1).dtype != x.dtype:
        raise Problem("types", "not floats of its scale's type")
    if zero is not None and zero.dtype not in BYTES:
        raise Problem("types", f"zero points of {NAME.get(zero.dtype)}")
    _check_scale(node, inputs)
    return [Value(zero.dtype if zero is not None else UINT8, x.shape)]


def dequantize(node: Node, inputs: Inputs) -> list[Value]:
    """Integers to the type of their scale."""
    x, scale, zero = need(inputs, 0), need(inputs, 1), optional(inputs, 2)
    if x.dtype not in (*BYTES, INT32) or scale.dtype not in FLOATS:
        raise Problem("types", f"{NAME.get(x.dtype)} in scales of {NAME.get(scale.dtype)}")
    if zero is not None and zero.dtype != x.dtype:
        raise Problem("types", f"zero points of {NAME.get(zero.dtype)} for {NAME.get(x.dtype)}")
    _check_scale(node, inputs)
    return [Value(scale.dtype, x.shape)]


def _check_scale(node: Node, inputs: Inputs) -> None:
    """One constant scale, or one for each entry of an axis; as many constant zero points."""
    x, scale, zero = need(inputs, 0), need(inputs, 1), optional(inputs, 2)
    if not scale.scale:
        raise Problem("scale", "its scale is no constant, or not of positive normal numbers")
    if zero is not None and not zero.constant:
        raise Problem("scale", "its zero point is computed")
    if scale.elements != 1 or "axis" in node.attributes:
        side = axis_of(node.integer("axis", 1), len(x.shape))
        if scale.elements != 1 and scale.shape != (x.shape[side],):
            raise Problem("shapes", f"scales {scale.shape} for {x.shape}")
    if zero is not None and zero.elements != scale.elements:
        raise Problem("shapes", f"zero points {zero.shape} for scales {scale.shape}")
