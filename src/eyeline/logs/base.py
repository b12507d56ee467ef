"""What a log format is: the interface that each format module fills, and rules shared by all.

The log itself: rows by frame number, pooled values, provenance. Every format writes this.

Per-frame numbers to one: the only place that pools a metric over a video.

JSON text for logs: a stream, numbers kept as they were spelt, non-finite ones as null.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from eyeline.errors import LogError


class Log:
    """Columns of per-frame numbers that grow row by row, eight bytes a number.

    Args:
        columns: names of the metrics, in order.
        provenance: what made them: model id, digest, options, version; JSON values.
        fps: average frame rate of the video, or None.
    """

    def __init__(
        self, columns: list[str], provenance: Mapping[str, Any], fps: float | None = None
    ) -> None:
        self.columns = columns
        self.provenance: dict[str, Any] = dict(provenance)
        self.fps = fps
        self.frame_num = array("q")
        self.pts_time = array("d")
        self.values = {name: array("d") for name in columns}

    def append(self, frame_num: int, pts_time: float, metrics: Mapping[str, float]) -> None:
        """Add a row; a column that `metrics` lacks is a KeyError."""
        self.frame_num.append(frame_num)
        self.pts_time.append(pts_time)
        for name, column in self.values.items():
            column.append(metrics[name])

    def extend(self, other: Log) -> None:
        """Add the rows of another log; a column that it lacks is a KeyError."""
        self.frame_num.extend(other.frame_num)
        self.pts_time.extend(other.pts_time)
        for name, column in self.values.items():
            column.extend(other.values[name])

    def sliced(self, start: int, stop: int) -> Log:
        """A log of the rows at `start` up to `stop`, counted from 0; the provenance is copied as it is."""
        part = Log(list(self.columns), self.provenance, self.fps)
        part.frame_num = self.frame_num[start:stop]
        part.pts_time = self.pts_time[start:stop]
        part.values = {name: column[start:stop] for name, column in self.values.items()}
        return part

    def __len__(self) -> int:
        return len(self.frame_num)

    def rows(self) -> Iterator[tuple[int, float, dict[str, float]]]:
        """Frame number, presentation time in seconds, metrics; in order."""
        for i, number in enumerate(self.frame_num):
            yield number, self.pts_time[i], {k: v[i] for k, v in self.values.items()}


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


PERCENTILES = (5, 25, 50, 75, 95)

POOLED = ("min", "max", "mean", "harmonic_mean", *(f"p{p}" for p in PERCENTILES))
"""Names of the pooled numbers, in the order of the logs; the first four are libvmaf's."""


def harmonic_mean(values: npt.NDArray[np.float64]) -> float:
    """Harmonic mean shifted by one, so that a score of 0 is allowed: `1 / mean(1 / (x + 1)) - 1`.

    Source: `vmaf_feature_score_pooled` in libvmaf (`libvmaf/src/libvmaf.c`), where
    `VMAF_POOL_METHOD_HARMONIC_MEAN` sums `1 / (x + 1)` and answers `count / sum - 1`.

    Args:
        values: float64 (n,), n at least 1, each above -1.
    """
    with np.errstate(divide="ignore", over="ignore"):
        return float(1.0 / np.mean(1.0 / (values + 1.0)) - 1.0)


def pool(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """Pool one metric over the frames of a video.

    A NaN among the values makes every pooled number NaN, and so does an empty sequence: a frame
    without an answer must not vanish from an average. Percentiles interpolate linearly between
    the two nearest ranks (NumPy's `linear` method).

    Args:
        values: one number a frame.

    Returns:
        A value for each name of `POOLED`.
    """
    x = np.asarray(values, np.float64)
    if not x.size or np.isnan(x).any():
        return dict.fromkeys(POOLED, float("nan"))
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf between infinite ranks
        percentiles = np.percentile(x, PERCENTILES, method="linear")
        numbers = (x.min(), x.max(), x.mean(), harmonic_mean(x), *percentiles)
    return dict(zip(POOLED, map(float, numbers), strict=True))


class Spelt(float):
    """A float that remembers its spelling, so that a merged log repeats it to the letter."""

    text: str

    def __new__(cls, text: str) -> Spelt:
        """Parse `text` and keep it."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LogError(f"the name {twice!r} appears twice in one object")
    return out


def parse(text: str) -> Any:
    """Read JSON; floats become `Spelt`, and NaN and Infinity (not JSON, yet seen) become null.

    Raises:
        LogError: an object names a key twice.
        ValueError: the text is not JSON.
    """
    return json.loads(
        text, parse_float=Spelt, parse_constant=lambda _: None, object_pairs_hook=_unique
    )


def _scalar(value: Any) -> str:
    if isinstance(value, Spelt) and math.isfinite(value):
        return value.text
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else "null"
    return json.dumps(value, ensure_ascii=False)


def compact(value: Any) -> str:
    """JSON on one line."""
    return "".join(dump(value, indent=None))


def dump(value: Any, *, indent: int | None = 0, step: int = 2) -> Iterator[str]:
    """Yield JSON text piece by piece.

    Args:
        value: mappings, sequences, iterators (written as arrays as they are consumed), scalars.
        indent: spaces before the closing bracket; None writes one line.
        step: spaces a level.
    """
    if isinstance(value, Mapping):
        opening, closing = "{", "}"
        items: Iterator[tuple[str, Any]] = (
            (json.dumps(str(k), ensure_ascii=False) + ": ", v) for k, v in value.items()
        )
    elif isinstance(value, Sequence | Iterator) and not isinstance(value, str):
        opening, closing = "[", "]"
        items = (("", v) for v in value)
    else:
        yield _scalar(value)
        return
    inner = None if indent is None else indent + step
    first, between = ("", ", ") if inner is None else ("\n" + " " * inner, ",\n" + " " * inner)
    empty = True
    yield opening
    for name, item in items:
        yield (first if empty else between) + name
        yield from dump(item, indent=inner, step=step)
        empty = False
    yield closing if empty or indent is None else "\n" + " " * indent + closing
