"""VMAF, and VMAF weighted by where viewers look, from the same pass over a frame.

VMAF's elementary features (VIF, ADM, motion) are ratios or means of sums over pixels. `SwVmaf`
computes those sums twice, plain and with a weight a pixel, and gives both sets to the published
regression. Uniform weights give VMAF. Frames in, numbers out: pairing, decoding and maps are the
caller's.

    engine = SwVmaf(load_model("vmaf_v0.6.1"))
    for score in engine.scores(pairs, workers=2):      # pairs: an iterable of LumaPair
        score.whole["vmaf"], score.weighted["vmaf"]

`scores` holds a few frames at a time. A caller with workers of its own calls `part` for each
frame, in any order and from any thread, and `finish` with a frame's part and the next one's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eyeline.errors import QualityError
from eyeline.quality.adm import Adm, adm
from eyeline.quality.kernels import sum_of
from eyeline.quality.motion import Motion, motion
from eyeline.quality.svr import VmafModel
from eyeline.quality.vif import vif

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float32]
    Luma = NDArray[np.uint8] | NDArray[np.uint16]

SMALLEST = 33
"""Least width and height in pixels: below it libvmaf's coarsest wavelet band has under 3 rows."""


class LumaPair(NamedTuple):
    """What one frame's score needs.

    Attributes:
        reference: uint8 or uint16 (H, W), luma codes.
        distorted: the same of the distorted frame.
        bit_depth: of both.
        weight: float32 (H, W), not negative, or None for plain VMAF alone. Only ratios count.
    """

    reference: Luma
    distorted: Luma
    bit_depth: int
    weight: Plane | None


@dataclass(frozen=True)
class Spatial:
    """Elementary features that need one frame alone."""

    vif: tuple[float, ...]
    adm: Adm


@dataclass(frozen=True)
class FramePart:
    """What one frame contributes: all but the neighbours' say in motion.

    Attributes:
        whole: features over all pixels.
        weighted: features with weights, or None.
        motion: difference from the frame before, None for the first.
    """

    whole: Spatial
    weighted: Spatial | None
    motion: Motion | None


@dataclass(frozen=True)
class FrameScore:
    """A frame's features and score, by libvmaf's names without its prefixes.

    Keys: `vif_scale0` to `vif_scale3`, `adm2`, `adm_scale0` to `adm_scale3`, `motion2`, `vmaf`.

    Attributes:
        whole: of the whole frame, which is libvmaf's value.
        weighted: with weights; None where the pair had none.
    """

    whole: Mapping[str, float]
    weighted: Mapping[str, float] | None


