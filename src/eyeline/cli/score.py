"""`eyeline score`: quality of a video against its reference, where viewers look."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eyeline.cli import options
from eyeline.cli.extract import parse_size, raw_options
from eyeline.errors import EyelineError, UsageError

if TYPE_CHECKING:
    from eyeline.media.types import VideoInfo, VideoOptions
    from eyeline.quality.score import ScoreOptions, ScoreResult
    from eyeline.registry.registry import Model

_OUTPUT, _WEIGHT, _WHAT = "Output", "Weights", "What is measured"
_ALIGN, _RAW, _COLOUR = "Alignment", "Raw video (both)", "Colour (both)"

EXAMPLES = """
Examples:

    eyeline score ref.mp4 dist.mp4 -o scores.json

    eyeline score ref.mp4 dist_540p.mp4 --scale ref --metrics psnr,ssim -o scores.csv

    eyeline score ref.yuv dist.yuv --width 576 --height 324 --pix-fmt yuv420p10le -o scores.json

    eyeline score ref.mp4 dist.mp4 --with-log vmaf.xml -o both.xml

    eyeline score ref.mp4 dist.mp4 --fixations fixations.csv -o scores.json

    eyeline score ref.mp4 dist.mp4 --masks truth/ --metrics sw_vmaf,vmaf --method mask -o scores.json
"""


def score(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF", help="The pristine video; the map comes from it.", show_default=False
        ),
    ],
    distorted: Annotated[
        str, typer.Argument(metavar="DIST", help="The video to score.", show_default=False)
    ],
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            "-o",
            help="Log: .json, .csv, .xml, .parquet, or `-` (JSON on stdout; the default). Repeatable.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    with_log: Annotated[
        str | None,
        typer.Option(
            help="libvmaf log (.json, .csv, .xml) to merge the columns into.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Of psnr, ssim, ms_ssim, sw_vmaf, vmaf, comma-separated; all that can be had by "
            "default (VMAF: extra `vmaf`).",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    vmaf_model: Annotated[
        str,
        typer.Option(help="Model of vmaf and sw_vmaf, by version.", rich_help_panel=_WHAT),
    ] = "vmaf_v0.6.1",
    method: Annotated[
        Literal["crop", "mask"] | None,
        typer.Option(
            help="For comparison, libvmaf on a crop or on the subject before the reference's "
            "background; both are biased.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    weight: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="0 = uniform weights, 1 = the map alone.", rich_help_panel=_WEIGHT
        ),
    ] = 1.0,
    maps: Annotated[
        str | None,
        typer.Option(
            help="Ready maps: a folder, .npz or .mkv of `extract --maps`.", rich_help_panel=_WEIGHT
        ),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(
            help="Folder of ground-truth masks, one a frame, by name.", rich_help_panel=_WEIGHT
        ),
    ] = None,
    fixations: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Weight by recorded gaze: fixations.csv[.gz], or a fixation set (folder, .tar, .zip) "
            "with a video of REF's name. Weighted columns begin with `ew_`.",
            rich_help_panel=_WEIGHT,
        ),
    ] = None,
    pixels_per_degree: Annotated[
        float | None,
        typer.Option(
            help="Pixels of REF per degree of visual angle: recorded gaze is then blurred by 1 degree. "
            "Without it, the blur is 3 % of the width.",
            rich_help_panel=_WEIGHT,
        ),
    ] = None,
    model: options.ModelName = None,
    task: options.MapTask = None,
    registry: options.Registry = None,
    size: options.Size = None,
    temporal: options.Temporal = "model",
    temporal_ms: options.TemporalMs = None,
    ref_offset: Annotated[
        int, typer.Option(min=0, help="Frames of REF to leave out.", rich_help_panel=_ALIGN)
    ] = 0,
    dist_offset: Annotated[
        int, typer.Option(min=0, help="Frames of DIST to leave out.", rich_help_panel=_ALIGN)
    ] = 0,
    count: Annotated[
        int | None,
        typer.Option("--frames", min=1, help="Pairs to score; all.", rich_help_panel=_ALIGN),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option("--resample", help="Pair by time, not by number.", rich_help_panel=_ALIGN),
    ] = False,
    scale: Annotated[
        Literal["ref", "dist"] | None,
        typer.Option(
            help="Bring both to the size of REF (usual) or of DIST, bicubic.",
            rich_help_panel=_ALIGN,
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(help="W:H:X:Y of both, after scaling.", rich_help_panel=_ALIGN),
    ] = None,
    shortest: Annotated[
        bool,
        typer.Option("--shortest", help="Stop where the shorter one ends.", rich_help_panel=_ALIGN),
    ] = False,
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
        typer.Option(help="Frames a second, as 25 or 30000/1001.", rich_help_panel=_RAW),
    ] = None,
    matrix: Annotated[
        Literal["bt601", "bt709", "bt2020"] | None,
        typer.Option(help="YUV matrix; overrides the streams' tags.", rich_help_panel=_COLOUR),
    ] = None,
    color_range: Annotated[
        Literal["limited", "full"] | None,
        typer.Option(
            "--range", help="Sample range; overrides the streams' tags.", rich_help_panel=_COLOUR
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, max=256, help="Threads that measure; 0 = one per core.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what is being run.")
    ] = False,
) -> None:
    """Score a video against its reference, whole and weighted by where viewers look."""
    from dataclasses import replace

    from eyeline.quality.pairs import PairOptions
    from eyeline.quality.save import check_outputs
    from eyeline.quality.score import ScoreOptions
    from eyeline.saliency.pipeline import ExtractOptions

    options.check_map_alone(task, maps=maps, masks=masks, fixations=fixations)
    logs = tuple(output or ["-"])
    check_outputs(logs, with_log, (reference, distorted))
    raw = replace(
        raw_options(width, height, pix_fmt, bitdepth, fps), matrix=matrix, color_range=color_range
    )
    how = ScoreOptions(
        metrics=tuple(metrics.split(",")) if metrics is not None else None,
        weight=weight,
        pairs=PairOptions(
            ref_offset=ref_offset, dist_offset=dist_offset, resample=resample, scale=scale,
            crop=parse_crop(crop), shortest=shortest, frames=count,
        ),
        maps=maps, masks=masks, fixations=fixations, pixels_per_degree=pixels_per_degree,
        method=method, vmaf_model=vmaf_model, workers=workers,
        extract=ExtractOptions(
            lines=parse_size(size), temporal=temporal, temporal_ms=temporal_ms
        ),
    )  # fmt: skip
    chosen = None
    if how.needs_model:
        chosen = options.choose_model(model, registry, task, "score")
    result = _run(reference, distorted, chosen, how, raw, with_log, quiet, verbose)
    _conclude(result, logs, with_log, quiet)


def parse_crop(text: str | None) -> tuple[int, int, int, int] | None:
    """`W:H:X:Y` to four numbers.

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+):(\d+):(\d+)", text)
    if not match:
        raise UsageError(f"--crop {text!r} is not W:H:X:Y", "for example 1920:800:0:140")
    w, h, x, y = (int(number) for number in match.groups())
    return w, h, x, y


