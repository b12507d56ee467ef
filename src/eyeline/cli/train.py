"""`eyeline train`: train a saliency model by a recipe."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

import typer

from eyeline.cli import options
from eyeline.cli.options import REQUIRED, argument, command, option


@command(
    "eyeline train student_v3_long --data DUTS-TR --teacher u2netp.onnx --out runs/v4",
    "eyeline train gaze_v1_teacher --data osie --data crowd --data scene --out runs/teacher",
)
def train(
    recipe: str = argument("RECIPE", "Name of a built-in recipe, or a TOML file."),
    data: list[Path] = option(
        REQUIRED,
        help="Folder, .tar or .zip with images/ and masks/, or a fixation set for a gaze recipe. "
        "Repeatable: the sets are joined.",
    ),
    out: Path = option(REQUIRED, help="Folder for checkpoints, curve and weights."),
    teacher: Path | None = option(None, help="ONNX model to learn from, such as u2netp.onnx."),
    unlabelled: Path | None = option(
        None, help="Gaze: image/mask set whose pictures the teacher labels; masks are not used."
    ),
    backbone: Path | None = option(
        None, help="Local copy of the recipe's backbone; by default it is downloaded."
    ),
    without: list[Path] | None = option(
        None, help="A test set: pictures that resemble one of its pictures are left out."
    ),
    cache: Path | None = option(None, help="Folder for decoded images."),
    start: Path | None = option(None, help="weights.pt of an earlier run or a smaller net."),
    devices: int = option(1, min=1, help="GPUs that share each batch; on a CPU, processes."),
    nodes: int = option(1, min=1, help="Machines that share each batch; each runs this command."),
    quiet: bool = options.QUIET,
    verbose: bool = option(False, "--verbose", "-v", help="Print the messages of Lightning, too."),
) -> None:
    """Train a saliency model; an interrupted run resumes where it stopped (extra `train`)."""
    from eyeline.cli.progress import item_progress
    from eyeline.errors import UsageError, needs_extra

    with needs_extra("train"):
        from eyeline.training.material import prepare_gaze, prepare_objects
        from eyeline.training.recipes import GazeRecipe, load_recipe
        from eyeline.training.trainer import fit
    if not verbose:
        _silence_lightning()
    # Lightning starts the processes of the other devices by the same command line.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    quiet = quiet or not first
    chosen = load_recipe(recipe)
    gaze = isinstance(chosen, GazeRecipe)
    foreign = {"--unlabelled": unlabelled} if not gaze else {}
    foreign |= {"--backbone": backbone} if chosen.backbone is None else {}
    foreign |= {"--without": without[0]} if gaze and without else {}
    if unused := [name for name, value in foreign.items() if value is not None]:
        raise UsageError(
            f"{unused[0]} has no effect with recipe {chosen.name} (task: {chosen.task})",
            "leave the option out",
        )
    place = cache or out / "cache"
    with item_progress("finding pictures", quiet) as advance:
        if isinstance(chosen, GazeRecipe):
            material = prepare_gaze(
                chosen, data, place, backbone=backbone, unlabelled=unlabelled, teacher=teacher,
                on_step=advance,
            )  # fmt: skip
        else:
            material = prepare_objects(
                chosen, data, place, without=without or (), teacher=teacher, backbone=backbone,
                on_step=advance,
            )  # fmt: skip
    if not quiet:
        learned = int(material.arrays.train.sum())
        dropped = material.facts.get("dropped", 0)
        typer.echo(
            f"{chosen.name}: {learned:,} pictures to learn from, "
            f"{len(material.arrays.train) - learned:,} to select the epoch by"
            + (f"; {dropped:,} repeat others and are left out" if dropped else ""),
            err=True,
        )
    result = fit(
        chosen, material, out, start=start, devices=devices, nodes=nodes,
        progress=not quiet and sys.stderr.isatty(),
    )  # fmt: skip
    if first:
        typer.echo(f"wrote {result.weights} and {result.record}")


def _silence_lightning() -> None:
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.")
