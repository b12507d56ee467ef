"""Run the four checks of an audit, and write the verdict as JSON, Markdown or text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyeline.audit._distribution import audit_distribution
from eyeline.audit._licence import audit_licence
from eyeline.audit.architecture import audit_architecture, audit_ops
from eyeline.audit.records import AXES, AuditFinding, AuditPolicy, AxisReport
from eyeline.audit.tree import ReleaseAsset, Tree
from eyeline.digests import sha256_hex
from eyeline.files import read_regular_file
from eyeline.tables import escape_markdown, markdown_table

SCHEMA = "eyeline-audit-1"


@dataclass(frozen=True)
class AuditOptions:
    """Optional inputs of an audit in addition to the tree.

    Attributes:
        checkpoint: a local weights file; the report records its digest.
        onnx: an ONNX file of the model to scan; a checkpoint that ends in `.onnx` is scanned, too.
        net: name of the network class; None searches for it.
        assets: release files that the forge lists; None if no forge was queried.
    """

    checkpoint: Path | None = None
    onnx: Path | None = None
    net: str | None = None
    assets: tuple[ReleaseAsset, ...] | None = None


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        commit: id of the git commit that was read, None for a folder without git.
        tree: git tree id, or `sha256:...` for a folder.
        outbound: SPDX id of the licence of the release.
        axes: reports of the four checks.
    """

    name: str
    commit: str | None
    tree: str
    outbound: str
    axes: tuple[AxisReport, ...]

    @property
    def blockers(self) -> tuple[AuditFinding, ...]:
        """Return the blockers of all checks."""
        return tuple(f for axis in self.axes for f in axis.blockers)

    @property
    def admissible(self) -> bool:
        """Whether there are no blockers."""
        return not self.blockers

    @property
    def reasons(self) -> list[str]:
        """Return the codes of all blockers, each once."""
        return list(dict.fromkeys(f.code for f in self.blockers))

    @property
    def verdict(self) -> str:
        """Return `admissible`, or `blocked: ` and the reasons."""
        return "admissible" if self.admissible else f"blocked: {', '.join(self.reasons)}"

    def axis(self, name: str) -> AxisReport:
        """Return the report of one check."""
        return next(a for a in self.axes if a.axis == name)

    def to_json(self) -> dict[str, object]:
        """Return JSON values; the same tree, policy and files give the same values."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "commit": self.commit,
            "tree": self.tree,
            "outbound": self.outbound,
            "verdict": "admissible" if self.admissible else "blocked",
            "reasons": self.reasons,
            "axes": {name: self.axis(name).to_json() for name in AXES},
        }


def audit(tree: Tree, policy: AuditPolicy, options: AuditOptions | None = None) -> Audit:
    """Audit an upstream project.

    Args:
        tree: files of the upstream project, from `eyeline.audit.tree.open_tree`.
        policy: rules for a release.
        options: optional inputs, such as a checkpoint.

    Raises:
        ModelError: the tree or the ONNX file can't be read.
        RegistryError: the checkpoint can't be read.
    """
    options = options or AuditOptions()
    tree.prefetch()
    pinned = None
    if options.checkpoint is not None:
        data = read_regular_file(options.checkpoint)
        pinned = (options.checkpoint.name, sha256_hex(data), len(data))
    onnx = options.onnx
    if onnx is None and options.checkpoint is not None and options.checkpoint.suffix == ".onnx":
        onnx = options.checkpoint
    architecture, net = audit_architecture(tree, policy, options.net)
    axes = (
        audit_licence(tree, policy, frozenset(net.closure) if net else frozenset()),
        audit_distribution(tree, policy, checkpoint=pinned, assets=options.assets),
        architecture,
        audit_ops(tree, net, onnx),
    )
    return Audit(tree.name, tree.commit, tree.tree_id, policy.outbound, axes)


def dumps(audits: Sequence[Audit]) -> str:
    """Return JSON: an object for one audit, a list for several."""
    values = [a.to_json() for a in audits]
    value = values[0] if len(values) == 1 else values
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _cell(axis: AxisReport) -> str:
    codes = ", ".join(dict.fromkeys(f.code for f in axis.blockers))
    return f"{axis.summary} [{codes}]" if codes else axis.summary


def markdown(audits: Sequence[Audit], details: bool = True) -> str:
    """Return a Markdown table; `details` adds the blockers and reviews of each project."""
    heads = ("upstream", "commit", *AXES, "verdict")
    pins = [a.commit[:12] if a.commit else a.tree[:19] for a in audits]
    rows = [
        (a.name, pin, *(_cell(a.axis(name)) for name in AXES), a.verdict)
        for a, pin in zip(audits, pins, strict=True)
    ]
    lines = markdown_table(heads, rows, rule=" --- ", escape=escape_markdown)
    for a in audits if details else ():
        lines += ["", f"### {escape_markdown(a.name)}", "", f"Read at {_pin(a)}.", ""]
        shown = [f for axis in a.axes for f in axis.findings if f.severity != "note"]
        for f in shown:
            hint = f". To unblock: {f.unblock}" if f.unblock else ""
            message = escape_markdown(f"{f.message}{_place(f)}{hint}")
            lines.append(f"- **{f.severity}** {f.code}: {message}")
        if not shown:
            lines.append("- nothing to fix")
    return "\n".join(lines) + "\n"


def text(a: Audit, verbose: bool = False) -> str:
    """Return plain text with the blockers and reviews of each check; `verbose` adds the notes."""
    lines = [f"{a.name} at {_pin(a)}", ""]
    for axis in a.axes:
        lines.append(f"{axis.axis:<13} {axis.summary}")
        for f in axis.findings:
            if f.severity == "note" and not verbose:
                continue
            lines.append(f"  {f.severity:<8} {f.code}: {f.message}{_place(f)}")
            if f.unblock:
                lines.append(f"           hint: {f.unblock}")
    lines += ["", f"verdict: {a.verdict} (outbound {a.outbound})"]
    # Quoted upstream text must not send control codes to the terminal or add lines.
    return "".join("".join(c if c.isprintable() else "?" for c in line) + "\n" for line in lines)


def _pin(a: Audit) -> str:
    if a.commit:
        return f"commit {a.commit}, tree {a.tree}"
    return f"tree {a.tree} (no git: not pinned to an origin)"


def _place(f: AuditFinding) -> str:
    return f" ({f.where})" if f.where else ""
