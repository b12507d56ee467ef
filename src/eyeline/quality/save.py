"""Write scores to new logs, or merge their columns into an existing libvmaf log."""

from __future__ import annotations

from typing import Any

from eyeline.errors import LogError
from eyeline.files import check_outputs
from eyeline.logs import format_for, pool, read_log, write_log
from eyeline.logs.base import Log
from eyeline.media.types import VideoInfo
from eyeline.quality.pairs import SAME_RATE, PairOptions
from eyeline.quality.score import GAZE_PREFIX

TOLERANCE = {"psnr": 0.05, "float": 0.002}
"""Tolerance for a column that the existing log also has: dB for PSNR, absolute for SSIM and MS-SSIM.
Decoders and scalers round differently, but another video or another encode differs much more.
"""

ANOTHER_PAIR = "give the log of these two videos, aligned the same way"


def check_clip(path: str, ref: VideoInfo, dist: VideoInfo, pairs: PairOptions) -> None:
    """Check before scoring that an existing log describes these two videos.

    Logs of eyeline state the frame size, rate and count; libvmaf's XML states the size and the count, and
    libvmaf's JSON and CSV only the count. After scoring, `save_scores` also compares the scores.

    Raises:
        LogError: the log cannot be read, or describes another video.
    """
    theirs = read_log(path)
    scaled = dist if pairs.scale == "dist" else ref
    ours = {
        "compared size": pairs.crop[:2] if pairs.crop else (scaled.width, scaled.height),
        "reference size": (ref.display_width, ref.display_height),
        "frame rate": None if ref.fps is None else float(ref.fps),
    }
    _check_facts(path, _facts(theirs), ours)
    if ref.frames is None or dist.frames is None or pairs.shortest or pairs.resample:
        return
    count = min(ref.frames - pairs.ref_offset, dist.frames - pairs.dist_offset)
    count = count if pairs.frames is None else min(count, pairs.frames)
    _check_facts(path, {"frame count": len(theirs)}, {"frame count": count})


def _facts(log: Log) -> dict[str, Any]:
    """Return the properties of the video that a log states; None if missing or malformed."""
    facts = log.provenance

    def pair(holder: object, key: str) -> tuple[int, int] | None:
        found = holder.get(key) if isinstance(holder, dict) else None
        numbers = isinstance(found, list) and [n for n in found if isinstance(n, int)]
        return (numbers[0], numbers[1]) if numbers and len(numbers) == 2 else None

    return {
        "compared size": pair(facts, "compared_size"),
        # The logs of `score` have `reference`, those of `extract` have `video`.
        "reference size": pair(facts.get("reference", facts.get("video")), "display_size"),
        "frame rate": log.fps,
    }


def _check_facts(path: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for what, there in theirs.items():
        here = ours[what]
        if there is None or here is None:
            continue
        alike = abs(there - here) <= SAME_RATE * here if isinstance(there, float) else there == here
        if not alike:
            words = [
                "x".join(map(str, v)) if isinstance(v, tuple) else f"{v:g}" for v in (there, here)
            ]
            raise LogError(
                f"{path}: is the log of another video: its {what} is {words[0]}, expected {words[1]}",
                ANOTHER_PAIR,
            )


def _drop_shared(log: Log, path: str) -> list[str]:
    """Remove from `log` the columns that the log at `path` also has, if their values agree.

    Returns:
        The columns that were removed from `log`.

    Raises:
        LogError: the log cannot be read, or describes another pair of videos.
    """
    theirs = read_log(path)
    _check_facts(path, _facts(theirs), _facts(log))
    rows = {number: row for row, number in enumerate(theirs.frame_num)}
    shared = [name for name in log.columns if name in theirs.values]
    for name in shared:
        tolerance = TOLERANCE.get(name.split("_")[0])
        if tolerance is None:
            continue
        for number, ours in zip(log.frame_num, log.values[name], strict=True):
            row = rows.get(number)
            # The merge reports missing frames. NaN (not computed) passes the comparison.
            if row is not None and abs(theirs.values[name][row] - ours) > tolerance:
                raise LogError(
                    f"{path}: is the log of another pair of videos: its {name} of frame {number} is "
                    f"{theirs.values[name][row]:.4f}, expected {ours:.4f}",
                    ANOTHER_PAIR,
                )
    for name in shared:
        log.columns.remove(name)
        del log.values[name]
    return shared


def save_scores(log: Log, logs: tuple[str, ...], with_log: str | None = None) -> list[str]:
    """Write scores to log files.

    Args:
        log: log of `eyeline.score`.
        logs: paths of the JSON, CSV, XML or Parquet files to write, or `-` for stdout.
        with_log: existing libvmaf log to add the columns to. If it already has a column, that column is
            compared with the computed one and kept.

    Returns:
        The names of the columns that the existing log already had.

    Raises:
        LogError: the existing log describes another pair of videos, or cannot be read.
        OutputError: a file cannot be written.
    """
    dropped = _drop_shared(log, with_log) if with_log else []
    for path in logs:
        write_log(log, path, with_log=with_log)
    return dropped


def check_logs(logs: tuple[str, ...], with_log: str | None, inputs: tuple[str, str]) -> None:
    """Check the output paths before scoring.

    Raises:
        UsageError: two outputs have the same path, or an output is also an input.
        OutputError: a file name has an unknown suffix, or a file cannot be written.
        LogError: the log to merge into cannot be read.
    """
    check_outputs(logs, inputs=inputs)
    for path in logs:
        format_for(path)
    if with_log is not None:
        read_log(with_log)


_SUMMARY = (
    ("PSNR-Y, dB", "psnr_y", "sw_psnr_y"),
    ("PSNR 6:1:1, dB", "psnr_611", "sw_psnr_611"),
    ("SSIM", "float_ssim", "sw_ssim"),
    ("MS-SSIM", "float_ms_ssim", "sw_ms_ssim"),
    ("VMAF", "vmaf", "sw_vmaf"),
    ("VMAF, crop (biased)", "vmaf_crop", ""),
)
"""Label, whole column and weighted column of each line of the summary."""


def summary(log: Log) -> list[str]:
    """Return lines of text with the mean of each metric over all frames, whole and weighted."""
    lines = [f"{'mean of ' + str(len(log)) + ' frames':24}{'whole':>10}{'weighted':>10}"]
    for label, plain, weighted in _SUMMARY:
        names = (
            "eyeline_vmaf" if plain == "vmaf" and plain not in log.values else plain,  # within 0.05
            weighted if weighted in log.values else GAZE_PREFIX + weighted.removeprefix("sw_"),
        )
        cells = [
            f"{pool(log.values[n])['mean']:10.4f}" if n in log.values else f"{'':10}" for n in names
        ]
        if any(cell.strip() for cell in cells):
            lines.append(f"{label:24}{''.join(cells)}".rstrip())
    return lines
