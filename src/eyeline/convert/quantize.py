"""`eyeline model quantize`: a float model to INT8, held to a gate (extra `eval`: onnx and Pillow).

    done = quantize_model(resolve_model("saliency_student_v4"), Path("DUTS-TR"), Path("v4_int8.onnx"))
    done.verdict.passed, done.verdict.speed.ratio

Beside the model stand the papers that a registry asks for: I/O spec, manifest, licence, and the report
as `NAME.parity.json`, which says what the model was made from and what it lost.

A float ONNX graph to a quantised one (QDQ), by ONNX Runtime's static quantisation.

Activations are uint8 with a zero point, weights int8, symmetric, one scale an output channel. What is
ours: stable node names to keep some in float, bounded calibration, and a graph at the end that says
no more than it must. The same images and versions give the same bytes on the same machine; a CPU of
another kind may compute an activation with another last bit, and a scale with it.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from eyeline._version import __version__
from eyeline.convert.provenance import (
    QUANTISATION,
    Material,
    canonical_json,
    licence_text,
    statement,
)
from eyeline.convert.quantize_gate import (
    RUNS,
    Images,
    OnStep,
    Reader,
    Verdict,
    choose_images,
    judge,
)
from eyeline.convert.rewrite import (
    IR_VERSION,
    OPSET,
    drop_identities,
    finish,
    fold_batch_norm,
    load_model,
    to_opset,
)
from eyeline.digests import sha256_hex
from eyeline.errors import ModelError, OutputError, UsageError, first_line
from eyeline.evaluation.benchmark import count_parameters
from eyeline.files import read_regular_file, write_bytes
from eyeline.inference.session import Session
from eyeline.registry.registry import Model
from eyeline.runtime import import_runtime, runtime_errors
from eyeline.scan import admit

Method = Literal["minmax", "percentile", "entropy"]
METHODS: dict[Method, str] = {
    "minmax": "MinMax",
    "percentile": "Percentile",
    "entropy": "Entropy",
}
"""How the range of an activation follows from what the images made of it, and ONNX Runtime's name of it."""

OPS = ("Conv", "Relu", "Add")
"""Quantised. With `Relu`, a convolution's output is rounded once, behind the activation; without it, before
and behind. Layouts and resizes gain nothing: ONNX Runtime moves them past the rounding by itself."""


