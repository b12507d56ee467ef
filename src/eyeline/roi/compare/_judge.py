"""Measure the quality of an encode inside the subject, outside it, and over the whole frame.

The judging maps define the subject, see `INSIDE`. PSNR is computed for luma from the squared errors of all
samples of all frames, so the errors inside and outside add up to those of the whole frame. SSIM and VMAF
are means over frames, as in libvmaf.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.errors import QualityError
from eyeline.media import open_video
from eyeline.media.colour import PlaneLayout, Planes
from eyeline.media.types import VideoOptions
from eyeline.quality.libvmaf import LibvmafRun
from eyeline.quality.pairs import Aligner, PairOptions, pair_by_index, timed_frames
from eyeline.quality.psnr import decibels, squared_error
from eyeline.quality.ssim import ssim
from eyeline.quality.weights import Weights, as_coded
from eyeline.saliency.maps import read_maps

Map = npt.NDArray[np.float32]

INSIDE = 0.5
"""A sample is inside the subject if the judging map exceeds this value, which is the threshold of IoU for
salient objects."""

TAIL = 0.02
"""Fraction of the subject's area over all frames that may lie beyond each side of its box, so that a few
stray samples do not enlarge the box."""

SMALLEST_BOX = 64
"""Smallest width and height of the box in pixels, because the coarsest of the four scales of VIF in libvmaf
needs a few samples."""


@dataclass(frozen=True)
class Subject:
    """The area where viewers look, by the maps that judge the encodes.

    Attributes:
        box: bounding box (width, height, x, y) in luma samples of the coded picture. The box is the same
            for all frames, because VMAF would measure a moving box as motion.
        share: fraction of all samples that are inside the subject, 0..1.
        frames: number of frames.
        empty: number of frames without a sample inside the subject.
    """

    box: tuple[int, int, int, int]
    share: float
    frames: int
    empty: int


@dataclass(frozen=True)
class SubjectQuality:
    """The quality of an encode against its source.

    Attributes:
        psnr_inside, psnr_outside, psnr_whole: luma PSNR, dB, from the squared errors of all frames.
        sw_psnr: luma PSNR, dB, of the mean squared error that is weighted by the judging maps.
        ssim: SSIM, mean over frames.
        sw_ssim: SSIM weighted by the judging maps, mean over frames.
        vmaf: VMAF, mean over frames; None if it was not measured.
        vmaf_crop: VMAF of the subject's box, mean over frames; None if it was not measured.
    """

    psnr_inside: float
    psnr_outside: float
    psnr_whole: float
    sw_psnr: float
    ssim: float
    sw_ssim: float
    vmaf: float | None = None
    vmaf_crop: float | None = None


def find_subject(maps: str | os.PathLike[str], width: int, height: int, rotation: int) -> Subject:
    """Find the subject in upright judging maps; `width` and `height` are those of the coded picture.

    Raises:
        QualityError: no sample of any frame is inside the subject, or all samples are.
    """
    columns, rows = np.zeros(width), np.zeros(height)
    frames = empty = 0
    for _, m in read_maps(Path(maps)):
        inside = _inside(Weights(as_coded(m, rotation), 0.0), width, height)
        columns += inside.sum(0)
        rows += inside.sum(1)
        frames += 1
        empty += not inside.any()
    total = rows.sum()
    if total in (0, frames * width * height):
        which = "no sample" if total == 0 else "every sample"
        raise QualityError(
            f"{which} of the judging maps is above {INSIDE}, so no subject can be told from the background",
            "give other judging maps with --judge-masks or --judge-model",
        )
    x, w = _stretch(columns)
    y, h = _stretch(rows)
    return Subject((w, h, x, y), float(total / (frames * width * height)), frames, empty)


def _stretch(mass: npt.NDArray[np.float64]) -> tuple[int, int]:
    """Return the even start and length of the range with all of `mass` except `TAIL` at each end."""
    size = len(mass)
    share = np.cumsum(mass) / mass.sum()
    first = int(np.searchsorted(share, TAIL, side="right"))
    end = int(np.searchsorted(share, 1 - TAIL, side="left")) + 1
    least = min(SMALLEST_BOX, size)
    if end - first < least:
        first = max(0, min(first - (least - end + first) // 2, size - least))
        end = first + least
    first -= first % 2
    length = end - first
    if length % 2:
        length += 1 if end < size else -1
    return first, length


def _inside(weights: Weights, width: int, height: int) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = weights.map_at(width, height) > INSIDE
    return found


class _Sums:
    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._squares = [0.0, 0.0]  # outside, inside
        self._counts = [0, 0]
        self._weighted: list[float] = []
        self._ssim: list[float] = []
        self._sw_ssim: list[float] = []

    def add(self, reference: Planes, distorted: Planes, saliency: Map) -> None:
        """Add a frame and its judging map, which is in coded orientation."""
        r, d = reference.luma, distorted.luma
        height, width = r.shape
        salient = bool(saliency.max() > 0)
        weights = Weights(saliency) if salient else None
        inside = np.zeros(r.shape, bool) if weights is None else _inside(weights, width, height)
        count = int(inside.sum())
        if count:
            whole, subject = squared_error(r, d, Weights(inside.astype(np.float32)))
        else:
            whole, subject = squared_error(r, d, None).whole, 0.0
        total = whole * r.size
        # Rounding can make the error outside the subject negative.
        self._squares[0] += max(0.0, total - subject * count)
        self._squares[1] += subject * count
        self._counts[0] += r.size - count
        self._counts[1] += count
        similar = ssim(r, d, self._depth, weights)
        self._ssim.append(similar.whole)
        if weights is not None and similar.weighted is not None:
            self._sw_ssim.append(similar.weighted)
            self._weighted.append(squared_error(r, d, weights).weighted)

    def quality(self, vmaf: float | None, crop: float | None) -> SubjectQuality:
        """Return the quality of the encode."""
        outside, inside = (
            decibels(s / n, self._depth) for s, n in zip(self._squares, self._counts, strict=True)
        )
        whole = decibels(sum(self._squares) / sum(self._counts), self._depth)
        weighted = decibels(float(np.mean(self._weighted)), self._depth)
        similar, sw_similar = float(np.mean(self._ssim)), float(np.mean(self._sw_ssim))
        return SubjectQuality(inside, outside, whole, weighted, similar, sw_similar, vmaf, crop)


def judge(
    source: Any,
    encode: str | os.PathLike[str],
    maps: str | os.PathLike[str],
    subject: Subject,
    *,
    start: int = 0,
    video: VideoOptions | None = None,
    vmaf: bool = False,
    on_frame: Callable[[], None] = lambda: None,
) -> SubjectQuality:
    """Measure the quality of an encode of the frames of `source` from `start` on, with their judging maps.

    Raises:
        MediaError: a file cannot be read.
        QualityError: the source, the encode and the maps differ in their frames.
        EncoderError: libvmaf failed.
        MissingExtraError: `vmaf` is set, and the extra `vmaf` is not installed.
    """
    count = subject.frames
    with (
        open_video(source, video) as original,
        open_video(encode) as coded,
        contextlib.ExitStack() as stack,
    ):
        options = PairOptions(ref_offset=start, frames=count)
        aligner = Aligner(original.info, coded.info, options)
        rotation = original.info.rotation
        layout = PlaneLayout(aligner.chroma, aligner.depth)
        runs: list[LibvmafRun] = []
        if vmaf:
            for w, h in ((aligner.width, aligner.height), subject.box[:2]):
                runs.append(LibvmafRun(w, h, layout))
                stack.callback(runs[-1].discard)
        sums = _Sums(aligner.depth)
        pairs = pair_by_index(
            timed_frames(original, start, start + count), timed_frames(coded, 0), aligner
        )
        done = 0
        for (index, m), (r, d) in zip(read_maps(Path(maps)), pairs, strict=False):
            if index != start + done:
                raise QualityError(
                    f"{maps}: expected the map of frame {start + done}, found one of frame {index}",
                    "make maps of exactly the frames that are compared",
                )
            reference, distorted = aligner.planes(0, r.frame), aligner.planes(1, d.frame)
            sums.add(reference, distorted, as_coded(m, rotation))
            for run, crop in zip(runs, (None, subject.box), strict=False):
                run.write(
                    *(p if crop is None else p.cropped(*crop) for p in (reference, distorted))
                )
            done += 1
            on_frame()
        if done != count:
            raise QualityError(
                f"{encode}: has {done} frames, but the source has {count}",
                "delete the file from the work folder, and run the comparison again",
            )
        scores = [float(np.mean(run.finish()["vmaf"])) for run in runs]
    return sums.quality(*(scores or (None, None)))
