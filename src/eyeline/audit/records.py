"""The records of an audit: the policy, the findings, and the report of one axis.

The policy says which licences may go into a release. It refuses every licence that it does not list.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from eyeline.audit.licence_text import licences
from eyeline.errors import LicenceError, MissingExtraError, UsageError, first_line
from eyeline.files import read_regular_file
from eyeline.validation import Strict

WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text())
"""Words that the axes look for."""
UNBLOCK: dict[str, str] = WORDS["unblock"]
BUILTIN_POLICY = Path(__file__).with_name("policy.toml")

Axis = Literal["licence", "distribution", "architecture", "ops"]
AXES: tuple[Axis, ...] = ("licence", "distribution", "architecture", "ops")

Severity = Literal["blocker", "review", "note"]
"""A blocker blocks the verdict; a person must look at a review; a note is for information."""
_ORDER = ("blocker", "review", "note")


class AllowedLicence(Strict):
    """One licence that may be released, with the reason why it is compatible."""

    license: str = Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")
    reason: str = Field(min_length=1)


class LicenceEvidence(Strict):
    """The licence that a person established for one upstream, which is a commit id.

    `evidence` is the URL or document in which the rights holder states it.
    """

    upstream: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    covers: Literal["code", "weights", "both"]
    license: str = Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")
    evidence: str = Field(min_length=1)


class AuditPolicy(Strict):
    """What may be released.

    Attributes:
        outbound: SPDX id of the licence of the release.
        weights_without_statement: whether weights without a statement follow the code's licence.
        viewer_links: whether weights behind links that only a browser can follow are admitted.
        inputs: `rgb`, or `any` to admit nets with other inputs.
        allow: the licences that may be released.
        statement: evidence for single upstreams.
    """

    schema_version: Literal[1] = 1
    outbound: str
    weights_without_statement: Literal["follow-code", "deny"] = "follow-code"
    viewer_links: Literal["deny", "allow"] = "deny"
    inputs: Literal["rgb", "any"] = "rgb"
    allow: tuple[AllowedLicence, ...] = ()
    statement: tuple[LicenceEvidence, ...] = ()

    def codes(self, spdx: str) -> tuple[str, ...]:
        """Return why an SPDX id is not admitted (`NC`, `SA`, ...; `UNKNOWN` if not listed), or ()."""
        if any(a.license == spdx for a in self.allow):
            return ()
        known = licences().get(spdx)
        return (known.codes if known else ()) or ("UNKNOWN",)

    def judge(self, expression: str) -> tuple[str, ...]:
        """Return why an SPDX expression is not admitted; () when it is.

        One admitted side of an `OR` is enough; an `AND` needs both. A licence with an exception
        (`WITH`) is judged as the licence, because an exception only adds permissions.

        Raises:
            MissingExtraError: the expression is not a single id, and the extra `audit` is missing.
            LicenceError: not an SPDX expression.
        """
        if expression in licences() or not self.codes(expression):
            return self.codes(expression)
        try:
            from license_expression import ExpressionError, get_spdx_licensing
        except ModuleNotFoundError as exc:
            raise MissingExtraError("license_expression", "audit") from exc
        try:
            parsed = get_spdx_licensing().parse(expression, validate=True)
        except ExpressionError as exc:
            raise LicenceError(
                f"{expression!r} is not an SPDX expression", "see spdx.org/licenses"
            ) from exc
        return self._judge_node(parsed)

    def _judge_node(self, node: object) -> tuple[str, ...]:
        operator = getattr(node, "operator", "").strip()
        if operator in ("AND", "OR"):
            answers = [self._judge_node(part) for part in getattr(node, "args", ())]
            if operator == "OR" and () in answers:
                return ()
            return tuple(dict.fromkeys(code for answer in answers for code in answer))
        licence = getattr(node, "license_symbol", node)  # the licence of a WITH
        return self.codes(str(getattr(licence, "key", licence)))


def load_policy(path: Path | None = None) -> AuditPolicy:
    """Load a policy file in TOML; the built-in policy when `path` is None.

    Raises:
        UsageError: the file is not TOML, or not a policy.
        RegistryError: the file can't be read.
    """
    data = read_regular_file(path or BUILTIN_POLICY, limit=1 << 20)
    try:
        return AuditPolicy.model_validate(tomllib.loads(data.decode()))
    except ValueError as exc:  # the errors of TOML, UTF-8 and pydantic are ValueErrors
        message = f"{path}: not a policy: {first_line(exc)}"
        raise UsageError(message, "start from the example in docs/audit.md") from exc


@dataclass(frozen=True)
class AuditFinding:
    """One fact that an audit found.

    Attributes:
        severity: how much it weighs.
        code: short reason code, such as `NC` or `RGB-D`.
        message: what was found.
        where: path, with the line where there is one; empty for the whole tree.
        unblock: what would remove a blocker.
    """

    severity: Severity
    code: str
    message: str
    where: str = ""
    unblock: str = ""

    def to_json(self) -> dict[str, str]:
        """Return JSON values without the empty ones."""
        return {key: value for key, value in asdict(self).items() if value}


@dataclass(frozen=True)
class AxisReport:
    """The report of one axis: a summary for the verdict table, findings, and facts as JSON values."""

    axis: Axis
    summary: str
    findings: tuple[AuditFinding, ...]
    facts: dict[str, object]

    @property
    def blockers(self) -> tuple[AuditFinding, ...]:
        """Return the findings that block."""
        return tuple(f for f in self.findings if f.severity == "blocker")

    def to_json(self) -> dict[str, object]:
        """Return JSON values."""
        return {
            "summary": self.summary,
            "blocked": bool(self.blockers),
            "findings": [f.to_json() for f in self.findings],
            "facts": self.facts,
        }


class AxisFindings(list[AuditFinding]):
    """The findings of one axis while it is judged."""

    def add(
        self, severity: Severity, code: str, message: str, where: str = "", unblock: str = ""
    ) -> None:
        """Add a finding."""
        self.append(AuditFinding(severity, code, message, where, unblock))

    def block(self, code: str, message: str, where: str = "", unblock: str = "") -> None:
        """Add a blocker, with the hint of its code in `words.toml` unless `unblock` is given."""
        self.add("blocker", code, message, where, unblock or UNBLOCK.get(code, ""))

    def review(self, code: str, message: str, where: str = "") -> None:
        """Add a finding that a person must look at."""
        self.add("review", code, message, where)

    def note(self, code: str, message: str, where: str = "") -> None:
        """Add a finding for information."""
        self.add("note", code, message, where)

    def report(self, axis: Axis, summary: str, facts: dict[str, object]) -> AxisReport:
        """Return the axis's report, with each finding once and in order of severity."""
        ranked = sorted(dict.fromkeys(self), key=lambda f: _ORDER.index(f.severity))
        return AxisReport(axis, summary, tuple(ranked), facts)
