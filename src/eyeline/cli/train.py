"""`eyeline train`: a recipe and a dataset to weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a built-in recipe, or a TOML file.")],
    data: Annotated[
        list[Path],
        typer.Option(help="Folder, .tar or .zip with images/ and masks/. Repeatable: a union."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, curve and weights.")],
    teacher: Annotated[
        Path | None,
        typer.Option(help="ONNX file to learn from, as u2netp.onnx; its maps are cached."),
    ] = None,
    without: Annotated[
        list[Path] | None,
        typer.Option(help="A test set: pictures that resemble one of its own are left out."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded images.")] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="weights.pt of an earlier run, of this net or a smaller one."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train a saliency model; an interrupted run goes on where it stopped (extra `train`).

    Example:
        eyeline train student_v3_long --data DUTS-TR --teacher u2netp.onnx --out runs/v4
    """
    from eyeline.errors import MissingExtraError

    try:
        from eyeline.training.recipes import load_recipe
        from eyeline.training.trainer import train as library_train
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "torch", "train") from exc
    result = library_train(
        load_recipe(recipe), data, out, without=without or (), teacher=teacher, cache=cache,
        start=start, progress=not quiet,
    )  # fmt: skip
    typer.echo(f"wrote {result.weights} and {result.record}")
