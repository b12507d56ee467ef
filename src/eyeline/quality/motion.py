"""Motion of the reference as libvmaf sees it, whole and weighted in one pass.

The mean absolute difference of two blurred luma frames. A frame's feature (`motion2`) is the
smaller of the difference to the frame before and that to the frame after, so a cut does not count.
libvmaf's extractor (`integer_motion`) sets the window and the border.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eyeline.quality.kernels import opencv, sum_of
from eyeline.quality.vif import gaussian

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

WINDOW = gaussian(5)


class Motion(NamedTuple):
    """Difference between a frame and the one before, in codes of 8 bits.

    Attributes:
        whole: mean over all pixels.
        weighted: mean with this frame's weights; None without weights.
        weighted_by_previous: mean with the previous frame's weights; None without weights.
    """

    whole: float
    weighted: float | None
    weighted_by_previous: float | None


def motion(
    reference: Plane,
    previous: Plane,
    weight: Plane | None = None,
    previous_weight: Plane | None = None,
) -> Motion:
    """Difference of two reference frames.

    Args:
        reference: float32 (H, W), luma in codes of 8 bits (an offset is of no matter).
        previous: the frame before, the same.
        weight: float32 (H, W) of the frame.
        previous_weight: float32 (H, W) of the frame before.
    """
    cv2 = opencv()
    change = reference - previous
    change = cv2.sepFilter2D(
        change, cv2.CV_32F, WINDOW, WINDOW, dst=change, borderType=cv2.BORDER_REFLECT_101
    )
    np.abs(change, out=change)

    def mean(weights: Plane | None) -> float | None:
        if weights is None:
            return None
        return float(sum_of(change * weights) / sum_of(weights))

    return Motion(float(sum_of(change) / change.size), mean(weight), mean(previous_weight))
