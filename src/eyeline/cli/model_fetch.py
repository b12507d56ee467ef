"""`eyeline model fetch`: a mirror recipe run to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eyeline.errors import MissingExtraError, UsageError


def fetch(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Built-in recipe's id, or a .toml of that form.")
    ],
    registry: Annotated[
        str | None,
        typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder; made when absent."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="The pinned asset as a file: nothing is downloaded."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Another address of the same bytes.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Get a reference model: download by digest, mirror, scan, parity, register (extra `audit`).

    A download goes on where it stopped. What fails a check is not registered.

    Examples:
        eyeline model fetch u2netp_mirror_v1 --registry models

        eyeline model fetch u2netp_mirror_v1 --from u2netp.onnx --registry models
    """
    from eyeline.cli.progress import item_progress

    if not registry:
        raise UsageError("no registry to put it in", "--registry FOLDER, or EYELINE_REGISTRY")
    if source and url:
        raise UsageError("--from and --url are two sources", "give one of them")
    try:
        from eyeline.models.fetch import fetch_mirror
        from eyeline.models.mirror_recipe import load_recipe
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "onnx", "audit") from exc
    chosen = load_recipe(recipe)
    with item_progress("fetch", quiet) as advance:
        done = fetch_mirror(chosen, Path(registry), source=source, url=url, on_step=advance)
    if not quiet:
        typer.echo(f"registered {done.record.id} ({done.record.role}) in {registry}")
        typer.echo(f"sha256 {done.record.sha256}")
        typer.echo(f"eyeline extract clip.mp4 --model {done.record.id} --registry {registry}")
