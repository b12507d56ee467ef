"""From a map to a frame's levels: law, blocks, smoothing. Every route to an encoder uses this."""

from __future__ import annotations

from dataclasses import dataclass, replace

import av
import numpy as np
import numpy.typing as npt

from eyeline.errors import UsageError
from eyeline.roi.grid import block_activity, block_means, to_coded
from eyeline.roi.laws import DEFAULT_CLAMP, Law, check_law, offsets_of, span_of
from eyeline.roi.smooth import DEFAULT_LEVELS, DEFAULT_SMOOTHING, HYSTERESIS, Steadier, level_step

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
        strength: QP; see `eyeline.roi.laws`. 0 steers nothing. None = what suits the map.
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
        means = block_means(to_coded(saliency, rotation), self.width, self.height, self.block)
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