def _raw_or_not(path: str, other: str, raw: VideoOptions) -> VideoOptions:
    """The layout of raw video goes to those that are raw; to both where neither says so by suffix."""
    from dataclasses import replace
    from pathlib import Path

    from eyeline.media.types import RAW_SUFFIXES

    suffixes = [Path(p).suffix.lower() in RAW_SUFFIXES for p in (path, other)]
    if suffixes[0] or not suffixes[1]:
        return raw
    return replace(raw, width=None, height=None, pix_fmt=None, fps=None)


def _run(
    reference: str,
    distorted: str,
    model: Model | None,
    how: ScoreOptions,
    raw: VideoOptions,
    with_log: str | None,
    quiet: bool,
    verbose: bool,
) -> ScoreResult:
    import contextlib
    from collections.abc import Callable

    from eyeline.cli.progress import InterruptShield, frame_progress
    from eyeline.quality.save import check_clip
    from eyeline.quality.score import score as library_score

    InterruptShield()
    with contextlib.ExitStack() as stack:
        advance: list[Callable[[], None]] = []

        def begin(ref: VideoInfo, dist: VideoInfo) -> None:
            if with_log is not None:
                check_clip(with_log, ref, dist, how.pairs)
            if verbose:
                if model is not None:
                    sys.stderr.write(f"model {model.label} sha256 {model.sha256[:16]}\n")
                for info in (ref, dist):
                    sys.stderr.write(
                        f"{info.path}: {info.codec} {info.pix_fmt} {info.width}x{info.height}, "
                        f"{info.colour.matrix} {info.colour.color_range}\n"
                    )
            total = ref.expected_frames
            left = None if total is None else max(0, total - how.pairs.ref_offset)
            limit = how.pairs.frames
            left = left if limit is None else min(limit, left or limit)
            advance.append(stack.enter_context(frame_progress(left, quiet, "score")))

        def step() -> None:
            for one in advance:
                one()

        return library_score(
            reference,
            distorted,
            model=model,
            options=how,
            ref_options=_raw_or_not(reference, distorted, raw),
            dist_options=_raw_or_not(distorted, reference, raw),
            on_start=begin,
            on_frame=step,
        )


def _conclude(
    result: ScoreResult, logs: tuple[str, ...], with_log: str | None, quiet: bool
) -> None:
    from eyeline.quality.save import save_scores, summary

    lines = summary(result.log)
    present = save_scores(result.log, logs, with_log)
    if not quiet:
        for name, reason in result.log.provenance.get("left_out", {}).items():
            sys.stderr.write(f"{name} left out: {reason}\n")
        if present:
            sys.stderr.write(f"kept from {with_log}: {', '.join(present)}\n")
        sys.stderr.write("".join(f"{line}\n" for line in lines))
    for warning in result.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    if isinstance(result.stopped, EyelineError):
        raise result.stopped
    if result.stopped is not None:
        sys.stderr.write(f"interrupted: {len(result.log)} frames are kept\n")
        raise typer.Exit(130)


score.__doc__ = f"{score.__doc__}\n{EXAMPLES}"
