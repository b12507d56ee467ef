"""Steering: convert saliency maps to QP offsets per block, for all encoders and map files.

Each map is rotated to the orientation of the coded picture, averaged over blocks and converted to QP
offsets by a law. The offsets are then smoothed over time and quantised to a few values, the levels.

A law maps the saliency s of a block to the offset `clamp(-strength * f(s))`:

| law | f(s) | suitable for |
|---|---|---|
| `symmetric` | `2 s - 1`: offsets from -strength at s = 1 to +strength at s = 0 | compatibility |
| `neutral` | `s - c`: moves bits, and keeps the file size | maps of objects |
| `density` | `log2(w) - c`, w = (1 - k) + k s / mean(s): minimises the weighted error | maps of gaze |

The constant c of a law makes the mean of a frame's offsets, weighted by the bits of each block, zero.
Offsets are in QP of H.264 and HEVC, where 6 QP double the quantiser step (ITU-T H.264, 8.5.9).

`density` minimises the squared error with the weights w, as in `eyeline score`: a share of 1 - k counts
equally over the whole frame, and a share of k counts where viewers look. At a given rate, the weighted
error is minimal if the slope dD/dR of every block is -lambda / w. lambda doubles every 3 QP: it is
0.85 * 2**((QP - 12) / 3) in the reference encoders of H.264 and HEVC (Sullivan & Wiegand, "Rate-distortion
optimization for video compression", IEEE Signal Processing Magazine 15(6), 1998). The optimal
strength for a map without errors is therefore 3. Predicted maps have errors, and a strength of at most 1.5
gains more at equal cost (docs/roi_compare.md).
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
"""Largest allowed offset, the QP range of 8-bit H.264 and HEVC."""

GAZE_SHARE = 0.75
"""k of the `density` law: the share of the error that counts where viewers look. Of 0.25, 0.5, 0.75 and
0.9, this value gains most at equal cost with predicted maps (docs/roi_compare.md)."""

PEAK = 40.0
"""Ratio of peak to mean of a narrow gaze map: fixations of 32 viewers, blurred by 3 % of the width."""

DEFAULT_CLAMP = 12
"""Default limit of the offsets, QP: a factor of 4 in the quantiser step. With larger offsets, the edges of
regions become visible."""

LAW_FOR: dict[str, Law] = {"objects": "neutral", "gaze": "density"}
"""Default law by the task of the model that made the map."""

STRENGTHS: dict[Law, float] = {"neutral": 3.0, "symmetric": 3.0, "density": 1.0}
"""Default strength of each law, QP, chosen by the measurements in docs/roi_compare.md. `neutral`: the
largest whole number that costs less than 0.5 points of whole-frame VMAF on a clip with ground-truth masks.
`density`: of 0.5, 1 and 1.5, the largest that costs no whole-frame VMAF on average over five clips with
recorded gaze."""

ASPECT_TOLERANCE = 0.04
"""Largest relative difference between the aspect ratios of a map and its picture. Rounding the size of a
map with a few dozen lines causes up to 0.03."""

DEFAULT_SMOOTHING = 0.7
"""Weight of the previous average in the exponential average of the offsets; at 25 frames/s, its time
constant is 0.11 s."""

DEFAULT_LEVELS = 9

HYSTERESIS = 0.25
"""A block changes its level if the average passes the midpoint of two levels by this fraction of their
distance."""


def check_law(law: str, strength: float, clamp: float) -> None:
    """Raise a UsageError for an unknown law, or for a strength or clamp outside its range."""
    if law not in LAWS:
        raise UsageError(f"{law!r} is not a known law", f"choose one of: {', '.join(LAWS)}")
    if not 0 <= strength <= MAX_OFFSET:
        raise UsageError(
            f"the strength is {strength:g}; it must be between 0 and {MAX_OFFSET} QP",
            "give a strength in this range; 0 encodes without regions",
        )
    if not 1 <= clamp <= MAX_OFFSET:
        raise UsageError(
            f"the clamp is {clamp:g}; it must be between 1 and {MAX_OFFSET} QP",
            f"give a value in this range; the default is {DEFAULT_CLAMP}",
        )


def symmetric(saliency: Floats, strength: float, clamp: float = DEFAULT_CLAMP) -> Floats:
    """Return the offsets of the `symmetric` law, float32 (rows, columns), QP; the file size may change."""
    return np.clip(-strength * (2 * saliency - 1), -clamp, clamp).astype(np.float32)


def neutral(
    saliency: Floats,
    strength: float,
    clamp: float = DEFAULT_CLAMP,
    weights: npt.NDArray[np.floating] | None = None,
) -> Floats:
    """Return the offsets of the `neutral` law, whose mean weighted by the bits of each block is zero.

    An offset changes the bits of a block by a factor of about 1 - offset * ln(2) / 6, so offsets with a
    weighted mean of zero keep the file size. If the clamp limits offsets, c is found by bisection, because
    the mean is monotonic in c. `weights` are the bits of the blocks; None weights all blocks equally.

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
        for _ in range(24):  # an error of 2**-24 of the range is far below 1 QP
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
    """Return the offsets of the `density` law, whose mean weighted by the bits of each block is zero.

    A constant factor of the map has no effect, and a map of zeros gives offsets of zero. `strength` is in
    QP per doubling of a block's weight w; `weights` are the bits of the blocks, as in `neutral`.

    Returns:
        float32 (rows, columns), QP.
    """
    mean = float(saliency.mean(dtype=np.float64))
    share = GAZE_SHARE if mean > 0 else 0.0
    counts = (1 - share) + share * saliency / (mean or 1.0)
    return neutral(np.log2(counts), strength, clamp, weights)


