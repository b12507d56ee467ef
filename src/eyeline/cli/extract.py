"""`eyeline extract`: where viewers look, for every frame of a video."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eyeline.cli import options
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.media.types import VideoOptions
    from eyeline.saliency.pipeline import Extraction, Outputs, RunResult

_INPUT, _RAW = "Output", "Raw video"

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
    model: options.ModelName = None,
    task: options.MapTask = None,
    registry: options.Registry = None,
    size: options.Size = None,
    device: options.Device = "auto",
    workers: options.InferenceWorkers = 0,
    frames: Annotated[
        str | None,
        typer.Option(
            help="Frames A:B, from A up to but not B; either may be left out.",
            rich_help_panel=options.FRAMES,
        ),
    ] = None,
    stride: options.Stride = 1,
    still: options.Still = 0.0,
    fill: options.Fill = "linear",
    temporal: options.Temporal = "model",
    temporal_ms: options.TemporalMs = None,
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
    matrix: options.Matrix = None,
    color_range: options.ColorRange = None,
    hdr: options.Hdr = "map",
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Find where viewers look, for every frame: numbers, maps, and a heat-map video."""
    from eyeline.saliency.pipeline import ExtractOptions, Outputs
    from eyeline.saliency.pipeline import extract as library_extract

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

    how = ExtractOptions(
        lines=parse_size(size), stride=stride, still=still, fill=fill, temporal=temporal,
        temporal_ms=temporal_ms, start=start, stop=stop, device=device, workers=workers,
        keep_source=overlay is not None,
    )  # fmt: skip
    chosen = options.choose_model(model, registry, task, "extract")
    extraction = library_extract(
        video,
        model=chosen,
        video_options=replace(raw, matrix=matrix, color_range=color_range, hdr=hdr),
        options=how,
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
        raise UsageError(
            f"--fps {fps!r} is not a frame rate", "give frames per second, such as 25 or 30000/1001"
        ) from exc
    if rate is not None and not 0 < rate <= 100000:
        raise UsageError(
            f"--fps is {fps}; it must be above 0 and at most 100000", "for example 25 or 30000/1001"
        )
    return VideoOptions(width=width, height=height, pix_fmt=pix_fmt, fps=rate)


def _introduce(extraction: Extraction) -> None:
    i, p = extraction.info, extraction.provenance
    colour = i.colour
    assumed = f" (assumed: {', '.join(colour.assumed)})" if colour.assumed else ""
    sys.stderr.write(
        f"{i.path}: {i.codec} {i.pix_fmt} {i.width}x{i.height}, shown {i.display_width}x"
        f"{i.display_height}, {colour.matrix} {colour.color_range} {colour.transfer}{assumed}\n"
        f"model {extraction.model.label} sha256 {p['model_sha256'][:16]} at {p['working_size'][0]}x"
        f"{p['working_size'][1]}, {p['provider']}\n"
    )


def _run(extraction: Extraction, outputs: Outputs, quiet: bool) -> RunResult:
    from eyeline.cli.progress import InterruptShield, frame_progress
    from eyeline.saliency.pipeline import run_extraction

    o, total = extraction.options, extraction.info.expected_frames
    if o.stop is not None:
        total = o.stop if total is None else min(o.stop, total)
    remaining = None if total is None else max(0, total - o.start)
    with frame_progress(remaining, quiet) as advance:
        return run_extraction(extraction, outputs, lambda frame: advance(), InterruptShield())


def _conclude(result: RunResult, extraction: Extraction, quiet: bool) -> None:
    from eyeline.errors import EyelineError
    from eyeline.logs.base import pool

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
