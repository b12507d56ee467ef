"""What the size rules work on: tensors without their pixels, and nodes without their graph."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from eyeline.models.scan.policy import Limits
from eyeline.models.scan.report import Problem
from eyeline.models.scan.tensors import MAX_KNOWN, Constant

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
    limits: Limits = field(repr=False)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise Problem("attribute", f"{name} is not an integer")
        return value

    def integers(self, name: str, length: int, default: int) -> tuple[int, ...]:
        """A list of `length` integers; `default` repeated when absent."""
        value = self.attributes.get(name)
        if value is None:
            return (default,) * length
        if not isinstance(value, tuple) or len(value) != length:
            raise Problem("attribute", f"{name} is not {length} integers")
        return tuple(int(v) for v in value)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self.attributes.get(name, default))


Inputs = Sequence[Value | None]


def need(inputs: Inputs, index: int) -> Value:
    """An input that must be there."""
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise Problem("inputs", f"input {index} is missing")
    return value


def optional(inputs: Inputs, index: int) -> Value | None:
    """An input that may be left out."""
    return inputs[index] if index < len(inputs) else None


def known(value: Value, what: str) -> tuple[Number, ...]:
    """The values of a tensor that says how large another one is."""
    if value.values is None:
        raise Problem("unbounded", f"its {what} can't be known before it runs")
    return value.values


def known_integers(value: Value, what: str) -> tuple[int, ...]:
    """As `known`, for sizes, axes and indices."""
    values = known(value, what)
    if not all(isinstance(v, int) for v in values):
        raise Problem("types", f"its {what} are not integers")
    return tuple(int(v) for v in values)


def axis_of(axis: int, rank: int) -> int:
    """An axis that may be negative, as an index below `rank`."""
    if not -rank <= axis < rank:
        raise Problem("shapes", f"axis {axis} of a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an element-by-element operation (ONNX "Broadcasting": numpy's rules)."""
    rank = max(map(len, shapes))
    result = []
    for dims in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        sides = {d for d in dims if d != 1}
        if len(sides) > 1:
            raise Problem("shapes", f"{' and '.join(map(str, shapes))} don't fit each other")
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
