"""`eyeline model audit`: may we ship it? One verdict table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.models.audit.policy import Policy
    from eyeline.models.audit.verdict import Audit, AuditOptions


def audit(
    upstream: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKOUT...",
            help="Checkout, git directory (no work tree needed), folder, or a URL. Repeatable.",
        ),
    ],
    checkpoint: Annotated[
        Path | None, typer.Option(help="A weights file at hand: its sha256 pins the distribution.")
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="An ONNX of the model: the scanner judges its ops.")
    ] = None,
    net: Annotated[
        str | None, typer.Option(help="Class of the net, when the likeliest is not the one meant.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy file (TOML); the built-in one by default.")
    ] = None,
    api: Annotated[
        str | None, typer.Option(help="Root of the forge's REST API, for a URL of your own forge.")
    ] = None,
    json_out: Annotated[
        str | None, typer.Option("--json", help="Everything as JSON; `-` for stdout.")
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(help="The verdict table as Markdown; `-` for stdout.")
    ] = None,
    details: Annotated[
        bool, typer.Option(help="In the Markdown, also list what blocks and what wants review.")
    ] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show notes too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Judge an upstream's licence, distribution, architecture and ops; exit 1 when it is blocked.

    Nothing of the checkout is imported or run. A URL is read through the forge's REST API; a token in
    EYELINE_FORGE_TOKEN or GITHUB_TOKEN raises its rate limit.

    Examples:
        eyeline model audit U-2-Net --net U2NETP --checkpoint u2netp.pth

        eyeline model audit https://github.com/xuebinqin/U-2-Net --markdown verdict.md
    """
    from eyeline.models.audit import report
    from eyeline.models.audit.policy import load_policy
    from eyeline.models.audit.verdict import AuditOptions
    from eyeline.output import write_bytes

    if len(upstream) > 1 and (checkpoint or onnx or net):
        raise UsageError(
            "--checkpoint, --onnx and --net belong to one upstream", "audit them one by one"
        )
    if json_out is not None and json_out == markdown:
        raise UsageError(f"{json_out}: two outputs of that name", "give each its own")
    rules = load_policy(policy)
    options = AuditOptions(checkpoint=checkpoint, onnx=onnx, net=net)
    audits = [_audit_one(name, api, rules, options) for name in upstream]
    if json_out is not None:
        write_bytes(json_out, report.dumps(audits).encode())
    if markdown is not None:
        write_bytes(markdown, report.markdown(audits, details).encode())
    if not quiet and "-" not in (json_out, markdown):
        typer.echo("\n".join(report.text(a, verbose) for a in audits), nl=False)
    if not all(a.admissible for a in audits):
        raise typer.Exit(1)


def _audit_one(name: str, api: str | None, policy: Policy, options: AuditOptions) -> Audit:
    from dataclasses import replace

    from eyeline.models.audit.forge import ForgeTree, is_url
    from eyeline.models.audit.tree import open_tree
    from eyeline.models.audit.verdict import audit as library_audit

    if not is_url(name):
        return library_audit(open_tree(Path(name)), policy, options)
    if sys.stderr.isatty():
        sys.stderr.write(f"reading {name} through its API\n")
    tree = ForgeTree(name, api)
    return library_audit(tree, policy, replace(options, assets=tree.assets()))
