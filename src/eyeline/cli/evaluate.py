"""`eyeline evaluate`: models on held-out datasets, with intervals."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from eyeline.cli import options
from eyeline.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from eyeline.datasets.fixations import Fold
    from eyeline.evaluation.rows import Resample, Size


def evaluate(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            "-d",
            help="Folder, .tar or .zip with images/ and masks/, or with images/ or videos/ and "
            "fixations.csv. Repeatable.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Registry id or path of an ONNX model. Repeatable."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Everything as JSON; `-` for stdout."),
    ] = None,
    summary: Annotated[
        str | None, typer.Option(help="The same without each image's row, for a model card.")
    ] = None,
    markdown: Annotated[str | None, typer.Option(help="Tables as Markdown.")] = None,
    html: Annotated[str | None, typer.Option(help="Tables as a page.")] = None,
    contact_sheet: Annotated[
        str | None,
        typer.Option(help="The worst 12 by IoU, or by NSS for fixations: .png or .jpg."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Short side in lines, WxH to squash to, or `native`; the model's own by default."
        ),
    ] = None,
    resample: Annotated[
        str,
        typer.Option(
            help="How images shrink: `area`, as video does, or `bilinear`, as papers of the "
            "U-2-Net line do."
        ),
    ] = "area",
    frames: Annotated[
        int | None,
        typer.Option(help="Judged frames per video of a fixation set; 24 by default."),
    ] = None,
    temporal: options.Temporal = "model",
    fold: Annotated[
        str | None,
        typer.Option(
            help="Judge only one fold of fixation sets of images: train, select or report. No gaze recipe "
            "learned from or selected an epoch by the fold `report`."
        ),
    ] = None,
    pixels_per_degree: Annotated[
        float | None,
        typer.Option(
            help="Pixels of the images or videos per degree of visual angle: the recorded density is then "
            "blurred by 1 degree. Without it, the blur is 3 % of the width."
        ),
    ] = None,
    prior: Annotated[
        list[Path] | None,
        typer.Option(
            help="Fixation set to fit the centre prior on, in place of OSIE, Crowd and Scene. "
            "Repeatable."
        ),
    ] = None,
    registry: Annotated[
        str | None, typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one per core.")] = 0,
    resume: Annotated[
        Path | None, typer.Option(help="Folder that keeps finished images: run again to go on.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Score models against masks or recorded gaze, with 95 % intervals and comparisons (extra `eval`).

    Examples:
        eyeline evaluate --model saliency_student_v4 --data ECSSD --markdown table.md
        eyeline evaluate --model mine.onnx --model saliency_student_v4 --data my-gaze-set
    """
    from eyeline.cli.progress import InterruptShield, item_progress
    from eyeline.files import write_bytes
    from eyeline.registry.registry import resolve_model

    try:
        from eyeline.evaluation.benchmark import EvaluateOptions
        from eyeline.evaluation.benchmark import evaluate as library_evaluate
        from eyeline.evaluation.gaze import FRAMES, GazeOptions
        from eyeline.evaluation.report import html_page
        from eyeline.evaluation.report import markdown as markdown_tables
        from eyeline.evaluation.sheet import contact_sheet as draw_sheet
        from eyeline.evaluation.sheet import sheet_format
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "pillow", "eval") from exc
    asked = parse_size(size)
    form = sheet_format(contact_sheet) if contact_sheet else ""
    _check_places([output, summary, markdown, html, contact_sheet])
    place = Path(registry) if registry else None
    models = [resolve_model(name, place) for name in model or ()] or [resolve_model(None, place)]
    for chosen in models:
        options.warn_of_smoke(chosen)
    how = EvaluateOptions(
        size=asked,
        resample=parse_resample(resample),
        workers=workers,
        resume=resume,
        gaze=GazeOptions(
            frames=FRAMES if frames is None else frames,
            temporal=temporal,
            pixels_per_degree=pixels_per_degree,
            fold=cast("Fold | None", fold),  # checked there
        ),
        prior=tuple(prior) if prior else None,
    )
    InterruptShield()
    try:
        with item_progress("evaluate", quiet) as advance:
            report = library_evaluate(models, data, how, advance)
    except KeyboardInterrupt:
        kept = (
            f"finished images are kept in {resume}" if resume else "nothing is kept: see --resume"
        )
        sys.stderr.write(f"interrupted: {kept}\n")
        raise typer.Exit(130) from None
    for found in report.gaze.sets:
        for p in found.problems:
            sys.stderr.write(
                f"warning: {found.dataset}: {p.kind}: {p.count}, first {p.examples[0]}\n"
            )
    tables = markdown_tables(report)
    if output:
        write_bytes(output, report.dumps().encode())
    if summary:
        write_bytes(summary, report.summary().encode())
    if markdown:
        write_bytes(markdown, tables.encode())
    if html:
        write_bytes(html, html_page(report).encode())
    if contact_sheet:
        write_bytes(contact_sheet, draw_sheet(report, models, data, how, form))
    if not quiet and "-" not in (output, summary, markdown, html):
        typer.echo(tables, nl=False)


def parse_size(text: str | None) -> Size:
    """Lines, WxH, `native`, or None.

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    if text == "native":
        return "native"
    match = re.fullmatch(r"(\d{2,4})(?:x(\d{2,4}))?", text)
    sides = [int(side) for side in match.groups() if side] if match else []
    if not sides or min(sides) < 16:
        raise UsageError(
            f"--size {text!r} is no size", "for example 192, 256x256 or native; 16 or more"
        )
    return (sides[0], sides[1]) if len(sides) == 2 else sides[0]


def parse_resample(text: str) -> Resample:
    """`area` or `bilinear`.

    Raises:
        UsageError: anything else.
    """
    known: dict[str, Resample] = {"area": "area", "bilinear": "bilinear"}
    if text not in known:
        raise UsageError(f"--resample {text!r} is unknown", "area or bilinear")
    return known[text]


def _check_places(places: list[str | None]) -> None:
    """Find before the work what would lose it at the end."""
    named = [p for p in places if p]
    for path in named:
        if named.count(path) > 1:
            raise UsageError(f"{path}: two outputs of that name", "give each its own")
        folder = Path(path).parent
        if path != "-" and not folder.is_dir():
            raise UsageError(f"{path}: its folder does not exist", "make it first")
        if path != "-" and (Path(path).is_dir() or not os.access(folder, os.W_OK)):
            raise UsageError(f"{path}: can't be written", "name a file in a folder of yours")
