"""Show the results of an evaluation as Markdown and HTML tables, and the worst images as a contact sheet.

The contact sheet is one picture that shows the image, the ground truth and the map side by side. For
fixation sets it shows the image or frame with its fixations, the recorded density and the map.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from eyeline import tables
from eyeline.datasets.fixations import FixationSet, Stimulus, is_fixation_set
from eyeline.datasets.pairs import read_image, read_mask
from eyeline.errors import OutputError
from eyeline.evaluation.benchmark import MaskDataset, load_dataset
from eyeline.evaluation.gaze import EvaluateOptions, GazeJudge, judged_maps, load_judged_set
from eyeline.evaluation.metrics import Map
from eyeline.evaluation.results import EvaluationReport, GazeReport, GazeResult, GazeSet, MaskResult
from eyeline.evaluation.rows import predict
from eyeline.evaluation.statistics import ModelComparison, difference_cells, estimate_cell
from eyeline.inference.session import Session
from eyeline.parallel import usable_cores
from eyeline.registry.registry import Model
from eyeline.tables import Table

COLUMNS: Final[dict[str, str]] = {
    "max_fmeasure_dataset": "max F (dataset PR)",
    "max_fmeasure_mean": "max F (mean curve)",
    "mae": "MAE",
    "iou": "IoU",
    "smeasure": "S",
    "mean_emeasure": "mean E",
    "weighted_fmeasure": "weighted F",
    "plcc": "PLCC",
    "block_iou_16": "block IoU 16",
    "block_iou_64": "block IoU 64",
}
"""Measures in the tables and their column headings; the JSON has all of `MEASURES`."""

VIDEO_COLUMNS: Final[dict[str, str]] = {
    "iou": "IoU",
    "iou_std": "its standard deviation",
    "iou_change": "its change a frame",
    "flicker": "flicker",
    "truth_flicker": "flicker of the masks",
}
"""Fields of `VideoScore` in the tables and their column headings."""

GAZE_COLUMNS: Final[dict[str, str]] = {
    "nss": "NSS",
    "cc": "CC",
    "sim": "SIM",
    "kl": "KL",
    "auc_judd": "AUC-Judd",
    "shuffled_auc": "shuffled AUC",
    "information_gain": "IG, bits",
}
"""Measures in the tables of fixation sets and their column headings."""


def markdown(report: EvaluationReport) -> str:
    """Return Markdown tables of the results and comparisons per dataset, and notes on them."""
    lines = "".join(f"- {note}\n" for note in _all_notes(report))
    return f"{tables.markdown_tables(_tables(report))}\n{lines}"


def html_page(report: EvaluationReport) -> str:
    """Return the tables and notes of `markdown` as one self-contained HTML page."""
    return tables.html_page("Evaluation", _tables(report), _all_notes(report))


def _tables(report: EvaluationReport) -> Iterator[Table]:
    for dataset in dict.fromkeys(r.dataset_digest for r in report.results):
        results = [r for r in report.results if r.dataset_digest == dataset]
        first = results[0]
        empty = f", {len(first.empty_masks)} with an empty mask" if first.empty_masks else ""
        title = f"{first.dataset}, {len(first.images)} images{empty}"
        yield _result_table(title, results, COLUMNS)
        compared = [c for c in report.comparisons if c.dataset == first.dataset]
        if compared:
            yield _difference_table(f"{first.dataset}, differences (p)", compared, COLUMNS)
        if first.videos:
            heads = ["model", "video", "frames", *VIDEO_COLUMNS.values()]
            rows = []
            for r in results:
                for v in r.videos:
                    values = (getattr(v, name) for name in VIDEO_COLUMNS)
                    cells = ("-" if x is None else f"{x:.4f}" for x in values)
                    rows.append([r.model, v.name, str(v.frames), *cells])
            yield Table(f"{first.dataset}, videos", heads, rows)
    yield from _gaze_tables(report.gaze)


def _gaze_tables(report: GazeReport) -> Iterator[Table]:
    for s in report.sets:
        results = [r for r in report.results if r.dataset_digest == s.digest]
        compared = [c for c in report.comparisons if c.dataset == s.dataset]
        yield _result_table(_title(s), results, GAZE_COLUMNS)
        yield _difference_table(f"{s.dataset}, differences", compared, GAZE_COLUMNS)
        if s.problems:
            yield Table(
                f"{s.dataset}, problems in the data",
                ["problem", "count", "first"],
                [[p.kind, str(p.count), "; ".join(p.examples)] for p in s.problems],
            )


def _title(s: GazeSet) -> str:
    frames = f", {s.pictures} judged frames" if s.kind == "videos" else ""
    fold = f", fold {s.fold!r} of training" if s.fold else ""
    empty = f" ({s.empty} without a fixation)" if s.empty else ""
    return (
        f"{s.dataset}{fold}: {s.stimuli} {s.kind}{frames}{empty}, "
        f"{s.fixations:,} fixations of {s.viewers} viewers"
    )


def _result_table(
    title: str, results: Iterable[MaskResult | GazeResult], columns: dict[str, str]
) -> Table:
    rows = [
        [
            f"{r.model} (smoke: numbers mean nothing)" if r.smoke else r.model,
            "-" if r.parameters is None else f"{r.parameters:,}",
            f"{r.working_size[0]}x{r.working_size[1]}" if r.working_size else "-",
            "-" if r.latency_ms is None else f"{r.latency_ms:.2f}",
            *(estimate_cell(r.estimates[name]) for name in columns),
        ]
        for r in results
    ]
    return Table(title, ["model", "parameters", "size", "ms", *columns.values()], rows)


def _difference_table(
    title: str, comparisons: Iterable[ModelComparison], columns: dict[str, str]
) -> Table:
    rows = [
        [f"{c.model} - {c.other}", *difference_cells(c.differences, columns)] for c in comparisons
    ]
    return Table(title, ["model less other", *columns.values()], rows)


def _all_notes(report: EvaluationReport) -> list[str]:
    made = ", ".join(f"{name} {version}" for name, version in report.about["versions"].items())
    results: list[MaskResult | GazeResult] = [*report.results, *report.gaze.results]
    models = dict.fromkeys(
        f"{r.model} sha256 {r.model_sha256[:16]}" for r in results if r.model_sha256
    )
    sets = dict.fromkeys(f"{r.dataset} digest {r.dataset_digest[:16]}" for r in results)
    source = f"Made with {made}. {'; '.join((*models, *sets))}."
    return [*report.notes(), *report.gaze.notes(), source]


CELL = (200, 150)  # largest size of a picture in pixels; pictures keep their aspect ratio
ACROSS = 2  # examples per row, each with three pictures
GAP, LINE, FONT = 8, 20, 13  # pixels: gap between pictures, height of a text line, font size
NAME = 70  # characters of a name that fit above an example; the last ones are shown
_TRIPLE = 3 * (CELL[0] + GAP) + GAP  # pixels from one example to the next in a row
PAPER, INK = "#ffffff", "#222222"
DOT, DOT_FILL = 3, "#ff2d95"  # radius in pixels and colour of a fixation

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def sheet_format(path: str) -> str:
    """Return Pillow's name of the format for the suffix of a path.

    Raises:
        OutputError: the suffix is not that of a PNG or JPEG.
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
    """One of the worst images or frames: a label with score and name, and the three pictures."""

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

    The maps are computed again, because an evaluation does not store them.

    Args:
        report: result of `evaluate` for `models`, `data` and `options`.
        models: the models that were evaluated.
        data: paths of the datasets, in any order.
        options: options of the evaluation.
        form: format name, as `sheet_format` returns it.
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
    """Return the image, the mask and the map for each of the lowest IoU values."""
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
    """Return the largest size with this aspect ratio that fits into `CELL`, at least 1x1."""
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
    """Return image with fixations, recorded density and map for each of the lowest NSS values."""
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
    box = _box(stimulus.size)  # the model's input may have another aspect ratio than the image
    drawn = picture.convert("RGB").resize(box)
    draw = ImageDraw.Draw(drawn)
    for x, y in zip(fixations.x * box[0], fixations.y * box[1], strict=True):
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=DOT_FILL, outline=PAPER)
    shown = [_grey(m / max(float(m.max()), 1e-12)).resize(box) for m in (density, saliency)]
    return _Example(label, [drawn, *(m.convert("RGB") for m in shown)])
