"""Turn saliency maps into QP offsets per block; every way to an encoder uses this module.

A frame takes four steps: the map is turned to the orientation of the coded picture, averaged over
blocks, converted to offsets by a law, and smoothed over time into a few levels.

The laws are `clamp(-strength * f(saliency))`:

| law | f | suits |
|---|---|---|
| `symmetric` | `2 s - 1`: -strength where s is 1, +strength where s is 0 | tools that expect this law |
| `neutral` | `s - c` | maps of objects: the file size stays, the bits move |
| `density` | `log2(w) - c`, w = (1 - k) + k s / mean(s) | maps of gaze: the least weighted error |

c is chosen so that the mean of a frame's offsets, weighted by each block's bits, is zero. An offset is
in QP of H.264 and HEVC, where 6 double the quantiser step (ITU-T H.264, 8.5.9).

`density` minimises the squared error that viewers see, weighted as `eyeline score` weights it: (1 - k)
of it over the whole frame, and k where viewers look. At a given rate the weighted error is least when
every block has the same slope, dD/dR = -lambda / w, and lambda doubles with every 3 QP (Sullivan &
Wiegand, "Rate-distortion optimization for video compression", IEEE Signal Processing Magazine 15(6),
1998; lambda = 0.85 * 2**((QP - 12) / 3) in the reference encoders of H.264 and HEVC). So the offset is
-3 log2(w) for a map without errors. A predicted map has errors, and half of that or less gains more at
equal cost (docs/roi_compare.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import av
import numpy as np
import numpy.typing as npt

from eyeline.arrays import block_edges, block_means
from eyeline.errors import MediaError, UsageError

Floats = npt.NDArray[np.float32]
Levels = npt.NDArray[np.int16]
Law = Literal["symmetric", "neutral", "density"]
LAWS: tuple[Law, ...] = get_args(Law)

MAX_OFFSET = 51
"""Largest offset of an 8-bit encoder, QP: its whole range."""

GAZE_SHARE = 0.75
"""k of the `density` law: the share of the error that counts where viewers look. Of 0.25, 0.5, 0.75 and
0.9 the one that gains most at equal cost with predicted maps; docs/roi_compare.md."""

PEAK = 40.0
"""Peak over mean of a narrow map of gaze: 32 viewers' fixations blurred by 3 % of the width."""

DEFAULT_CLAMP = 12
"""Four times the quantiser step; larger offsets make the edges of regions visible."""

LAW_FOR: dict[str, Law] = {"objects": "neutral", "gaze": "density"}
"""Task of the model that made a map to the law that suits the map."""

STRENGTHS: dict[Law, float] = {"neutral": 3.0, "symmetric": 3.0, "density": 1.0}
"""Default strength of each law, QP. Measured in docs/roi_compare.md. `neutral`: the greatest whole
number at which the whole picture loses less than half a point of VMAF on the clip whose subject is known.
`density`: of 0.5, 1 and 1.5 the greatest at which the whole frame loses no VMAF on the mean of five clips
with recorded gaze."""

ASPECT_TOLERANCE = 0.04
"""Largest relative difference between a map's aspect and the picture's: rounding to a few dozen lines
makes 0.03."""

DEFAULT_SMOOTHING = 0.7
"""Weight of the past in the average: at 25 frames/s two thirds of it are forgotten after 0.11 s."""

DEFAULT_LEVELS = 9

HYSTERESIS = 0.25
"""Distance beyond the middle between two levels at which a block changes its level, in steps."""


def check_law(law: str, strength: float, clamp: float) -> None:
    """Raise a UsageError for an unknown law, or a strength or clamp (QP) out of range."""
    if law not in LAWS:
        raise UsageError(f"the law is {law!r}", f"choose one of: {', '.join(LAWS)}")
    if not 0 <= strength <= MAX_OFFSET:
        raise UsageError(
            f"the strength is {strength:g}; it must be between 0 and {MAX_OFFSET} QP",
            "give 0 for an encode without regions",
        )
    if not 1 <= clamp <= MAX_OFFSET:
        raise UsageError(
            f"the clamp is {clamp:g}; it must be between 1 and {MAX_OFFSET} QP",
            f"the default is {DEFAULT_CLAMP}",
        )