class SwVmaf:
    """A model and the features it needs. Holds no state between frames.

    Args:
        model: see `load_model`. Its gain limits apply (the "neg" models set them to 1).
        transformed: apply the model's score transform (viewing on a phone).
    """

    def __init__(self, model: VmafModel, *, transformed: bool = False) -> None:
        self.model = model
        self.transformed = transformed

    def part(self, pair: LumaPair, previous: LumaPair | None = None) -> FramePart:
        """Features of a frame; a pure function, safe in threads (most of it runs without the GIL).

        Args:
            pair: the frame.
            previous: the frame before, of which the reference and the weight are used; None for
                the first frame.

        Raises:
            QualityError: shapes that differ, a frame under 33 x 33, a weight that is negative, not
                finite or zero everywhere that counts.
            MissingExtraError: OpenCV is not installed.
        """
        _check(pair)
        reference, distorted = _codes(pair.reference, pair), _codes(pair.distorted, pair)
        weight = pair.weight
        change = None
        if previous is not None:
            if previous.reference.shape != pair.reference.shape:
                raise QualityError(
                    f"frames change size: {_size(previous.reference)}, then {_size(pair.reference)}"
                )
            change = motion(
                reference, _codes(previous.reference, previous), weight, previous.weight
            )
        fidelity = vif(reference, distorted, weight, self.model.vif_gain_limit)
        detail = adm(reference, distorted, weight, self.model.adm_gain_limit)
        weighted = None
        if fidelity.weighted is not None and detail.weighted is not None:
            weighted = Spatial(fidelity.weighted, detail.weighted)
        return FramePart(Spatial(fidelity.whole, detail.whole), weighted, change)

    def finish(self, part: FramePart, following: FramePart | None = None) -> FrameScore:
        """Features and score of a frame.

        Args:
            part: the frame's.
            following: the next frame's; None for the last frame.
        """
        before, after = part.motion, None if following is None else following.motion
        whole = self._score(part.whole, before and before.whole, after and after.whole)
        if part.weighted is None:
            return FrameScore(whole, None)
        # Both differences are weighed with this frame's map: what moves where viewers look now.
        weighted = self._score(
            part.weighted, before and before.weighted, after and after.weighted_by_previous
        )
        return FrameScore(whole, weighted)

    def scores(self, pairs: Iterable[LumaPair], workers: int = 1) -> Iterator[FrameScore]:
        """Scores of a clip, in order, a frame behind its input.

        Args:
            pairs: the frames, all of one size; read as they are needed, at most `workers` + 2 held.
            workers: threads; 1 computes in the caller's thread.

        Raises:
            QualityError, MissingExtraError: see `part`.
        """
        waiting: FramePart | None = None
        for part in self._parts(_with_previous(pairs), workers):
            if waiting is not None:
                yield self.finish(waiting, part)
            waiting = part
        if waiting is not None:
            yield self.finish(waiting)

    def _parts(
        self, frames: Iterable[tuple[LumaPair, LumaPair | None]], workers: int
    ) -> Iterator[FramePart]:
        if workers <= 1:
            for pair, previous in frames:
                yield self.part(pair, previous)
            return
        with ThreadPoolExecutor(workers) as pool:
            running: deque[Future[FramePart]] = deque()
            try:
                for pair, previous in frames:
                    running.append(pool.submit(self.part, pair, previous))
                    if len(running) > workers:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _score(
        self, spatial: Spatial, before: float | None, after: float | None
    ) -> dict[str, float]:
        # libvmaf: 0 for the first frame, else the smaller difference of those that exist.
        motion2 = 0.0 if before is None else before if after is None else min(before, after)
        features = {f"vif_scale{i}": value for i, value in enumerate(spatial.vif)}
        features |= {"adm2": spatial.adm.adm2}
        features |= {f"adm_scale{i}": value for i, value in enumerate(spatial.adm.scales)}
        features["motion2"] = motion2
        features["vmaf"] = self.model.score(features, transformed=self.transformed)
        return features


def _with_previous(pairs: Iterable[LumaPair]) -> Iterator[tuple[LumaPair, LumaPair | None]]:
    previous = None
    for pair in pairs:
        yield pair, previous
        previous = pair


def _codes(luma: Luma, pair: LumaPair) -> Plane:
    """float32 (H, W): luma in codes of 8 bits."""
    codes = luma.astype(np.float32)
    if pair.bit_depth != 8:
        codes *= np.float32(2.0 ** (8 - pair.bit_depth))
    return codes


def _size(plane: NDArray[np.generic]) -> str:
    return f"{plane.shape[1]}x{plane.shape[0]}"


def _check(pair: LumaPair) -> None:
    reference, distorted, weight = pair.reference, pair.distorted, pair.weight
    if reference.ndim != 2 or reference.shape != distorted.shape:
        raise QualityError(
            f"the reference is {_size(reference)}, the distorted frame {_size(distorted)}",
            "scale one to the other's size",
        )
    if min(reference.shape) < SMALLEST:
        raise QualityError(
            f"frames of {_size(reference)}: VMAF needs at least {SMALLEST}x{SMALLEST} pixels"
        )
    if weight is None:
        return
    if weight.shape != reference.shape:
        raise QualityError(f"the map is {_size(weight)}, the frame {_size(reference)}")
    total = sum_of(weight)
    if not math.isfinite(total):
        raise QualityError("the map has values that are not finite numbers")
    if float(weight.min()) < 0:
        raise QualityError("the map has negative values")
    if total == 0:
        raise QualityError(
            "the map is zero everywhere, so no pixel has a weight",
            "give a map with a value above 0",
        )
