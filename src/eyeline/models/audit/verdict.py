"""The audit itself: a tree, a policy, four axes, one verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eyeline.digest import sha256_hex
from eyeline.models.audit.architecture import audit_architecture
from eyeline.models.audit.distribution import Asset, audit_distribution
from eyeline.models.audit.findings import AXES, AxisReport, Finding
from eyeline.models.audit.licence import audit_licence
from eyeline.models.audit.ops import audit_ops
from eyeline.models.audit.policy import Policy
from eyeline.models.audit.tree import GitTree, Tree
from eyeline.models.files import read_regular_file

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
    assets: tuple[Asset, ...] | None = None


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
    def blockers(self) -> tuple[Finding, ...]:
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


def audit(tree: Tree, policy: Policy, options: AuditOptions | None = None) -> Audit:
    """Judge an upstream.

    Args:
        tree: what to read, see `eyeline.models.audit.tree.open_tree`.
        policy: see `eyeline.models.audit.policy`.
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