def symmetric(saliency: Floats, strength: float, clamp: float = DEFAULT_CLAMP) -> Floats:
    """Return offsets that are zero at a saliency of 0.5, whatever they do to the file size."""
    return np.clip(-strength * (2 * saliency - 1), -clamp, clamp).astype(np.float32)


def neutral(
    saliency: Floats,
    strength: float,
    clamp: float = DEFAULT_CLAMP,
    weights: npt.NDArray[np.floating] | None = None,
) -> Floats:
    """Return offsets whose mean weighted by each block's bits is zero: bits move, the file hardly grows.

    To first order a block's bits change by the share `-offset * ln(2) / 6`, so offsets that sum to zero
    when weighted by bits leave the file size as it is. Where the clamp limits offsets, c is found by
    bisection: the mean falls monotonically in c. Without `weights` all blocks count the same.

    Returns:
        float32 (rows, columns), QP.
    """
    s = saliency.astype(np.float64)
    w = np.ones_like(s) if weights is None else weights.astype(np.float64)
    total = w.sum()
    if not total > 0:
        w, total = np.ones_like(s), float(s.size)
    centre = float((w * s).sum() / total)
    offsets = np.clip(strength * (centre - s), -clamp, clamp)
    low, high = float(s.min()), float(s.max())
    if strength * (high - low) > clamp:
        for _ in range(24):  # 2**-24 of the range: below any encoder's step
            centre = (low + high) / 2
            offsets = np.clip(strength * (centre - s), -clamp, clamp)
            if (w * offsets).sum() > 0:
                high = centre
            else:
                low = centre
    return offsets.astype(np.float32)


def density(
    saliency: Floats,
    strength: float,
    clamp: float = DEFAULT_CLAMP,
    weights: npt.NDArray[np.floating] | None = None,
) -> Floats:
    """Return offsets by the logarithm of each block's weight, with a weighted mean of zero.

    Only the map's shape counts, not its level: a map of zeros gives offsets of zero. `strength` is in QP
    per doubling of the weight; `weights` are as in `neutral`.

    Returns:
        float32 (rows, columns), QP.
    """
    mean = float(saliency.mean(dtype=np.float64))
    share = GAZE_SHARE if mean > 0 else 0.0
    counts = (1 - share) + share * saliency / (mean or 1.0)
    return neutral(np.log2(counts), strength, clamp, weights)


def span_of(law: Law, strength: float, clamp: float) -> float:
    """Return the QP between the least and the greatest offset of a law.

    The `density` law has no greatest weight; a peak of `PEAK` times the mean is assumed.
    """
    one_way = {
        "symmetric": 2.0,
        "neutral": 1.0,
        "density": math.log2(1 + GAZE_SHARE * (PEAK - 1)) - math.log2(1 - GAZE_SHARE),
    }[law]
    return min(one_way * strength, 2 * clamp)


