"""How good an encode is inside the subject, outside it, and as a whole.

PSNR is luma's, of squared errors pooled over all samples of all frames: by parts, inside and outside
make up the whole exactly. SSIM and VMAF are means over frames, as libvmaf pools them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
"""A sample is inside the subject where the judging map exceeds this: what the metrics of salient
objects call IoU@.5, and between the two values of a mask."""

TAIL = 0.02
"""Share of the subject's mass, summed over all frames, that is left out on each side of its box: a
few stray samples in one frame do not make the box the picture."""

SMALLEST_BOX = 64
"""Least side of the box, pixels: libvmaf's four scales of VIF need a few samples at the coarsest."""


@dataclass(frozen=True)
class Subject:
    """What an encode is judged on.

    Attributes:
        box: (width, height, x, y) in luma samples of the coded picture, for `Planes.cropped`; it
            stands still, since VMAF would take its movement for motion.
        share: of all samples that are inside, 0..1.
        frames: how many were looked at.
        empty: frames without a sample inside.
    """

    box: tuple[int, int, int, int]
    share: float
    frames: int
    empty: int


@dataclass(frozen=True)
class Quality:
    """An encode against its source.

    Attributes:
        psnr_inside, psnr_outside, psnr_whole: luma, dB, pooled by squared error over all frames.
        sw_psnr: luma, dB, of the mean over frames of the error weighted by the judging map.
        ssim: mean over frames, whole.
        sw_ssim: mean over frames, weighted by the judging map.
        vmaf: mean over frames, whole frame; None if it was not asked for.
        vmaf_crop: the same of the subject's box.
    """

    psnr_inside: float
    psnr_outside: float
    psnr_whole: float
    sw_psnr: float
    ssim: float
    sw_ssim: float
    vmaf: float | None = None
    vmaf_crop: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, by attribute."""
        return asdict(self)


def find_subject(maps: str | os.PathLike[str], width: int, height: int, rotation: int) -> Subject:
    """Where the subject is, over all frames.

    Args:
        maps: a file that `read_maps` reads, upright.
        width: of the coded picture, pixels.
        height: of it.
        rotation: clockwise degrees that make the coded picture upright.

    Raises:
        QualityError: no frame has a subject, or all frames are nothing else.
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
    if total == 0 or total == frames * width * height:
        raise QualityError(
            f"the judging map finds {'no subject' if total == 0 else 'nothing but the subject'}: it "
            f"{'never exceeds' if total == 0 else 'always exceeds'} {INSIDE}",
            "judge by other maps: --judge-masks or --judge-model",
        )
    x, w = _stretch(columns)
    y, h = _stretch(rows)
    return Subject((w, h, x, y), float(total / (frames * width * height)), frames, empty)


def _stretch(mass: npt.NDArray[np.float64]) -> tuple[int, int]:
    """Start and length, both even, that hold all but `TAIL` of the mass at each end."""
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
    """Bool (height, width): samples inside the subject."""
    found: npt.NDArray[np.bool_] = weights.map_at(width, height) > INSIDE
    return found


class _Sums:
    """What is added up over the frames of one encode."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._squares = [0.0, 0.0]  # outside, inside
        self._counts = [0, 0]
        self._weighted: list[float] = []
        self._ssim: list[float] = []
        self._sw_ssim: list[float] = []

    def add(self, reference: Planes, distorted: Planes, saliency: Map) -> None:
        """Add a frame and its judging map, both as coded."""
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
        # By difference, so that round-off must not go below zero.
        self._squares[0] += max(0.0, total - subject * count)
        self._squares[1] += subject * count
        self._counts[0] += r.size - count
        self._counts[1] += count
        similar = ssim(r, d, self._depth, weights)
        self._ssim.append(similar.whole)
        if weights is not None and similar.weighted is not None:
            self._sw_ssim.append(similar.weighted)
            self._weighted.append(squared_error(r, d, weights).weighted)

    def quality(self, vmaf: float | None, crop: float | None) -> Quality:
        """The encode's numbers."""
        outside, inside = (
            decibels(s / n, self._depth) for s, n in zip(self._squares, self._counts, strict=True)
        )
        return Quality(
            inside,
            outside,
            decibels(sum(self._squares) / sum(self._counts), self._depth),
            decibels(float(np.mean(self._weighted)), self._depth),
            float(np.mean(self._ssim)),
            float(np.mean(self._sw_ssim)),
            vmaf,
            crop,
        )


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
) -> Quality:
    """Compare an encode with its source.

    Args:
        source: what was encoded; what `open_video` takes.
        encode: the file that came out.
        maps: judging maps of the encoded frames, upright; a file that `read_maps` reads.
        subject: of these maps, see `find_subject`.
        start: frame of the source that the encode begins with.
        video: how the source is read.
        vmaf: run libvmaf, on the whole frame and on the subject's box.
        on_frame: called after each frame.

    Raises:
        MediaError: one of them can't be read.
        QualityError: they do not belong together.
        EncoderError: libvmaf failed.
        MissingExtraError: `vmaf` without its extra.
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
                raise QualityError(f"{maps}: a map of frame {index} where {start + done} comes")
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
                f"{encode}: {done} frames beside {count} of the source", "was it cut short?"
            )
        scores = [float(np.mean(run.finish()["vmaf"])) for run in runs]
    return sums.quality(*(scores or (None, None)))
