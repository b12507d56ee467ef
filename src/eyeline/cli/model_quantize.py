"""`eyeline model quantize`: a float model to INT8, compared with it before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyeline.errors import MissingExtraError

if TYPE_CHECKING:
    from eyeline.models.quantize import Quantized


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Registry id or path.")],
    calibration: Annotated[
        Path,
        typer.Option(help="Folder, .tar or .zip with images/ and masks/, never one you judge on."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file.")],
    images: Annotated[int, typer.Option(min=1, help="Images to calibrate with.")] = 200,
    check: Annotated[int, typer.Option(min=1, help="Other images, to compare the two on.")] = 100,
    method: Annotated[
        str, typer.Option(help="Ranges of activations: minmax, percentile (99.999 %) or entropy.")
    ] = "percentile",
    keep_float: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE:N", help="Node to leave float: Conv:0, Conv:-1. Repeatable."),
    ] = None,
    full_range: Annotated[
        bool,
        typer.Option(
            "--full-range", help="Weights of 8 bits, not 7: for CPUs with VNNI, or not x86."
        ),
    ] = False,
    max_shift: Annotated[
        float, typer.Option(min=0, max=1, help="How far saliency_mean may move, on average.")
    ] = 0.01,
    license_file: Annotated[
        Path | None, typer.Option(help="The licence's text, where none lies beside MODEL.")
    ] = None,
    report: Annotated[
        str | None, typer.Option(help="Everything measured, as JSON; `-` for stdout.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write it whatever the gate says.")
    ] = False,
    registry: Annotated[
        str | None, typer.Option(envvar="EYELINE_REGISTRY", help="Your own registry folder.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Quantise a model to INT8 (static QDQ) on images of yours (extra `eval`).

    Exit code 1, and no file: the maps move too far, or the file is not faster.

    Examples:
        eyeline model quantize saliency_student_v4 --calibration DUTS-TR -o saliency_student_v4_int8.onnx

        eyeline model quantize mine.onnx --calibration photos.zip --keep-float Conv:0 -o mine_int8.onnx
    """
    from eyeline.cli.progress import item_progress
    from eyeline.errors import UsageError
    from eyeline.models.registry import resolve_model
    from eyeline.output import write_bytes

    try:
        from eyeline.models.manifest import canonical_json
        from eyeline.models.qdq import METHODS
        from eyeline.models.quantize import QuantizeOptions, quantize_model
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "onnx", "eval") from exc
    chosen = next((m for m in METHODS if m == method), None)
    if chosen is None:
        raise UsageError(f"--method {method!r} is unknown", f"one of {', '.join(METHODS)}")
    options = QuantizeOptions(
        images=images,
        check=check,
        method=chosen,
        keep_float=tuple(keep_float or ()),
        full_range=full_range,
        max_shift=max_shift,
    )
    source = resolve_model(model, Path(registry) if registry else None)
    with item_progress("quantize", quiet) as advance:
        done = quantize_model(
            source, calibration, output, options,
            license_file=license_file, force=force, on_step=advance,
        )  # fmt: skip
    if report:
        write_bytes(report, canonical_json(done.report))
    if not quiet and report != "-":
        _say(done)
    for reason in done.verdict.reasons:
        sys.stderr.write(f"{output}: {reason}\n")
    if done.path is None:
        sys.stderr.write("not written; --force writes it all the same\n")
        raise typer.Exit(1)


def _say(done: Quantized) -> None:
    verdict, about = done.verdict, done.report
    if done.path is not None:
        typer.echo(f"wrote {done.path}, sha256 {done.sha256}")
    sizes = about["model"]["bytes"], about["source"]["bytes"]
    typer.echo(
        f"{sizes[0]:,} bytes for {sizes[1]:,}; calibrated on {about['calibration']['images']} images, "
        f"compared on {about['check']['images']} others"
    )
    for loss in verdict.losses:
        typer.echo(
            f"{loss.lines or 'its own'} lines: maps differ by {loss.map_mean:.4f} (largest "
            f"{loss.map_max:.3f}), saliency_mean by {loss.shift:.4f} (largest {loss.shift_max:.4f}, "
            f"limit {verdict.max_shift:g} on average), IoU {loss.iou:.4f}"
        )
    speed = verdict.speed
    width, height = speed.size
    typer.echo(
        f"{width}x{height}, one thread: {speed.quantized_ms:.2f} ms for {speed.float_ms:.2f}, "
        f"{speed.ratio:.2f} times as fast"
    )
