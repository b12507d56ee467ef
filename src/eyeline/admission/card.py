"""Write and check model cards: Markdown files whose numbers all come from the sources below.

| source | content |
|---|---|
| registry record | id, task, role, licence, opset, parameters, I/O spec, digest |
| scan of the ONNX file | operators, worst-case memory, size |
| `ID.toml` | texts: what the model does, its limits, when to use another model |
| `ID.run.json` | recipe, data, versions and device; written by `eyeline train` |
| `ID.evaluation.json` | quality; written by `eyeline evaluate --summary` |
| `ID.quantization.json` | origin and loss of an INT8 model; written by `eyeline model quantize --report` |

The last four sources are files in the folder of the card. `ID.toml` is required, and
`ID.quantization.json` is required for a quantised model.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eyeline.datasets.catalogue import catalogue
from eyeline.errors import RegistryError
from eyeline.evaluation.results import EvaluationRow, EvaluationTables, GazeTables, read_evaluation
from eyeline.evaluation.statistics import ModelComparison, estimate_cell
from eyeline.registry.records import IoSpec, ModelRecord, Task
from eyeline.registry.registry import Model
from eyeline.scan import ScanReport, scan
from eyeline.tables import markdown_table
from eyeline.validation import Strict, read_record


class CardText(Strict):
    """The texts of a card, which a person writes.

    Attributes:
        does: what the model does, in plain words.
        meaning: what a value of the saliency map means.
        data: ids of the training datasets, see `eyeline.datasets.catalogue`.
        calibration: id of the calibration dataset of a quantised model.
        training: facts about the training that are not in the run record.
        limits: inputs on which the model fails.
        instead: cases in which another model is better.
    """

    does: str
    meaning: str
    data: tuple[str, ...] = ()
    calibration: str = ""
    training: str = ""
    limits: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()


QUALITY = {
    "max_fmeasure_dataset": "max F (dataset PR)",
    "max_fmeasure_mean": "max F (mean curve)",
    "mae": "MAE",
    "iou": "IoU",
    "smeasure": "S",
}
"""Columns of the quality table of a model of objects: name in the evaluation, and column title."""

GAZE_QUALITY = {
    "nss": "NSS",
    "cc": "CC",
    "sim": "SIM",
    "kl": "KL, nats",
    "auc_judd": "AUC-Judd",
    "shuffled_auc": "shuffled AUC",
    "information_gain": "information gain, bits",
}
"""Columns of the quality table of a gaze model: name in the evaluation, and column title."""

COMPARED: dict[Task, tuple[str, ...]] = {
    "objects": ("max_fmeasure_dataset",),
    "gaze": ("nss", "information_gain"),
}
"""Per task, the measures for which the card lists comparisons with other models."""


def make_card(model: Model, sources: Path) -> str:
    """Return the card of a registered model as Markdown.

    Args:
        model: a model of a registry.
        sources: folder with `ID.toml` and the optional sources.

    Raises:
        RegistryError: the model is not registered, a source is invalid, or the evaluation is that of
            another file.
    """
    record = model.record
    if record is None:
        raise RegistryError(
            f"{model.id}: the model is not registered, so it can't have a card",
            "register it with eyeline model add",
        )
    words = sources / f"{record.id}.toml"
    if not words.exists():
        raise RegistryError(
            f"{words}: the file does not exist",
            "create this file with the texts for the model card",
        )
    text = read_record(
        CardText, words, "the texts of a card", hint="fix the file", error=RegistryError
    )
    report = scan(model.data, name=record.file)
    evaluation, run = (sources / f"{record.id}.{kind}.json" for kind in ("evaluation", "run"))
    with _as_written(evaluation, "eyeline evaluate --summary"):
        quality = _quality(model, evaluation)
    with _as_written(run, "eyeline train"):
        provenance = _provenance(record, text, _json(run), sources)
    parts = [
        f"# {record.id}",
        f"**What it does.** {text.does}",
        f"**Output.** `saliency_map`, float32 (N, 1, H, W) in [0, 1]. {text.meaning}",
        _contract(record, model, report),
        f"**Example.**\n\n    eyeline extract clip.mp4 --model {record.id} -o clip.json",
        "## Quality\n\n" + quality,
        *_quantization(model, text, report, sources / f"{record.id}.quantization.json"),
        "## Provenance\n\n" + provenance,
        "## Licence\n\n" + _licence(record, text),
        "## Operators\n\n" + _operators(report),
        "## Limits\n\n" + _items(text.limits),
        "## When to use another model\n\n" + _items(text.instead),
    ]
    return "\n\n".join(parts) + "\n"


@contextlib.contextmanager
def _as_written(path: Path, command: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError) as exc:
        raise RegistryError(
            f"{path}: the file is not in the form that {command} writes: {exc!r}",
            f"write it again with {command}",
        ) from exc


def check_card(card: str, model: Model, sources: Path) -> list[str]:
    """Compare a card with its sources; return the differences as the lines of a unified diff.

    Raises:
        RegistryError: see `make_card`.
    """
    fresh = make_card(model, sources)
    lines = difflib.unified_diff(
        card.splitlines(), fresh.splitlines(), "the card", "its sources", n=0, lineterm=""
    )
    return list(lines)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise RegistryError(f"{path}: can't be read: {exc}", "write the file again") from exc
    return value


def _items(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "The card's author stated nothing."


def _contract(record: ModelRecord, model: Model, report: ScanReport) -> str:
    worst, memory = report.worst_case, ""
    if worst:
        memory = (
            f" At {worst.input[3]}x{worst.input[2]}, the largest input that the scanner computes, all "
            f"tensors together take at most {worst.peak_bytes / 2**20:,.0f} MiB."
        )
    kind = "RGB" if record.io.channels == "rgb" else "luma three times"
    scale = "255" if record.io.scale == "255" else "the frame's own maximum"
    return (
        f"**Deployment contract.** ONNX opset {record.opset}; `input` float32 (N, 3, H, W), "
        f"{kind} divided by {scale}, ImageNet-normalised; `saliency_map` float32 (N, 1, H, W). "
        f"{_size(record.io)} "
        f"{record.parameters:,} parameters, {len(model.data):,} bytes, task `{record.task}`, role "
        f"`{record.role}`.{memory}\n\n"
        f"sha256 `{record.sha256}`"
    )


def _size(io: IoSpec) -> str:
    if io.squash:
        size = f"Frames are squashed to {io.squash[0]}x{io.squash[1]}, whatever their aspect ratio."
    else:
        size = (
            f"Frames are scaled to {io.working_lines} lines on the short side with their aspect ratio "
            f"kept. Both sides are padded to a multiple of {io.multiple} by edge replication."
        )
    size += " The map of every frame is stretched to [0, 1]." if io.output == "minmax" else ""
    if io.temporal_ms:
        size += (
            " The maps of a video are averaged exponentially over time, with a time constant of "
            f"{io.temporal_ms:g} ms. The average starts again at each cut (`--temporal model`)."
        )
    return size


def _quality(model: Model, path: Path) -> str:
    if not path.exists():
        return "This model has no evaluation beside its card."
    task: Task = model.task or "objects"
    tables = read_evaluation(path)[0].tables(task)
    if tables is None:
        raise RegistryError(
            f"{path}: the evaluation has no results on a fixation set, which a gaze model needs",
            "run `eyeline evaluate` on a fixation set",
        )
    own = [r for r in tables.results if r.model_sha256 == model.sha256]
    if not own:
        raise RegistryError(
            f"{model.id}: {path.name} has no results of a model with this sha256",
            "run `eyeline evaluate` again",
        )
    measures = GAZE_QUALITY if task == "gaze" else QUALITY
    parts = []
    for dataset in dict.fromkeys(r.dataset for r in own):
        rows = [r for r in tables.results if r.dataset == dataset]
        parts.append(_judged_on(dataset, tables, rows[0]))
        parts.append(_table(rows, model.sha256, measures))
        parts.append(_compared(tables.comparisons, dataset, own[0].model, task))
    parts.append("\n".join(f"- {note}" for note in tables.notes))
    return "\n\n".join(parts)


def _judged_on(dataset: str, tables: EvaluationTables, row: EvaluationRow) -> str:
    for s in tables.sets if isinstance(tables, GazeTables) else ():
        if s.dataset == dataset:
            return (
                f"{dataset}, {s.stimuli:,} {s.kind} with {s.fixations:,} fixations of "
                f"{s.viewers} viewers; 95 % bootstrap intervals over {s.kind}:"
            )
    return f"{dataset}, {row.image_count:,} images; 95 % bootstrap intervals:"


def _quantization(model: Model, text: CardText, scanned: ScanReport, path: Path) -> list[str]:
    found = _json(path)
    if found is None:
        if "DequantizeLinear" in scanned.ops:
            raise RegistryError(
                f"{model.id}: the model is quantised, but {path.name} is missing",
                "write it with eyeline model quantize --report",
            )
        return []
    try:
        if found["model"]["sha256"] != model.sha256:
            raise RegistryError(
                f"{model.id}: {path.name} describes a file with another sha256",
                "quantise the model again",
            )
        lines = [
            _made_from(found, path.parent),
            _row_of(text.calibration, model.id),
            _losses(found),
            _gain(found),
        ]
    except (KeyError, TypeError, ValueError) as exc:
        raise RegistryError(
            f"{path}: the file is not a quantisation report", "quantise the model again"
        ) from exc
    return ["## Quantisation", *lines]


def _made_from(found: dict[str, Any], sources: Path) -> str:
    source, how, data = found["source"], found["how"], found["calibration"]
    card = f"{source['name']}.md"
    link = f" ([card]({card}))" if (sources / card).is_file() else ""
    kept = f"; these nodes stay float: {', '.join(how['keep_float'])}" if how["keep_float"] else ""
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    return (
        f"Made from `{source['name']}`{link}, sha256 `{source['sha256']}`, by static quantisation (QDQ) "
        f"of {', '.join(how['ops'])}{kept}. Activations are {how['activations']}. Weights are "
        f"{how['weights']}, with one scale per {'output channel' if how['per_channel'] else 'tensor'}. The "
        f"ranges were found by the method {how['method']} over {data['images']:,} images of "
        f"{data['data']} (digest `{data['sha256'][:16]}`). The file has {found['model']['bytes']:,} bytes; "
        f"the float model has {source['bytes']:,}. Versions: {versions}."
    )


def _losses(found: dict[str, Any]) -> str:
    lines = [
        f"The table compares the model with the float model, on {found['check']['images']:,} other images "
        f"of the same set. The change of `saliency_mean` may be at most {found['limits']['shift']:g}, as a "
        f"mean over the images ({'passed' if found['passed'] else 'NOT PASSED'}):\n",
    ]
    heads = (
        "lines",
        "images",
        "mean difference of maps",
        "largest",
        "mean change of saliency_mean",
        "largest",
        "IoU",
    )
    rows = [
        [
            str(row["lines"] or "fixed"),
            str(row["images"]),
            f"{row['map_mean']:.4f}",
            f"{row['map_max']:.3f}",
            f"{row['shift']:.4f}",
            f"{row['shift_max']:.4f}",
            f"{row['iou']:.3f}",
        ]
        for row in found["losses"]
    ]
    lines += markdown_table(heads, rows)
    return "\n".join(lines)


def _gain(found: dict[str, Any]) -> str:
    speed, vnni = found["speed"], found["machine"]["vnni"]
    where = {True: "with VNNI", False: "without VNNI", None: "of which VNNI is not known"}[vnni]
    size = "x".join(map(str, speed["size"]))
    return (
        f"At {size} on one thread the model takes {speed['quantized_ms']:.2f} ms, and the float model "
        f"{speed['float_ms']:.2f} ms: {speed['ratio']:.2f} times as fast ({found['machine']['machine']}, "
        f"a CPU {where})."
    )


def _table(rows: list[EvaluationRow], sha256: str, measures: dict[str, str]) -> str:
    heads = ["model", "parameters", "size", "ms, one thread", *measures.values()]
    lines = []
    for row in rows:
        cells = [
            f"**{row.model}**" if row.model_sha256 == sha256 else row.model,
            "-" if row.parameters is None else f"{row.parameters:,}",
            "-" if row.working_size is None else "x".join(map(str, row.working_size)),
            "-" if row.latency_ms is None else f"{row.latency_ms:.1f}",
        ]
        lines.append([*cells, *(estimate_cell(row.estimates[key]) for key in measures)])
    return "\n".join(markdown_table(heads, lines))


def _compared(comparisons: Iterable[ModelComparison], dataset: str, name: str, task: Task) -> str:
    heads = {"max_fmeasure_dataset": "max F"} | GAZE_QUALITY
    lines = []
    for c in comparisons:
        if c.dataset != dataset or name not in (c.model, c.other):
            continue
        other = c.other if c.model == name else c.model
        sign = 1 if c.model == name else -1
        said = []
        for measure in COMPARED[task]:
            d = c.differences[measure]
            level = "p < 0.001" if d.p_value < 0.001 else f"p = {d.p_value:.3f}"
            said.append(f"{heads[measure]} {sign * d.value:+.3f} ({level}, paired bootstrap)")
        lines.append(f"- against {other}: {'; '.join(said)}")
    return "\n".join(lines) or "The evaluation has no other model to compare with."


def _provenance(
    record: ModelRecord, text: CardText, run: dict[str, Any] | None, sources: Path
) -> str:
    parts = [record.provenance]
    if text.training:
        parts.append(text.training)
    if run is None:
        return "\n\n".join(parts)
    recipe, images = run["recipe"], run["images"]
    if backbone := recipe.get("backbone"):
        parts.append(
            f"The encoder started from the weights of {backbone['url']} (sha256 `{backbone['sha256']}`, "
            f"{backbone['license']}), which were trained on {', '.join(backbone['trained_on'])}."
        )
    versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    last = run["curve"][-1]
    host = run["machine"] + (f", {run['cores']} cores" if "cores" in run else "")
    took = f" in {run['seconds'] / 3600:.1f} h" if "seconds" in run else ""
    parts.append(
        f"Recipe `{recipe['name']}`: {recipe['epochs']} epochs of {images['train']:,} images, batch "
        f"{recipe['batch']}{_teacher(recipe)}, {recipe['optimizer']} at {recipe['lr']:g}, seed "
        f"{recipe['seed']}. Other {images['selection']:,} images selected the epoch; no number of this "
        f"card comes from them. The training loss of the last epoch was {last['loss']:.3f}. The run took "
        f"place on {run['device']} ({host}){took}, with {versions}. Data digest "
        f"`{run['data_digest'][:16]}`. [Run record]({record.id}.run.json)."
    )
    return "\n\n".join(parts)


def _teacher(recipe: dict[str, Any]) -> str:
    if "teacher" in recipe:
        return f", share of the teacher's map {recipe['teacher']:g}"
    if recipe["unlabelled"]:
        return f" and {recipe['unlabelled']} images with a teacher's density"
    return ""


def _licence(record: ModelRecord, text: CardText) -> str:
    lines = [f"Weights: {record.license}.", *(_row_of(name, record.id) for name in text.data)]
    lines.append(
        "This card does not decide whether the terms of training data apply to the weights: ask your "
        "legal counsel."
    )
    return "\n\n".join(lines)


def _row_of(name: str, model_id: str) -> str:
    known = catalogue()
    if name not in known:
        raise RegistryError(
            f"{model_id}: its dataset {name!r} is not in the catalogue",
            "correct the id, or add the dataset to the catalogue",
        )
    row = known[name]
    return f"Data: {row.title} ({row.paper}): {row.terms}. {row.page}"


def _operators(report: ScanReport) -> str:
    rows = ", ".join(f"{op} {count}" for op, count in sorted(report.ops.items()))
    verdict = "all admitted" if report.admitted else "REFUSED"
    name, version = report.policy["name"], report.policy["version"]
    findings = "".join(f"\n- {f}" for f in report.findings)
    return f"{rows}: {verdict} by the scanner's policy {name} {version}.{findings}"
