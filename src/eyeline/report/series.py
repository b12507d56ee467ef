"""Logs to what the page charts: panels, columns as packed numbers, cuts as frames, a pooled table."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.digest import file_sha256
from eyeline.errors import LogError
from eyeline.logs import pool, read_log
from eyeline.report.intervals import mean_interval
from eyeline.saliency.plot import PANELS

Series = npt.NDArray[np.float64]

WEIGHTED = re.compile("^(sw_|ew_)")
"""Prefix of a column weighted by saliency or by recorded gaze, which is drawn with the column that it
is named after."""

MAIN = ("vmaf", "vmaf_neg", "psnr_y", "ssim", "float_ssim", "ms_ssim", "float_ms_ssim")
"""Scores whose panels stand open, in this order; what else a score log holds is folded away."""

UNITS = (
    ("vmaf", "0..100"),
    ("psnr", "dB"),
    ("ssim", "1 = identical"),
    ("float_ssim", "1 = identical"),
)
"""Beginning of a score's name to the unit beside its panel's title."""

POOLED = ("mean", "harmonic_mean", "min", "p5", "p50", "p95", "max")
"""Pooled numbers of the table, as `eyeline.logs.pool` names them."""


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: stands above it.
        unit: beside the title.
        columns: what is drawn in it, of every log that has it.
        main: open when the page is; the others are folded away.
    """

    title: str
    unit: str
    columns: tuple[str, ...]
    main: bool

    def to_json(self) -> dict[str, Any]:
        """For the page."""
        return {
            "title": self.title, "unit": self.unit, "columns": list(self.columns), "main": self.main,
        }  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """A log in the order of its frames.

    Attributes:
        name: the file's name, made different from those of the other logs.
        path: the file.
        sha256: hex digest of the file.
        numbers: int64 (n,), rising.
        times: float64 (n,), seconds, NaN where the log says none.
        values: float64 (n,) for each column.
        provenance: JSON values.
        fps: frames a second, or None.
        cuts: frames at which scenes begin.
    """

    name: str
    path: str
    sha256: str
    numbers: npt.NDArray[np.int64]
    times: Series
    values: dict[str, Series]
    provenance: dict[str, Any]
    fps: float | None
    cuts: list[int] = field(default_factory=list)

    @property
    def notices(self) -> list[str]:
        """What a reader must know before trusting the numbers."""
        p, found = self.provenance, []
        if p.get("smoke") is True:
            found.append("made by a smoke model: its saliency numbers mean nothing")
        if p.get("complete") is False:
            found.append("the run stopped part-way: this is what it had finished")
        corrupt = p.get("corrupt_frames")
        if isinstance(corrupt, int) and corrupt > 0:
            found.append(f"{corrupt} frames were corrupt, the first at {p.get('first_corrupt')}")
        return found

    def to_json(self) -> dict[str, Any]:
        """For the page; numbers packed, since a 100,000-frame log is usual."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "frames": len(self.numbers),
            "fps": self.fps,
            "cuts": self.cuts,
            "notices": self.notices,
            "provenance": self.provenance,
            "numbers": pack(self.numbers, "<f8"),
            "times": pack(self.times, "<f8") if np.isfinite(self.times).any() else "",
            "series": {name: pack(values, "<f4") for name, values in self.values.items()},
        }


def pack(values: npt.NDArray[Any], dtype: str) -> str:
    """Numbers as base64 of little-endian bytes: half the size of text, and NaN and infinity survive.

    Args:
        values: of any numeric type.
        dtype: `<f4` (7 digits, what a chart shows) or `<f8` (exact times and frame numbers).
    """
    with np.errstate(over="ignore"):  # what float32 can't hold is infinite there
        return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def read_rows(paths: list[str]) -> list[Rows]:
    """Read logs.

    Raises:
        LogError: a file is no log, or holds no frame or no column.
        MissingExtraError: Parquet without pyarrow.
    """
    names = _distinct(paths)
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def _distinct(paths: list[str]) -> list[str]:
    """File names; with as many folders in front as tell equal ones apart."""
    for depth in range(1, 1 + max((len(Path(p).parts) for p in paths), default=0)):
        names = ["/".join(Path(p).parts[-depth:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{Path(p).name} ({i})" for i, p in enumerate(paths, 1)]


def _read(path: str, name: str) -> Rows:
    log = read_log(path)
    if not len(log):
        raise LogError(f"{path}: holds no frame", "was the run that wrote it cut short?")
    if not log.columns:
        raise LogError(f"{path}: its frames hold no metric", "there is nothing to show")
    numbers = np.array(log.frame_num, np.int64)
    order = np.argsort(numbers, kind="stable")
    numbers, times = numbers[order], np.array(log.pts_time, np.float64)[order]
    if abs(int(numbers[0])) > 2**53 or abs(int(numbers[-1])) > 2**53:
        raise LogError(f"{path}: its frame numbers are beyond 2^53", "is it a log of frames?")
    return Rows(
        name=name,
        path=path,
        sha256=file_sha256(Path(path)),
        numbers=numbers,
        times=times,
        values={c: np.array(v, np.float64)[order] for c, v in log.values.items()},
        provenance=log.provenance,
        fps=log.fps,
        cuts=_cut_frames(log.provenance.get("cuts"), numbers, times),
    )


def _cut_frames(cuts: object, numbers: npt.NDArray[np.int64], times: Series) -> list[int]:
    """Times of scene starts, seconds, to the frames nearest to them."""
    if not isinstance(cuts, list) or not np.isfinite(times).all():
        return []
    known = [float(c) for c in cuts if isinstance(c, int | float) and math.isfinite(c)]
    order = np.argsort(times, kind="stable")
    middles = (times[order][1:] + times[order][:-1]) / 2
    return sorted({int(numbers[order[np.searchsorted(middles, c, "right")]]) for c in known})


def panels_of(columns: list[str]) -> list[Panel]:
    """Which columns share a chart, and which charts stand open.

    A weighted column is drawn with the one that it weights. Columns that nobody has told us of get
    a chart each; they stand open only where there is nothing else.

    Args:
        columns: of all logs, without repetition.
    """
    left = list(columns)

    def take(names: list[str]) -> tuple[str, ...]:
        for name in names:
            left.remove(name)
        return tuple(names)

    scores: dict[str, list[str]] = {}
    for name in columns:
        scores.setdefault(WEIGHTED.sub("", name), []).append(name)
    panels = [Panel(base, _unit(base), take(scores[base]), True) for base in MAIN if base in scores]
    for title, unit, known in PANELS:
        present = [name for name in known if name in left]
        if present:
            panels.append(Panel(f"saliency {title}", unit, take(present), True))
    alone = not panels
    for base, names in scores.items():
        present = [name for name in names if name in left]
        if present:
            panels.append(Panel(base, _unit(base), take(present), alone and len(panels) < 8))
    return panels


def _unit(name: str) -> str:
    return next((unit for beginning, unit in UNITS if name.startswith(beginning)), "")


def pooled_table(logs: list[Rows], panels: list[Panel]) -> list[dict[str, Any]]:
    """A row for every column of every log, in the order of the panels; null where there is no number.

    A frame without a value makes the pooled numbers null, as everywhere in eyeline: it must not
    vanish from an average. The row says how many there are.
    """
    rows = []
    for panel in panels:
        for column in panel.columns:
            for at, log in enumerate(logs):
                if column not in log.values:
                    continue
                values = log.values[column]
                pooled, interval = pool(values), mean_interval(values)
                rows.append(
                    {
                        "column": column,
                        "log": at,
                        "main": panel.main,
                        "frames": len(values),
                        "missing": int(np.isnan(values).sum()),
                        "infinite": int(np.isinf(values).sum()),
                        "low": interval.low if interval else None,
                        "high": interval.high if interval else None,
                        "block": interval.block if interval else None,
                        "difference": _difference(logs[0], log, column) if at else None,
                        **{name: _json_number(pooled[name]) for name in POOLED},
                    }
                )
    return rows


def _difference(first: Rows, other: Rows, column: str) -> list[float] | None:
    """Mean of a column less that of the first log, frame by frame, with its interval.

    Two encodings of one clip go up and down together, so that the interval of their difference is
    far narrower than either's own.

    Returns:
        Mean, low, high; None where the frames differ or there is no interval.
    """
    if column not in first.values or not np.array_equal(first.numbers, other.numbers):
        return None
    with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity
        apart = other.values[column] - first.values[column]
    interval = mean_interval(apart)
    return [float(apart.mean()), interval.low, interval.high] if interval else None


def _json_number(value: float) -> float | str | None:
    """JSON knows neither NaN nor infinity."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
