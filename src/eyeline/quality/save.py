"""Scores into logs: beside what people's libvmaf logs hold already, or on their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eyeline.errors import LogError, UsageError
from eyeline.logs import format_for, pool, read_log, write_log
from eyeline.logs.base import Log
from eyeline.media.types import VideoInfo
from eyeline.quality.pairs import SAME_RATE, PairOptions
from eyeline.quality.weights import COLUMNS

TOLERANCE = {"psnr": 0.05, "float": 0.002}
"""How far a number of the same name may lie from ours (dB; index of similarity) in a log of this pair.

Other decoders and scalers round differently; another clip, or another encode, is much further off.
"""


def check_clip(path: str, ref: VideoInfo, dist: VideoInfo, pairs: PairOptions) -> None:
    """Refuse a log of another clip before the work begins, as far as it says what it is of.

    eyeline's own logs say size, rate and count; libvmaf's XML says size and count, its JSON and CSV
    count alone. What is left shows in the numbers, see `drop_what_is_there`.

    Raises:
        LogError: the log can't be read, or is another clip's.
    """
    theirs = read_log(path)
    width, height = pairs.crop[:2] if pairs.crop else _size(dist if pairs.scale == "dist" else ref)
    ours = {
        "size compared": (width, height),
        "size of the reference": (ref.display_width, ref.display_height),
        "frames a second": None if ref.fps is None else float(ref.fps),
    }
    _check_facts(path, _facts(theirs), ours)
    if ref.frames is None or dist.frames is None or pairs.shortest or pairs.resample:
        return
    count = min(ref.frames - pairs.ref_offset, dist.frames - pairs.dist_offset)
    count = count if pairs.frames is None else min(count, pairs.frames)
    _check_facts(path, {"frames": len(theirs)}, {"frames": count})


def _size(info: VideoInfo) -> tuple[int, int]:
    return info.width, info.height


def _facts(log: Log) -> dict[str, Any]:
    """What a log says of its clip, None where it says nothing that makes sense."""
    said = log.provenance

    def pair(holder: object, key: str) -> tuple[int, int] | None:
        found = holder.get(key) if isinstance(holder, dict) else None
        numbers = isinstance(found, list) and [n for n in found if isinstance(n, int)]
        return (numbers[0], numbers[1]) if numbers and len(numbers) == 2 else None

    return {
        "size compared": pair(said, "compared_size"),
        # `reference` stands in the logs of `score`, `video` in those of `extract`.
        "size of the reference": pair(said.get("reference", said.get("video")), "display_size"),
        "frames a second": log.fps,
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
                f"{path}: belongs to another clip: {what}: {words[0]} there, {words[1]} here",
                "give the log of these two videos, aligned the same way",
            )


def drop_what_is_there(log: Log, path: str) -> list[str]:
    """Take the columns out of `log` that a log at `path` holds, if they agree.

    Returns:
        The columns that were taken out.

    Raises:
        LogError: the log can't be read, it says that it is another clip's, or a number differs: it
            belongs to another pair.
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
            # Frames that one lacks are reported by the merge; NaN is a number that was not computed.
            if row is not None and abs(theirs.values[name][row] - ours) > tolerance:
                raise LogError(
                    f"{path}: belongs to another pair: {name} of frame {number} is "
                    f"{theirs.values[name][row]:.4f} there and {ours:.4f} here",
                    "give the log of these two videos, aligned the same way",
                )
    for name in shared:
        log.columns.remove(name)
        del log.values[name]
    return shared


def save_scores(log: Log, logs: tuple[str, ...], with_log: str | None = None) -> list[str]:
    """Write scores.

    Args:
        log: from `eyeline.score`.
        logs: JSON, CSV, XML or Parquet files, or `-`.
        with_log: a libvmaf log to merge the columns into; those it holds already are compared
            with ours, and its own are kept.

    Returns:
        Columns that the existing log held already.

    Raises:
        LogError: the existing log belongs to another pair, or can't be read.
        OutputError: a file can't be written.
    """
    dropped = drop_what_is_there(log, with_log) if with_log else []
    for path in logs:
        write_log(log, path, with_log=with_log)
    return dropped


def check_outputs(logs: tuple[str, ...], with_log: str | None, inputs: tuple[str, str]) -> None:
    """Find what would fail at the end before the work begins.

    Raises:
        UsageError: two outputs of one name, or one that is an input.
        OutputError: an unknown suffix.
        LogError: a log to merge into that can't be read.
    """
    places = [Path(p).resolve() for p in logs if p != "-"]
    for place in places:
        if places.count(place) > 1:
            raise UsageError(f"{place}: two outputs of that name", "give each its own")
        if place in [Path(p).resolve() for p in inputs if p != "-"]:
            raise UsageError(f"{place}: is an input", "give the output another name")
    for path in logs:
        format_for(path)
    if with_log is not None:
        read_log(with_log)


_SHOWN = (
    ("PSNR-Y, dB", "psnr_y", "sw_psnr_y"),
    ("PSNR 6:1:1, dB", "psnr_611", "sw_psnr_611"),
    ("SSIM", "float_ssim", "sw_ssim"),
    ("MS-SSIM", "float_ms_ssim", "sw_ms_ssim"),
    ("VMAF", "vmaf", "sw_vmaf"),
    ("VMAF, crop (biased)", "vmaf_crop", ""),
    ("VMAF, mask (biased)", "vmaf_mask", ""),
)


def summary(log: Log) -> list[str]:
    """Means over all frames, whole and weighted side by side, as lines of text."""
    lines = [f"{'mean of ' + str(len(log)) + ' frames':24}{'whole':>10}{'weighted':>10}"]
    for label, plain, weighted in _SHOWN:
        if plain == "vmaf" and plain not in log.values:
            plain = "eyeline_vmaf"  # noqa: PLW2901 - equal within .05 points
        if weighted not in log.values:
            weighted = COLUMNS + weighted.removeprefix("sw_")  # noqa: PLW2901
        cells = [
            f"{pool(log.values[n])['mean']:10.4f}" if n in log.values else f"{'':10}"
            for n in (plain, weighted)
        ]
        if any(cell.strip() for cell in cells):
            lines.append(f"{label:24}{''.join(cells)}".rstrip())
    return lines
