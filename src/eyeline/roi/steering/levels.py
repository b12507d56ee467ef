"""From a map to a frame's levels: law, blocks, smoothing. Every route to an encoder uses this.

Maps to grids of blocks: means over each block, partial ones at the right and the bottom kept.

A map may have any size: it covers the whole upright picture, and each of its values an equal share.
Blocks lie in the *coded* picture, which a display rotation turns and non-square samples stretch.

From offsets to few steady levels: a temporal filter, reset at cuts, and hysteresis.

A block whose QP changes every frame flickers and costs skip blocks. So offsets follow an
exponential average, and a level changes only when the average has left the middle between two of
them by a margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from eyeline.arrays import block_edges, block_means
from eyeline.errors import MediaError, UsageError
from eyeline.roi.steering.laws import DEFAULT_CLAMP, Law, check_law, offsets_of, span_of

ASPECT_TOLERANCE = 0.04
"""How far a map's aspect may lie from the picture's: rounding to a few dozen lines makes 3 %."""


def grid_size(width: int, height: int, block: int) -> tuple[int, int]:
    """(rows, columns) of blocks that cover a picture of `width` x `height` pixels."""
    return -(-height // block), -(-width // block)


def steering_means(saliency: Floats, width: int, height: int, block: int) -> Floats:
    """Return the mean of a map over every block of a picture.

    Args:
        saliency: float32 (h, w), the whole picture in coded orientation, any size.
        width: of the picture, pixels.
        height: of the picture, pixels.
        block: side of a block, pixels.

    Returns:
        float32 (ceil(height / block), ceil(width / block)).
    """
    edges = (
        block_edges(n, block) / n * side
        for n, side in zip((height, width), saliency.shape, strict=True)
    )
    means = block_means(saliency.astype(np.float32, copy=False), *edges)
    # Differences of sums round: a mean stays within the values that it is of.
    return np.clip(means, saliency.min(), saliency.max())


def to_coded(saliency: Floats, rotation: int) -> Floats:
    """Turn an upright map into the orientation in which the picture is coded.

    Args:
        saliency: (h, w), upright.
        rotation: clockwise degrees that make the coded picture upright: 0, 90, 180 or 270.
    """
    return np.rot90(saliency, rotation // 90)  # counterclockwise: back


def check_map(saliency: npt.NDArray[np.generic], display: tuple[int, int], where: str) -> Floats:
    """Refuse a map that can't be one of this picture.

    Args:
        saliency: what was read.
        display: upright (width, height) of the picture, square pixels.
        where: what and which frame, for the message.

    Returns:
        float32 (h, w) in [0, 1].

    Raises:
        MediaError: not two-dimensional, of another aspect, not finite, or outside [0, 1].
    """
    if saliency.ndim != 2 or 0 in saliency.shape:
        raise MediaError(f"{where}: the map has shape {saliency.shape}", "give rows x columns")
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
    if not (low >= 0 and high <= 1):  # also what is not a number
        raise MediaError(
            f"{where}: the map has values from {low:g} to {high:g}; they must be between 0 and 1",
            "divide the map by its largest possible value",
        )
    return values


def block_activity(luma: npt.NDArray[Any], block: int, bits: int = 8) -> Floats:
    """How much there is to code in every block: mean absolute step between neighbours in a row.

    A stand-in for the bits that a block will take, from every eighth line; the constant added
    keeps flat blocks from weighing nothing.

    Args:
        luma: unsigned integers (height, width).
        block: side of a block, pixels; a multiple of 8.
        bits: of a sample.

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
    count = np.diff(np.append(np.arange(0, len(lines), down), len(lines)))
    wide = np.diff(np.append(np.arange(0, lines.shape[1], across), lines.shape[1]))
    scale = 255 / ((1 << bits) - 1)
    means: Floats = (sums / (count[:, None] * wide) * scale + 1).astype(np.float32)
    return means


DEFAULT_SMOOTHING = 0.7
"""Share of the past in the average: at 25 frames/s it forgets two thirds in 0.11 s."""

DEFAULT_LEVELS = 9
HYSTERESIS = 0.25
"""Steps beyond the middle between two levels before a block changes over."""


def level_step(span: float, levels: int) -> int:
    """Whole QPs between neighbouring levels, so that `span` QP takes at most `levels` of them.

    Args:
        span: QP between the least and the greatest offset.
        levels: how many there may be, zero included; at least 3.
    """
    step = max(1, math.ceil(span / (levels - 1)))
    # A span that straddles multiples of the step asymmetrically may touch one level more.
    return step if span / step + 1 <= levels else step + 1


class Steadier:
    """Turns a frame's offsets into levels that do not flicker.

    Args:
        step: QP between levels, see `level_step`.
        smoothing: share of the past in the average, 0..0.99; 0 takes every frame as it is.
        hysteresis: see `HYSTERESIS`; 0 rounds.
        most: levels that a frame may hold, as given to `level_step`; None = any.
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
        self._levels: npt.NDArray[np.float32] | None = None

    def __call__(self, offsets: Floats, *, reset: bool = False) -> Levels:
        """The levels of the next frame.

        Args:
            offsets: float32 (rows, columns), QP.
            reset: a scene starts here, so the past says nothing. So does another grid.

        Returns:
            int16 (rows, columns), QP, multiples of the step.
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
            # Hysteresis holds levels just outside of what this frame spans, and both ends of a
            # span may lie at ties that are rounded outwards.
            lowest = np.rint(mean / self._step).min()
            levels = np.clip(levels, lowest, lowest + self._most - 1)
        self._mean, self._levels = mean, levels
        return (levels * self._step).astype(np.int16)


