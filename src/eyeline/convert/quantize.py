"""Quantise a float model to INT8 (QDQ), and check loss and speed of the result (needs the extra `eval`).

    done = quantize_model(resolve_model("saliency_student_v4"), Path("DUTS-TR"), Path("v4_int8.onnx"))
    done.verdict.passed, done.verdict.speed.ratio

ONNX Runtime's static quantisation does the work: activations are uint8 with a zero point, weights int8,
symmetric, with one scale per output channel. This module adds stable node names, so that options can name
the nodes that stay float, and calibration in bounded memory. The same images and versions give the same
bytes on the same machine. On another kind of CPU the last bit of an activation, and so of a scale, may
differ.

The sidecars that a registry needs are written beside the model: I/O spec, manifest, licence, and the
report as `NAME.parity.json`.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from eyeline._version import __version__
from eyeline.convert.graph import (
    OPSET,
    drop_identities,
    finish,
    fold_batch_norm,
    load_model,
    to_opset,
)
from eyeline.convert.parity import SIZES, OnStep, natural_inputs
from eyeline.convert.sidecars import (
    IO_SPEC,
    LICENSE,
    MANIFEST,
    MAX_SIDECAR,
    PARITY,
    QUANTISATION,
    RECEIPT,
    ResourceDescriptor,
    apache_text,
    canonical_json,
    make_manifest,
    write_model,
)
from eyeline.datasets.pairs import Pair, find_pairs, read_image
from eyeline.digests import sha256_hex
from eyeline.errors import DatasetError, ModelError, OutputError, UsageError, first_line
from eyeline.evaluation.benchmark import count_parameters
from eyeline.evaluation.metrics import THRESHOLD, Map, overlap
from eyeline.evaluation.rows import Size, image_input
from eyeline.files import read_regular_file
from eyeline.inference import Session, input_size
from eyeline.inference import finish as finish_map
from eyeline.registry.registry import Model
from eyeline.runtime import INPUT_NAME, import_runtime, runtime_errors
from eyeline.saliency.features import map_features
from eyeline.scan import admit

Method = Literal["minmax", "percentile", "entropy"]
METHODS: dict[Method, str] = {
    "minmax": "MinMax",
    "percentile": "Percentile",
    "entropy": "Entropy",
}
"""Maps each method that computes activation ranges from the calibration images to its ONNX Runtime name."""

OPS = ("Conv", "Relu", "Add")
"""Operators that are quantised.