def span_of(law: Law, strength: float, clamp: float) -> float:
    """Return the difference between the largest and the smallest offset of a law, QP.

    The `density` law has no largest weight, so a map's peak is assumed to be `PEAK` times its mean.
    """
    one_way = {
        "symmetric": 2.0,
        "neutral": 1.0,
        "density": math.log2(1 + GAZE_SHARE * (PEAK - 1)) - math.log2(1 - GAZE_SHARE),
    }[law]
    return min(one_way * strength, 2 * clamp)


@dataclass(frozen=True)
class SteerOptions:
    """Options of the conversion from saliency to QP offsets.

    Attributes:
        strength: factor of the law, QP; 0 disables offsets, None uses the default of the law.
        law: `neutral`, `symmetric` or `density`; None uses the default for the kind of map, see `for_map`.
        clamp: largest absolute offset, QP.
        smoothing: weight of the previous average in the average over frames, 0..0.99.
        levels: largest number of distinct offsets, including zero, 3..51.
        hysteresis: resistance of a block to changes of its level, 0..1, see `HYSTERESIS`.
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
                    f"give a value in this range; the default is {default}",
                )

    def for_map(self, shows: str | None) -> SteerOptions:
        """Return the options; a law or strength of None becomes the default for this kind of map.

        Args:
            shows: `gaze` or `objects`, the task of the model that made the map; None if the task is not
                known, which is treated as `objects`.
        """
        known = replace(self, law=self.law or LAW_FOR[shows or "objects"])
        law, strength = known.chosen
        return replace(known, law=law, strength=strength)

    @property
    def chosen(self) -> tuple[Law, float]:
        """Law and strength; a value of None becomes the default for maps of objects."""
        law = self.law or LAW_FOR["objects"]
        return law, STRENGTHS[law] if self.strength is None else self.strength

    @property
    def span(self) -> float:
        """Difference between the largest and the smallest possible offset, QP."""
        return span_of(*self.chosen, self.clamp)

    @property
    def lowest(self) -> float:
        """The smallest possible offset, QP; it is negative."""
        law, strength = self.chosen
        return -min(self.span if law == "density" else strength, self.clamp)


def grid_size(width: int, height: int, block: int) -> tuple[int, int]:
    """Return the number of blocks, (rows, columns), that cover a picture; all sizes are in pixels."""
    return -(-height // block), -(-width // block)


def steering_means(saliency: Floats, width: int, height: int, block: int) -> Floats:
    """Return the mean of a map in coded orientation over every block of a picture; sizes are in pixels.

    Returns:
        float32 (ceil(height / block), ceil(width / block)).
    """
    rows = block_edges(height, block) / height * saliency.shape[0]
    columns = block_edges(width, block) / width * saliency.shape[1]
    means = block_means(saliency.astype(np.float32, copy=False), rows, columns)
    # block_means subtracts cumulated sums, so rounding can move a mean outside the range of the map.
    return np.clip(means, saliency.min(), saliency.max())


def to_coded(saliency: Floats, rotation: int) -> Floats:
    """Rotate an upright map to coded orientation; `rotation` is the clockwise display rotation, degrees."""
    return np.rot90(saliency, rotation // 90)  # rot90 turns counterclockwise


def valid_map(saliency: npt.NDArray[np.generic], display: tuple[int, int], where: str) -> Floats:
    """Check that a map fits a picture, and return it as float32 (h, w) in [0, 1].

    `display` is the (width, height) of the upright picture in square pixels; `where` begins error messages.

    Raises:
        MediaError: the map is not two-dimensional, has another aspect ratio, or a value outside [0, 1].
    """
    if saliency.ndim != 2 or 0 in saliency.shape:
        raise MediaError(
            f"{where}: the map has the shape {saliency.shape}, expected (rows, columns)",
            "give a two-dimensional array that is not empty",
        )
    h, w = saliency.shape
    ratio = (w / h) / (display[0] / display[1])
    slack = ASPECT_TOLERANCE + 0.5 / w + 0.5 / h
    if (w, h) != display and not 1 - slack < ratio < 1 + slack:
        raise MediaError(
            f"{where}: the map is {w}x{h}, but the picture is {display[0]}x{display[1]}, which is another "
            "aspect ratio",
            "give an upright map with the aspect ratio of the picture",
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
    """Estimate the bits of each block by the mean absolute difference of horizontal neighbours, plus one.

    Only every eighth line and every second column are used. `block` is a multiple of 8 pixels. One is
    added so that flat blocks have a positive weight.

    Returns:
        float32 (rows, columns), at least 1, in 8-bit code values.
    """
    # int16 holds up to 15 bits and halves the memory traffic.
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
    """Return the step between levels, QP, with which `span` QP have at most `levels` (>= 3) levels."""
    step = max(1, math.ceil(span / (levels - 1)))
    # A span that is not aligned to multiples of the step can touch one more level.
    return step if span / step + 1 <= levels else step + 1


class LevelSmoother:
    """Smooth offsets over time and quantise them to levels.

    A block whose QP changes in every frame flickers, and can't be coded as a skip block. So the offsets are
    averaged exponentially, and a level changes only if the average is clearly nearer to another level.
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
        """Return the levels of the next frame, int16 (rows, columns), QP, multiples of the step.

        `reset` restarts the average at the start of a scene; offsets of another shape restart it, too.
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
            # Hysteresis can keep levels just outside the span of this frame, and rounding can move both
            # ends of the span outwards.
            lowest = np.rint(mean / self._step).min()
            levels = np.clip(levels, lowest, lowest + self._most - 1)
        self._mean, self._levels = mean, levels
        return (levels * self._step).astype(np.int16)


class LevelMapper:
    """Convert saliency maps to levels (quantised QP offsets per block), one frame at a time."""

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
        """Return the levels of the next frame per block of the coded picture, int16 (rows, columns), QP.

        `saliency` is an upright map of any size, `rotation` is the clockwise display rotation in degrees,
        and `cut` marks the start of a scene. The laws that keep the file size estimate the bits per block
        from `picture`; None weights all blocks equally.
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
    """Return the luma plane of a planar YUV or grey frame, without a copy, and its bits per sample."""
    plane = frame.planes[0]
    bits = frame.format.components[0].bits
    kind = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    rows = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind.itemsize)  # type: ignore[call-overload]
    luma: npt.NDArray[np.unsignedinteger] = rows[:, : plane.width]
    return luma, bits
