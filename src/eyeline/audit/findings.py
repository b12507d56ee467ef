"""What an audit found: one fact a finding, with where it stands and how to fix it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Axis = Literal["licence", "distribution", "architecture", "ops"]
AXES: tuple[Axis, ...] = ("licence", "distribution", "architecture", "ops")

Severity = Literal["blocker", "review", "note"]
"""Blocks the verdict; wants a person's eyes; is worth knowing."""


@dataclass(frozen=True)
class AuditFinding:
    """One fact.

    Attributes:
        severity: see `Severity`.
        code: short reason code, such as `NC` or `RGB-D`.
        message: what was found.
        where: path, with the line where there is one; empty for the whole tree.
        unblock: what would lift a blocker.
    """

    severity: Severity
    code: str
    message: str
    where: str = ""
    unblock: str = ""

    def to_json(self) -> dict[str, str]:
        """JSON values, without empty ones."""
        return {key: value for key, value in asdict(self).items() if value}


@dataclass(frozen=True)
class AxisReport:
    """What one axis says.

    Attributes:
        axis: which.
        summary: a few words for the verdict table.
        findings: in order of severity.
        facts: what was read, as JSON values.
    """

    axis: Axis
    summary: str
    findings: tuple[AuditFinding, ...]
    facts: dict[str, object]

    @property
    def blockers(self) -> tuple[AuditFinding, ...]:
        """The findings that block."""
        return tuple(f for f in self.findings if f.severity == "blocker")

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        return {
            "summary": self.summary,
            "blocked": bool(self.blockers),
            "findings": [f.to_json() for f in self.findings],
            "facts": self.facts,
        }


def axis_report(
    axis: Axis, summary: str, findings: list[AuditFinding], facts: dict[str, object]
) -> AxisReport:
    """An axis's report with its findings in order: blockers, what wants review, notes."""
    order = ("blocker", "review", "note")
    ranked = sorted(dict.fromkeys(findings), key=lambda f: order.index(f.severity))
    return AxisReport(axis, summary, tuple(ranked), facts)
