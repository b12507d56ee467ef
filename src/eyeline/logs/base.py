"""The log, the pooling of a metric over a video, and the interface and rules of all log formats."""

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
    """Columns of numbers that grow row by row, one row per frame, eight bytes per number.

    Args:
        columns: names of the metrics, in order.
        provenance: origin of the numbers (model id, digest, options, version); JSON values.
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
        """Add the rows of another log; a column that the other log lacks is a KeyError."""
        self.frame_num.extend(other.frame_num)
        self.pts_time.extend(other.pts_time)
        for name, column in self.values.items():
            column.extend(other.values[name])

    def sliced(self, start: int, stop: int) -> Log:
        """Return the rows `start` to `stop`, counted from 0, as a log with the same provenance."""
        part = Log(list(self.columns), self.provenance, self.fps)
        part.frame_num = self.frame_num[start:stop]
        part.pts_time = self.pts_time[start:stop]
        part.values = {name: column[start:stop] for name, column in self.values.items()}
        return part

    def __len__(self) -> int:
        return len(self.frame_num)

    def rows(self) -> Iterator[tuple[int, float, dict[str, float]]]:
        """Yield frame number, presentation time in seconds, and metrics, in order."""
        for i, number in enumerate(self.frame_num):
            yield number, self.pts_time[i], {k: v[i] for k, v in self.values.items()}


PERCENTILES = (5, 25, 50, 75, 95)

POOLED = ("min", "max", "mean", "harmonic_mean", *(f"p{p}" for p in PERCENTILES))
"""Names of the pooled numbers, in the order of the logs; the first four are libvmaf's."""


def harmonic_mean(values: npt.NDArray[np.float64]) -> float:
    """Return the harmonic mean shifted by one, so that 0 is allowed: `1 / mean(1 / (x + 1)) - 1`.

    Source: `vmaf_feature_score_pooled` in libvmaf (`libvmaf/src/libvmaf.c`), where
    `VMAF_POOL_METHOD_HARMONIC_MEAN` sums `1 / (x + 1)` and returns `count / sum - 1`.

    Args:
        values: float64 (n,), n at least 1, each above -1.
    """
    with np.errstate(divide="ignore", over="ignore"):
        return float(1.0 / np.mean(1.0 / (values + 1.0)) - 1.0)


def pool(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """Pool one metric over the frames of a video.

    With a NaN among the values, or without values, every pooled number is NaN: a frame without a
    value must not vanish from an average. Percentiles interpolate linearly between the two nearest
    ranks (NumPy's `linear` method).

    Args:
        values: one number per frame.

    Returns:
        One value for each name of `POOLED`.
    """
    x = np.asarray(values, np.float64)
    if not x.size or np.isnan(x).any():
        return dict.fromkeys(POOLED, float("nan"))
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf between infinite ranks
        percentiles = np.percentile(x, PERCENTILES, method="linear")
        numbers = (x.min(), x.max(), x.mean(), harmonic_mean(x), *percentiles)
    return dict(zip(POOLED, map(float, numbers), strict=True))


FRAME_NUM = "frameNum"
PTS_TIME = "pts_time"
MERGED_LOG = "merged_log"
"""Provenance key that holds the provenance of the log into which another was merged."""


@dataclass(frozen=True)
class LogFormat:
    """One way to store a log."""

    name: str  # the name by which users choose the format
    suffixes: tuple[str, ...]  # file suffixes that choose it, lower case
    # whether a file's first bytes, without leading white space, look like this format
    begins: Callable[[bytes], bool]
    write: Callable[[Log, BinaryIO], None]
    read: Callable[[Path], Log]
    # Write the log at a path again, with the columns of another log added.
    merge: Callable[[Log, Path, BinaryIO], None] | None = None


def read_text(path: Path) -> str:
    """Read the text of a log."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise LogError(f"can't be read: {exc.strerror or exc}", "check the path") from exc
    except UnicodeDecodeError as exc:
        raise LogError(f"the file is not text: byte {exc.start} is not UTF-8") from exc


def check_unique(numbers: Sequence[int]) -> None:
    """Refuse a log that holds a frame twice, by a LogError that names the first such frame."""
    if len(set(numbers)) == len(numbers):
        return
    counts = Counter(numbers)
    first = min(number for number, count in counts.items() if count > 1)
    raise LogError(
        f"frame {first} appears {counts[first]} times "
        f"({len(numbers)} rows, {len(counts)} different frames)",
        "give a log with one row per frame",
    )


def match_frames(log: Log, numbers: Sequence[int], names: Sequence[str]) -> list[int]:
    """Return, for each frame of an existing log, the row of `log` that belongs to it.

    `numbers` are the frame numbers of the existing log in its order, `names` its metrics. A LogError says
    that a frame is missing on either side or appears twice, or that a metric is in both.
    """
    clash = next((name for name in log.columns if name in set(names)), None)
    if clash is not None:
        raise LogError(f"the log already holds the metric {clash!r}", "merge into the original log")
    check_unique(numbers)
    rows = {number: row for row, number in enumerate(log.frame_num)}
    if len(rows) != len(log):
        check_unique(log.frame_num)
    differing = rows.keys() ^ set(numbers)
    if differing:
        first = min(differing)
        lacking = "the video's rows lack" if first not in rows else "the log lacks"
        raise LogError(
            f"the log does not match this video: {len(numbers)} frames in the log, {len(rows)} "
            f"in the video; frame {first} is the first that {lacking}",
            "give a log of the same frames of the same clip",
        )
    return [rows[number] for number in numbers]


class SpelledFloat(float):
    """A float with the text that it was read from, so that a merged log repeats the text exactly."""

    text: str

    def __new__(cls, text: str) -> SpelledFloat:
        """Parse `text` and keep it."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        twice = next(name for name, count in Counter(k for k, _ in pairs).items() if count > 1)
        raise LogError(f"the name {twice!r} appears twice in one object")
    return out


def parse(text: str) -> Any:
    """Read JSON; floats become `SpelledFloat`; NaN and Infinity, which are invalid JSON, become None."""
    return json.loads(
        text, parse_float=SpelledFloat, parse_constant=lambda _: None, object_pairs_hook=_unique
    )


def compact(value: Any) -> str:
    """Return JSON on one line."""
    return "".join(dump(value, indent=None))


def dump(value: Any, *, indent: int | None = 0) -> Iterator[str]:
    """Yield JSON text piece by piece; numbers that are not finite become null.

    Iterators become arrays as they are consumed. `indent` is the number of spaces before the closing
    bracket; None writes one line.
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
        if isinstance(value, float):
            spelled = value.text if isinstance(value, SpelledFloat) else float.__repr__(value)
            yield spelled if math.isfinite(value) else "null"
        else:
            yield json.dumps(value, ensure_ascii=False)
        return
    inner = None if indent is None else indent + 2
    first, between = ("", ", ") if inner is None else ("\n" + " " * inner, ",\n" + " " * inner)
    empty = True
    yield opening
    for name, item in items:
        yield (first if empty else between) + name
        yield from dump(item, indent=inner)
        empty = False
    yield closing if empty or indent is None else "\n" + " " * indent + closing
