"""Are two models the same function? The one parity check, used by export and whoever quantises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from eyeline.errors import ModelError

Tensor = npt.NDArray[np.float32]
Function = Callable[[Tensor], Tensor]
"""float32 (N, 3, H, W) to float32 (N, 1, H, W)."""

GATE = 1e-5
SIZES = (
    (192, 320),
    (256, 256),
    (144, 256),
    (180, 320),
    (65, 97),
    (33, 128),
    (201, 113),
    (384, 224),
)
"""(H, W) pairs: the working sizes, odd ones and portrait."""


@dataclass(frozen=True)
class ParityReport:
    """How far two functions are apart.

    Attributes:
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference over all cases.
        worst: size (H, W), input number and position (y, x) of the largest difference.
        cases: inputs compared.
        gate: the bound on `max_abs`.
    """

    max_abs: float
    mean_abs: float
    worst: tuple[tuple[int, int], int, tuple[int, int]]
    cases: int
    gate: float

    @property
    def passed(self) -> bool:
        """Whether `max_abs` is below the gate."""
        return self.max_abs < self.gate

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        return {**asdict(self), "passed": self.passed}


def check_parity(
    source: Function,
    candidate: Function,
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    inputs: int = 5,
    multiple: int = 1,
    gate: float = GATE,
    seed: int = 0,
) -> ParityReport:
    """Compare two functions on random normalised inputs of several sizes.

    Args:
        source: the reference.
        candidate: what must equal it.
        sizes: (H, W) pairs, rounded up to `multiple`.
        inputs: random inputs a size.
        multiple: what both sides must be multiples of.
        gate: bound on the largest absolute difference.
        seed: of the random inputs.

    Raises:
        ModelError: outputs of different shapes.
    """
    rng = np.random.default_rng(seed)
    worst_value, total, pixels, cases = -1.0, 0.0, 0, 0
    worst: tuple[tuple[int, int], int, tuple[int, int]] = ((0, 0), 0, (0, 0))
    for size in sizes:
        h, w = (s + -s % multiple for s in size)
        for k in range(inputs):
            x = rng.standard_normal((1, 3, h, w)).astype(np.float32)
            expected, got = source(x), candidate(x)
            if expected.shape != got.shape:
                raise ModelError(
                    f"parity: {got.shape} for {expected.shape} at input {h}x{w}",
                    "the two models differ in their output size",
                )
            gap = np.abs(expected.astype(np.float64) - got)[0, 0]
            gap[np.isnan(gap)] = np.inf  # NaN compares as "not larger" and would pass
            y, column = np.unravel_index(int(gap.argmax()), gap.shape)
            if gap[y, column] > worst_value:
                worst_value, worst = float(gap[y, column]), ((h, w), k, (int(y), int(column)))
            total, pixels, cases = total + float(gap.sum()), pixels + gap.size, cases + 1
    return ParityReport(worst_value, total / pixels, worst, cases, gate)
