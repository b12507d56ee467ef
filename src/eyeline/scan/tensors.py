"""Constants of a model: every initializer and tensor attribute, checked to its last byte.

Without numpy: importing it costs more than the whole scan.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eyeline.scan.records import ELEMENTS, RefusedError, ScanPolicy
from eyeline.scan.wire import Message, Packed

NUMBER = {name: number for name, (number, _) in ELEMENTS.items()}
NAME = {number: name for name, number in NUMBER.items()}
INTEGERS = frozenset(NUMBER[n] for n in ("int32", "int64", "int8", "uint8"))
FLOATS = frozenset(NUMBER[n] for n in ("float16", "float32", "float64"))
INT64_MAX = (1 << 63) - 1
SLICE_ENDS = frozenset((INT64_MAX, -INT64_MAX))
"""How exporters write "to the end" and, with a negative step, "to the front" of a `Slice`."""

MAX_KNOWN = 64
"""Elements up to which values are followed: shapes, indices and scales are shorter."""

MIN_SCALE = 2.0**-126
"""Smallest normal float32: below it, and at 0, there is no inverse to multiply with."""

_DATA_FIELDS = {
    "float_data": ("float32",),
    "int32_data": ("int32", "int8", "uint8", "bool", "float16"),
    "int64_data": ("int64",),
    "double_data": ("float64",),
    "uint64_data": (),
    "string_data": (),
}
_ARRAY_CODES = {"float32": "f", "float64": "d", "int32": "i", "int64": "q", "bool": "B"}

Numbers = Sequence[int | float]


@dataclass(frozen=True, slots=True)
class Constant:
    """A checked constant.

    Attributes:
        dtype: element type, by onnx.proto's number.
        shape: its dimensions.
        values: flat, when there are at most `MAX_KNOWN`; else None.
        scale: whether it may be a quantisation's: floats, all `MIN_SCALE` or more, in one row.
    """

    dtype: int
    shape: tuple[int, ...]
    values: tuple[int | float, ...] | None
    scale: bool = False


def read_constant(tensor: Message, policy: ScanPolicy) -> Constant:
    """Check a `TensorProto`.

    `SLICE_ENDS` pass, alone beyond the policy's integers; `shapes` sees that they end a `Slice`.

    Raises:
        RefusedError: anything that the policy does not admit.
    """
    limits = policy.limits
    dtype = tensor.number("data_type")
    if tensor.number("data_location") or "external_data" in tensor:
        raise RefusedError("external-data", "its values are in another file")
    if "segment" in tensor:
        raise RefusedError("segment", "a tensor in segments")
    if dtype not in policy.elements:
        name = NAME.get(dtype, f"number {dtype}")
        raise RefusedError("element-type", f"element type {name} is not on the allowlist")
    dims = tuple(tensor.list("dims")) if not isinstance(tensor.list("dims"), Packed) else None
    if dims is None or len(dims) > limits.max_rank:
        raise RefusedError("rank", f"more than {limits.max_rank} dimensions")
    if any(d < 0 for d in dims):
        raise RefusedError("dimension", "a negative dimension")
    count = math.prod(dims)
    if not count and dims != (0,):  # an input left out is empty; nothing else has a reason to be
        raise RefusedError("dimension", f"an empty tensor, {dims}")
    if count * policy.elements[dtype] > limits.max_tensor_bytes:
        raise RefusedError("tensor-size", f"{count} elements")
    kind = NAME[dtype]
    numbers = _numbers(tensor, kind, count, limits.max_integer_elements)
    if dtype in FLOATS and not _finite(numbers):
        raise RefusedError("not-finite", "NaN or infinity among its values")
    if kind in ("int32", "int64"):
        ends = SLICE_ENDS if count <= MAX_KNOWN else frozenset()
        large = (v for v in numbers if abs(v) > limits.max_integer and v not in ends)
        beyond = next(large, None)
        if beyond is not None:
            raise RefusedError("integer", f"an integer of {beyond}, beyond {limits.max_integer}")
    known = tuple(numbers) if count <= MAX_KNOWN and len(numbers) == count else None
    return Constant(dtype, dims, known, len(dims) < 2 and dtype in FLOATS and is_scale(numbers))


def is_scale(numbers: Numbers) -> bool:
    """Whether finite numbers can all be divided by."""
    return bool(numbers) and min(numbers) >= MIN_SCALE


def _numbers(tensor: Message, kind: str, count: int, max_integers: int) -> Numbers:
    """All values of a tensor, or () where only their number matters (int8 and uint8)."""
    present = [f for f in (*_DATA_FIELDS, "raw_data") if f in tensor]
    if len(present) > 1:
        raise RefusedError("ambiguous", f"values in {present[0]} and in {present[1]}")
    if kind in ("int32", "int64") and count > max_integers:
        raise RefusedError("integer", f"{count} integers, more than {max_integers}")
    if not present or present == ["raw_data"]:
        raw: memoryview = tensor.fields.get("raw_data", memoryview(b""))
        size = ELEMENTS[kind][1]
        if len(raw) != count * size:
            raise RefusedError("tensor-data", f"{len(raw)} bytes for {count} values of {kind}")
        return _from_bytes(raw, kind)
    field = present[0]
    if kind not in _DATA_FIELDS[field]:
        raise RefusedError("tensor-data", f"values of {kind} in {field}")
    values: list[int | float] | Packed = tensor.list(field)
    if len(values) != count:
        raise RefusedError("tensor-data", f"{len(values)} values for {count}")
    if isinstance(values, Packed):
        if values.kind in ("f32", "f64"):
            return _from_bytes(values.data, kind)
        if kind in ("int8", "uint8"):
            return ()
        raise RefusedError("integer", f"{count} {kind} values, not as raw data")
    if kind == "float16":
        if not all(isinstance(v, int) and 0 <= v < 1 << 16 for v in values):
            raise RefusedError("tensor-data", "a float16 beyond 16 bits")
        halves = struct.pack(f"<{count}H", *values)
        return _from_bytes(memoryview(halves), kind)
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
    # A sum is not finite when a term is not; of doubles it may overflow, so then each is looked at.
    return math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))
