"""`eyeline evaluate`: models on held-out datasets, with intervals."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from eyeline.evaluation.scoring import Resample, Size


def evaluate(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data", "-d", help="Folder, .tar or .zip with images/ and masks/. Repeatable."
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
        str | None, typer.Option(help="The 12 worst images by IoU: .png or .jpg.")
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
    registry: Annotated[
        str | None, typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one per core.")] = 0,
    resume: Annotated[
        Path | None, typer.Option(help="Folder that keeps finished images: run again to go on.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Score models against ground truth, with 95 % intervals and paired comparisons (extra `eval`).

    Example:
        eyeline evaluate --model saliency_student_v4 --data ECSSD --markdown table.md
    """
    from eyeline.cli.interrupts import InterruptShield
    from eyeline.cli.progress import item_progress
    from eyeline.models.registry import resolve_model
    from eyeline.output import write_bytes

    try:
        from eyeline.evaluation.benchmark import EvaluateOptions
        from eyeline.evaluation.benchmark import evaluate as library_evaluate
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
        if chosen.smoke:
            sys.stderr.write(f"warning: {chosen.id} is a smoke model: its numbers mean nothing\n")
    options = EvaluateOptions(
        size=asked, resample=parse_resample(resample), workers=workers, resume=resume
    )
    InterruptShield()
    try:
        with item_progress("evaluate", quiet) as advance:
            report = library_evaluate(models, data, options, advance)
    except KeyboardInterrupt:
        kept = (
            f"finished images are kept in {resume}" if resume else "nothing is kept: see --resume"
        )
        sys.stderr.write(f"interrupted: {kept}\n")
        raise typer.Exit(130) from None
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
        runs = [(path, chosen) for path in data for chosen in models]
        sections = [(r, m, p) for r, (p, m) in zip(report.results, runs, strict=True)]
        write_bytes(contact_sheet, draw_sheet(sections, asked, form, options.resample))
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
