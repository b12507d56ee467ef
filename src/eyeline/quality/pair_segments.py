"""`score` in segments: split two videos into ranges of frame pairs, and score one range.

A segment seeks in each video with the video's own index, to a keyframe. The scores of a pair depend on
the pair and on its two neighbours, because VMAF's motion compares a frame with the previous and the next
one. The map of a pair depends on a few frames of the reference (`eyeline.segments.extract.frames_of`).
So a segment also measures `REACH` pairs before and after its range, and drops their rows.

Where two segments meet (a seam), both measure the last pair of the first segment and the first pair of
the second one. Both record a digest of the samples, maps and scores, and the digests must agree.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import Any

import numpy as np

from eyeline.errors import SeamError
from eyeline.logs.base import Log
from eyeline.media.colour import Planes
from eyeline.media.index import index_frames
from eyeline.media.types import READ_WHOLE, FrameIndex, VideoOptions
from eyeline.quality.score import ScoreOptions, ScorePart, score
from eyeline.quality.weights import ReferenceFrame
from eyeline.registry.registry import Model
from eyeline.saliency.pipeline import FrameRange
from eyeline.segments.split import (
    Indexes,
    OnFrame,
    Segment,
    SegmentedRun,
    SegmentRows,
    frames_of,
    lead_of,
    reach_of,
    split_frames,
)

REACH = 2
"""Number of pairs that a segment measures on each side of its range: one whose row is compared at the
seam, and one that this row depends on."""


def may_split(options: ScoreOptions) -> bool:
    """Return whether two videos can be scored in segments.

    Segments are not possible if frames are paired by time, if maps depend on whole scenes (`reach_of`),
    or if recorded gaze gives the weights, because its provenance counts frames over the whole run.

    Args:
        options: result of `ScoreOptions.for_model`; without it, a temporal filter that the model chooses
            counts as one that depends on whole scenes.
    """
    by_scene = options.needs_model and reach_of(options.extract_options()) is None
    return not (options.pairs.resample or by_scene or options.fixations)


def plan_pairs(
    ref: FrameIndex, dist: FrameIndex, options: ScoreOptions, length: int
) -> list[Segment]:
    """Split two videos into ranges of pairs; see `SegmentedRun.plan`.

    Args:
        ref: index of the reference.
        dist: index of the distorted video.
        options: see `may_split`.
        length: approximate number of pairs per segment.

    Returns:
        The segments. There is only one segment if `may_split` is false, or if the lengths of the videos
        differ and `options` does not allow that.
    """
    if not may_split(options):
        return [Segment(0, None)]
    o = options.pairs
    lead = REACH + (lead_of(options.extract_options()) if options.needs_model else 0)
    places = ref.keyframes - o.ref_offset + lead, dist.keyframes - o.dist_offset + REACH
    return split_frames(places, 0, _count((ref, dist), options), None, length)


def _count(indexes: Indexes, options: ScoreOptions) -> int:
    """Return the number of pairs; 0 if the lengths differ and the options do not allow that."""
    o = options.pairs
    counts = len(indexes[0]) - o.ref_offset, len(indexes[1]) - o.dist_offset
    count = min(counts)
    if counts[0] != counts[1] and not o.shortest and (o.frames is None or count < o.frames):
        return 0
    return max(0, count if o.frames is None else min(count, o.frames))


class ScoreSegments(SegmentedRun):
    """Run `score` on two videos in segments; `model` is unused if the options need no model."""

    def __init__(
        self,
        reference: str | os.PathLike[str],
        distorted: str | os.PathLike[str],
        model: Model,
        options: ScoreOptions,
        video_options: VideoOptions,
    ) -> None:
        self._paths, self._model, self._video_options = (reference, distorted), model, video_options
        self._options = options.for_model(model.io)

    def index(self) -> Indexes | None:
        """Index the frames of both videos without decoding; None if they cannot be split."""
        if not may_split(self._options):
            return None
        # `score` opens the distorted video first, so index it first for the same error.
        dist = index_frames(self._paths[1], self._video_options)
        ref = index_frames(self._paths[0], self._video_options)
        return None if ref is None or dist is None else (ref, dist)

    def plan(self, indexes: Indexes, length: int) -> list[Segment]:
        """Split the two videos at their keyframes."""
        return plan_pairs(indexes[0], indexes[1], self._options, length)

    def rows(self, segment: Segment, indexes: Indexes, on_frame: OnFrame) -> SegmentRows:
        """Score a segment and `REACH` pairs on each side, and drop the rows of these extra pairs."""
        total = _count(indexes, self._options)
        end = total if segment.stop is None else segment.stop
        start, stop = max(0, segment.start - REACH), min(end + REACH, total)
        watch = _SeamWatch(segment.start, end, self._options.pairs.ref_offset)
        # The last segment reads to the end of both videos, as an unsplit run does.
        last = None if segment.stop is None else stop
        result = score(
            *self._paths,
            model=self._model,
            options=self._options,
            ref_options=replace(self._video_options, index=indexes[0]),
            dist_options=replace(self._video_options, index=indexes[1]),
            on_frame=on_frame,
            part=ScorePart(start, last, self._frames(start, last), watch.look),
        )
        if result.stopped is not None:
            raise result.stopped
        log = result.log
        if list(log.frame_num) != list(range(start, stop)):
            raise SeamError(
                f"some of the frame pairs {start} to {stop - 1} are missing", READ_WHOLE
            )
        part = log.sliced(segment.start - start, end - start)
        part.provenance["frames"] = len(part)
        return SegmentRows(
            part,
            head=watch.digest(log, segment.start) if segment.start else None,
            tail=watch.digest(log, end) if segment.stop is not None else None,
            ends=segment.stop is None,
            reports=list(zip(map(str, self._paths), result.reports, strict=True)),
        )

    def _frames(self, start: int, stop: int | None) -> FrameRange | None:
        """Return the frames that the model must read for the maps of pairs `start` to `stop`."""
        if not self._options.needs_model:
            return None
        how = self._options.extract_options()
        shifted = Segment(start + how.start, None if stop is None else stop + how.start)
        return frames_of(shifted, how)


class _SeamWatch:
    """Compute digests of the pairs next to both ends of the segment [start, stop).

    `offset` is the number of frames left out at the start of the reference.
    """

    def __init__(self, start: int, stop: int, offset: int) -> None:
        self._wanted = {start - 1, start, stop - 1, stop}
        self._offset = offset
        self._digests: dict[int, Any] = {}

    def look(self, frame: ReferenceFrame, reference: Planes, distorted: Planes) -> None:
        number = frame.index - self._offset
        if number not in self._wanted:
            return
        digest = hashlib.blake2b(digest_size=16)
        for plane in (frame.map, *reference.planes, *distorted.planes):
            digest.update(f"{plane.dtype} {plane.shape} ".encode())
            digest.update(np.ascontiguousarray(plane).data)
        self._digests[number] = digest

    def digest(self, log: Log, at: int) -> str:
        """Return a digest of pairs `at` - 1 and `at`: their samples, maps and scores."""
        found = []
        for number in (at - 1, at):
            row = number - log.frame_num[0]
            digest = self._digests[number].copy()
            columns = log.pts_time, *(log.values[name] for name in log.columns)
            digest.update(np.array([column[row] for column in columns]))
            found.append(digest.hexdigest())
        return "+".join(found)
