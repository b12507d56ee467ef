"""Draw the worst images of an evaluation as one picture: image, ground truth and map side by side.

For fixation sets these are the picture with its fixations, the recorded density and the map.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from eyeline.datasets.fixations import FixationSet, Stimulus, is_fixation_set
from eyeline.datasets.pairs import read_image, read_mask
from eyeline.errors import OutputError
from eyeline.evaluation.benchmark import MaskDataset, load_dataset
from eyeline.evaluation.gaze import EvaluateOptions, GazeJudge, judged_maps, load_judged_set
from eyeline.evaluation.metrics import Map
from eyeline.evaluation.results import EvaluationReport, GazeResult, MaskResult
from eyeline.evaluation.rows import predict
from eyeline.inference.session import Session
from eyeline.parallel import usable_cores
from eyeline.registry.registry import Model

CELL = (200, 150)  # box of a picture, pixels; pictures keep their aspect
ACROSS = 2  # triples in a row
GAP, LINE, FONT = 8, 20, 13  # pixels between pictures, per line of text, and of its letters
NAME = 70  # letters of a name that fit above a triple; its end is shown
_TRIPLE = 3 * (CELL[0] + GAP) + GAP  # pixels from triple to triple
PAPER, INK = "#ffffff", "#222222"
DOT, DOT_FILL = 3, "#ff2d95"  # a fixation: radius in pixels, and colour

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def sheet_format(path: str) -> str:
    """Return Pillow's name of the format for a suffix.

    Raises:
        OutputError: the suffix is not one of PNG or JPEG.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise OutputError(
            f"{path}: a contact sheet cannot be written as {suffix or 'a file without a suffix'}",
            f"choose one of: {', '.join(FORMATS)}",
        )
    return FORMATS[suffix]


@dataclass(frozen=True)
class _Example:
    """One of the worst images or frames: its score and name, and the pictures side by side."""

    label: str
    pictures: list[Image.Image]


def contact_sheet(
    report: EvaluationReport,
    models: Sequence[Model],
    data: Sequence[Path],
    options: EvaluateOptions,
    form: str = "PNG",
) -> bytes:
    """Draw the worst images or frames of every model on every dataset, one section per result.

    The maps are computed again, since an evaluation does not keep them.

    Args:
        report: report of the evaluation.
        models: its models.
        data: paths of its datasets, in any order.
        options: options of the evaluation.
        form: see `sheet_format`.

    Returns:
        The bytes of a PNG or JPEG.
    """
    sections = []
    by_digest = {m.sha256: m for m in models}
    sets = {
        s.digest: s for p in data if is_fixation_set(p) for s in [load_judged_set(p, options.gaze)]
    }
    masks = {d.digest: d for p in data if not is_fixation_set(p) for d in [load_dataset(p)]}
    for result in report.results:
        session = Session(by_digest[result.model_sha256], "cpu")
        examples = _masked(result, session, masks[result.dataset_digest], options)
        title = f"{result.model} on {result.dataset}: the {len(examples)} lowest IoU"
        sections.append(_section(f"{title}. Image | ground truth | map", examples))
    facts = {s.digest: s for s in report.gaze.sets}
    for gaze in report.gaze.results:
        if gaze.model_sha256 is not None:
            session = Session(by_digest[gaze.model_sha256], "cpu")
            judge = GazeJudge(
                sets[gaze.dataset_digest], facts[gaze.dataset_digest].prior, options.gaze
            )
            examples = _gazed(gaze, session, sets[gaze.dataset_digest], judge, options)
            title = f"{gaze.model} on {gaze.dataset}: the {len(examples)} lowest NSS"
            sections.append(
                _section(f"{title}. Picture with fixations | recorded density | map", examples)
            )
    width = max(s.width for s in sections)
    sheet = Image.new("RGB", (width, sum(s.height for s in sections)), PAPER)
    top = 0
    for section in sections:
        sheet.paste(section, (0, top))
        top += section.height
    buffer = io.BytesIO()
    sheet.save(buffer, form, quality=88)
    return buffer.getvalue()


