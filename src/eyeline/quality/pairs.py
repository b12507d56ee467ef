"""Pair the frames of two videos, and convert each pair to one size, bit depth and chroma format.

Nothing is adapted silently: a difference between the two videos is an error unless an option says how
to resolve it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeVar

import av

from eyeline.errors import QualityError, UsageError
from eyeline.media import Video
from eyeline.media.colour import PlaneLayout, PlaneReader, Planes, layout_of
from eyeline.media.types import DEFAULT_FPS, IMAGE_SUFFIXES, RAW_SUFFIXES, VideoInfo

T = TypeVar("T")

SAME_RATE = 0.0005
"""Frame rates that differ by less than this share count as equal, such as 29.97 and 30000/1001, but not
24 and 23.976."""


@dataclass(frozen=True)
class PairOptions:
    """How to pair the frames of two videos; with the defaults, any difference is an error.

    Attributes:
        ref_offset, dist_offset: number of frames to leave out at the start of each video.
        resample: pair each reference frame with the distorted frame that is shown at the same time.
        scale: scale both videos to the size of the reference or of the distorted video (bicubic).
        crop: window (width, height, x, y) in luma samples, applied after scaling; None = no crop.
        shortest: stop where the shorter video ends.
        frames: greatest number of pairs; None = no limit.
    """

    ref_offset: int = 0
    dist_offset: int = 0
    resample: bool = False
    scale: Literal["ref", "dist"] | None = None
    crop: tuple[int, int, int, int] | None = None
    shortest: bool = False
    frames: int | None = None

    def __post_init__(self) -> None:
        for name, offset in (("reference", self.ref_offset), ("distorted", self.dist_offset)):
            if offset < 0:
                raise UsageError(
                    f"the offset of the {name} video is {offset}; it must be 0 or more",
                    "give the number of frames to leave out at its start",
                )
        if self.frames is not None and self.frames < 1:
            raise UsageError(
                f"--frames is {self.frames}; it must be 1 or more",
                "leave it out to score all pairs",
            )


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame and its presentation time in seconds."""

    seconds: float
    frame: av.VideoFrame


