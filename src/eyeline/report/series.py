"""Logs to what the page charts: panels, columns as packed numbers, cuts as frames, a pooled table.

How far the mean of a clip's frames can be trusted: a bootstrap that keeps neighbours together.

Frames resemble those before them, so that drawing them one by one gives intervals that are far too
narrow. Blocks of consecutive frames are drawn instead, on a circle, so that the first and the last
frame count as much as any (circular block bootstrap: Politis and Romano, 1992). The block length
follows from the autocorrelation (Politis and White, 2004, with the correction of Patton, Politis
and White, 2009).

The interval is about the clip: where the mean would lie for other footage of the same kind. It says
nothing of other clips, of viewers, or of the error of a model.

Which frames deserve a look: the lowest scores, apart from each other.
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
from eyeline.saliency.plot import PANELS

DRAWS = 2000
SEED = 20260
LEVEL = 0.95

LEAST_FRAMES = 10
"""With fewer frames there is no interval: nothing can be said of how they hang together."""

MOST_BLOCKS = 2000
"""Blocks a draw, at most: above that, blocks are longer than they need be, which only widens."""


@dataclass(frozen=True)
class Interval:
    """A 95 % percentile interval of the mean.

    Attributes:
        low: lower end.
        high: upper end.
        block: frames a block.
    """

    low: float
    high: float
    block: int


def autocovariance(values: Series) -> Series:
    """`R(k) = sum((x[i] - mean) * (x[i + k] - mean)) / n` for k from 0 to n - 1, by FFT.

    Args:
        values: float64 (n,), finite, n at least 1.

    Returns:
        float64 (n,).
    """
    n = len(values)
    centred = values - values.mean()
    size = 1 << (2 * n - 1).bit_length()  # room for the products not to wrap around
    spectrum = np.fft.rfft(centred, size)
    return np.fft.irfft(spectrum * spectrum.conj(), size)[:n] / n


def block_length(values: Series) -> int:
    """Frames a block for the circular bootstrap of the mean.

    `b = (2 G^2 / D)^(1/3) n^(1/3)` with `D = 4/3 g(0)^2`, where G and g(0) sum `|k| R(k)` and
    `R(k)` under the flat-top window. The window ends at twice the lag behind which the
    autocorrelation stays within `2 sqrt(log10(n) / n)`. Source: Politis and White (2004),
    equations 9, 14 and section 3.2; Patton, Politis and White (2009) for the constant.

    Args:
        values: float64 (n,), finite.

    Returns:
        1 to `min(3 sqrt(n), n / 3)`, rounded up.
    """
    n = len(values)
    most = max(1, math.ceil(min(3 * math.sqrt(n), n / 3)))
    size = float(np.abs(values).max())
    if n < 3 or not size:
        return 1
    covariance = autocovariance(values / size)  # squares neither vanish nor overflow
    if covariance[0] <= 1e-24:  # a constant leaves nothing but the rounding of its own mean
        return 1
    correlation = covariance / covariance[0]
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = min(n - 1, math.ceil(math.sqrt(n)) + run)
    small = np.abs(correlation[1 : longest + 1]) < 2 * math.sqrt(math.log10(n) / n)
    lag = next((k for k in range(len(small) - run + 1) if small[k : k + run].all()), None)
    if lag is None:  # no quiet stretch: the last lag that still speaks
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


def mean_interval(values: Series, draws: int = DRAWS, seed: int = SEED) -> Interval | None:
    """The interval of the mean over a clip's frames.

    Args:
        values: float64 (n,), a number a frame, in order.
        draws: redrawn clips.
        seed: same seed, same interval.

    Returns:
        None with fewer than `LEAST_FRAMES` frames, or where a value is not finite.
    """
    n = len(values)
    if n < LEAST_FRAMES or not np.isfinite(values).all():
        return None
    block = max(block_length(values), -(-n // MOST_BLOCKS))
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers near the end of float64
        # The sum of each block, by differences of the running sum of the circle.
        centre = float(values.mean())
        circle = np.concatenate(
            [[0.0], np.cumsum(np.concatenate([values, values[: block - 1]]) - centre)]
        )
        sums = circle[block:] - circle[:-block]
        count = max(1, round(n / block))
        starts = np.random.default_rng([seed, n]).integers(0, n, (draws, count))
        means = centre + sums[starts].mean(axis=1) / block
    if not np.isfinite(means).all():
        return None
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), block)


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