def _section(title: str, examples: list[_Example]) -> Image.Image:
    heights = [
        LINE + GAP + max(picture.height for example in row for picture in example.pictures)
        for row in (examples[i : i + ACROSS] for i in range(0, len(examples), ACROSS))
    ]
    tops = [2 * LINE + sum(heights[:i]) for i in range(len(heights) + 1)]
    section = Image.new("RGB", (ACROSS * _TRIPLE + GAP, tops[-1] + LINE), PAPER)
    draw = ImageDraw.Draw(section)
    draw.text((GAP, GAP), title, fill=INK, font_size=FONT)
    for n, example in enumerate(examples):
        left, top = GAP + n % ACROSS * _TRIPLE, tops[n // ACROSS]
        draw.text((left, top), example.label, fill=INK, font_size=FONT)
        for i, picture in enumerate(example.pictures):
            section.paste(picture, (left + i * (CELL[0] + GAP), top + LINE))
    return section


def _masked(
    result: MaskResult, session: Session, dataset: MaskDataset, options: EvaluateOptions
) -> list[_Example]:
    """Return image, ground truth and map of the images of the lowest IoU."""
    pairs = {p.name: p for p in dataset.pairs}
    rows = {row["name"]: row for row in result.images}
    examples = []
    for name in result.worst:
        image, mask = read_image(pairs[name].image), read_mask(pairs[name].mask)
        saliency = predict(session, image, options.size, options.resample)
        pictures = [_contained(p) for p in (image, mask, _grey(saliency))]
        examples.append(_Example(f"IoU {rows[name]['iou']:.3f}  {name[-NAME:]}", pictures))
    return examples


def _contained(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB").resize(_box(picture.size))


def _box(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a picture that fits into a cell, at least one pixel."""
    scale = min(CELL[0] / size[0], CELL[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _grey(values: npt.NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.round(values * 255).astype(np.uint8))


def _gazed(
    result: GazeResult,
    session: Session,
    dataset: FixationSet,
    judge: GazeJudge,
    options: EvaluateOptions,
) -> list[_Example]:
    """Return picture with fixations, recorded density and map of the lowest NSS, worst first."""
    stimuli = {s.name: s for s in dataset.stimuli}
    wanted: dict[str, dict[float, float]] = {}
    for nss, name, time_ms in result.worst:
        wanted.setdefault(name, {})[time_ms] = nss
    ranked = []
    for name, scores in wanted.items():
        stimulus = stimuli[name]
        for time_ms, picture, saliency in judged_maps(
            session, stimulus, options.size, options.resample, judge, usable_cores()
        ):
            if time_ms in scores:
                where = f" at {time_ms / 1000:.2f} s" if judge.videos else ""
                label = f"NSS {scores[time_ms]:.3f}  {name[-NAME:]}{where}"
                example = _gaze_example(label, picture, saliency, stimulus, judge, time_ms)
                ranked.append((scores[time_ms], example))
    return [example for _, example in sorted(ranked, key=lambda r: (r[0], r[1].label))]


def _gaze_example(
    label: str,
    picture: Image.Image,
    saliency: Map,
    stimulus: Stimulus,
    judge: GazeJudge,
    time_ms: float,
) -> _Example:
    fixations = judge.fixations(stimulus, time_ms)
    density = judge.truth(stimulus, fixations).density
    box = _box(stimulus.size)  # a working size may squash
    drawn = picture.convert("RGB").resize(box)
    draw = ImageDraw.Draw(drawn)
    for x, y in zip(fixations.x * box[0], fixations.y * box[1], strict=True):
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=DOT_FILL, outline=PAPER)
    shown = [_grey(m / max(float(m.max()), 1e-12)).resize(box) for m in (density, saliency)]
    return _Example(label, [drawn, *(m.convert("RGB") for m in shown)])
