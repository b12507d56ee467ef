"""What a scan found: a frozen result that prints as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


class Problem(Exception):  # noqa: N818 - it becomes a finding and never leaves the scanner
    """What is wrong at the place that is being looked at.

    Args:
        code: of the finding.
        reason: of the finding.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Finding:
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
class Load:
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
        load: see `Load`.
        policy: name, version and sha256 of the policy.
    """

    name: str
    sha256: str
    size: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    ops: dict[str, int]
    opset: int | None
    worst_case: WorstCase | None
    load: Load
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
