"""Which frames deserve a look: the lowest scores, apart from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eyeline.errors import LogError
from eyeline.report.series import Rows

DIRECTIONS: tuple[tuple[str, str], ...] = (
    # column, the end at which a frame deserves a look
    ("ew_vmaf", "lowest"),
    ("sw_vmaf", "lowest"),
    ("vmaf", "lowest"),
    ("ew_psnr_y", "lowest"),
    ("sw_psnr_y", "lowest"),
    ("psnr_y", "lowest"),
    ("ew_ssim", "lowest"),
    ("sw_ssim", "lowest"),
    ("ssim", "lowest"),
    ("ew_ms_ssim", "lowest"),
    ("sw_ms_ssim", "lowest"),
    ("float_ssim", "lowest"),
    ("cambi", "highest"),
    ("saliency_flicker", "highest"),
)
"""The first of these that a log holds is what frames are picked by, where nobody says."""


@dataclass(frozen=True)
class Worst:
    """Frames picked from one log.

    Attributes:
        log: the log's place.
        column: what they were picked by.
        end: `lowest` or `highest`.
        gap: frames that lie between two of them, at least.
        frames: frame numbers, the worst first.
        values: the column there.
    """

    log: int
    column: str
    end: str
    gap: int
    frames: tuple[int, ...]
    values: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """For the page; an infinite value is left to the page's own numbers."""
        return {
            "log": self.log, "column": self.column, "end": self.end, "gap": self.gap,
            "frames": list(self.frames),
        }  # fmt: skip


def pick_worst(logs: list[Rows], count: int, column: str | None = None) -> Worst | None:
    """The worst frames of the first log that holds the column.

    Neighbours look alike, so that the second worst frame is usually the one beside the worst:
    frames nearer than half a second (12 frames) to one that is picked are passed over, or nearer
    than makes `count` fit into a short clip.

    Args:
        logs: at least one.
        count: frames, at most.
        column: what to pick by; see `DIRECTIONS`. One that is not listed there counts as a score:
            its lowest values are picked.

    Returns:
        None where no log holds a column of `DIRECTIONS` with a number in it, or `count` is 0.

    Raises:
        LogError: no log holds `column`.
    """
    known = dict(DIRECTIONS)
    if column is not None and not any(column in log.values for log in logs):
        have = ", ".join(dict.fromkeys(name for log in logs for name in log.values))
        raise LogError(f"no log holds the column {column!r}", f"there are {have}")
    for name in [column] if column is not None else list(known):
        for at, log in enumerate(logs):
            values = log.values.get(name)
            if values is None or not count or np.isnan(values).all():
                continue
            end = known.get(name, "lowest")
            return _pick(at, log, name, end, count)
    return None


def _pick(at: int, log: Rows, column: str, end: str, count: int) -> Worst:
    values = log.values[column]
    step = int(np.median(np.diff(log.numbers))) if len(log.numbers) > 1 else 1
    gap = min(12 * step, max(1, int(log.numbers[-1] - log.numbers[0]) // (2 * count)))
    order = np.argsort(values if end == "lowest" else -values, kind="stable")
    picked: list[int] = []
    for row in order:
        if len(picked) == count or np.isnan(values[row]):
            break
        if all(abs(int(log.numbers[row]) - int(log.numbers[p])) >= gap for p in picked):
            picked.append(int(row))
    return Worst(
        at, column, end, gap,
        tuple(int(log.numbers[p]) for p in picked), tuple(float(values[p]) for p in picked),
    )  # fmt: skip