With `Relu`, the output of a convolution is rounded once, after the activation; without `Relu` it is rounded
before and after. Layout operators and resizes are left out, as ONNX Runtime moves them past the rounding.
"""

CHANGE = "quantised to 8-bit integers (static QDQ)"

OTHER_LINES = (144, 384)
"""More short sides, pixels, at which models are compared: the smallest and largest that commands use."""

AT_OTHER_LINES = 24
"""Number of images that are compared at each size of `OTHER_LINES`."""

TIMED_FRAME = (1920, 1080)
RUNS = 41
WARM_UP = 3


@dataclass(frozen=True)
class QuantizeOptions:
    """Options of a quantisation.

    Attributes:
        images: number of images to calibrate with.
        check: number of images on which the two models are compared.
        method: calibration method, see `METHODS`.
        keep_float: nodes that stay float, such as `Conv:0`, or `Conv:-1` for the last convolution.
        full_range: use 8-bit weights instead of 7-bit ones. An x86 CPU without VNNI adds two products
            in 16 bits, and this sum may saturate with 8-bit weights.
        max_shift: limit on the absolute change of `saliency_mean`, averaged over images.
        runs: number of timed runs of each model.
    """

    images: int = 200
    check: int = 100
    method: Method = "percentile"
    keep_float: tuple[str, ...] = ()
    full_range: bool = False
    max_shift: float = 0.01
    runs: int = RUNS

    def to_json(self) -> dict[str, Any]:
        """Return JSON values for the report and the manifest."""
        return {
            "method": self.method,
            "ops": list(OPS),
            "keep_float": list(self.keep_float),
            "activations": "uint8",
            "weights": "int8" if self.full_range else "int8, 7 bits used",
            "per_channel": True,
        }


@dataclass(frozen=True)
class ChosenImages:
    """Images chosen from a dataset.

    Attributes:
        data: name of the folder or archive of the dataset.
        pairs: the chosen images and their masks.
    """

    data: str
    pairs: tuple[Pair, ...]

    @property
    def digest(self) -> str:
        """sha256 hex digest of the digests of the images, in their order."""
        return sha256_hex("\n".join(p.digest for p in self.pairs).encode())

    def to_json(self) -> dict[str, object]:
        """Return JSON values."""
        return {"data": self.data, "images": len(self.pairs), "sha256": self.digest}


@dataclass(frozen=True)
class QuantizationLoss:
    """The measured differences between the float and the quantised model.

    Attributes:
        lines: short side to which images were scaled, pixels; None for the fixed size of the I/O spec.
        images: number of images.
        map_mean: mean absolute difference of the maps, averaged over pixels, then images.
        map_max: largest absolute difference of a pixel.
        shift: absolute difference of `saliency_mean`, averaged over images.
        shift_max: largest absolute difference of `saliency_mean` of an image.
        bias: mean of quantised minus float `saliency_mean`.
        iou: mean intersection over union of the two maps' pixels above 0.5.
    """

    lines: int | None
    images: int
    map_mean: float
    map_max: float
    shift: float
    shift_max: float
    bias: float
    iou: float


@dataclass(frozen=True)
class QuantizationSpeed:
    """CPU time per inference on one thread.

    Attributes:
        size: (width, height) of the input before padding.
        float_ms: median time of the float model, milliseconds.
        quantized_ms: median time of the quantised model, milliseconds.
        runs: number of runs of each model.
    """

    size: tuple[int, int]
    float_ms: float
    quantized_ms: float
    runs: int

    @property
    def ratio(self) -> float:
        """Time of the float model divided by that of the quantised model."""
        return self.float_ms / self.quantized_ms


@dataclass(frozen=True)
class QuantizationVerdict:
    """The decision whether a quantised model is good enough, with the measurements.

    Attributes:
        losses: the loss at the size of the I/O spec, then the losses at the sizes of `OTHER_LINES`.
        speed: the measured speed of both models.
        max_shift: limit on `QuantizationLoss.shift` at every size.
        reasons: why the model is rejected; empty if it passed.
    """

    losses: tuple[QuantizationLoss, ...]
    speed: QuantizationSpeed
    max_shift: float
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the model is good enough."""
        return not self.reasons

    def to_json(self) -> dict[str, object]:
        """Return JSON values."""
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "limits": {"shift": self.max_shift, "ratio": 1.0},
            "losses": [asdict(loss) for loss in self.losses],
            "speed": {**asdict(self.speed), "ratio": self.speed.ratio},
        }


@dataclass(frozen=True)
class Quantized:
    """The result of a quantisation.

    Attributes:
        path: the ONNX file; None if the model was rejected and nothing was written.
        sha256: hex digest of the quantised model.
        verdict: the decision and its measurements.
        report: the JSON values of `NAME.parity.json`.
    """

    path: Path | None
    sha256: str
    verdict: QuantizationVerdict
    report: dict[str, Any]

    def text(self) -> str:
        """Return the sizes, losses and speed as lines of text."""
        speed, facts = self.verdict.speed, self.report
        wrote = [] if self.path is None else [f"wrote {self.path}, sha256 {self.sha256}"]
        sizes = (
            f"{facts['model']['bytes']:,} bytes for {facts['source']['bytes']:,}; calibrated on "
            f"{facts['calibration']['images']} images, compared on {facts['check']['images']} others"
        )
        losses = [
            f"{loss.lines or 'its own'} lines: maps differ by {loss.map_mean:.4f} (largest "
            f"{loss.map_max:.3f}), saliency_mean by {loss.shift:.4f} (largest {loss.shift_max:.4f}, "
            f"limit {self.verdict.max_shift:g} on average), IoU {loss.iou:.4f}"
            for loss in self.verdict.losses
        ]
        times = (
            f"{speed.size[0]}x{speed.size[1]}, one thread: {speed.quantized_ms:.2f} ms for "
            f"{speed.float_ms:.2f}, {speed.ratio:.2f} times as fast"
        )
        return "\n".join((*wrote, sizes, *losses, times))


