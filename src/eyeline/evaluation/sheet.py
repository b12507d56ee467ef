"""The worst images of an evaluation as one picture: image, ground truth and map side by side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from eyeline.datasets import Pair, find_pairs, read_image, read_mask
from eyeline.errors import OutputError
from eyeline.evaluation.benchmark import Size, predict
from eyeline.evaluation.report import Result
from eyeline.models.registry import Model
from eyeline.saliency.session import Session

CELL = (200, 150)  # a picture's box, pixels; its aspect is kept
ACROSS = 2  # triples in a row
GAP, LINE = 8, 18  # pixels between pictures, and of a line of text
PAPER, INK = "#ffffff", "#222222"

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def sheet_format(path: str) -> str:
    """Pillow's name of the format that a suffix asks for.

    Raises:
        OutputError: it is neither PNG nor JPEG.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise OutputError(
            f"{path}: a contact sheet can't be written as {suffix or 'a file without a suffix'}",
            f"use {', '.join(FORMATS)}",
        )
    return FORMATS[suffix]


def contact_sheet(
    runs: list[tuple[Result, Model, Path]], size: Size = None, form: str = "PNG"
) -> bytes:
    """Draw the worst images by IoU of every result, one section a result.

    The maps are computed again: an evaluation keeps none.

    Args:
        runs: each result with its model and the path of its dataset.
        size: the evaluation's.
        form: see `sheet_format`.

    Returns:
        The bytes of a PNG or JPEG.
    """
    sections = [_section(result, model, path, size) for result, model, path in runs]
    width = max(s.width for s in sections)
    sheet = Image.new("RGB", (width, sum(s.height for s in sections)), PAPER)
    top = 0
    for section in sections:
        sheet.paste(section, (0, top))
        top += section.height
    buffer = io.BytesIO()
    sheet.save(buffer, form, quality=88)
    return buffer.getvalue()


def _section(result: Result, model: Model, path: Path, size: Size) -> Image.Image:
    pairs = {p.name: p for p in find_pairs(path)}
    rows = {row["name"]: row for row in result.images}
    session = Session(model, "cpu")
    down = -(-len(result.worst) // ACROSS)
    width = ACROSS * (3 * (CELL[0] + GAP) + GAP) + GAP
    height = 2 * LINE + GAP + down * (CELL[1] + LINE + GAP)
    section = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(section)
    count = len(result.worst)
    draw.text(
        (GAP, GAP),
        f"{result.model} on {result.dataset}: the {count} lowest IoU. Image | ground truth | map",
        fill=INK,
    )
    for n, name in enumerate(result.worst):
        left = GAP + n % ACROSS * (3 * (CELL[0] + GAP) + GAP)
        top = 2 * LINE + n // ACROSS * (CELL[1] + LINE + GAP)
        draw.text((left, top), f"{name}  IoU {rows[name]['iou']:.3f}", fill=INK)
        for i, picture in enumerate(_triple(session, pairs[name], size)):
            picture.thumbnail(CELL)
            section.paste(picture, (left + i * (CELL[0] + GAP), top + LINE))
    return section


def _triple(session: Session, pair: Pair, size: Size) -> list[Image.Image]:
    image = read_image(pair.image)
    levels = np.round(predict(session, image, size) * 255).astype(np.uint8)
    return [image, read_mask(pair.mask).convert("RGB"), Image.fromarray(levels).convert("RGB")]