class Aligner:
    """Check that two videos can be compared, and convert their frames to common planes.

    Attributes:
        width, height: size of the luma planes that are compared.
        depth: bits per sample of the deeper video; samples of the other video are shifted left.
        chroma: see `media.colour.PlaneLayout`.

    Raises:
        QualityError: sizes, rates, lengths, colour or layout differ, and no option resolves it.
    """

    def __init__(self, reference: VideoInfo, distorted: VideoInfo, options: PairOptions) -> None:
        self._ref, self.distorted, self.options = reference, distorted, options
        self._check_colour()
        self._check_rates()
        self._check_lengths()
        sizes = [(i.width, i.height) for i in (reference, distorted)]
        if sizes[0] != sizes[1] and options.scale is None:
            raise QualityError(
                f"the videos differ in size: {reference.path} is {_size(sizes[0])}, "
                f"{distorted.path} is {_size(sizes[1])}",
                "give --scale ref to scale both to the reference's size, or --scale dist",
            )
        self.full = sizes[1] if options.scale == "dist" else sizes[0]
        layouts = [layout_of(av.VideoFormat(i.pix_fmt)) for i in (reference, distorted)]
        self.depth = max(layout.depth for layout in layouts)
        self.chroma = self._common_chroma(*layouts)
        self.width, self.height = self._cropped()
        colours = reference.colour, distorted.colour
        # RGB is converted to YUV with the matrix and range of the YUV video, or of the reference if both
        # videos are RGB.
        target = colours[1] if layouts[0].rgb and not layouts[1].rgb else colours[0]
        self._readers = [
            PlaneReader(
                PlaneLayout(self.chroma, layout.depth), self.full, colour,
                target if layout.rgb else colour,
            )
            for layout, colour in zip(layouts, colours, strict=True)
        ]  # fmt: skip

    def planes(self, which: Literal[0, 1], frame: av.VideoFrame) -> Planes:
        """Return the planes of a decoded frame at the common size and bit depth, cropped.

        Args:
            which: 0 = the reference, 1 = the distorted video.
            frame: the decoded frame.

        Raises:
            QualityError: the frame size changes within the video, and `scale` is not set.
        """
        info = (self._ref, self.distorted)[which]
        if (frame.width, frame.height) != (info.width, info.height) and not self.options.scale:
            raise QualityError(
                f"{info.path}: the frame size changes from {info.width}x{info.height} to "
                f"{frame.width}x{frame.height}",
                "give --scale ref or --scale dist to scale all frames to one size",
            )
        planes = self._readers[which](frame).deepened(self.depth)
        return planes.cropped(*self.options.crop) if self.options.crop else planes

    def _check_colour(self) -> None:
        r, d = self._ref.colour, self.distorted.colour
        if r.transfer != d.transfer:
            raise QualityError(
                f"the videos differ in transfer function: {self._ref.path} is {r.transfer.upper()}, "
                f"{self.distorted.path} is {d.transfer.upper()}",
                "convert one of them to the transfer function of the other first",
            )
        for name in ("matrix", "color_range"):
            tagged = name not in r.assumed and name not in d.assumed
            rgb = any(
                i.pix_fmt.startswith(("rgb", "bgr", "gbr", "pal"))
                for i in (self._ref, self.distorted)
            )
            if tagged and not rgb and getattr(r, name) != getattr(d, name):
                raise QualityError(
                    f"the videos differ in {name.replace('_', ' ')}: {self._ref.path} has "
                    f"{getattr(r, name)}, {self.distorted.path} has {getattr(d, name)}",
                    "convert one of them to the values of the other first",
                )
        if self._ref.rotation != self.distorted.rotation:
            raise QualityError(
                f"the videos differ in rotation: {self._ref.path} is rotated by {self._ref.rotation} "
                f"degrees, {self.distorted.path} by {self.distorted.rotation}",
                "rotate one of them first",
            )

    def _check_rates(self) -> None:
        r, d = self._ref.fps, self.distorted.fps
        if r is None or d is None or self.options.resample:
            return
        if _assumed_rate(self._ref) or _assumed_rate(self.distorted):
            return
        if abs(r - d) > Fraction(SAME_RATE) * max(r, d):
            raise QualityError(
                f"the videos differ in frame rate: {self._ref.path} has {float(r):.3f} frames per "
                f"second, {self.distorted.path} has {float(d):.3f}",
                "give --resample to pair frames by time",
            )

    def _check_lengths(self) -> None:
        """Compare the frame counts in the containers, so that a long run does not fail at its end."""
        o = self.options
        if o.shortest or o.resample or self._ref.frames is None or self.distorted.frames is None:
            return
        counts = self._ref.frames - o.ref_offset, self.distorted.frames - o.dist_offset
        if counts[0] != counts[1] and (o.frames is None or min(counts) < o.frames):
            raise self.lengths_differ(self._ref.frames, self.distorted.frames)

    def lengths_differ(self, reference: int, distorted: int) -> QualityError:
        """Return the error for two videos with these numbers of frames."""
        o = self.options
        skipped = (
            f" ({o.ref_offset} and {o.dist_offset} left out)"
            if o.ref_offset + o.dist_offset
            else ""
        )
        return QualityError(
            f"the videos differ in length: {self._ref.path} has {reference} frames, "
            f"{self.distorted.path} has {distorted}{skipped}",
            "give --shortest to score the common part, or --ref-offset or --dist-offset to align them",
        )

    def _common_chroma(self, reference: PlaneLayout, distorted: PlaneLayout) -> str:
        if reference.rgb and not distorted.rgb:
            return distorted.chroma
        if distorted.rgb or reference.chroma == distorted.chroma:
            return reference.chroma
        raise QualityError(
            f"the videos differ in chroma format: {self._ref.path} is {self._ref.pix_fmt}, "
            f"{self.distorted.path} is {self.distorted.pix_fmt}",
            "convert one of them to the pixel format of the other first",
        )

    def _cropped(self) -> tuple[int, int]:
        if self.options.crop is None:
            return self.full
        w, h, x, y = self.options.crop
        even = self.chroma in ("420", "422", "440") and (x % 2 or y % 2)
        inside = w > 0 and h > 0 and x >= 0 and y >= 0
        if not inside or x + w > self.full[0] or y + h > self.full[1] or even:
            raise UsageError(
                f"the crop window {w}x{h} at {x},{y} does not fit the frame of {_size(self.full)}",
                "give W:H:X:Y inside the frame, with even X and Y for subsampled chroma",
            )
        return w, h