def quantize_model(
    model: Model,
    data: Path,
    out: Path,
    options: QuantizeOptions | None = None,
    *,
    license_file: Path | None = None,
    force: bool = False,
    on_step: OnStep = lambda what, done, total: None,
) -> Quantized:
    """Quantise a model, compare it with the float model, and write it if it is good enough.

    Args:
        model: the float model.
        data: folder, .tar or .zip with images to calibrate and check with (`eyeline.datasets.pairs`).
        out: `NAME.onnx`; the sidecars are written beside it.
        options: options of the quantisation; None for the defaults.
        license_file: file with the licence text of the model. The file is not needed if the licence
            lies beside the model, or if the model is registered under Apache-2.0.
        force: write the model even if it is rejected.
        on_step: progress callback, see `OnStep`.

    Raises:
        UsageError: an option is invalid, or the name does not end in .onnx.
        ModelError: the model cannot be quantised, or the result fails at one of the sizes.
        DatasetError: the images cannot be used.
        ScanError: the scanner rejects the result.
        OutputError: the files cannot be written.
    """
    o = options or QuantizeOptions()
    _check_options(o, out)
    source = Session(model, "cpu")  # an invalid model fails before the calibration
    calibration, held_out = choose_images(data, o.images, o.check)
    count = len(calibration.pairs)
    reader = _CalibrationReader(calibration.pairs, model, lambda n: on_step("calibrate", n, count))
    metadata = {p.key: p.value for p in load_model(model.data, model.id).metadata_props} | {
        "quantised_from_sha256": model.sha256,
        "calibration_images": str(count),
        "calibration_images_sha256": calibration.digest,
        "calibration_method": o.method,
    }
    made = _quantize_graph(model, reader, o, metadata)
    admit(made, name=out.name)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / out.name
        place.write_bytes(made)
        quantized = Session(Model(out.stem, place, model.io), "cpu")
        verdict = judge(
            source, quantized, held_out.pairs,
            max_shift=o.max_shift, runs=o.runs, on_step=on_step,
        )  # fmt: skip
    name = model.id if model.record else model.path.name
    versions = {
        "eyeline": __version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": import_runtime().__version__,
    }
    report = {
        "kind": QUANTISATION,
        "source": {
            "name": name,
            "sha256": model.sha256,
            "bytes": len(model.data),
            "parameters": count_parameters(model),
        },
        "model": {"file": out.name, "sha256": sha256_hex(made), "bytes": len(made)},
        "how": o.to_json(),
        "calibration": calibration.to_json(),
        "check": held_out.to_json(),
        **verdict.to_json(),
        "versions": versions,
        "machine": {"machine": platform.machine(), "vnni": has_vnni()},
    }
    if not verdict.passed and not force:
        return Quantized(None, sha256_hex(made), verdict, report)
    files = {IO_SPEC: canonical_json(model.io.model_dump(mode="json"))}
    files |= _licence(model, license_file)
    files[MANIFEST] = make_manifest(
        {f"{out.stem}.onnx": made, **{f"{out.stem}{s}": b for s, b in files.items()}},
        external={"id": out.stem, "from": "quantised", "images": o.images, **o.to_json()},
        internal={"changes": [CHANGE], "calibration": calibration.to_json()},
        materials=[
            ResourceDescriptor(name, {"sha256": model.sha256}, note="the float model"),
            ResourceDescriptor(
                calibration.data, {"sha256": calibration.digest}, note="digests of the images"
            ),
        ],
        versions=versions,
    )
    files[PARITY] = canonical_json(report)
    write_model(out, made, files)
    return Quantized(out, sha256_hex(made), verdict, report)


def _check_options(o: QuantizeOptions, out: Path) -> None:
    if out.suffix != ".onnx":
        raise UsageError(f"{out}: the name of a model must end in .onnx", "add the suffix .onnx")
    if o.method not in METHODS:
        raise UsageError(
            f"--method {o.method} is not a calibration method",
            f"choose one of {', '.join(METHODS)}",
        )
    if min(o.images, o.check, o.runs) < 1:
        raise UsageError(
            f"--images is {o.images}, --check is {o.check} and the number of runs is {o.runs}",
            "each must be 1 or more",
        )
    if not 0 <= o.max_shift <= 1:  # NaN is also rejected
        raise UsageError(f"--max-shift is {o.max_shift:g}", "it must be between 0 and 1")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK) or out.is_dir():
        raise OutputError(f"{out}: can't be written", "name a file in a writable folder")


def _licence(model: Model, license_file: Path | None) -> dict[str, bytes]:
    if license_file is not None:
        return {LICENSE: read_regular_file(license_file, limit=MAX_SIDECAR)}
    for suffix, added in ((LICENSE, ""), (RECEIPT, f"\n\nFurther change: {CHANGE}.\n")):
        path = model.path.parent / f"{model.path.stem}{suffix}"
        if path.is_file():
            return {suffix: read_regular_file(path, limit=MAX_SIDECAR) + added.encode()}
    if model.record is not None and model.record.license == "Apache-2.0":
        return {LICENSE: apache_text().encode()}
    return {}


