"""`eyeline model`: the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.cli.model_audit import audit
from eyeline.cli.model_card import card
from eyeline.cli.model_export import export
from eyeline.cli.model_fetch import fetch
from eyeline.cli.model_quantize import quantize
from eyeline.cli.model_registry import add, check, promote, remove, schema
from eyeline.cli.model_scan import scan
from eyeline.cli.model_sign import keygen, sign, verify

if TYPE_CHECKING:
    from eyeline.models.records import IoSpec

app = typer.Typer(help="Look at the models of the registry.", no_args_is_help=True)
app.command()(scan)
for command in (keygen, sign, verify):
    app.command()(command)
app.command()(audit)
app.command()(card)
app.command()(export)
app.command()(quantize)
app.command()(fetch)
for managing in (add, remove, check, promote, schema):
    app.command()(managing)

RegistryOption = Annotated[
    str | None, typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder.")
]


@app.command("list")
def list_models(
    registry: RegistryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """List every model: id, task, role, parameters, working lines, licence.

    Example:
        eyeline model list
    """
    from eyeline.models.registry import Registry

    records = [m.record for m in Registry(Path(registry) if registry else None) if m.record]
    if as_json:
        typer.echo(json.dumps([r.model_dump() for r in records], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("id", "task", "role"):
        table.add_column(name, no_wrap=True)
    for name in ("parameters", "lines"):
        table.add_column(name, justify="right")
    table.add_column("licence")
    for r in records:
        table.add_row(r.id, r.task, r.role, f"{r.parameters:,}", _lines(r.io), r.license)
    Console().print(table)


def _lines(io: IoSpec) -> str:
    """Working size of a model: lines of the short side, or the size it is squashed to."""
    return "{}x{}".format(*io.squash) if io.squash else str(io.working_lines)


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="ID", help="Registry id.")],
    registry: RegistryOption = None,
) -> None:
    """Show one model's record as JSON, after checking its bytes against its digest.

    Example:
        eyeline model show placeholder
    """
    from eyeline.models.registry import Registry

    found = Registry(Path(registry) if registry else None).get(model)
    record = found.record
    size = len(found.data)  # reads and verifies
    fields = record.model_dump() if record else {}
    typer.echo(json.dumps({**fields, "path": str(found.path), "bytes": size}, indent=1))
