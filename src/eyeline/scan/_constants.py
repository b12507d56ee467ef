"""Check the constants of a model: all initializers and attributes with all their values.

This module does not use numpy, because importing numpy takes longer than a whole scan.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eyeline.scan._wire import Message, Packed
from eyeline.scan.records import (
    ELEMENTS,
    AttributeRule,
    OpRule,
    RefusedError,
    ScanPolicy,
    printable,
)

NUMBER = {name: number for name, (number, _) in ELEMENTS.items()}
NAME = {number: name for name, number in NUMBER.items()}
FLOATS = frozenset(NUMBER[n] for n in ("float16", "float32", "float64"))
INT64_MAX = (1 << 63) - 1
SLICE_ENDS = frozenset((INT64_MAX, -INT64_MAX))
"""Values of `ends` with which exporters make a `Slice` run to the last or, backwards, first element."""

MAX_KNOWN = 64
"""The scanner keeps the values of tensors up to this length; shapes, indices and scales are shorter."""

MIN_SCALE = 2.0**-126
"""Smallest normal float32: the inverse of a smaller number overflows."""

_DATA_FIELDS = {
    "float_data": ("float32",),
    "int32_data": ("int32", "int8", "uint8", "bool", "float16"),
    "int64_data": ("int64",),
    "double_data": ("float64",),
    "uint64_data": (),
    "string_data": (),
}
_ARRAY_CODES = {"float32": "f", "float64": "d", "int32": "i", "int64": "q", "bool": "B"}
_ATTRIBUTE_FIELDS = (
    *("f", "i", "s", "t", "g", "floats", "ints", "strings", "tensors", "graphs"),
    *("sparse_tensor", "sparse_tensors", "tp", "type_protos"),
)
"""Name of the field with the value, for the attribute types 1 to 14 in onnx.proto."""

Numbers = Sequence[int | float]


@dataclass(frozen=True, slots=True)
class Constant:
    """A checked constant.

    `dtype` is the number of the element type in onnx.proto. `values` is None if the constant has more
    than `MAX_KNOWN` elements. `scale` is true if the constant can be a quantisation scale: a scalar or
    vector of floats of at least `MIN_SCALE`.
    """

    dtype: int
    shape: tuple[int, ...]
    values: tuple[int | float, ...] | None
    scale: bool = False


Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | Constant


def read_constant(tensor: Message, policy: ScanPolicy) -> Constant:
    """Check a `TensorProto`; raise a `RefusedError` if the policy does not allow it.

    `SLICE_ENDS` are the only allowed integers beyond `max_integer`; the size rules check that they are
    used only as the ends of a `Slice`.
    """
    limits = policy.limits
    dtype = tensor.number("data_type")
    if tensor.number("data_location") or "external_data" in tensor:
        raise RefusedError("external-data", "the values of the tensor are in another file")
    if "segment" in tensor:
        raise RefusedError("segment", "the tensor is one segment of a larger tensor")
    if dtype not in policy.elements:
        name = NAME.get(dtype, f"number {dtype}")
        raise RefusedError("element-type", f"element type {name} is not on the allowlist")
    dims = tensor.repeated("dims")
    if isinstance(dims, Packed) or len(dims) > limits.max_rank:
        raise RefusedError("rank", f"the tensor has more than {limits.max_rank} dimensions")
    shape = tuple(dims)
    if any(d < 0 for d in shape):
        raise RefusedError("dimension", f"the shape {shape} has a negative dimension")
    count = math.prod(shape)
    if not count and shape != (0,):  # exporters write an omitted input as an empty vector
        raise RefusedError("dimension", f"the tensor is empty: its shape is {shape}")
    if count * policy.elements[dtype] > limits.max_tensor_bytes:
        raise RefusedError(
            "tensor-size",
            f"the tensor of {count} elements has more than {limits.max_tensor_bytes:,} bytes",
        )
    kind = NAME[dtype]
    numbers = _numbers(tensor, kind, count, limits.max_integer_elements)
    if dtype in FLOATS and not _finite(numbers):
        raise RefusedError("not-finite", "the tensor has a value that is NaN or infinite")
    if kind in ("int32", "int64"):
        ends = SLICE_ENDS if count <= MAX_KNOWN else frozenset()
        for value in numbers:
            if abs(value) > limits.max_integer and value not in ends:
                raise RefusedError(
                    "integer",
                    f"integer {value} is larger than {limits.max_integer}",
                )
    known = tuple(numbers) if count <= MAX_KNOWN and len(numbers) == count else None
    return Constant(dtype, shape, known, len(shape) < 2 and dtype in FLOATS and is_scale(numbers))


def is_scale(numbers: Numbers) -> bool:
    """Return whether all of these finite numbers can be quantisation scales."""
    return bool(numbers) and min(numbers) >= MIN_SCALE


def _numbers(tensor: Message, kind: str, count: int, max_integers: int) -> Numbers:
    """Return the values of a tensor; () for int8 and uint8, whose values need no check."""
    present = [f for f in (*_DATA_FIELDS, "raw_data") if f in tensor]
    if len(present) > 1:
        raise RefusedError("ambiguous", f"values are in both {present[0]} and {present[1]}")
    if kind in ("int32", "int64") and count > max_integers:
        raise RefusedError("integer", f"the tensor has more than {max_integers} integers")
    if not present or present == ["raw_data"]:
        raw: memoryview = tensor.get("raw_data", memoryview(b""))
        if len(raw) != count * ELEMENTS[kind][1]:
            raise RefusedError(
                "tensor-data",
                f"raw_data has {len(raw)} bytes for {count} values of {kind}",
            )
        return _from_bytes(raw, kind)
    field = present[0]
    if kind not in _DATA_FIELDS[field]:
        raise RefusedError("tensor-data", f"{kind} values must not be in the field {field}")
    values: list[int | float] | Packed = tensor.repeated(field)
    if len(values) != count:
        raise RefusedError(
            "tensor-data",
            f"the tensor has {len(values)} values, but its shape has {count} elements",
        )
    if isinstance(values, Packed):
        if values.kind in ("f32", "f64"):
            return _from_bytes(values.data, kind)
        if kind in ("int8", "uint8"):
            return ()
        raise RefusedError(
            "integer",
            f"{count} {kind} values must be in raw_data, not packed",
        )
    if kind == "float16":
        if not all(isinstance(v, int) and 0 <= v < 1 << 16 for v in values):
            raise RefusedError("tensor-data", "a float16 value has more than 16 bits")
        return _from_bytes(memoryview(struct.pack(f"<{count}H", *values)), kind)
    return tuple(values)


def _from_bytes(raw: memoryview, kind: str) -> Numbers:
    if kind in ("int8", "uint8"):
        return ()
    if kind == "float16":
        return struct.unpack(f"<{len(raw) // 2}e", raw)
    numbers: array[Any] = array(_ARRAY_CODES[kind])
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _finite(numbers: Iterable[int | float]) -> bool:
    # A finite sum has only finite terms. A sum of finite doubles may overflow; then check each term.
    return math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))


def read_attribute(attribute: Message, rule: OpRule | None, policy: ScanPolicy) -> Attribute:
    """Check an `AttributeProto` by the rule of its op in the policy; `rule` is None for a forbidden op.

    Raise a `RefusedError` if the policy does not allow the attribute or its value.
    """
    name, number = attribute.text("name"), attribute.number("type")
    if "ref_attr_name" in attribute:
        raise RefusedError("attribute", f"{printable(name)} refers to an attribute of a function")
    field = _ATTRIBUTE_FIELDS[number - 1] if 1 <= number <= len(_ATTRIBUTE_FIELDS) else None
    if field is None or any(f in attribute for f in _ATTRIBUTE_FIELDS if f != field):
        raise RefusedError(
            "ambiguous", f"the value of {printable(name)} does not have the declared type"
        )
    if rule is None or name not in rule.attributes:
        raise RefusedError("attribute", f"the op must not have the attribute {printable(name)}")
    value = _attribute_value(attribute, field, policy)
    bound = rule.attributes[name]
    if not _fits(value, bound):
        shown = printable(str(value), 60)
        raise RefusedError("attribute", f"the attribute {name} is {shown}; allowed: {bound}")
    return value


def _attribute_value(attribute: Message, field: str, policy: ScanPolicy) -> Attribute:
    name = attribute.text("name")
    if field in ("f", "i"):
        number: int | float = attribute.get(field, 0.0 if field == "f" else 0)
        return number
    if field == "s":
        raw: memoryview = attribute.get("s", memoryview(b""))
        return bytes(raw[: policy.limits.max_name_bytes]).decode("utf-8", "backslashreplace")
    if field == "t":
        tensor = attribute.message("t")
        if tensor is None:
            raise RefusedError("attribute", f"the attribute {name} has no tensor")
        return read_constant(tensor, policy)
    if field not in ("ints", "floats"):
        raise RefusedError("attribute", f"the attribute {name} has a type that no allowed op uses")
    values: list[int] | list[float] | Packed = attribute.repeated(field)
    if len(values) > policy.limits.max_integer_elements:
        raise RefusedError("attribute", f"the attribute {name} has {len(values)} values, too many")
    if not isinstance(values, Packed):
        return tuple(values)
    if field == "ints":
        raise RefusedError("attribute", f"the attribute {name} has {len(values)} values, too many")
    return tuple(_from_bytes(values.data, "float32"))


def _fits(value: Attribute, rule: AttributeRule) -> bool:
    if rule.one_of:
        return isinstance(value, int | float | str) and value in rule.one_of
    if rule.tensor:
        return isinstance(value, Constant)
    if isinstance(value, tuple):
        return all(math.isfinite(v) and rule.low <= v <= rule.high for v in value)
    return isinstance(value, int | float) and rule.low <= value <= rule.high  # rejects NaN
