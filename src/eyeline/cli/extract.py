"""`eyeline extract`: where viewers look, for every frame of a video."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from eyeline.cli import options
from eyeline.cli.options import argument, command, group, option
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.saliency.pipeline import Extraction, ExtractResult


@dataclass(frozen=True)
class ExtractFiles(options.LogFiles):
    """The output files."""

    overlay: str | None = option(None, help="Heat map over the source: .mp4 or .mkv.")
    maps: str | None = option(
        None, help="Maps at source size: a folder (PNG per frame), .npz, or .mkv (grey FFV1)."
    )
    map_depth: Literal["8", "16"] = option("8", help="Bits of PNG and FFV1 maps.")
    plot: str | None = option(None, help="Features over time, with cuts marked: .svg or .png.")


@command(
    "eyeline extract clip.mp4 -o clip.json --overlay clip_heat.mp4",
    "eyeline extract clip.mp4 -o clip.csv -o clip.parquet --plot clip.svg",
    "eyeline extract ref.yuv --width 576 --height 324 --pix-fmt yuv420p10le -o ref.json",
    "ffmpeg -i clip.mov -f yuv4mpegpipe - | eyeline extract - -o clip.json",
    "eyeline extract clip.mp4 --with-log vmaf.json -o both.json",
)
def extract(
    video: str = argument("VIDEO", "Video, raw YUV, Y4M, folder of images, or `-` for Y4M on stdin."),
    files: ExtractFiles = group(),
    model: options.ModelChoice = group(),
    size: str | None = options.SIZE,
    device: options.Device = options.DEVICE,
    workers: int = options.INFERENCE_WORKERS,
    frames: str | None = option(
        None, panel=options.FRAMES,
        help="Frames A:B, from A up to but not B; either may be left out.",
    ),
    filling: options.FrameFilling = group(),
    temporal: options.TemporalFilter = group(),
    raw: options.RawVideo = group(),
    colour: options.ColourOptions = group(),
    quiet: bool = options.QUIET,
    verbose: bool = options.VERBOSE,
) -> None:  # fmt: skip
    """Find where viewers look, for every frame: numbers, maps, and a heat-map video."""
    from eyeline.cli.progress import InterruptShield, frame_progress, raise_stopped
    from eyeline.saliency.pipeline import ExtractOptions, Outputs, run_extraction
    from eyeline.saliency.pipeline import extract as library_extract

    start, stop = options.parse_frames(frames)
    video_options = raw.video_options(colour)
    outputs = Outputs(
        logs=tuple(files.output or ([] if (files.maps or files.overlay or files.plot) else ["-"])),
        with_log=files.with_log, maps=files.maps, map_depth=16 if files.map_depth == "16" else 8,
        overlay=files.overlay, plot=files.plot,
    )  # fmt: skip
    if files.with_log and not outputs.logs:
        raise UsageError("--with-log is given without a log to write", "add -o FILE")
    outputs.check(video)
    how = ExtractOptions(
        lines=options.parse_size(size), start=start, stop=stop, device=device, workers=workers,
        keep_source=files.overlay is not None, **asdict(filling), **asdict(temporal),
    )  # fmt: skip
    extraction = library_extract(
        video, model=model.choose("extract"), video_options=video_options, options=how
    )
    if verbose:
        _introduce(extraction)
    stop = min(
        (n for n in (how.stop, extraction.info.expected_frames) if n is not None), default=None
    )
    remaining = None if stop is None else max(0, stop - start)
    with frame_progress(remaining, quiet) as advance:
        result = run_extraction(extraction, outputs, lambda frame: advance(), InterruptShield())
    _conclude(result, extraction, quiet)
    raise_stopped(result.stopped, len(result.log))


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


def _conclude(result: ExtractResult, extraction: Extraction, quiet: bool) -> None:
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
