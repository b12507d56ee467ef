"""Turn logs into the content of the page: rows, panels of charts, a pooled table and the worst frames.

`mean_interval` says how well a clip determines the mean of its frames: a bootstrap confidence interval.
Neighbouring frames are similar, so resampling single frames would give intervals that are far too
narrow. So blocks of consecutive frames are drawn; the last frame is followed by the first, so that all
frames count equally (circular block bootstrap: Politis and Romano, 1992). The block length follows
from the autocorrelation (Politis and White, 2004, with the correction of Patton, Politis and White,
2009). The interval covers the mean of other footage of the same kind; it does not cover other clips,
viewers, or the error of a model.
"""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.digests import file_sha256
from eyeline.errors import LogError
from eyeline.logs import pool, read_log
from eyeline.saliency.features import PANELS

Series = npt.NDArray[np.float64]

WEIGHTED = re.compile("^(sw_|ew_)")
"""Prefix of a column that is weighted by saliency or recorded gaze; its chart has the plain column, too."""

MAIN = ("vmaf", "vmaf_neg", "psnr_y", "ssim", "float_ssim", "ms_ssim", "float_ms_ssim")
"""Scores whose panels are open, in this order; the other panels of a score log are folded."""

UNITS = (
    ("vmaf", "0..100"),
    ("psnr", "dB"),
    ("ssim", "1 = identical"),
    ("float_ssim", "1 = identical"),
)
"""Beginning of a score's name, and the unit beside the title of its panel."""

POOLED = ("mean", "harmonic_mean", "min", "p5", "p50", "p95", "max")
"""Pooled numbers of the table, as `eyeline.logs.pool` names them."""

HIGHEST_IS_WORST = ("cambi", "saliency_flicker")
WORST_COLUMNS = (
    *("ew_vmaf", "sw_vmaf", "vmaf", "ew_psnr_y", "sw_psnr_y", "psnr_y", "ew_ssim", "sw_ssim"),
    *("ssim", "ew_ms_ssim", "sw_ms_ssim", "float_ssim", *HIGHEST_IS_WORST),
)
"""The first of these columns that a log holds ranks its frames, unless the user names a column."""

DRAWS = 2000
SEED = 20260
LEVEL = 0.95

LEAST_FRAMES = 10
"""Fewer frames get no confidence interval, because their correlation cannot be estimated."""

MOST_BLOCKS = 2000
"""Largest number of blocks per draw. Longer clips get longer blocks, which only widens the interval."""


@dataclass(frozen=True)
class LogRows:
    """A log in the order of its frames."""

    name: str  # the file's name, made different from those of the other logs
    path: str
    sha256: str  # hex digest of the file
    numbers: npt.NDArray[np.int64]  # (n,), rising frame numbers
    times: Series  # (n,), seconds, NaN where the log has none
    values: dict[str, Series]  # (n,) per column
    provenance: dict[str, Any]
    fps: float | None
    cuts: list[int] = field(default_factory=list)  # frames at which scenes begin

    @property
    def notices(self) -> list[str]:
        """Warnings that a reader needs before trusting the numbers."""
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
        """Return JSON values for the page, with packed numbers: logs of 100,000 frames are usual."""
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
    """Encode numbers as base64 of little-endian bytes: half the size of text, with NaN and infinity."""
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def read_rows(paths: list[str]) -> list[LogRows]:
    """Read logs."""
    return [_read(path, name) for path, name in zip(paths, _distinct(paths), strict=True)]


