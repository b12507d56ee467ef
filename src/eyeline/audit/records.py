"""The policy of an audit, its findings, and the report of one check.

The policy lists the licences that a release may contain; all other licences are rejected. In the
names of the types, a check is called an axis.
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
"""Keywords that the checks search for."""
UNBLOCK: dict[str, str] = WORDS["unblock"]
BUILTIN_POLICY = Path(__file__).with_name("policy.toml")

Axis = Literal["licence", "distribution", "architecture", "ops"]
AXES: tuple[Axis, ...] = ("licence", "distribution", "architecture", "ops")

Severity = Literal["blocker", "review", "note"]
"""`blocker`: the model must not be released. `review`: a person must decide. `note`: information."""
_ORDER = ("blocker", "review", "note")


class AllowedLicence(Strict):
    """A licence that a release may contain, with the reason why it is compatible."""

    license: str = Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")
    reason: str = Field(min_length=1)


class LicenceEvidence(Strict):
    """A licence that a person has confirmed for one commit of an upstream project.

    `upstream` is the id of this commit. `evidence` is the URL or document in which the rights holder
    states the licence.
    """

    upstream: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    covers: Literal["code", "weights", "both"]
    license: str = Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")
    evidence: str = Field(min_length=1)


class AuditPolicy(Strict):
    """The rules for a release.

    Attributes:
        outbound: SPDX id of the licence of the release.
        weights_without_statement: weights without a stated licence have the licence of the code
            (`follow-code`), or none (`deny`).
        viewer_links: whether weights may be behind links that need a browser, such as Google Drive.
        inputs: `rgb`, or `any` to allow networks with other inputs.
        allow: the licences that a release may contain.
        statement: licences that a person has confirmed for single upstream projects.
    """

    schema_version: Literal[1] = 1
    outbound: str
    weights_without_statement: Literal["follow-code", "deny"] = "follow-code"
    viewer_links: Literal["deny", "allow"] = "deny"
    inputs: Literal["rgb", "any"] = "rgb"
    allow: tuple[AllowedLicence, ...] = ()
    statement: tuple[LicenceEvidence, ...] = ()

    def codes(self, spdx: str) -> tuple[str, ...]:
        """Return the reasons against an SPDX id (`NC`, `SA`, ... or `UNKNOWN`); () if it is allowed."""
        if any(a.license == spdx for a in self.allow):
            return ()
        known = licences().get(spdx)
        return (known.codes if known else ()) or ("UNKNOWN",)

    def judge(self, expression: str) -> tuple[str, ...]:
        """Return the reasons against an SPDX expression; () if it is allowed.

        An `OR` needs one allowed side, an `AND` needs both. The exception of a `WITH` is ignored,
        because an exception only adds permissions.

        Raises:
            MissingExtraError: the expression is not a single id, and the extra `audit` is missing.
            LicenceError: the expression is not a valid SPDX expression.
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
                f"{expression!r} is not an SPDX expression",
                "give an id of spdx.org/licenses, such as Apache-2.0",
            ) from exc
        return self._judge_node(parsed)

    def _judge_node(self, node: object) -> tuple[str, ...]:
        operator = getattr(node, "operator", "").strip()
        if operator in ("AND", "OR"):
            answers = [self._judge_node(part) for part in getattr(node, "args", ())]
            if operator == "OR" and () in answers:
                return ()
            return tuple(dict.fromkeys(code for answer in answers for code in answer))
        licence = getattr(node, "license_symbol", node)  # the licence before WITH
        return self.codes(str(getattr(licence, "key", licence)))


def load_policy(path: Path | None = None) -> AuditPolicy:
    """Load a policy file in TOML, or the built-in policy if `path` is None.

    Raises:
        UsageError: the file is not a valid policy.
        RegistryError: the file can't be read.
    """
    data = read_regular_file(path or BUILTIN_POLICY, limit=1 << 20)
    try:
        return AuditPolicy.model_validate(tomllib.loads(data.decode()))
    except ValueError as exc:  # the base class of TOML, UTF-8 and pydantic errors
        message = f"{path}: the file is not an audit policy: {first_line(exc)}"
        raise UsageError(message, "start from the example in docs/audit.md") from exc


@dataclass(frozen=True)
class AuditFinding:
    """One finding of an audit.

    Attributes:
        severity: see `Severity`.
        code: reason code, such as `NC` or `RGB-D`.
        message: description of the finding.
        where: path, or `path:line`; empty for the whole tree.
        unblock: for a blocker, a change that would remove it.
    """

    severity: Severity
    code: str
    message: str
    where: str = ""
    unblock: str = ""

    def to_json(self) -> dict[str, str]:
        """Return JSON values; empty fields are left out."""
        return {key: value for key, value in asdict(self).items() if value}


@dataclass(frozen=True)
class AxisReport:
    """The report of one check: a summary for the verdict table, findings, and facts as JSON values."""

    axis: Axis
    summary: str
    findings: tuple[AuditFinding, ...]
    facts: dict[str, object]

    @property
    def blockers(self) -> tuple[AuditFinding, ...]:
        """Return the findings that are blockers."""
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
    """A list that collects the findings of one check."""

    def add(
        self, severity: Severity, code: str, message: str, where: str = "", unblock: str = ""
    ) -> None:
        """Add a finding."""
        self.append(AuditFinding(severity, code, message, where, unblock))

    def block(self, code: str, message: str, where: str = "", unblock: str = "") -> None:
        """Add a blocker; without `unblock`, the hint is the one for the code in `words.toml`."""
        self.add("blocker", code, message, where, unblock or UNBLOCK.get(code, ""))

    def review(self, code: str, message: str, where: str = "") -> None:
        """Add a finding about which a person must decide."""
        self.add("review", code, message, where)

    def note(self, code: str, message: str, where: str = "") -> None:
        """Add a finding for information."""
        self.add("note", code, message, where)

    def report(self, axis: Axis, summary: str, facts: dict[str, object]) -> AxisReport:
        """Return the report of the check; duplicate findings are removed, blockers come first."""
        ranked = sorted(dict.fromkeys(self), key=lambda f: _ORDER.index(f.severity))
        return AxisReport(axis, summary, tuple(ranked), facts)
