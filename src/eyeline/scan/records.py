"""The policy of the scanner with its reader, and the report of a scan.

The built-in policy is `policy.toml` in this folder. This module validates policies without pydantic,
because importing pydantic would take half of the time of a scan.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from eyeline.digests import sha256_hex
from eyeline.errors import UsageError, first_line

BUILTIN_POLICY = Path(__file__).with_name("policy.toml")

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
"""Element types that a policy may allow: name to (number in onnx.proto, bytes per element)."""


@dataclass(frozen=True)
class ScanLimits:
    """Limits of a policy; the comments in `policy.toml` explain each of them."""

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
    """The allowed values of an attribute: a list of values, a range, or any checked tensor."""

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
    """The rule of one allowed op: the reason why it is allowed, and its allowed attributes."""

    reason: str
    attributes: dict[str, AttributeRule]


@dataclass(frozen=True)
class ScanPolicy:
    """The content of a policy file.

    Attributes:
        ir_versions: lowest and highest IR version.
        opsets: lowest and highest version of the default operator set.
        worst_case: input sizes (height, width), pixels, for which all tensor sizes are computed.
        elements: maps the number of each allowed element type in onnx.proto to its size in bytes.
        ops: maps each allowed op type to its rule.
    """

    name: str
    version: int
    sha256: str
    limits: ScanLimits
    ir_versions: tuple[int, int]
    opsets: tuple[int, int]
    worst_case: tuple[tuple[int, int], ...]
    elements: dict[int, int]
    ops: dict[str, OpRule]


@cache
def read_policy(path: Path) -> ScanPolicy:
    """Read a policy file. `load_policy` in `scanner` also checks that every op has a size rule."""
    try:
        data = path.read_bytes()
        content = tomllib.loads(data.decode())
    except OSError as exc:
        raise UsageError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    except ValueError as exc:
        raise UsageError(
            f"{path}: the file is not a scan policy: {first_line(exc)}", "see docs/scan.md"
        ) from exc
    name, version, limits, accepts, worst_case, elements, ops = _values(
        content, str(path),
        name=str, version=int, limits=dict, accepts=dict, worst_case=dict, element=list, op=list,
    )  # fmt: skip
    bounds = _values(limits, f"{path}: [limits]", **{f.name: int for f in fields(ScanLimits)})
    accepted = _values(accepts, f"{path}: [accepts]", ir_versions=list, opsets=list)
    (sizes,) = _values(worst_case, f"{path}: [worst_case]", sizes=list)
    if not sizes:
        raise UsageError(
            f"{path}: [worst_case] sizes is empty",
            "give at least one input size [height, width]",
        )
    return ScanPolicy(
        name,
        version,
        sha256_hex(data),
        ScanLimits(*bounds),
        _pair(accepted[0], f"{path}: [accepts] ir_versions"),
        _pair(accepted[1], f"{path}: [accepts] opsets"),
        tuple(_pair(size, f"{path}: [worst_case] sizes") for size in sizes),
        dict(_element(row, path) for row in elements),
        dict(_op(row, path) for row in ops),
    )


def _values(table: Any, where: str, **kinds: type | tuple[type, ...]) -> list[Any]:
    """Return the values of a TOML table that must have the keys of `kinds` and no others."""
    if not isinstance(table, dict):
        raise UsageError(f"{where}: {table!r} is not a table", "see docs/scan.md")
    for key in table.keys() - kinds.keys():
        raise UsageError(f"{where}: unknown key {key!r}", f"known keys: {', '.join(kinds)}")
    for key, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if type(table.get(key)) not in allowed:  # not isinstance, because True is an int
            names = " or ".join(k.__name__ for k in allowed)
            found = repr(table[key]) if key in table else "missing"
            raise UsageError(f"{where}: {key} is {found}", f"it must be of type {names}")
    return [table[key] for key in kinds]


def _pair(value: Any, where: str) -> tuple[int, int]:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(type(v) is int and v > 0 for v in value)
    ):
        raise UsageError(
            f"{where}: {value!r} is not a pair", "give two positive integers, such as [1, 2]"
        )
    return value[0], value[1]


def _element(row: Any, path: Path) -> tuple[int, int]:
    name, _ = _values(row, f"{path}: [[element]]", type=str, reason=str)
    if name not in ELEMENTS:
        raise UsageError(
            f"{path}: unknown element type {name!r}", f"known types: {', '.join(ELEMENTS)}"
        )
    return ELEMENTS[name]


def _op(row: Any, path: Path) -> tuple[str, OpRule]:
    where = f"{path}: [[op]]"
    complete = {"attributes": {}, **row} if isinstance(row, dict) else row
    name, reason, attributes = _values(complete, where, type=str, reason=str, attributes=dict)
    rules = {k: _attribute(v, f"{where} {name}: {k}") for k, v in attributes.items()}
    return name, OpRule(reason, rules)


def _attribute(row: Any, where: str) -> AttributeRule:
    if isinstance(row, dict) and "one_of" in row:
        return AttributeRule(one_of=tuple(_values(row, where, one_of=list)[0]))
    if isinstance(row, dict) and "tensor" in row:
        return AttributeRule(tensor=_values(row, where, tensor=bool)[0])
    low, high = _values(row, where, min=(int, float), max=(int, float))
    return AttributeRule(low=low, high=high)


class RefusedError(Exception):
    """A part of the model is not allowed; the scanner converts this error to a finding.

    `path` and `op_type` are empty if the function that raises the error does not know them.
    """

    def __init__(self, code: str, reason: str, path: str = "", op_type: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason, self.path, self.op_type = code, reason, path, op_type


@dataclass(frozen=True)
class ScanFinding:
    """One reason to reject a model.

    Attributes:
        code: stable code, such as `op` or `external-data`; docs/scan.md lists all codes.
        path: place in the model, such as `graph/node[3]:If/then_branch/node[0]:Loop`.
        reason: description in one line.
        op_type: op type of the node; "" if the finding is not about a node.
    """

    code: str
    path: str
    reason: str
    op_type: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class WorstCase:
    """Sizes for the input of `ScanPolicy.worst_case` that needs the most memory.

    Attributes:
        input: input shape (N, 3, H, W).
        largest_tensor_bytes: size of the largest tensor, bytes.
        peak_bytes: largest size of all tensors in memory at once, including the weights, bytes.
        work: number of multiply-adds.
    """

    input: tuple[int, ...]
    largest_tensor_bytes: int
    peak_bytes: int
    work: int


@dataclass(frozen=True)
class FirstLoad:
    """The result of loading the model in a child process.

    Attributes:
        outcome: `loaded`, `refused` (ONNX Runtime reported an error), `crashed`, `timeout`, or
            `skipped`.
        detail: message of the child, one line.
        seconds: wall time.
        memory_limit: limit on the address space, bytes; None if the system can't limit it.
    """

    outcome: str
    detail: str = ""
    seconds: float = 0.0
    memory_limit: int | None = None


@dataclass(frozen=True)
class ScanReport:
    """The result of a scan.

    Attributes:
        name: name of the file.
        sha256: hex digest of the file; "" if the file was not read.
        size: size of the file, bytes.
        findings: reasons to reject the model, in file order; empty if it is accepted.
        notes: facts that do not reject the model.
        ops: number of nodes per op type, including subgraphs.
        opset: version of the default operator set; None if the model declares none.
        worst_case: largest memory and work; None if it could not be computed.
        load: result of the load in the child process.
        policy: name, version and sha256 of the policy.
    """

    name: str
    sha256: str
    size: int
    findings: tuple[ScanFinding, ...]
    notes: tuple[str, ...]
    ops: dict[str, int]
    opset: int | None
    worst_case: WorstCase | None
    load: FirstLoad
    policy: dict[str, str | int]

    @property
    def admitted(self) -> bool:
        """Whether there are no findings."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, `admitted` first."""
        return {"admitted": self.admitted, **asdict(self)}

    def text(self, verbose: bool = False) -> str:
        """Return the report as lines of text: the first five findings, or with `verbose` everything."""
        if self.admitted:
            nodes = sum(self.ops.values())
            lines = [f"admitted: {self.name}, {nodes} nodes of {len(self.ops)} ops"]
        else:
            lines = [f"rejected: {self.name}: {self.findings[0]}"]
        shown = self.findings if verbose else self.findings[:5]
        lines += [f"  also: {finding}" for finding in shown[1:]]
        if len(self.findings) > len(shown):
            lines.append(f"  and {len(self.findings) - len(shown)} more: --verbose, or --json")
        lines += [f"  note: {note}" for note in self.notes]
        if verbose:
            lines.append(f"  sha256 {self.sha256}, {self.size:,} bytes, opset {self.opset}")
            if self.ops:
                lines.append("  ops: " + ", ".join(f"{op} {n}" for op, n in self.ops.items()))
            if (case := self.worst_case) is not None:
                lines.append(
                    f"  at input {'x'.join(map(str, case.input))}: largest tensor "
                    f"{case.largest_tensor_bytes:,} bytes, {case.peak_bytes:,} at once, "
                    f"{case.work:,} multiply-adds"
                )
            detail = f" ({self.load.detail})" if self.load.detail else ""
            lines.append(f"  first load: {self.load.outcome}{detail}")
            lines.append(f"  policy {self.policy['name']} {self.policy['version']}")
        return "\n".join(lines)


def printable(text: str, limit: int = 120) -> str:
    """Escape and shorten text of an untrusted file, so that it is safe to print."""
    clean = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "..."
