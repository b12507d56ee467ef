"""`eyeline evaluate`: score models on held-out datasets, with confidence intervals."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import typer

from eyeline.cli import options
from eyeline.cli.options import REQUIRED, command, group, option
from eyeline.errors import UsageError, needs_extra

if TYPE_CHECKING:
    from eyeline.datasets.fixations import Fold
    from eyeline.evaluation.rows import Resample, Size


@dataclass(frozen=True)
class EvaluateFiles:
    """The output files."""

    panel: ClassVar = "Output"
    output: str | None = option(None, "--output", "-o", help="Everything as JSON; `-` for stdout.")
    summary: str | None = option(
        None, help="That JSON without the rows of images, for a model card."
    )
    markdown: str | None = option(None, help="Tables as Markdown.")
    html: str | None = option(None, help="Tables as an HTML page.")
    contact_sheet: str | None = option(
        None, help="The 12 worst images by IoU, or by NSS for fixations: .png or .jpg."
    )


@dataclass(frozen=True)
class Gaze:
    """The options of fixation sets."""

    panel: ClassVar = "Fixation sets"
    frames: int | None = option(None, help="Judged frames per video; 24 by default.")
    temporal: options.Temporal = options.TEMPORAL
    fold: str | None = option(
        None,
        help="Judge only one fold of images: train, select or report. No gaze recipe learned from or "
        "selected an epoch by the fold `report`.",
    )
    pixels_per_degree: float | None = options.PIXELS_PER_DEGREE
    prior: list[Path] | None = option(
        None,
        help="Fixation set to fit the centre prior on, in place of OSIE, Crowd and Scene. Repeatable.",
    )


@command(
    "eyeline evaluate --model saliency_student_v4 --data ECSSD --markdown table.md",
    "eyeline evaluate --model mine.onnx --model saliency_student_v4 --data my-gaze-set",
)
def evaluate(
    data: list[Path] = option(
        REQUIRED, "--data", "-d",
        help="Folder, .tar or .zip with images/ and masks/, or with images/ or videos/ and "
        "fixations.csv. Repeatable.",
    ),
    model: list[str] | None = option(
        None, "--model", "-m", help="Registry id or path of an ONNX model. Repeatable."
    ),
    files: EvaluateFiles = group(),
    size: str | None = option(
        None,
        help="Short side in lines, WxH to squash to, or `native`; the model's own by default.",
    ),
    resample: str = option(
        "area",
        help="How images shrink: `area`, as video does, or `bilinear`, as papers of the U-2-Net line do.",
    ),
    gaze: Gaze = group(),
    registry: str | None = options.REGISTRY,
    workers: int = option(0, min=0, help="Processes; 0 = one per core."),
    resume: Path | None = option(
        None, help="Folder that keeps finished images; run the command again to resume."
    ),
    quiet: bool = options.QUIET,
) -> None:  # fmt: skip
    """Score models against masks or recorded gaze, with 95 % intervals and comparisons (extra `eval`)."""
    from eyeline.cli.progress import interruptible, item_progress
    from eyeline.files import check_outputs, write_bytes
    from eyeline.registry.registry import resolve_model

    with needs_extra("eval"):
        from eyeline.evaluation.benchmark import evaluate as library_evaluate
        from eyeline.evaluation.gaze import FRAMES, EvaluateOptions, GazeOptions
        from eyeline.evaluation.report import contact_sheet, html_page, sheet_format
        from eyeline.evaluation.report import markdown as markdown_tables
    asked = parse_size(size)
    form = sheet_format(files.contact_sheet) if files.contact_sheet else ""
    check_outputs((files.output, files.summary, files.markdown, files.html, files.contact_sheet))
    models = [resolve_model(name, registry or None) for name in model or (None,)]
    for chosen in models:
        options.warn_of_smoke(chosen)
    how = EvaluateOptions(
        size=asked, resample=parse_resample(resample), workers=workers, resume=resume,
        gaze=GazeOptions(
            frames=FRAMES if gaze.frames is None else gaze.frames, temporal=gaze.temporal,
            pixels_per_degree=gaze.pixels_per_degree,
            fold=cast("Fold | None", gaze.fold),  # GazeOptions checks the fold
        ),
        prior=tuple(gaze.prior) if gaze.prior else None,
    )  # fmt: skip
    kept = "nothing is kept; --resume FOLDER would keep finished images"
    with (
        interruptible(f"finished images are kept in {resume}" if resume else kept),
        item_progress("evaluate", quiet) as advance,
    ):
        report = library_evaluate(models, data, how, advance)
    for found in report.gaze.sets:
        for p in found.problems:
            sys.stderr.write(
                f"warning: {found.dataset}: {p.kind}: {p.count}, first {p.examples[0]}\n"
            )
    tables = markdown_tables(report)
    for path, text in (
        (files.output, report.dumps), (files.summary, report.summary),
        (files.markdown, lambda: tables), (files.html, lambda: html_page(report)),
    ):  # fmt: skip
        if path:
            write_bytes(path, text().encode())
    if files.contact_sheet:
        write_bytes(files.contact_sheet, contact_sheet(report, models, data, how, form))
    if not quiet and "-" not in (files.output, files.summary, files.markdown, files.html):
        typer.echo(tables, nl=False)


def parse_size(text: str | None) -> Size:
    """Return lines, (width, height), "native" or None.

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
            f"--size {text!r} is not a size", "write it like 192, 256x256 or native; at least 16"
        )
    return (sides[0], sides[1]) if len(sides) == 2 else sides[0]


def parse_resample(text: str) -> Resample:
    """Return the text if it is `area` or `bilinear`."""
    if text not in ("area", "bilinear"):
        raise UsageError(f"--resample {text!r} is unknown", "choose one of: area, bilinear")
    return cast("Resample", text)
