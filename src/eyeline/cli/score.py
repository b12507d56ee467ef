"""`eyeline score`: compare a video with its reference, weighted by where viewers look."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from eyeline.cli import options
from eyeline.cli.options import argument, command, group, option
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.media.types import VideoInfo, VideoOptions
    from eyeline.quality.score import ScoreResult
    from eyeline.registry.registry import Model


@dataclass(frozen=True)
class MetricOptions:
    """The metrics."""

    panel: ClassVar = "Metrics"
    metrics: str | None = options.METRICS
    vmaf_model: str = options.VMAF_MODEL
    method: Literal["crop"] | None = option(
        None, help="For comparison, also run libvmaf on a window that follows the map (biased)."
    )


@dataclass(frozen=True)
class WeightOptions:
    """The weights of the pixels."""

    panel: ClassVar = "Weights"
    weight: float = options.WEIGHT
    maps: str | None = option(None, help="Ready maps: a folder, .npz or .mkv of `extract --maps`.")
    masks: str | None = option(None, help="Folder of ground-truth masks, one per frame, by name.")
    fixations: str | None = option(
        None, metavar="FILE",
        help="Weight by recorded gaze: fixations.csv[.gz], or a fixation set (folder, .tar, .zip) "
        "with a video of REF's name. Weighted columns begin with `ew_`.",
    )  # fmt: skip
    pixels_per_degree: float | None = options.PIXELS_PER_DEGREE


@dataclass(frozen=True)
class AlignmentOptions:
    """The pairing of the frames, and their size."""

    panel: ClassVar = "Alignment"
    ref_offset: int = option(0, min=0, help="Frames of REF to leave out at its start.")
    dist_offset: int = option(0, min=0, help="Frames of DIST to leave out at its start.")
    frames: int | None = option(None, min=1, help="Pairs to score; all by default.")
    resample: bool = option(False, "--resample", help="Pair frames by time, not by number.")
    scale: Literal["ref", "dist"] | None = option(
        None, help="Scale both to the size of REF (usual) or of DIST, bicubic."
    )
    crop: str | None = option(None, help="Crop W:H:X:Y of both, after scaling.")
    shortest: bool = option(False, "--shortest", help="Stop where the shorter video ends.")


@command(
    "eyeline score ref.mp4 dist.mp4 -o scores.json",
    "eyeline score ref.mp4 dist_540p.mp4 --scale ref --metrics psnr,ssim -o scores.csv",
    "eyeline score ref.yuv dist.yuv --width 576 --height 324 --pix-fmt yuv420p10le -o scores.json",
    "eyeline score ref.mp4 dist.mp4 --with-log vmaf.xml -o both.xml",
    "eyeline score ref.mp4 dist.mp4 --fixations fixations.csv -o scores.json",
    "eyeline score ref.mp4 dist.mp4 --masks truth/ --metrics sw_vmaf,vmaf --method crop -o scores.json",
)
def score(
    reference: str = argument("REF", "The pristine video; it gives the map."),
    distorted: str = argument("DIST", "The video to score."),
    files: options.LogFiles = group(),
    metrics: MetricOptions = group(),
    weights: WeightOptions = group(),
    model: options.ModelChoice = group(),
    size: str | None = options.SIZE,
    temporal: options.TemporalFilter = group(),
    alignment: AlignmentOptions = group(),
    raw: options.RawVideo = group(),
    colour: options.ColourTagOptions = group(),
    workers: int = option(0, min=0, max=256, help="Threads that measure; 0 = one per core."),
    quiet: bool = options.QUIET,
    verbose: bool = options.VERBOSE,
) -> None:
    """Score a video against its reference, whole and weighted by where viewers look."""
    from eyeline.cli.progress import InterruptShield, frame_progress
    from eyeline.quality.pairs import PairOptions
    from eyeline.quality.save import check_clip, check_logs
    from eyeline.quality.score import ScoreOptions
    from eyeline.quality.score import score as library_score
    from eyeline.saliency.pipeline import ExtractOptions

    model.refuse_ready_maps(maps=weights.maps, masks=weights.masks, fixations=weights.fixations)
    logs = tuple(files.output or ["-"])
    check_logs(logs, files.with_log, (reference, distorted))
    video_options = raw.video_options(colour)
    names = metrics.metrics
    how = ScoreOptions(
        metrics=tuple(names.split(",")) if names is not None else None,
        pairs=PairOptions(**asdict(replace(alignment, crop=None)) | {"crop": parse_crop(alignment.crop)}),
        method=metrics.method, vmaf_model=metrics.vmaf_model, workers=workers, **asdict(weights),
        extract=ExtractOptions(lines=options.parse_size(size), **asdict(temporal)),
    )  # fmt: skip
    chosen = model.choose("score") if how.needs_model else None
    advance: Callable[[], None] | None = None  # the videos are not open yet

    def begin(ref: VideoInfo, dist: VideoInfo) -> None:
        nonlocal advance
        if files.with_log is not None:
            check_clip(files.with_log, ref, dist, how.pairs)
        if verbose:
            _introduce(chosen, ref, dist)
        total, limit = ref.expected_frames, how.pairs.frames
        left = None if total is None else max(0, total - how.pairs.ref_offset)
        left = left if limit is None else min(limit, left or limit)
        advance = stack.enter_context(frame_progress(left, quiet, "score"))

    def step() -> None:
        if advance is not None:
            advance()

    InterruptShield()
    with contextlib.ExitStack() as stack:
        result = library_score(
            reference, distorted, model=chosen, options=how, on_start=begin, on_frame=step,
            ref_options=_raw_or_not(reference, distorted, video_options),
            dist_options=_raw_or_not(distorted, reference, video_options),
        )  # fmt: skip
    _conclude(result, logs, files.with_log, quiet)


def parse_crop(text: str | None) -> tuple[int, int, int, int] | None:
    """Return `W:H:X:Y` as four numbers."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+):(\d+):(\d+)", text)
    if not match:
        raise UsageError(f"--crop {text!r} is not W:H:X:Y", "write it like 1920:800:0:140")
    w, h, x, y = (int(number) for number in match.groups())
    return w, h, x, y


def _raw_or_not(path: str, other: str, raw: VideoOptions) -> VideoOptions:
    """Return the options for `path`: without a raw layout if only the other video is raw."""
    from eyeline.media.types import RAW_SUFFIXES

    by_suffix = [Path(p).suffix.lower() in RAW_SUFFIXES for p in (path, other)]
    if by_suffix != [False, True]:
        return raw
    return replace(raw, width=None, height=None, pix_fmt=None, fps=None)


def _introduce(model: Model | None, ref: VideoInfo, dist: VideoInfo) -> None:
    if model is not None:
        sys.stderr.write(f"model {model.label} sha256 {model.sha256[:16]}\n")
    for info in (ref, dist):
        sys.stderr.write(
            f"{info.path}: {info.codec} {info.pix_fmt} {info.width}x{info.height}, "
            f"{info.colour.matrix} {info.colour.color_range}\n"
        )


def _conclude(
    result: ScoreResult, logs: tuple[str, ...], with_log: str | None, quiet: bool
) -> None:
    from eyeline.cli.progress import raise_stopped
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
    raise_stopped(result.stopped, len(result.log))
