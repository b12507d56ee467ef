"""The scanner's policy: what a model may contain, as data with a reason a row.

`policy.toml` beside this file is the default. Checked by hand and not by pydantic: its import alone
would take half of the time that a whole scan has.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from eyeline.errors import UsageError

DEFAULT = Path(__file__).with_name("policy.toml")

ELEMENTS = {
    "float32": (1, 4),
    "uint8": (2, 1),
    "int8": (3, 1),
    "int32": (6, 4),
    "int64": (7, 8),
    "bool": (9, 1),
    "float16": (10, 2),
    "float64": (11, 8),
}
"""Element types that the scanner can size and check: name to (number in onnx.proto, bytes)."""


@dataclass(frozen=True)
class Limits:
    """Bounds, see the comments in `policy.toml`."""

    max_file_bytes: int
    max_fields: int
    max_depth: int
    max_name_bytes: int
    max_metadata_bytes: int
    max_text_bytes: int
    max_rank: int
    max_side: int
    max_scale: int
    max_integer_elements: int
    max_integer: int
    max_tensor_bytes: int
    max_peak_bytes: int
    max_work: int
    max_constant_work: int


@dataclass(frozen=True)
class AttributeRule:
    """What an attribute may be: one of some values, within a range, or a tensor.

    Attributes:
        one_of: admitted values; empty when a range is given.
        low: least number.
        high: greatest number.
        tensor: whether it is a tensor, which is checked as every constant is.
    """

    one_of: tuple[str | float, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    tensor: bool = False

    def __str__(self) -> str:
        if self.one_of:
            return " or ".join(str(v) for v in self.one_of)
        return "a tensor" if self.tensor else f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class OpRule:
    """One row of the allowlist.

    Attributes:
        reason: why a model may contain this op.
        attributes: the admitted ones; any other is refused.
    """

    reason: str
    attributes: dict[str, AttributeRule]


@dataclass(frozen=True)
class Policy:
    """A policy, read.

    Attributes:
        name: and
        version: as the file states them.
        sha256: hex digest of the file.
        limits: see `Limits`.
        ir_versions: least and greatest IR version.
        opsets: least and greatest version of the default operator set.
        worst_case: (height, width) of the inputs at which every tensor is worked out, pixels.
        elements: element type numbers to bytes.
        ops: op type to its row.
    """

    name: str
    version: int
    sha256: str
    limits: Limits
    ir_versions: tuple[int, int]
    opsets: tuple[int, int]
    worst_case: tuple[tuple[int, int], ...]
    elements: dict[int, int]
    ops: dict[str, OpRule]


class _Table:
    """A TOML table that must be used up: a key that nobody asked for is a mistake in a policy."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise UsageError(f"{where}: not a table", "see docs/scan.md")
        self.rest, self.where = dict(value), where

    def take(self, key: str, *kinds: type, default: Any = None) -> Any:
        value = self.rest.pop(key, default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise UsageError(f"{self.where}: {key} is missing or of the wrong type", "fix the row")
        return value

    def pair(self, key: str) -> tuple[int, int]:
        value = self.take(key, list)
        if len(value) != 2 or not all(type(v) is int and v > 0 for v in value):
            raise UsageError(f"{self.where}: {key} is not two whole numbers", "fix the row")
        return value[0], value[1]

    def done(self) -> None:
        if self.rest:
            raise UsageError(
                f"{self.where}: unknown key {next(iter(self.rest))!r}", "see docs/scan.md"
            )


def load_policy(path: Path | None = None) -> Policy:
    """A policy file; the built-in one when `path` is None.

    Raises:
        UsageError: unreadable, or not of the form of the built-in policy.
    """
    return _load(path or DEFAULT)


@cache
def _load(path: Path) -> Policy:
    try:
        data = path.read_bytes()
        content = tomllib.loads(data.decode())
    except OSError as exc:
        raise UsageError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    except ValueError as exc:
        first = " ".join(str(exc).split())[:200]
        raise UsageError(f"{path}: not a policy: {first}", "see docs/scan.md") from exc
    top = _Table(content, str(path))
    name, version = top.take("name", str), top.take("version", int)
    limits = _Table(top.take("limits", dict), f"{path}: [limits]")
    bounds = Limits(**{f.name: limits.take(f.name, int) for f in fields(Limits)})
    limits.done()
    accepts = _Table(top.take("accepts", dict), f"{path}: [accepts]")
    ir_versions, opsets = accepts.pair("ir_versions"), accepts.pair("opsets")
    accepts.done()
    worst = _Table(top.take("worst_case", dict), f"{path}: [worst_case]")
    sizes = worst.take("sizes", list)
    pairs = tuple(_Table({"size": s}, f"{path}: [worst_case] sizes").pair("size") for s in sizes)
    if not pairs:
        raise UsageError(f"{path}: [worst_case] names no size", "one is needed to bound tensors")
    worst.done()
    elements = dict(_element(row, path) for row in top.take("element", list))
    ops = dict(_op(row, path) for row in top.take("op", list))
    top.done()
    digest = hashlib.sha256(data).hexdigest()
    return Policy(name, version, digest, bounds, ir_versions, opsets, pairs, elements, ops)


def _element(row: Any, path: Path) -> tuple[int, int]:
    table = _Table(row, f"{path}: [[element]]")
    name = table.take("type", str)
    table.take("reason", str)
    table.done()
    if name not in ELEMENTS:
        raise UsageError(f"{path}: no element type {name!r}", f"known: {', '.join(ELEMENTS)}")
    return ELEMENTS[name]


def _op(row: Any, path: Path) -> tuple[str, OpRule]:
    from eyeline.scan.rules import RULES

    table = _Table(row, f"{path}: [[op]]")
    name = table.take("type", str)
    table.where = f"{path}: op {name}"
    if name not in RULES:
        raise UsageError(
            f"{table.where}: the scanner can't work out its sizes", "only ops with a size rule pass"
        )
    reason = table.take("reason", str)
    attributes = table.take("attributes", dict, default={})
    rules = {k: _attribute(v, f"{table.where}: {k}") for k, v in attributes.items()}
    table.done()
    return name, OpRule(reason, rules)


def _attribute(row: Any, where: str) -> AttributeRule:
    table = _Table(row, where)
    if "one_of" in table.rest:
        rule = AttributeRule(one_of=tuple(table.take("one_of", list)))
    elif "tensor" in table.rest:
        rule = AttributeRule(tensor=table.take("tensor", bool))
    else:
        rule = AttributeRule(low=table.take("min", int, float), high=table.take("max", int, float))
    table.done()
    return rule
