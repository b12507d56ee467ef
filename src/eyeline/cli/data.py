"""`eyeline data`: which datasets there are, and how to get one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List datasets, fetch one.", no_args_is_help=True)


@app.command("list")
def list_datasets() -> None:
    """List the datasets of the catalogue with their terms.

    Example:
        eyeline data list
    """
    from eyeline.datasets.catalogue import catalogue

    for name, entry in catalogue().items():
        how = f"{entry.size / 1e6:,.0f} MB" if entry.size else f"see {entry.page}"
        typer.echo(f"{name}: {entry.title} ({entry.use}; {how})\n    terms: {entry.terms}")


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="Id, as `eyeline data list` prints it.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Name of the archive [ID.zip].")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="Another address of the same bytes.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="The terms are accepted.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Fetch a dataset from its authors: terms first, resumed after a drop, checked by digest.

    Example:
        eyeline data fetch duts-tr --yes -o DUTS-TR.zip
    """
    from eyeline.cli.progress import item_progress
    from eyeline.datasets.catalogue import fetch as library_fetch
    from eyeline.datasets.catalogue import find_entry
    from eyeline.errors import UsageError

    entry = find_entry(name)
    sys.stderr.write(f"{entry.title}\n{entry.paper}\nterms: {entry.terms}\n{entry.page}\n")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("the terms were not accepted", "read them above, then add --yes")
        typer.confirm("Do you accept these terms?", abort=True, err=True)
    target = output or Path(f"{name}.zip")
    with item_progress("fetch", quiet) as advance:
        library_fetch(entry, target, lambda done, total: advance(name, done, total), mirror)
    typer.echo(f"wrote {target}")
