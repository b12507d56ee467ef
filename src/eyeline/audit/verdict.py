"""The audit itself: a tree, a policy, four axes, one verdict.

An audit as JSON, Markdown and text: the verdict table, then what stands behind it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyeline.audit.architecture import audit_architecture, audit_ops
from eyeline.audit.distribution import ReleaseAsset, audit_distribution
from eyeline.audit.findings import AXES, AuditFinding, AxisReport
from eyeline.audit.licence import audit_licence
from eyeline.audit.policy import AuditPolicy
from eyeline.audit.tree import GitTree, Tree
from eyeline.digests import sha256_hex
from eyeline.files import read_regular_file
from eyeline.tables import escape_markdown, markdown_table

SCHEMA = "eyeline-audit-1"


@dataclass(frozen=True)
class AuditOptions:
    """What is known beside the tree.

    Attributes:
        checkpoint: a weights file at hand: its digest pins the distribution.
        onnx: an ONNX of the model, to be scanned; a checkpoint that ends in `.onnx` serves too.
        net: name of the class, when the likeliest one is not meant.
        assets: files of the forge's releases; None when no forge was asked.
    """

    checkpoint: Path | None = None
    onnx: Path | None = None
    net: str | None = None
    assets: tuple[ReleaseAsset, ...] | None = None


@dataclass(frozen=True)
class Audit:
    """A verdict and what it stands on.

    Attributes:
        name: of the upstream.
        commit: git commit that was read, None for a folder without git.
        tree: git tree id, or `sha256:...` of a folder.
        outbound: SPDX id that the policy ships under.
        axes: reports of the four axes.
    """

    name: str
    commit: str | None
    tree: str
    outbound: str
    axes: tuple[AxisReport, ...]

    @property
    def blockers(self) -> tuple[AuditFinding, ...]:
        """What blocks, over all axes."""
        return tuple(f for axis in self.axes for f in axis.blockers)

    @property
    def admissible(self) -> bool:
        """Whether nothing blocks."""
        return not self.blockers

    def axis(self, name: str) -> AxisReport:
        """One axis's report."""
        return next(a for a in self.axes if a.axis == name)

    def to_json(self) -> dict[str, object]:
        """JSON values; the same tree, policy and files give the same."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "commit": self.commit,
            "tree": self.tree,
            "outbound": self.outbound,
            "verdict": "admissible" if self.admissible else "blocked",
            "reasons": list(dict.fromkeys(f.code for f in self.blockers)),
            "axes": {name: self.axis(name).to_json() for name in AXES},
        }


def audit(tree: Tree, policy: AuditPolicy, options: AuditOptions | None = None) -> Audit:
    """Judge an upstream.

    Args:
        tree: what to read, see `eyeline.audit.tree.open_tree`.
        policy: see `eyeline.audit.policy`.
        options: what is known beside the tree.

    Raises:
        ModelError: a tree that can't be read.
        RegistryError: a checkpoint or ONNX file that can't be read.
    """
    options = options or AuditOptions()
    if isinstance(tree, GitTree):
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


HEADINGS = ("upstream", "commit", *AXES, "verdict")


def dumps(audits: Sequence[Audit]) -> str:
    """JSON: one object, or a list of several."""
    values = [a.to_json() for a in audits]
    return (
        json.dumps(values[0] if len(values) == 1 else values, indent=1, ensure_ascii=False) + "\n"
    )


def rows(audits: Sequence[Audit]) -> list[tuple[str, ...]]:
    """Cells of the verdict table, in the order of `HEADINGS`."""
    return [
        (
            a.name,
            (a.commit or a.tree)[: 12 if a.commit else 19],
            *(_cell(a, name) for name in AXES),
            "admissible" if a.admissible else "blocked: " + ", ".join(_codes(a)),
        )
        for a in audits
    ]


def _codes(a: Audit) -> list[str]:
    return list(dict.fromkeys(f.code for f in a.blockers))


def _cell(a: Audit, name: str) -> str:
    axis = a.axis(name)
    codes = ", ".join(dict.fromkeys(f.code for f in axis.blockers))
    return f"{axis.summary} [{codes}]" if codes else axis.summary


def markdown(audits: Sequence[Audit], details: bool = True) -> str:
    """A Markdown table, and a section a repository with every blocker and what wants review."""
    lines = markdown_table(HEADINGS, rows(audits), rule=" --- ", escape=escape_markdown)
    for a in audits if details else ():
        lines += ["", f"### {escape_markdown(a.name)}", "", f"Read at {_pin(a)}.", ""]
        lines += [
            f"- **{f.severity}** {f.code}: {escape_markdown(f.message + _place(f) + _mend(f))}"
            for axis in a.axes
            for f in axis.findings
            if f.severity != "note"
        ] or ["- nothing to fix"]
    return "\n".join(lines) + "\n"


def text(a: Audit, verbose: bool = False) -> str:
    """Plain text for a terminal: the axes, what blocks and how to fix it; notes if `verbose`."""
    lines = [f"{a.name} at {_pin(a)}", ""]
    for axis in a.axes:
        lines.append(f"{axis.axis:<13} {axis.summary}")
        for f in axis.findings:
            if f.severity == "note" and not verbose:
                continue
            lines.append(f"  {f.severity:<8} {f.code}: {f.message}{_place(f)}")
            if f.unblock:
                lines.append(f"           hint: {f.unblock}")
    verdict = "admissible" if a.admissible else f"blocked: {', '.join(_codes(a))}"
    lines += ["", f"verdict: {verdict} (outbound {a.outbound})"]
    return "".join(_printable(line) + "\n" for line in lines)


def _printable(line: str) -> str:
    """Paths and sentences of an upstream can't carry terminal codes or lines of their own."""
    return "".join(c if c.isprintable() else "?" for c in line)


def _pin(a: Audit) -> str:
    return (
        f"commit {a.commit}, tree {a.tree}"
        if a.commit
        else f"tree {a.tree} (no git: not pinned to an origin)"
    )


def _place(f: AuditFinding) -> str:
    return f" ({f.where})" if f.where else ""


def _mend(f: AuditFinding) -> str:
    return f". Mend: {f.unblock}" if f.unblock else ""