Floats = npt.NDArray[np.float32]
Levels = npt.NDArray[np.int16]

LAW_FOR: dict[str, Law] = {"objects": "neutral", "gaze": "density"}
"""What a map shows to the law that suits it."""

STRENGTHS: dict[Law, float] = {"neutral": 3.0, "symmetric": 3.0, "density": 1.0}
"""Strength of each law where none is given, QP.

`neutral`: the greatest whole one at which the picture as a whole loses less than half a point of VMAF on
the clip whose subject is known. `density`: of 0.5, 1 and 1.5 the greatest one at which the whole frame
loses no VMAF on the mean of five clips with recorded gaze. Both are measured in docs/roi_compare.md.
"""


@dataclass(frozen=True)
class SteerOptions:
    """How saliency becomes QP offsets.

    Attributes:
        strength: QP; see `eyeline.roi.steering.laws`. 0 steers nothing. None = what suits the map.
        law: `neutral`, `symmetric` or `density`; None = what suits the map, see `for_map`.
        clamp: largest offset either way, QP.
        smoothing: share of the past in the average over frames, 0..0.99.
        levels: distinct offsets, zero included, 3..51.
        hysteresis: steps beyond the middle between two levels before a block changes, 0..1.
    """

    strength: float | None = None
    law: Law | None = None
    clamp: float = DEFAULT_CLAMP
    smoothing: float = DEFAULT_SMOOTHING
    levels: int = DEFAULT_LEVELS
    hysteresis: float = HYSTERESIS

    def __post_init__(self) -> None:
        check_law(self.law or "neutral", self.strength or 0, self.clamp)
        if not 0 <= self.smoothing <= 0.99:
            raise UsageError(f"smoothing is {self.smoothing:g}", "give 0..0.99")
        if not 3 <= self.levels <= 51:
            raise UsageError(f"levels are {self.levels}", "give 3..51")
        if not 0 <= self.hysteresis <= 1:
            raise UsageError(f"hysteresis is {self.hysteresis:g}", "give 0..1 steps")

    def for_map(self, shows: str | None) -> SteerOptions:
        """Fill in the law and the strength that were left open.

        Args:
            shows: `gaze` or `objects`, the task of the model that made the map; None if it is not
                known, which is taken as `objects`.
        """
        known = replace(self, law=self.law or LAW_FOR[shows or "objects"])
        law, strength = known.chosen
        return replace(known, law=law, strength=strength)

    @property
    def chosen(self) -> tuple[Law, float]:
        """Law and strength; those for objects where they were left open."""
        law = self.law or LAW_FOR["objects"]
        return law, STRENGTHS[law] if self.strength is None else self.strength

    @property
    def span(self) -> float:
        """QP between the least and the greatest offset that can come out."""
        return span_of(*self.chosen, self.clamp)

    @property
    def lowest(self) -> float:
        """QP of the least offset that can come out, negative."""
        law, strength = self.chosen
        return -min(self.span if law == "density" else strength, self.clamp)


class Steering:
    """Turns maps into levels, frame after frame.

    Args:
        options: see `SteerOptions`.
        width, height: of the coded picture, pixels.
        block: side of a block, pixels.
        most_levels: what the encoder can hold, if less than `options.levels`.
    """

    def __init__(
        self,
        options: SteerOptions,
        width: int,
        height: int,
        block: int,
        most_levels: int | None = None,
    ) -> None:
        self.options = options
        self.width, self.height, self.block = width, height, block
        levels = min(options.levels, most_levels or options.levels)
        self._step = level_step(options.span, levels)
        self._steady = Steadier(self._step, options.smoothing, options.hysteresis, levels)

    def __call__(
        self,
        saliency: Floats,
        rotation: int = 0,
        *,
        cut: bool = False,
        picture: av.VideoFrame | None = None,
    ) -> Levels:
        """Levels of the next frame.

        Args:
            saliency: float32 (h, w) in [0, 1], upright, any size.
            rotation: clockwise degrees that make the coded picture upright.
            cut: whether a scene starts here.
            picture: the decoded frame, whose activity stands in for bits in the laws that keep
                the file's size; without it all blocks weigh the same.

        Returns:
            int16 (rows, columns) of the coded picture, QP.
        """
        law, strength = self.options.chosen
        means = steering_means(to_coded(saliency, rotation), self.width, self.height, self.block)
        weights = None
        if law != "symmetric" and picture is not None:
            luma, bits = luma_of(picture)
            weights = block_activity(luma, self.block, bits)
        offsets = offsets_of(law, means, strength, self.options.clamp, weights)
        return self._steady(offsets, reset=cut)


def luma_of(frame: av.VideoFrame) -> tuple[npt.NDArray[np.unsignedinteger], int]:
    """The first plane of a planar YUV or grey frame, without a copy, and bits a sample."""
    plane = frame.planes[0]
    bits = frame.format.components[0].bits
    kind = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    rows = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind.itemsize)  # type: ignore[call-overload]
    luma: npt.NDArray[np.unsignedinteger] = rows[:, : plane.width]
    return luma, bits
