"""The records of a scan: what a policy admits, and what the scan of a file found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

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
class ScanLimits:
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
class ScanPolicy:
    """A policy, read.

    Attributes:
        name: and
        version: as the file states them.
        sha256: hex digest of the file.
        limits: see `ScanLimits`.
        ir_versions: least and greatest IR version.
        opsets: least and greatest version of the default operator set.
        worst_case: (height, width) of the inputs at which every tensor is worked out, pixels.
        elements: element type numbers to bytes.
        ops: op type to its row.
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


class RefusedError(Exception):
    """What is wrong at the place that is being looked at.

    Args:
        code: of the finding.
        reason: of the finding.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class ScanFinding:
    """One reason to refuse a model.

    Attributes:
        code: short and stable, such as `op` or `external-data`; listed in docs/scan.md.
        path: where, such as `graph/node[3]:If/then_branch/node[0]:Loop`.
        reason: what is wrong, in one line.
        op_type: of the node, "" when it is no node's fault.
    """

    code: str
    path: str
    reason: str
    op_type: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class WorstCase:
    """The costliest of the worst-case inputs.

    Attributes:
        input: its shape (N, 3, H, W).
        largest_tensor_bytes: of the largest tensor, bytes.
        peak_bytes: of all tensors that live at once, weights too, bytes.
        work: multiply-adds.
    """

    input: tuple[int, ...]
    largest_tensor_bytes: int
    peak_bytes: int
    work: int


@dataclass(frozen=True)
class FirstLoad:
    """The first load, in a child process.

    Attributes:
        outcome: `loaded`, `refused` (ONNX Runtime says no), `crashed`, `timeout`, or `skipped`.
        detail: what the child said, in one line.
        seconds: wall time.
        memory_limit: bytes of address space for the model, None where the system can't limit it.
    """

    outcome: str
    detail: str = ""
    seconds: float = 0.0
    memory_limit: int | None = None


@dataclass(frozen=True)
class ScanReport:
    """What a scan found.

    Attributes:
        name: of the file.
        sha256: hex digest of the scanned bytes, "" when they were not read.
        size: bytes.
        findings: reasons to refuse it, the first offending node first; empty: admitted.
        notes: what is worth knowing and no reason to refuse it.
        ops: op type to number of nodes, subgraphs included.
        opset: of the default operator set, None when it states none.
        worst_case: see `WorstCase`; None when the sizes could not be worked out.
        load: see `FirstLoad`.
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
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """JSON values, `admitted` first."""
        return {"admitted": self.admitted, **asdict(self)}


def printable(text: str, limit: int = 120) -> str:
    """Text of a hostile file, safe for a terminal: no control characters, not long."""
    clean = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "..."


def quoted(text: str, limit: int = 120) -> str:
    """`printable` in quotes."""
    return f"'{printable(text, limit)}'"