def _distinct(paths: list[str]) -> list[str]:
    """Return file names, with folders in front if file names are equal."""
    for depth in range(1, 1 + max((len(Path(p).parts) for p in paths), default=0)):
        names = ["/".join(Path(p).parts[-depth:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{Path(p).name} ({i})" for i, p in enumerate(paths, 1)]


def _read(path: str, name: str) -> LogRows:
    log = read_log(path)
    if not len(log):
        raise LogError(
            f"{path}: the log holds no frame", "check whether the run that wrote it finished"
        )
    if not log.columns:
        raise LogError(f"{path}: the log has no metrics", "give a log with at least one column")
    numbers = np.array(log.frame_num, np.int64)
    order = np.argsort(numbers, kind="stable")
    numbers, times = numbers[order], np.array(log.pts_time, np.float64)[order]
    if abs(int(numbers[0])) > 2**53 or abs(int(numbers[-1])) > 2**53:
        raise LogError(f"{path}: the log has frame numbers beyond 2^53", "check that it is a log")
    return LogRows(
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
    """Find the frames nearest to the times of scene starts, seconds."""
    if not isinstance(cuts, list) or not np.isfinite(times).all():
        return []
    known = [float(c) for c in cuts if isinstance(c, int | float) and math.isfinite(c)]
    order = np.argsort(times, kind="stable")
    middles = (times[order][1:] + times[order][:-1]) / 2
    return sorted({int(numbers[order[np.searchsorted(middles, c, "right")]]) for c in known})


@dataclass(frozen=True)
class Panel:
    """One chart; a `main` one is open when the page opens, the others are folded."""

    title: str
    unit: str
    columns: tuple[str, ...]
    main: bool


def panels_of(columns: list[str]) -> list[Panel]:
    """Choose which of the columns share a chart, and which charts are open.

    A weighted column shares the chart of its plain column. An unknown column gets a chart of its own,
    which is open only if there are no known columns.
    """
    left = list(columns)
    panels: list[Panel] = []

    def add(title: str, unit: str, names: tuple[str, ...] | list[str], *, main: bool) -> None:
        present = tuple(name for name in names if name in left)
        if present:
            left[:] = [name for name in left if name not in present]
            panels.append(Panel(title, unit, present, main))

    scores: dict[str, list[str]] = {}
    for name in columns:
        scores.setdefault(WEIGHTED.sub("", name), []).append(name)
    for base in MAIN:
        add(base, _unit(base), scores.get(base, []), main=True)
    for title, unit, known in PANELS:
        add(f"saliency {title}", unit, known, main=True)
    alone = not panels
    for base, names in scores.items():
        add(base, _unit(base), names, main=alone and len(panels) < 8)
    return panels


def _unit(name: str) -> str:
    return next((unit for beginning, unit in UNITS if name.startswith(beginning)), "")


@dataclass(frozen=True)
class MeanInterval:
    """A 95 % percentile interval of a mean, and the block length in frames that gave it."""

    low: float
    high: float
    block: int


def _autocovariance(values: Series) -> Series:
    """Compute `sum((x[i] - mean) * (x[i + k] - mean)) / n` for k from 0 to n - 1, by FFT."""
    n = len(values)
    centred = values - values.mean()
    size = 1 << (2 * n - 1).bit_length()  # long enough that products do not wrap around
    spectrum = np.fft.rfft(centred, size)
    return np.fft.irfft(spectrum * spectrum.conj(), size)[:n] / n


def block_length(values: Series) -> int:
    """Choose the number of frames per block of the circular bootstrap of a mean of finite values.

    `b = (2 G^2 / D)^(1/3) n^(1/3)` with `D = 4/3 g(0)^2`, where G and g(0) sum `|k| R(k)` and
    `R(k)` under the flat-top window. The window ends at twice the lag after which the
    autocorrelation stays within `2 sqrt(log10(n) / n)`. Source: Politis and White (2004),
    equations 9, 14 and section 3.2; Patton, Politis and White (2009) for the constant.
    The result is at most `min(3 sqrt(n), n / 3)`, rounded up.
    """
    n = len(values)
    most = max(1, math.ceil(min(3 * math.sqrt(n), n / 3)))
    size = float(np.abs(values).max())
    if n < 3 or not size:
        return 1
    covariance = _autocovariance(values / size)  # so that squares neither vanish nor overflow
    if covariance[0] <= 1e-24:  # constant values leave only rounding errors
        return 1
    correlation = covariance / covariance[0]
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = min(n - 1, math.ceil(math.sqrt(n)) + run)
    small = np.abs(correlation[1 : longest + 1]) < 2 * math.sqrt(math.log10(n) / n)
    lag = next((k for k in range(len(small) - run + 1) if small[k : k + run].all()), None)
    if lag is None:  # the correlation never stays small: the last lag where it is large
        lag = int(np.flatnonzero(~small).max()) + 1 if not small.all() else 0
    window = min(2 * max(lag, 1), longest)
    k = np.arange(1, window + 1)
    weight = np.minimum(1.0, 2 * (1 - k / window))
    g0 = float(covariance[0]) + 2 * float((weight * covariance[1 : window + 1]).sum())
    slope = 2 * float((weight * k * covariance[1 : window + 1]).sum())
    if g0 <= 0:
        return 1
    best: float = (1.5 * (slope / g0) ** 2 * n) ** (1 / 3)
    return max(1, math.ceil(min(most, best)))


def mean_interval(values: Series, draws: int = DRAWS) -> MeanInterval | None:
    """Compute a confidence interval of the mean of values.

    Return None if there are fewer than `LEAST_FRAMES` values, or if a value is not finite.
    """
    n = len(values)
    if n < LEAST_FRAMES or not np.isfinite(values).all():
        return None
    block = max(block_length(values), -(-n // MOST_BLOCKS))
    with np.errstate(over="ignore", invalid="ignore"):  # values near the limits of float64
        # The sum of each block, by differences of the running sum of the circle.
        centre = float(values.mean())
        circle = np.concatenate([values, values[: block - 1]]) - centre
        running = np.concatenate([[0.0], np.cumsum(circle)])
        sums = running[block:] - running[:-block]
        starts = np.random.default_rng([SEED, n]).integers(0, n, (draws, max(1, round(n / block))))
        means = centre + sums[starts].mean(axis=1) / block
    if not np.isfinite(means).all():
        return None
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return MeanInterval(float(low), float(high), block)


def pooled_table(logs: list[LogRows], panels: list[Panel]) -> list[dict[str, Any]]:
    """Return a row for every column of every log, in the order of the panels.

    A frame without a value makes the pooled numbers null, as everywhere in eyeline; the row states
    how many frames lack a value.
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


def _difference(first: LogRows, other: LogRows, column: str) -> list[float] | None:
    """Return mean, low and high of a column's difference from the first log; None without an interval.

    The difference is taken frame by frame: two encodings of one clip go up and down together, so the
    interval of their difference is far narrower than that of either.
    """
    if column not in first.values or not np.array_equal(first.numbers, other.numbers):
        return None
    with np.errstate(invalid="ignore", over="ignore"):  # infinity minus infinity is NaN
        apart = other.values[column] - first.values[column]
    interval = mean_interval(apart)
    return [float(apart.mean()), interval.low, interval.high] if interval else None


def _json_number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


@dataclass(frozen=True)
class WorstFrames:
    """Frames picked from one log by one column, the worst first."""

    log: int  # index of the log
    column: str
    end: str  # `lowest` or `highest`
    gap: int  # smallest distance between two picked frames
    frames: tuple[int, ...]


def pick_worst(logs: list[LogRows], count: int, column: str | None = None) -> WorstFrames | None:
    """Pick the worst frames, at most `count`, of the first log that holds the column.

    Neighbours look alike, so the second worst frame is usually next to the worst. Frames nearer than
    half a second (12 frames) to a picked one are skipped; in a short clip the distance is smaller,
    so that `count` frames fit. Without a `column`, the first of `WORST_COLUMNS` ranks the frames, if a log
    has one. Low values of an unknown column count as bad.
    """
    if column is not None and not any(column in log.values for log in logs):
        have = ", ".join(dict.fromkeys(name for log in logs for name in log.values))
        raise LogError(f"no log holds the column {column!r}", f"choose one of {have}")
    for name in WORST_COLUMNS if column is None else (column,):
        for at, log in enumerate(logs):
            values = log.values.get(name)
            if values is not None and count and not np.isnan(values).all():
                return _pick(at, log, name, count)
    return None


def _pick(at: int, log: LogRows, column: str, count: int) -> WorstFrames:
    values, numbers = log.values[column], log.numbers.tolist()
    highest = column in HIGHEST_IS_WORST
    step = int(np.median(np.diff(numbers))) if len(numbers) > 1 else 1
    gap = min(12 * step, max(1, (numbers[-1] - numbers[0]) // (2 * count)))
    picked: list[int] = []
    for row in np.argsort(-values if highest else values, kind="stable").tolist():
        if len(picked) == count or np.isnan(values[row]):
            break
        if all(abs(numbers[row] - numbers[p]) >= gap for p in picked):
            picked.append(row)
    end = "highest" if highest else "lowest"
    return WorstFrames(at, column, end, gap, tuple(numbers[p] for p in picked))
