"""How far the mean of a clip's frames can be trusted: a bootstrap that keeps neighbours together.

Frames resemble those before them, so that drawing them one by one gives intervals that are far too
narrow. Blocks of consecutive frames are drawn instead, on a circle, so that the first and the last
frame count as much as any (circular block bootstrap: Politis and Romano, 1992). The block length
follows from the autocorrelation (Politis and White, 2004, with the correction of Patton, Politis
and White, 2009).

The interval is about the clip: where the mean would lie for other footage of the same kind. It says
nothing of other clips, of viewers, or of the error of a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DRAWS = 2000
SEED = 20260
LEVEL = 0.95

LEAST_FRAMES = 10
"""With fewer frames there is no interval: nothing can be said of how they hang together."""

MOST_BLOCKS = 2000
"""Blocks a draw, at most: above that, blocks are longer than they need be, which only widens."""

Series = npt.NDArray[np.float64]


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