def has_vnni() -> bool | None:
    """Return whether this CPU has VNNI (8-bit products without saturation); None if not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = next((line.split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else any("vnni" in flag for flag in flags)


# --- images


def choose_images(root: Path, calibrate: int, check: int) -> tuple[ChosenImages, ChosenImages]:
    """Split a dataset by content hash into calibration images and check images.

    File names, order and container of the dataset do not change the split, and copies of an image are
    never in both parts. The content hash is hashed again: `train` selects its validation fold by the
    content hash, so all calibration images would be from this fold otherwise. At most half of the
    images are check images.
    """
    different = {pair.digest: pair for pair in find_pairs(root)}
    ordered = [different[d] for d in sorted(different, key=lambda d: sha256_hex(d.encode()))]
    if len(ordered) < 2:
        raise DatasetError(
            f"{root}: the dataset has fewer than two different images",
            "give two or more: one to calibrate with and one to check with",
        )
    held_out = min(check, len(ordered) // 2)
    name = root.resolve().name if root.is_dir() else root.stem
    used = min(calibrate, len(ordered) - held_out)
    return ChosenImages(name, tuple(ordered[:used])), ChosenImages(name, tuple(ordered[-held_out:]))


def _model_input(pair: Pair, model: Model, size: Size = None) -> tuple[Map, tuple[int, int]]:
    return image_input(read_image(pair.image), model, size)


class _CalibrationReader:
    """Implements `CalibrationDataReader` of ONNX Runtime; holds one image in memory at a time."""

    def __init__(
        self, pairs: Sequence[Pair], model: Model, on_image: Callable[[int], None]
    ) -> None:
        self._pairs, self._model, self._on_image = pairs, model, on_image
        self._next, self._end = 0, len(pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, Map] | None:
        if self._next >= self._end:
            return None
        x, _ = _model_input(self._pairs[self._next], self._model)
        self._next += 1
        self._on_image(self._next)
        return {INPUT_NAME: x}


# --- the graph


def _quantize_graph(
    float_model: Model,
    reader: _CalibrationReader,
    o: QuantizeOptions,
    metadata: Mapping[str, str],
) -> bytes:
    name = float_model.id
    model = to_opset(load_model(float_model.data, name))
    ops = {node.op_type for node in model.graph.node}
    if "DequantizeLinear" in ops or any(node.domain for node in model.graph.node):
        raise ModelError(
            f"{name}: the model is quantised already, or uses operators outside the ONNX standard",
            "give a float model with standard ONNX operators",
        )
    if "Conv" not in ops:
        raise ModelError(f"{name}: the model has no convolution to quantise", "give a CNN")
    drop_identities(model.graph)
    fold_batch_norm(model.graph)
    kept = _name_nodes(model.graph, o.keep_float)
    with tempfile.TemporaryDirectory() as folder:
        made = _quantize_static(model, Path(folder), name, reader, o, kept)
    # A Shape node can read the tensor before its dequantisation: the shape is the same.
    makers = {node.output[0]: node for node in made.graph.node}
    for node in made.graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "Shape" else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            node.input[0] = maker.input[0]
    del made.opset_import[:], made.functions[:]
    made.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return finish(made, metadata, name="quantised")


def _name_nodes(graph: onnx.GraphProto, keep_float: Sequence[str]) -> list[str]:
    """Name every node `TYPE:NUMBER`, counted per type; return the names of the nodes that stay float."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        node.name = f"{node.op_type}:{seen[node.op_type]}"
        seen[node.op_type] += 1
    kept = []
    for text in keep_float:
        kind, _, number = text.partition(":")
        try:
            kept.append(f"{kind}:{range(seen[kind])[int(number)]}")
        except (ValueError, IndexError) as exc:
            known = f"{kind}:0 to {kind}:{seen[kind] - 1}" if seen[kind] else ", ".join(seen)
            raise UsageError(
                f"--keep-float {text}: the model has no such node",
                f"give a node as TYPE:NUMBER; the model has {known}",
            ) from exc
    return kept


