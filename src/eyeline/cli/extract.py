"""`eyeline extract`: where viewers look, for every frame of a video."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.media.types import VideoOptions
    from eyeline.saliency.pipeline import Extraction
    from eyeline.saliency.run import Outputs, RunResult

_INPUT, _MODEL, _WHAT, _RAW, _COLOUR = "Output", "Model", "Frames", "Raw video", "Colour"

EXAMPLES = """
Examples:

    eyeline extract clip.mp4 -o clip.json --overlay clip_heat.mp4

    eyeline extract clip.mp4 -o clip.csv -o clip.parquet --plot clip.svg

    eyeline extract ref.yuv --width 576 --height 324 --pix-fmt yuv420p10le -o ref.json

    ffmpeg -i clip.mov -f yuv4mpegpipe - | eyeline extract - -o clip.json

    eyeline extract clip.mp4 --with-log vmaf.json -o both.json
"""


def extract(
    video: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO",
            help="Video, raw YUV, Y4M, folder of images, or `-` for Y4M on stdin.",
            show_default=False,
        ),
    ],
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            "-o",
            help="Log: .json, .csv, .parquet, or `-` (JSON on stdout; the default). Repeatable.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    overlay: Annotated[
        str | None,
        typer.Option(help="Heat map over the source: .mp4 or .mkv.", rich_help_panel=_INPUT),
    ] = None,
    maps: Annotated[
        str | None,
        typer.Option(
            help="Maps at source size: a folder (PNG per frame), .npz, or .mkv (lossless grey FFV1).",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    map_depth: Annotated[
        Literal["8", "16"], typer.Option(help="Bits of PNG and FFV1 maps.", rich_help_panel=_INPUT)
    ] = "8",
    plot: Annotated[
        str | None,
        typer.Option(
            help="Features over time, with cuts marked: .svg or .png.", rich_help_panel=_INPUT
        ),
    ] = None,
    with_log: Annotated[
        str | None,
        typer.Option(
            help="libvmaf log (.json, .csv) to merge the columns into.", rich_help_panel=_INPUT
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            envvar="EYELINE_MODEL",
            help="Registry id or path of an ONNX model.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            envvar="EYELINE_REGISTRY", help="Your own registry folder.", rich_help_panel=_MODEL
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Short side of the working size in lines, or `native`; the model's own by default.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where the model runs.", rich_help_panel=_MODEL),
    ] = "auto",
    workers: Annotated[
        int,
        typer.Option(
            min=0, max=256, help="Inference threads; 0 = one per core.", rich_help_panel=_MODEL
        ),
    ] = 0,
    frames: Annotated[
        str | None,
        typer.Option(
            help="Frames A:B, from A up to but not B; either may be left out.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    stride: Annotated[
        int,
        typer.Option(
            min=1, help="Infer every n-th frame and every first of a scene.", rich_help_panel=_WHAT
        ),
    ] = 1,
    fill: Annotated[
        Literal["linear", "motion", "hold"],
        typer.Option(
            help="How frames between are filled (motion: extra `motion`).", rich_help_panel=_WHAT
        ),
    ] = "linear",
    temporal: Annotated[
        Literal["none", "ema", "median", "motion"],
        typer.Option(
            help="Filter on the maps, reset at cuts (motion: extra `motion`).",
            rich_help_panel=_WHAT,
        ),
    ] = "none",
    width: Annotated[
        int | None,
        typer.Option("--width", "-w", min=1, help="Width, pixels.", rich_help_panel=_RAW),
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, help="Height, pixels.", rich_help_panel=_RAW)
    ] = None,
    pix_fmt: Annotated[
        str | None,
        typer.Option(
            "--pix-fmt",
            "--pixel_format",
            "-p",
            help="FFmpeg pixel format, or 420, 422, 444 with --bitdepth.",
            rich_help_panel=_RAW,
        ),
    ] = None,
    bitdepth: Annotated[
        int | None,
        typer.Option(
            "--bitdepth", "-b", help="8, 10, 12 or 16, with -p 420.", rich_help_panel=_RAW
        ),
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(
            help="Frames a second of raw video and image folders, as 25 or 30000/1001.",
            rich_help_panel=_RAW,
        ),
    ] = None,
    matrix: Annotated[
        Literal["bt601", "bt709", "bt2020"] | None,
        typer.Option(help="YUV matrix; overrides the stream's tag.", rich_help_panel=_COLOUR),
    ] = None,
    color_range: Annotated[
        Literal["limited", "full"] | None,
        typer.Option(
            "--range", help="Sample range; overrides the stream's tag.", rich_help_panel=_COLOUR
        ),
    ] = None,
    hdr: Annotated[
        Literal["map", "refuse"],
        typer.Option(help="PQ and HLG: map to SDR, or refuse.", rich_help_panel=_COLOUR),
    ] = "map",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what is being run.")
    ] = False,
) -> None:
    """Find where viewers look, for every frame: numbers, maps, and a heat-map video."""
    from eyeline.models.registry import resolve_model
    from eyeline.saliency.pipeline import ExtractOptions
    from eyeline.saliency.pipeline import extract as library_extract
    from eyeline.saliency.run import Outputs

    start, stop = parse_frames(frames)
    raw = raw_options(width, height, pix_fmt, bitdepth, fps)
    outputs = Outputs(
        logs=tuple(output or ([] if (maps or overlay or plot) else ["-"])),
        with_log=with_log,
        maps=maps,
        map_depth=16 if map_depth == "16" else 8,
        overlay=overlay,
        plot=plot,
    )
    if with_log and not outputs.logs:
        raise UsageError("--with-log without a log to write", "add -o FILE")
    outputs.check(video)
    from dataclasses import replace
    from pathlib import Path

    options = ExtractOptions(
        lines=parse_size(size), stride=stride, fill=fill, temporal=temporal, start=start, stop=stop,
        device=device, workers=workers, keep_source=overlay is not None,
    )  # fmt: skip
    chosen = resolve_model(model, Path(registry) if registry else None)
    if chosen.smoke:
        sys.stderr.write(f"warning: {chosen.id} is a smoke model: its numbers mean nothing\n")
    extraction = library_extract(
        video,
        model=chosen,
        video_options=replace(raw, matrix=matrix, color_range=color_range, hdr=hdr),
        options=options,
    )
    if verbose:
        _introduce(extraction)
    result = _run(extraction, outputs, quiet)
    _conclude(result, extraction, quiet)


def parse_frames(text: str | None) -> tuple[int, int | None]:
    """`A:B` to (start, stop).

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return 0, None
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if not match:
        raise UsageError(f"--frames {text!r} is not A:B", "for example 100:200, :50 or 300:")
    return int(match[1] or 0), int(match[2]) if match[2] else None


