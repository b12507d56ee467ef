"""The scanner's policy: what a model may contain, as data with a reason a row.

`policy.toml` beside this file is the default. Checked by hand and not by pydantic: its import alone
would take half of the time that a whole scan has.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from eyeline.errors import UsageError
from eyeline.scan.records import ELEMENTS, AttributeRule, OpRule, ScanLimits, ScanPolicy
from eyeline.scan.rules import RULES

DEFAULT = Path(__file__).with_name("policy.toml")


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


def load_policy(path: Path | None = None) -> ScanPolicy:
    """A policy file; the built-in one when `path` is None.

    Raises:
        UsageError: unreadable, or not of the form of the built-in policy.
    """
    return _load(path or DEFAULT)


@cache
def _load(path: Path) -> ScanPolicy:
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
    bounds = ScanLimits(**{f.name: limits.take(f.name, int) for f in fields(ScanLimits)})
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
    return ScanPolicy(name, version, digest, bounds, ir_versions, opsets, pairs, elements, ops)


def _element(row: Any, path: Path) -> tuple[int, int]:
    table = _Table(row, f"{path}: [[element]]")
    name = table.take("type", str)
    table.take("reason", str)
    table.done()
    if name not in ELEMENTS:
        raise UsageError(f"{path}: no element type {name!r}", f"known: {', '.join(ELEMENTS)}")
    return ELEMENTS[name]


def _op(row: Any, path: Path) -> tuple[str, OpRule]:
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