def _quantize_static(
    model: onnx.ModelProto,
    folder: Path,
    name: str,
    reader: _CalibrationReader,
    o: QuantizeOptions,
    kept: list[str],
) -> onnx.ModelProto:
    import_runtime()  # before any submodule, which would start the telemetry
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, out = folder / "prepared.onnx", folder / "quantised.onnx"
    errors: tuple[type[Exception], ...] = (
        *runtime_errors(),
        onnx.shape_inference.InferenceError,
        TypeError,
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the histogram methods print to stdout
            # Without the optimiser of ONNX Runtime: its result depends on its version, and the batch
            # norms are folded already.
            quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                out,
                reader,
                op_types_to_quantize=list(OPS),
                nodes_to_exclude=kept,
                per_channel=True,
                reduce_range=not o.full_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=getattr(CalibrationMethod, METHODS[o.method]),
                # One image at a time: image sizes differ, and histograms keep all activations of a step.
                extra_options={"CalibStridedMinMax": 1},
            )
    except errors as exc:
        raise ModelError(
            f"{name}: ONNX Runtime can't quantise the model: {first_line(exc)}",
            "check the I/O spec of the model",
        ) from exc
    return onnx.load(out)


# --- the decision


def judge(
    source: Session,
    quantized: Session,
    pairs: Sequence[Pair],
    *,
    max_shift: float,
    runs: int = RUNS,
    on_step: OnStep = lambda what, done, total: None,
) -> QuantizationVerdict:
    """Compare a quantised model with the float model on held-out images, and decide if it is good enough.

    Raises:
        ModelError: the quantised model fails or breaks the tensor contract at one of the sizes.
    """
    io = source.model.io
    # The model must also run at odd and portrait sizes, unless its I/O spec fixes the size.
    for x in natural_inputs(SIZES if io.squash is None else (io.squash[::-1],), io):
        quantized.run(x)
    wanted: dict[int | None, Sequence[Pair]] = {None if io.squash else io.working_lines: pairs}
    if io.squash is None:
        wanted |= {n: pairs[:AT_OTHER_LINES] for n in OTHER_LINES if n != io.working_lines}
    done, total = 0, sum(map(len, wanted.values()))
    losses = []
    for lines, chosen in wanted.items():
        rows = []
        for pair in chosen:
            rows.append(_compare(source, quantized, pair, lines))
            done += 1
            on_step("check", done, total)
        means, largest, moves, ious = np.array(rows, np.float64).T
        losses.append(
            QuantizationLoss(
                lines=lines,
                images=len(rows),
                map_mean=float(means.mean()),
                map_max=float(largest.max()),
                shift=float(np.abs(moves).mean()),
                shift_max=float(np.abs(moves).max()),
                bias=float(moves.mean()),
                iou=float(ious.mean()),
            )
        )
    speed = time_together(source, quantized, runs, on_step)
    reasons = [
        f"saliency_mean moves by {loss.shift:.4f}"
        + (f" at {loss.lines} lines" if loss.lines else "")
        + f", more than {max_shift:g}"
        for loss in losses
        if not loss.shift <= max_shift
    ]
    if speed.ratio <= 1:
        reasons.append(
            f"not faster: {speed.quantized_ms:.2f} ms, the float model takes {speed.float_ms:.2f}"
        )
    return QuantizationVerdict(tuple(losses), speed, max_shift, tuple(reasons))


def _compare(
    source: Session, quantized: Session, pair: Pair, lines: int | None
) -> tuple[float, float, float, float]:
    """Return mean and largest pixel difference, the difference of saliency_mean, and the IoU."""
    x, (w, h) = _model_input(pair, source.model, lines)
    a, b = (finish_map(s.run(x), h, w, source.model.io) for s in (source, quantized))
    gap = np.abs(a - b)
    before, after = (map_features(m, None)["saliency_mean"] for m in (a, b))
    iou = overlap(a >= THRESHOLD, b >= THRESHOLD)
    return float(gap.mean(dtype=np.float64)), float(gap.max()), after - before, iou


def time_together(
    source: Session,
    quantized: Session,
    runs: int = RUNS,
    on_step: OnStep = lambda what, done, total: None,
) -> QuantizationSpeed:
    """Time two models alternately on a frame of size `TIMED_FRAME`, scaled as their I/O spec demands.

    Each session runs on the calling thread. The CPU time of a thread excludes other processes.
    """
    size = input_size(*TIMED_FRAME, source.model.io)
    (x,) = natural_inputs((size[::-1],), source.model.io)
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(WARM_UP + runs):
        for session, spent in zip((source, quantized), times, strict=True):
            start = time.thread_time()
            session.run(x)
            spent.append((time.thread_time() - start) * 1e3)
        on_step("time", i + 1, WARM_UP + runs)
    before, after = (statistics.median(spent[WARM_UP:]) for spent in times)
    return QuantizationSpeed(size, before, after, runs)