def node_names(graph: onnx.GraphProto) -> list[str]:
    """Name every node `TYPE:NUMBER`, numbered by type in the order of the file; the names."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        node.name = f"{node.op_type}:{seen[node.op_type]}"
        seen[node.op_type] += 1
    return [node.name for node in graph.node]


def quantize_graph(
    data: bytes,
    name: str,
    reader: Reader,
    *,
    method: Method,
    keep_float: Sequence[str] = (),
    reduce_range: bool = True,
    metadata: Mapping[str, str],
) -> bytes:
    """Quantise a model.

    Args:
        data: a float ONNX model.
        name: for errors.
        reader: the calibration images.
        method: see `METHODS`.
        keep_float: nodes to leave as they are: `Conv:0`, or `Conv:-1` for the last one.
        reduce_range: weights of 7 bits: two products of them and of uint8 fit the 16 bits that x86
            without VNNI adds them up in. With 8 bits they may saturate there.
        metadata: of the result.

    Returns:
        ONNX bytes: opset 17, the same input and output.

    Raises:
        ModelError: quantised already, no convolution, or ONNX Runtime can't.
        UsageError: a node to keep that is not there.
    """
    model = to_opset(load_model(data, name))
    graph = model.graph
    ops = {node.op_type for node in graph.node}
    if "DequantizeLinear" in ops or any(node.domain for node in graph.node):
        raise ModelError(f"{name}: quantised already, or not of ONNX's own ops", "give the float")
    if "Conv" not in ops:
        raise ModelError(f"{name}: no convolution", "there is nothing to quantise")
    drop_identities(graph)
    fold_batch_norm(graph)
    kept = _find(keep_float, node_names(graph))
    with tempfile.TemporaryDirectory() as folder:
        made = _by_runtime(model, Path(folder), name, reader, method, kept, reduce_range)
    _read_shapes_early(made.graph)
    made.ir_version = IR_VERSION
    del made.opset_import[:], made.functions[:]
    made.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    made.producer_name, made.producer_version, made.doc_string = "eyeline", "", ""
    made.graph.name, made.graph.doc_string = "quantised", ""
    try:
        return finish(made, dict(metadata))
    except onnx.checker.ValidationError as exc:
        raise ModelError(
            f"{name}: the quantised graph is not valid: {first_line(exc)}", "report it"
        ) from exc


def _find(asked: Sequence[str], names: Sequence[str]) -> list[str]:
    """Full names of nodes, numbers from the end resolved."""
    found = []
    for text in asked:
        kind, _, number = text.partition(":")
        same = [n for n in names if n.partition(":")[0] == kind]
        try:
            found.append(same[int(number)])
        except (ValueError, IndexError) as exc:
            known = f"{kind}:0 to {kind}:{len(same) - 1}" if same else f"no {kind or 'such op'}"
            raise UsageError(f"--keep-float {text}: no such node", f"there is {known}") from exc
    return found


def _by_runtime(
    model: onnx.ModelProto,
    folder: Path,
    name: str,
    reader: Reader,
    method: Method,
    kept: Sequence[str],
    reduce_range: bool,
) -> onnx.ModelProto:
    import_runtime()  # first: an import of any part of it starts its telemetry
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, out = folder / "prepared.onnx", folder / "quantised.onnx"
    errors: tuple[type[Exception], ...] = (
        *runtime_errors(),
        onnx.shape_inference.InferenceError,
        TypeError,
    )
    chatter = io.StringIO()  # the histogram methods print to stdout
    try:
        with contextlib.redirect_stdout(chatter):
            # Its optimiser is left out: what it folds depends on its version, and ours is folded.
            quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                out,
                reader,
                op_types_to_quantize=list(OPS),
                nodes_to_exclude=list(kept),
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=getattr(CalibrationMethod, METHODS[method]),
                # One image at a time: sizes differ, and histograms keep every activation meanwhile.
                extra_options={"CalibStridedMinMax": 1},
            )
    except errors as exc:
        raise ModelError(
            f"{name}: ONNX Runtime can't quantise it: {first_line(exc)}", "is its I/O spec right?"
        ) from exc
    return onnx.load(out)


def _read_shapes_early(graph: onnx.GraphProto) -> None:
    """Let `Shape` read integers before they become floats again: sizes are the same, a pass is saved."""
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "Shape" else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            node.input[0] = maker.input[0]


CHANGE = "quantised to 8-bit integers (static QDQ)"


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise.

    Attributes:
        images: to calibrate with.
        check: images to compare the two models on.
        method: see `eyeline.convert.quantize.METHODS`.
        keep_float: nodes that stay float, `TYPE:NUMBER`, see `eyeline.convert.quantize.quantize_graph`.
        full_range: weights of 8 bits instead of 7.
        max_shift: how far `saliency_mean` may move, a mean over images.
        runs: of each model on the clock.
    """

    images: int = 200
    check: int = 100
    method: Method = "percentile"
    keep_float: tuple[str, ...] = ()
    full_range: bool = False
    max_shift: float = 0.01
    runs: int = RUNS


@dataclass(frozen=True)
class Quantized:
    """What a quantisation left.

    Attributes:
        path: the ONNX file, None when the gate said no and nothing was written.
        sha256: hex digest of its bytes.
        verdict: see `Verdict`.
        report: JSON values; `NAME.parity.json` holds them.
    """

    path: Path | None
    sha256: str
    verdict: Verdict
    report: dict[str, Any]


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
    """Quantise a model and hold it to the gate.

    Args:
        model: the float model.
        data: images it may be calibrated on: folder, .tar or .zip, see `eyeline.datasets.pairs`.
        out: `NAME.onnx`; the papers stand beside it.
        options: how.
        license_file: the licence's text; not needed where it lies beside the model, nor for a
            registered model under Apache-2.0.
        force: write the file whatever the gate says.
        on_step: called with what is being done, how much is done, and how much there is.

    Raises:
        UsageError: an option that can't be honoured, or a name that is no .onnx.
        ModelError: a model that can't be quantised.
        DatasetError: images that can't be used.
        ScanError: the scanner does not admit the result.
        OutputError: the files can't be written.
    """
    o = options or QuantizeOptions()
    _check(o, out)
    source = Session(model, "cpu")  # held to the contract, first of all
    calibration, held_out = choose_images(data, o.images, o.check)
    count = len(calibration.pairs)
    made = quantize_graph(
        model.data,
        model.id,
        Reader(calibration.pairs, model, lambda n: on_step("calibrate", n, count)),
        method=o.method,
        keep_float=o.keep_float,
        reduce_range=not o.full_range,
        metadata=_metadata(model, calibration, o),
    )
    admit(made, name=out.name)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / out.name
        place.write_bytes(made)
        quantized = Session(Model(out.stem, place, model.io), "cpu")
        verdict = judge(
            source, quantized, held_out.pairs,
            max_shift=o.max_shift, runs=o.runs, on_step=on_step,
        )  # fmt: skip
    report = _report(model, made, out.name, calibration, held_out, o, verdict)
    if not verdict.passed and not force:
        return Quantized(None, sha256_hex(made), verdict, report)
    files = _papers(model, made, out.stem, calibration, o, license_file)
    files[".parity.json"] = canonical_json(report)
    for suffix, content in files.items():
        write_bytes(out.parent / f"{out.stem}{suffix}", content)
    write_bytes(out, made)  # the model last: where it is, the rest is
    return Quantized(out, sha256_hex(made), verdict, report)


