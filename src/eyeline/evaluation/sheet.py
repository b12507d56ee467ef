"""The worst images of an evaluation as one picture: image, ground truth and map side by side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from eyeline.datasets.pairs import Pair, find_pairs, read_image, read_mask
from eyeline.errors import OutputError
from eyeline.evaluation.report import Result
from eyeline.evaluation.scoring import Resample, Size, predict
from eyeline.models.registry import Model
from eyeline.saliency.session import Session

CELL = (200, 150)  # a picture's box, pixels; its aspect is kept
ACROSS = 2  # triples in a row
GAP, LINE, FONT = 8, 20, 13  # pixels: between pictures, of a line of text, of its letters
NAME = 70  # letters of a name that fit above a triple; its end tells more
_TRIPLE = 3 * (CELL[0] + GAP) + GAP  # pixels from triple to triple
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
    runs: list[tuple[Result, Model, Path]],
    size: Size = None,
    form: str = "PNG",
    resample: Resample = "area",
) -> bytes:
    """Draw the worst images by IoU of every result, one section a result.

    The maps are computed again: an evaluation keeps none.

    Args:
        runs: each result with its model and the path of its dataset.
        size: the evaluation's.
        form: see `sheet_format`.
        resample: the evaluation's.

    Returns:
        The bytes of a PNG or JPEG.
    """
    sections = [_section(result, model, path, size, resample) for result, model, path in runs]
    width = max(s.width for s in sections)
    sheet = Image.new("RGB", (width, sum(s.height for s in sections)), PAPER)
    top = 0
    for section in sections:
        sheet.paste(section, (0, top))
        top += section.height
    buffer = io.BytesIO()
    sheet.save(buffer, form, quality=88)
    return buffer.getvalue()


def _section(
    result: Result, model: Model, path: Path, size: Size, resample: Resample
) -> Image.Image:
    pairs = {p.name: p for p in find_pairs(path)}
    rows = {row["name"]: row for row in result.images}
    session = Session(model, "cpu")
    triples = [_triple(session, pairs[name], size, resample) for name in result.worst]
    heights = [
        LINE + GAP + max(picture.height for triple in row for picture in triple)
        for row in (triples[i : i + ACROSS] for i in range(0, len(triples), ACROSS))
    ]
    tops = [2 * LINE + sum(heights[:i]) for i in range(len(heights) + 1)]
    section = Image.new("RGB", (ACROSS * _TRIPLE + GAP, tops[-1] + LINE), PAPER)
    draw = ImageDraw.Draw(section)
    title = f"{result.model} on {result.dataset}: the {len(triples)} lowest IoU"
    draw.text((GAP, GAP), f"{title}. Image | ground truth | map", fill=INK, font_size=FONT)
    for n, (name, triple) in enumerate(zip(result.worst, triples, strict=True)):
        left, top = GAP + n % ACROSS * _TRIPLE, tops[n // ACROSS]
        label = f"IoU {rows[name]['iou']:.3f}  {name[-NAME:]}"
        draw.text((left, top), label, fill=INK, font_size=FONT)
        for i, picture in enumerate(triple):
            section.paste(picture, (left + i * (CELL[0] + GAP), top + LINE))
    return section


def _triple(session: Session, pair: Pair, size: Size, resample: Resample) -> list[Image.Image]:
    """Image, ground truth and map in colour, each made to fit its box."""
    image, mask = read_image(pair.image), read_mask(pair.mask)
    levels = np.round(predict(session, image, size, resample) * 255).astype(np.uint8)
    return [
        ImageOps.contain(picture.convert("RGB"), CELL)
        for picture in (image, mask, Image.fromarray(levels))
    ]
