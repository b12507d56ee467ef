"""`eyeline model scan`: may this file be loaded?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from eyeline.models.scan import ScanReport


def scan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ONNX file; - for stdin.")],
    policy: Annotated[
        Path | None, typer.Option(help="A policy of your own; the built-in one otherwise.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
    static: Annotated[
        bool, typer.Option("--static", help="Only read the file; don't load it in a child process.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Nothing but the exit code.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every finding, every op, the worst case.")
    ] = False,
) -> None:
    """Scan a model file: every op, attribute, constant and tensor size against an allowlist.

    Exit code 0: admitted; 1: refused, with the first offending node; 2: nothing that can be read.

    Example:
        eyeline model scan theirs.onnx
    """
    from eyeline.models.scan import load_policy, scan_file

    report = scan_file(file, load_policy(policy), load=not static)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=1))
    elif not quiet:
        _print(report, verbose)
    if not report.admitted:
        raise typer.Exit(1)


def _print(report: ScanReport, verbose: bool) -> None:
    shown = report.findings if verbose else report.findings[:5]
    if report.admitted:
        nodes = sum(report.ops.values())
        typer.echo(f"admitted: {report.name}, {nodes} nodes of {len(report.ops)} ops")
    else:
        typer.echo(f"refused: {report.name}: {report.findings[0]}")
    for finding in shown[1:]:
        typer.echo(f"  also: {finding}")
    if len(report.findings) > len(shown):
        typer.echo(f"  and {len(report.findings) - len(shown)} more: --verbose, or --json")
    for note in report.notes:
        typer.echo(f"  note: {note}")
    if verbose:
        _print_details(report)


def _print_details(report: ScanReport) -> None:
    typer.echo(f"  sha256 {report.sha256}, {report.size:,} bytes, opset {report.opset}")
    if report.ops:
        typer.echo("  ops: " + ", ".join(f"{op} {count}" for op, count in report.ops.items()))
    if (case := report.worst_case) is not None:
        shape = "x".join(map(str, case.input))
        typer.echo(
            f"  at input {shape}: largest tensor {case.largest_tensor_bytes:,} bytes, "
            f"{case.peak_bytes:,} at once, {case.work:,} multiply-adds"
        )
    load = report.load
    typer.echo(f"  first load: {load.outcome}{f' ({load.detail})' if load.detail else ''}")
    typer.echo(f"  policy {report.policy['name']} {report.policy['version']}")
