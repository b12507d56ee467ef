"""What a log format is: the interface that each format module fills, and rules shared by all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from eyeline.errors import LogError
from eyeline.logs.record import Log

FRAME_NUM = "frameNum"
PTS_TIME = "pts_time"
MERGED_LOG = "merged_log"
"""Provenance key that holds the provenance of the log that another was merged into."""


@dataclass(frozen=True)
class LogFormat:
    """One way to store a log.

    Attributes:
        name: how the format is asked for by name.
        suffixes: file suffixes that choose it, lower case.
        begins: whether a file's first bytes are of this format, leading white space removed.
        write: write a log to a binary stream, row by row.
        read: read a log from the file at a path.
        merge: write the log at a path again, with the columns of another added; None = can't.
    """

    name: str
    suffixes: tuple[str, ...]
    begins: Callable[[bytes], bool]
    write: Callable[[Log, BinaryIO], None]
    read: Callable[[Path], Log]
    merge: Callable[[Log, Path, BinaryIO], None] | None = None


def read_text(path: Path) -> str:
    """The text of a log.

    Raises:
        LogError: it can't be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise LogError(f"{path}: can't be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise LogError(f"{path}: is not text (byte {exc.start} is not UTF-8)") from exc


def check_unique(path: Path, numbers: Sequence[int]) -> None:
    """Refuse a log that holds a frame twice.

    Raises:
        LogError: naming the first such frame.
    """
    if len(set(numbers)) == len(numbers):
        return
    counts = Counter(numbers)
    first = min(number for number, count in counts.items() if count > 1)
    raise LogError(
        f"{path}: frame {first} appears {counts[first]} times "
        f"({len(numbers)} rows, {len(counts)} different frames)"
    )


def match_frames(log: Log, path: Path, numbers: Sequence[int], names: Sequence[str]) -> list[int]:
    """For each frame of an existing log, the row of `log` that belongs to it.

    Args:
        log: the rows to add.
        path: the existing log, for messages.
        numbers: its frame numbers, in its order.
        names: its metrics.

    Raises:
        LogError: a frame is missing on either side or appears twice, or a metric is in both.
    """
    clash = next((name for name in log.columns if name in set(names)), None)
    if clash is not None:
        raise LogError(f"{path}: already holds the metric {clash!r}", "merge into the original log")
    check_unique(path, numbers)
    rows = {number: row for row, number in enumerate(log.frame_num)}
    if len(rows) != len(log):
        check_unique(Path("the new log"), log.frame_num)
    differing = rows.keys() ^ set(numbers)
    if differing:
        first = min(differing)
        lacking = "the video's rows lack" if first not in rows else "the log lacks"
        raise LogError(
            f"{path}: does not match this video: {len(numbers)} frames in the log, {len(rows)} "
            f"in the video; frame {first} is the first that {lacking}",
            "both must cover the same frames of the same clip",
        )
    return [rows[number] for number in numbers]