def parse_size(text: str | None) -> int | Literal["native"] | None:
    """Lines, `native`, or None.

    Raises:
        UsageError: anything else.
    """
    if text is None or text == "native":
        return "native" if text else None
    if not text.isdigit():
        raise UsageError(f"--size {text!r} is not a number of lines", "for example 192, or native")
    return int(text)


def raw_options(
    width: int | None,
    height: int | None,
    pix_fmt: str | None,
    bitdepth: int | None,
    fps: str | None,
) -> VideoOptions:
    """Options of raw video in FFmpeg's names or libvmaf's (`-p 420 -b 10`).

    Raises:
        UsageError: a bit depth or frame rate that is none.
    """
    from fractions import Fraction

    from eyeline.media.types import VideoOptions

    if pix_fmt in ("420", "422", "444"):
        if bitdepth not in (None, 8, 10, 12, 16):
            raise UsageError(f"--bitdepth {bitdepth}", "give 8, 10, 12 or 16")
        pix_fmt = f"yuv{pix_fmt}p" + (f"{bitdepth}le" if bitdepth and bitdepth > 8 else "")
    elif bitdepth is not None:
        raise UsageError("--bitdepth goes with -p 420, 422 or 444", "or name FFmpeg's pixel format")
    try:
        rate = Fraction(fps) if fps is not None else None
    except (ValueError, ZeroDivisionError) as exc:
        raise UsageError(f"--fps {fps!r} is no frame rate", "for example 25 or 30000/1001") from exc
    if rate is not None and not 0 < rate <= 100000:
        raise UsageError(f"--fps {fps} is no frame rate", "for example 25 or 30000/1001")
    return VideoOptions(width=width, height=height, pix_fmt=pix_fmt, fps=rate)


def _introduce(extraction: Extraction) -> None:
    i, p = extraction.info, extraction.provenance
    colour = i.colour
    assumed = f" (assumed: {', '.join(colour.assumed)})" if colour.assumed else ""
    sys.stderr.write(
        f"{i.path}: {i.codec} {i.pix_fmt} {i.width}x{i.height}, shown {i.display_width}x"
        f"{i.display_height}, {colour.matrix} {colour.color_range} {colour.transfer}{assumed}\n"
        f"model {p['model']} sha256 {p['model_sha256'][:16]} at {p['working_size'][0]}x"
        f"{p['working_size'][1]}, {p['provider']}\n"
    )


def _run(extraction: Extraction, outputs: Outputs, quiet: bool) -> RunResult:
    from eyeline.cli.interrupts import InterruptShield
    from eyeline.cli.progress import frame_progress
    from eyeline.saliency.run import run_extraction

    o, total = extraction.options, extraction.info.expected_frames
    if o.stop is not None:
        total = o.stop if total is None else min(o.stop, total)
    remaining = None if total is None else max(0, total - o.start)
    with frame_progress(remaining, quiet) as advance:
        return run_extraction(extraction, outputs, lambda frame: advance(), InterruptShield())


def _conclude(result: RunResult, extraction: Extraction, quiet: bool) -> None:
    from eyeline.errors import EyelineError
    from eyeline.logs.pooling import pool

    report = extraction.report
    if not quiet:
        pooled = pool(result.log.values["saliency_mean"])
        sys.stderr.write(
            f"{len(result.log)} frames, {len(result.cuts)} cuts, saliency_mean "
            f"{pooled['mean']:.4f} ({pooled['min']:.4f} to {pooled['max']:.4f})"
            f"{''.join(f'; wrote {p}' for p in result.written if p != '-')}\n"
        )
    if report.corrupt:
        sys.stderr.write(
            f"warning: {report.corrupt} corrupt frames, the first at {report.first_corrupt}\n"
        )
    if isinstance(result.stopped, EyelineError):
        raise result.stopped
    if result.stopped is not None:
        sys.stderr.write(f"interrupted: {len(result.log)} frames are kept\n")
        raise typer.Exit(130)


extract.__doc__ = f"{extract.__doc__}\n{EXAMPLES}"