def _check(o: QuantizeOptions, out: Path) -> None:
    if out.suffix != ".onnx":
        raise UsageError(f"{out}: a model ends in .onnx", "name it so")
    if o.method not in METHODS:
        raise UsageError(f"no method {o.method!r}", f"one of {', '.join(METHODS)}")
    if o.images < 1 or o.check < 1 or o.runs < 1:
        raise UsageError("no images, or no runs", "1 or more of each")
    if not 0 <= o.max_shift <= 1:  # NaN is refused, too
        raise UsageError(f"a limit of {o.max_shift:g} on saliency_mean", "0 to 1")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK) or out.is_dir():
        raise OutputError(f"{out}: can't be written", "name a file in a folder of yours")


def _metadata(model: Model, calibration: Images, o: QuantizeOptions) -> dict[str, str]:
    """What the float model said of itself, and what was done to it."""
    kept = {p.key: p.value for p in load_model(model.data, model.id).metadata_props}
    return kept | {
        "quantised_from_sha256": model.sha256,
        "calibration_images": str(len(calibration.pairs)),
        "calibration_images_sha256": calibration.digest,
        "calibration_method": o.method,
    }


def _how(o: QuantizeOptions) -> dict[str, Any]:
    return {
        "method": o.method,
        "ops": list(OPS),
        "keep_float": list(o.keep_float),
        "activations": "uint8",
        "weights": "int8" if o.full_range else "int8, 7 bits used",
        "per_channel": True,
    }


def _versions() -> dict[str, str]:
    return {
        "eyeline": __version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": import_runtime().__version__,
    }


def has_vnni() -> bool | None:
    """Whether this CPU multiplies 8-bit integers without saturating; None where nothing says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = next((line.split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else any("vnni" in flag for flag in flags)


def _report(
    model: Model,
    made: bytes,
    name: str,
    calibration: Images,
    held_out: Images,
    o: QuantizeOptions,
    verdict: Verdict,
) -> dict[str, Any]:
    return {
        "kind": QUANTISATION,
        "source": {
            "name": model.id if model.record else model.path.name,
            "sha256": model.sha256,
            "bytes": len(model.data),
            "parameters": count_parameters(model),
        },
        "model": {"file": name, "sha256": sha256_hex(made), "bytes": len(made)},
        "how": _how(o),
        "calibration": calibration.to_json(),
        "check": held_out.to_json(),
        **verdict.to_json(),
        "versions": _versions(),
        "machine": {"machine": platform.machine(), "vnni": has_vnni()},
    }


def _papers(
    model: Model,
    made: bytes,
    stem: str,
    calibration: Images,
    o: QuantizeOptions,
    license_file: Path | None,
) -> dict[str, bytes]:
    """I/O spec, licence and manifest, by suffix."""
    files = {".json": canonical_json(model.io.model_dump(mode="json"))}
    files |= _licence(model, license_file)
    name = model.id if model.record else model.path.name
    chosen = calibration.to_json()
    files[".intoto.json"] = statement(
        {f"{stem}.onnx": made, **{f"{stem}{s}": b for s, b in files.items()}},
        external={"id": stem, "from": "quantised", "images": o.images, **_how(o)},
        internal={"changes": [CHANGE], "calibration": chosen},
        materials=[
            Material(name, {"sha256": model.sha256}, note="the float model"),
            Material(
                calibration.data, {"sha256": calibration.digest}, note="digests of the images"
            ),
        ],
        versions=_versions(),
    )
    return files


def _licence(model: Model, license_file: Path | None) -> dict[str, bytes]:
    """The licence's text or the receipt that holds it, by suffix; nothing where none is at hand."""
    if license_file is not None:
        return {".license.txt": read_regular_file(license_file, limit=1 << 24)}
    for suffix, added in (
        (".license.txt", ""),
        (".receipt.txt", f"\n\nFurther change: {CHANGE}.\n"),
    ):
        path = model.path.parent / f"{model.path.stem}{suffix}"
        if path.is_file():
            return {suffix: read_regular_file(path, limit=1 << 24) + added.encode()}
    if model.record is not None and model.record.license == "Apache-2.0":
        return {".license.txt": licence_text().encode()}
    return {}