def pair_by_index(
    reference: Iterator[T],
    distorted: Iterator[TimedFrame],
    aligner: Aligner,
    first: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[T, TimedFrame]]:
    """Yield the first frame of each video as a pair, then the second frame of each, and so on.

    Args:
        reference: frames of the reference, without the first `ref_offset` frames.
        distorted: frames of the distorted video, without the first `dist_offset` frames.
        aligner: provides the options and the error messages.
        first: number of the first pair that the iterators hold.
        stop: number after the last pair; None = up to `PairOptions.frames`.

    Raises:
        QualityError: one video ends before the other, and `shortest` is not set.
    """
    o = aligner.options
    stop = o.frames if stop is None else stop
    count = first
    while stop is None or count < stop:
        r, d = next(reference, None), next(distorted, None)
        if r is None or d is None:
            break
        yield r, d
        count += 1
    else:
        return
    if (r is None and d is None) or o.shortest:
        return
    more = 1 + sum(1 for _ in (distorted if r is None else reference))
    counts = (count, count + more) if r is None else (count + more, count)
    raise aligner.lengths_differ(counts[0] + o.ref_offset, counts[1] + o.dist_offset)


def pair_by_time(
    reference: Iterator[tuple[float, T]], distorted: Iterator[TimedFrame], aligner: Aligner
) -> Iterator[tuple[T, TimedFrame]]:
    """Pair each frame of the reference with the distorted frame that is shown at the same time.

    Times count from the first frame of each video. A frame is shown until the time of the next one,
    and the last frame for 1 / (frame rate). Timestamps may be off by up to 1 ms due to rounding.

    Raises:
        QualityError: the distorted video ends before the reference, and `shortest` is not set.
    """
    o, info = aligner.options, aligner.distorted
    lasts = float(1 / info.fps) if info.fps else 0.04
    current, following = next(distorted, None), next(distorted, None)
    if current is None:
        return
    start, origin = current.seconds, None
    for count, (seconds, r) in enumerate(reference):
        if o.frames is not None and count >= o.frames:
            return
        origin = seconds if origin is None else origin
        at = seconds - origin + start + 1e-3
        while following is not None and following.seconds <= at:
            current, following = following, next(distorted, None)
        if following is None and at > current.seconds + lasts:
            if o.shortest:
                return
            raise QualityError(
                f"{info.path} ends before the reference: at {current.seconds + lasts - start:.3f} s, "
                f"after {count} frames of the reference",
                "give --shortest to score the common part",
            )
        yield r, current


def timed_frames(video: Video, start: int, stop: int | None = None) -> Iterator[TimedFrame]:
    """Yield the frames of a video in coded orientation, without rotating them."""
    for decoded in video.pictures(start, stop):
        yield TimedFrame(decoded.seconds, decoded.frame)


def _assumed_rate(info: VideoInfo) -> bool:
    """Return whether the file states no frame rate (raw video, images), so that a default is used."""
    source = Path(info.path)
    carries_none = source.is_dir() or source.suffix.lower() in (*RAW_SUFFIXES, *IMAGE_SUFFIXES)
    return carries_none and info.fps == DEFAULT_FPS


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
