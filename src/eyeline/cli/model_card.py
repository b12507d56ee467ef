"""`eyeline model card`: a card made of its sources, or checked against them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def card(
    model: Annotated[str, typer.Argument(metavar="ID", help="Registry id.")],
    sources: Annotated[
        Path, typer.Option(help="Folder with ID.toml, ID.run.json and ID.evaluation.json.")
    ] = Path("docs/models"),
    output: Annotated[str, typer.Option("--output", "-o", help="The card; `-` for stdout.")] = "-",
    check: Annotated[
        Path | None,
        typer.Option(help="Compare this card with its sources; exit 1 when it no longer matches."),
    ] = None,
    registry: Annotated[
        str | None, typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder.")
    ] = None,
) -> None:
    """Make a model's card from its record, scan, run record and evaluation; or check one.

    Examples:
        eyeline model card saliency_student_v4 -o docs/models/saliency_student_v4.md
        eyeline model card saliency_student_v4 --check docs/models/saliency_student_v4.md
    """
    from eyeline.errors import RegistryError
    from eyeline.models.card import check_card, make_card
    from eyeline.models.registry import Registry
    from eyeline.output import write_bytes

    chosen = Registry(Path(registry) if registry else None).get(model)
    if check is None:
        write_bytes(output, make_card(chosen, sources).encode())
        return
    try:
        text = check.read_text()
    except OSError as exc:
        raise RegistryError(f"{check}: can't be read: {exc.strerror}", "make it first") from exc
    if difference := check_card(text, chosen, sources):
        typer.echo("\n".join(difference))
        sys.stderr.write(f"{check}: no longer what its sources say\n")
        raise typer.Exit(1)
    typer.echo(f"{check}: matches its sources")