@dataclass(frozen=True)
class SteerOptions:
    """How saliency becomes QP offsets.

    Attributes:
        strength: QP; its meaning depends on the law. 0 steers nothing; None = the law's default.
        law: `neutral`, `symmetric` or `density`; None = the law that suits the map, see `for_map`.
        clamp: largest offset either way, QP.
        smoothing: weight of the past in the average over frames, 0..0.99.
        levels: distinct offsets, zero included, 3..51.
        hysteresis: see `HYSTERESIS`, 0..1.
    """

    strength: float | None = None
    law: Law | None = None
    clamp: float = DEFAULT_CLAMP
    smoothing: float = DEFAULT_SMOOTHING
    levels: int = DEFAULT_LEVELS
    hysteresis: float = HYSTERESIS

    def __post_init__(self) -> None:
        check_law(self.law or "neutral", self.strength or 0, self.clamp)
        for name, least, most, default in (
            ("smoothing", 0, 0.99, DEFAULT_SMOOTHING),
            ("levels", 3, 51, DEFAULT_LEVELS),
            ("hysteresis", 0, 1, HYSTERESIS),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UsageError(
                    f"{name} is {value:g}; it must be between {least} and {most}",
                    f"the default is {default}",
                )

    def for_map(self, shows: str | None) -> SteerOptions:
        """Return the options with the law and the strength filled in where they are None.

        Args:
            shows: `gaze` or `objects`, the task of the model that made the map; None if it is not
                known, which counts as `objects`.
        """
        known = replace(self, law=self.law or LAW_FOR[shows or "objects"])
        law, strength = known.chosen
        return replace(known, law=law, strength=strength)

    @property
    def chosen(self) -> tuple[Law, float]:
        """Law and strength; those for objects where they are None."""
        law = self.law or LAW_FOR["objects"]
        return law, STRENGTHS[law] if self.strength is None else self.strength

    @property
    def span(self) -> float:
        """QP between the least and the greatest possible offset."""
        return span_of(*self.chosen, self.clamp)

    @property
    def lowest(self) -> float:
        """QP of the least possible offset, negative."""
        law, strength = self.chosen
        return -min(self.span if law == "density" else strength, self.clamp)


def grid_size(width: int, height: int, block: int) -> tuple[int, int]:
    """Return (rows, columns) of the blocks that cover a picture of `width` x `height` pixels."""
    return -(-height // block), -(-width // block)


def steering_means(saliency: Floats, width: int, height: int, block: int) -> Floats:
    """Return the mean of a map in coded orientation over every block of a picture (sizes in pixels).

    Returns:
        float32 (ceil(height / block), ceil(width / block)).
    """
    rows = block_edges(height, block) / height * saliency.shape[0]
    columns = block_edges(width, block) / width * saliency.shape[1]
    means = block_means(saliency.astype(np.float32, copy=False), rows, columns)
    # Differences of sums round, so a mean could leave the range of its values.
    return np.clip(means, saliency.min(), saliency.max())


def to_coded(saliency: Floats, rotation: int) -> Floats:
    """Turn an upright map to the coded picture, which `rotation` clockwise degrees make upright."""
    return np.rot90(saliency, rotation // 90)  # counterclockwise: back


def valid_map(saliency: npt.NDArray[np.generic], display: tuple[int, int], where: str) -> Floats:
    """Return a map as float32 (h, w) in [0, 1], if it can be a map of this picture.

    `display` is the upright (width, height) of the picture in square pixels; `where` begins the message.

    Raises:
        MediaError: the map is not two-dimensional, has another aspect, or a value outside [0, 1].
    """
    if saliency.ndim != 2 or 0 in saliency.shape:
        raise MediaError(f"{where}: the map has the shape {saliency.shape}", "give rows x columns")
    h, w = saliency.shape
    ratio = (w / h) / (display[0] / display[1])
    slack = ASPECT_TOLERANCE + 0.5 / w + 0.5 / h
    if (w, h) != display and not 1 - slack < ratio < 1 + slack:
        raise MediaError(
            f"{where}: the map is {w}x{h}, the picture {display[0]}x{display[1]}",
            "a map has the picture's upright size, or its aspect at a smaller size",
        )
    values = saliency.astype(np.float32, copy=False)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also NaN
        raise MediaError(
            f"{where}: the map has values from {low:g} to {high:g}; they must be between 0 and 1",
            "divide the map by its largest possible value",
        )
    return values


def block_activity(luma: npt.NDArray[Any], block: int, bits: int = 8) -> Floats:
    """Return the mean absolute difference between neighbours in a row, per block of 8 n pixels.

    It is an estimate of the bits that a block takes, from every eighth line. One is added, so that flat
    blocks have a weight.

    Returns:
        float32 (rows, columns), positive, in 8-bit codes per sample.
    """
    # 15 bits and fewer: half the memory to move.
    lines: npt.NDArray[Any] = luma[::8, ::2].astype(np.int16 if bits <= 15 else np.int32)
    down, across = block // 8, block // 2  # sampled lines and columns of a block
    rows, columns = -(-lines.shape[0] // down), -(-lines.shape[1] // across)
    steps = np.zeros((rows * down, columns * across), np.int32)
    steps[: lines.shape[0], 1 : lines.shape[1]] = np.abs(lines[:, 1:] - lines[:, :-1])
    folded = sum(steps[i::down] for i in range(down))
    sums = np.asarray(folded).reshape(rows, columns, across).sum(-1)
    counts = np.outer(
        *(np.diff(block_edges(*n)) for n in zip(lines.shape, (down, across), strict=True))
    )
    means: Floats = (sums / counts * (255 / ((1 << bits) - 1)) + 1).astype(np.float32)
    return means


def level_step(span: float, levels: int) -> int:
    """Return the whole QPs between levels, so that `span` QP take at most `levels` (3 or more) of them."""
    step = max(1, math.ceil(span / (levels - 1)))
    # A span that lies asymmetrically over multiples of the step may touch one level more.
    return step if span / step + 1 <= levels else step + 1


class LevelSmoother:
    """Turn each frame's offsets into levels that do not flicker.

    A block whose QP changes every frame flickers and costs skip blocks. So offsets follow an
    exponential average, and a level changes only when the average is clearly nearer to another level.
    """

    def __init__(
        self,
        step: int,
        smoothing: float = DEFAULT_SMOOTHING,
        hysteresis: float = HYSTERESIS,
        most: int | None = None,
    ) -> None:
        self._step, self._smoothing, self._hysteresis = step, smoothing, hysteresis
        self._most = most
        self._mean: Floats | None = None
        self._levels: Floats | None = None

    def __call__(self, offsets: Floats, *, reset: bool = False) -> Levels:
        """Return the next frame's levels, int16 (rows, columns), QP: multiples of the step.

        `reset` forgets the past, because a scene starts here. So does a grid of another shape.
        """
        mean, levels = self._mean, self._levels
        if reset or mean is None or levels is None or mean.shape != offsets.shape:
            mean = offsets.astype(np.float32)
            levels = np.rint(mean / self._step)
        else:
            mean += (1 - self._smoothing) * (offsets - mean)
            scaled = mean / self._step
            leave = np.abs(scaled - levels) > 0.5 + self._hysteresis
            levels = np.where(leave, np.rint(scaled), levels)
        if self._most is not None and np.ptp(levels) >= self._most:
            # Hysteresis keeps levels just outside of this frame's span, and both ends of a span may
            # lie at ties that are rounded outwards.
            lowest = np.rint(mean / self._step).min()
            levels = np.clip(levels, lowest, lowest + self._most - 1)
        self._mean, self._levels = mean, levels
        return (levels * self._step).astype(np.int16)


class LevelMapper:
    """Turn maps into levels, frame after frame."""

    def __init__(
        self,
        options: SteerOptions,
        width: int,
        height: int,
        block: int,
        most_levels: int | None = None,
    ) -> None:
        self._options = options
        self._width, self._height, self._block = width, height, block
        levels = min(options.levels, most_levels or options.levels)
        step = level_step(options.span, levels)
        self._smoother = LevelSmoother(step, options.smoothing, options.hysteresis, levels)

    def __call__(
        self,
        saliency: Floats,
        rotation: int = 0,
        *,
        cut: bool = False,
        picture: av.VideoFrame | None = None,
    ) -> Levels:
        """Return the next frame's levels, int16 (rows, columns) of the coded picture, QP.

        `saliency` is upright, of any size, and `rotation` clockwise degrees make the coded picture upright;
        `cut` says that a scene starts here. The activity of `picture` estimates the bits of its blocks for
        the laws that keep the file size; without it all blocks weigh the same.
        """
        (law, strength), clamp = self._options.chosen, self._options.clamp
        coded = to_coded(saliency, rotation)
        means = steering_means(coded, self._width, self._height, self._block)
        if law == "symmetric":
            return self._smoother(symmetric(means, strength, clamp), reset=cut)
        weights = None
        if picture is not None:
            luma, bits = luma_of(picture)
            weights = block_activity(luma, self._block, bits)
        offsets = (neutral if law == "neutral" else density)(means, strength, clamp, weights)
        return self._smoother(offsets, reset=cut)


def luma_of(frame: av.VideoFrame) -> tuple[npt.NDArray[np.unsignedinteger], int]:
    """Return the first plane of a planar YUV or grey frame, without a copy, and its bits per sample."""
    plane = frame.planes[0]
    bits = frame.format.components[0].bits
    kind = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    rows = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind.itemsize)  # type: ignore[call-overload]
    luma: npt.NDArray[np.unsignedinteger] = rows[:, : plane.width]
    return luma, bits
