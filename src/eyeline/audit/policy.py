"""The audit's policy: which licences go into what we ship, default deny, as data with reasons."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from eyeline.audit.licence_text import licences
from eyeline.errors import LicenceError, MissingExtraError, UsageError
from eyeline.files import read_regular_file
from eyeline.validation import Strict

DEFAULT = Path(__file__).parent / "policy.toml"


class Allowed(Strict):
    """One admitted licence.

    Attributes:
        license: SPDX id.
        reason: why it is compatible with the outbound licence.
    """

    license: str = Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")
    reason: str = Field(min_length=1)


class Statement(Strict):
    """What a person established about one upstream, with the evidence.

    Attributes:
        upstream: commit id that the statement holds for.
        covers: code, weights or both.
        license: SPDX id.
        evidence: where the rights holder said so: URL or document.
    """

    upstream: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    covers: Literal["code", "weights", "both"]
    license: str = Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")
    evidence: str = Field(min_length=1)


class AuditPolicy(Strict):
    """What may be shipped.

    Attributes:
        outbound: SPDX id of what we ship under.
        weights_without_statement: whether weights that nobody speaks of follow the code's licence.
        viewer_links: whether weights behind links that only a browser follows are admitted.
        inputs: `rgb`, or `any` to admit nets with further inputs.
        allow: the admitted licences.
        statement: evidence for single upstreams.
    """

    schema_version: Literal[1] = 1
    outbound: str
    weights_without_statement: Literal["follow-code", "deny"] = "follow-code"
    viewer_links: Literal["deny", "allow"] = "deny"
    inputs: Literal["rgb", "any"] = "rgb"
    allow: tuple[Allowed, ...] = ()
    statement: tuple[Statement, ...] = ()

    def admits(self, spdx: str) -> bool:
        """Whether a single SPDX id is admitted."""
        return any(a.license == spdx for a in self.allow)

    def codes(self, spdx: str) -> tuple[str, ...]:
        """Why an id is not admitted: `NC`, `SA`, `ND`, `COPYLEFT`, or `UNKNOWN`; empty if it is."""
        if self.admits(spdx):
            return ()
        known = licences().get(spdx)
        return (known.codes if known else ()) or ("UNKNOWN",)

    def judge(self, expression: str) -> tuple[str, ...]:
        """Reason codes of an SPDX expression; empty when it is admitted.

        `OR` takes the better side, `AND` needs both, `WITH` is admitted as its licence is: an
        exception only adds permissions.

        Raises:
            MissingExtraError: the extra `audit` is not installed and the expression is no single id.
            LicenceError: not an SPDX expression.
        """
        if expression in licences() or self.admits(expression):
            return self.codes(expression)
        try:
            from license_expression import ExpressionError, get_spdx_licensing
        except ModuleNotFoundError as exc:
            raise MissingExtraError("license_expression", "audit") from exc
        licensing = get_spdx_licensing()
        try:
            parsed = licensing.parse(expression, validate=True)
        except ExpressionError as exc:
            raise LicenceError(
                f"{expression!r} is no SPDX expression", "see spdx.org/licenses"
            ) from exc
        return self._judge_node(parsed)

    def _judge_node(self, node: object) -> tuple[str, ...]:
        operator, parts = getattr(node, "operator", ""), getattr(node, "args", ())
        if operator.strip() in ("AND", "OR"):
            answers = [self._judge_node(part) for part in parts]
            if operator.strip() == "OR" and () in answers:
                return ()
            return tuple(dict.fromkeys(code for answer in answers for code in answer))
        licence = getattr(node, "license_symbol", node)  # the licence of a WITH
        return self.codes(str(getattr(licence, "key", licence)))


def load_policy(path: Path | None = None) -> AuditPolicy:
    """The policy of a TOML file; the built-in one when None.

    Raises:
        UsageError: not TOML, or not a policy.
        RegistryError: unreadable.
    """
    data = read_regular_file(path or DEFAULT, limit=1 << 20)
    try:
        return AuditPolicy.model_validate(tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as exc:
        first = " ".join(str(exc).split())[:200]
        raise UsageError(f"{path}: not a policy: {first}", "start from docs/audit.md") from exc
