"""Attributes of a node: of one type, on the op's row, and within its bounds."""

from __future__ import annotations

import math
from array import array

from eyeline.scan.layer_rules import Attribute
from eyeline.scan.records import AttributeRule, OpRule, RefusedError, ScanPolicy, printable
from eyeline.scan.tensors import read_constant
from eyeline.scan.wire import Message, Packed

_FIELD_OF_TYPE = {
    1: "f",
    2: "i",
    3: "s",
    4: "t",
    5: "g",
    6: "floats",
    7: "ints",
    8: "strings",
    9: "tensors",
    10: "graphs",
    11: "sparse_tensor",
    12: "sparse_tensors",
    13: "tp",
    14: "type_protos",
}
_DEFAULTS: dict[str, int | float] = {"f": 0.0, "i": 0}


def read_attribute(attribute: Message, rule: OpRule | None, policy: ScanPolicy) -> Attribute:
    """Check one attribute.

    Args:
        attribute: an `AttributeProto`.
        rule: row of the node's op; None where the op itself was refused.
        policy: for tensors.

    Raises:
        RefusedError: not admitted.
    """
    name, field = attribute.text("name"), _FIELD_OF_TYPE.get(attribute.number("type"))
    present = [f for f in _FIELD_OF_TYPE.values() if f in attribute]
    if "ref_attr_name" in attribute:
        raise RefusedError("attribute", f"{printable(name)} refers to a function's attribute")
    if field is None or any(f != field for f in present):
        raise RefusedError("ambiguous", f"{printable(name)} is not of its stated type")
    if rule is None or name not in rule.attributes:
        raise RefusedError(
            "attribute", f"{printable(name)} is not on the op's row of the allowlist"
        )
    value = _value(attribute, field, policy)
    bound = rule.attributes[name]
    if not _fits(value, bound):
        shown = printable(str(value), 60)
        raise RefusedError("attribute", f"{name} is {shown}; the policy says {bound}")
    return value


def _value(attribute: Message, field: str, policy: ScanPolicy) -> Attribute:
    name = attribute.text("name")
    if field in _DEFAULTS:
        number: int | float = attribute.fields.get(field, _DEFAULTS[field])
        return number
    if field == "s":
        raw: memoryview = attribute.fields.get("s", memoryview(b""))
        return bytes(raw[: policy.limits.max_name_bytes]).decode("utf-8", "backslashreplace")
    if field == "t":
        tensor = attribute.message("t")
        if tensor is None:
            raise RefusedError("attribute", f"{name} has no tensor")
        return read_constant(tensor, policy)
    if field not in ("ints", "floats"):
        raise RefusedError("attribute", f"{name} is of a type that no op here takes")
    values: list[int] | list[float] | Packed = attribute.list(field)
    if len(values) > policy.limits.max_integer_elements:
        raise RefusedError("attribute", f"{name} has {len(values)} values")
    if not isinstance(values, Packed):
        return tuple(values)
    if field == "ints":
        raise RefusedError("attribute", f"{name} is too long")
    numbers = array("f")
    numbers.frombytes(values.data)
    return tuple(numbers)


def _fits(value: Attribute, rule: AttributeRule) -> bool:
    if rule.one_of:
        return isinstance(value, int | float | str) and value in rule.one_of
    if rule.tensor:
        return not isinstance(value, int | float | str | tuple)
    if isinstance(value, tuple):
        return all(math.isfinite(v) and rule.low <= v <= rule.high for v in value)
    return isinstance(value, int | float) and rule.low <= value <= rule.high  # NaN fits nothing
