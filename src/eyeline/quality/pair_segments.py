"""`score` in segments: where two videos are split, and the rows of a range of pairs.

Each video is sought by its own index, to its own keyframe. The row of a pair depends on the pair and
on its two neighbours (VMAF's motion looks at the frame before and at the next, in libvmaf as in
`sw_vmaf`), and its map on a few frames of the reference (`eyeline.segments.extract.frames_of`). So a
segment also measures `REACH` pairs before and after its own, and drops their rows.

At each seam both neighbours measured the last pair of the one and the first of the other, and note
a digest of the samples, the maps and the rows.
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
from eyeline.segments.extract import frames_of, lead_of, reach_of
from eyeline.segments.split import (
    Indexes,
    OnFrame,
    Segment,
    SegmentedRun,
    SegmentRows,
    split_frames,
)

REACH = 2
"""Pairs that a segment measures on each side of its own: the first row depends on the pair before it,
and that pair's row, which the neighbour has too, on one more."""


def may_split(options: ScoreOptions) -> bool:
    """Return whether rows depend on a few pairs around them alone.

    They don't when frames are paired by time, nor when maps depend on whole scenes (`reach_of`).
    Nor is a score by recorded gaze split, since its provenance counts frames over the whole run.

    Args:
        options: of `ScoreOptions.for_model`, since a temporal filter that is left to the model
            counts as one that remembers whole scenes.
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
        length: pairs per segment.

    Returns:
        A single segment also where the videos can't be split: see `may_split`, and where their
        lengths differ though that is to be refused.
    """
    if not may_split(options):
        return [Segment(0, None)]
    o = options.pairs
    lead = REACH + (lead_of(options.extract_options()) if options.needs_model else 0)
    places = ref.keyframes - o.ref_offset + lead, dist.keyframes - o.dist_offset + REACH
    return split_frames(places, 0, _count((ref, dist), options), None, length)


def _count(indexes: Indexes, options: ScoreOptions) -> int:
    """Return how many pairs there are; 0 where the lengths differ and nothing allows that."""
    o = options.pairs
    counts = len(indexes[0]) - o.ref_offset, len(indexes[1]) - o.dist_offset
    count = min(counts)
    if counts[0] != counts[1] and not o.shortest and (o.frames is None or count < o.frames):
        return 0
    return max(0, count if o.frames is None else min(count, o.frames))


class ScoreSegments(SegmentedRun):
    """`score` of two videos, in segments.

    Args:
        reference: the pristine video.
        distorted: the video to be scored.
        model: of the maps; unused where the options need none.
        options: what the whole run does.
        video_options: how to read both videos.
    """

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
        """Index each source, without decoding."""
        if not may_split(self._options):
            return None
        # In the order in which `score` opens them, for the same error.
        dist = index_frames(self._paths[1], self._video_options)
        ref = index_frames(self._paths[0], self._video_options)
        return None if ref is None or dist is None else (ref, dist)

    def plan(self, indexes: Indexes, length: int) -> list[Segment]:
        """Split the title after its keyframes."""
        return plan_pairs(indexes[0], indexes[1], self._options, length)

    def rows(self, segment: Segment, indexes: Indexes, on_frame: OnFrame) -> SegmentRows:
        """Run the segment and a few frames more, and drop their rows."""
        total = _count(indexes, self._options)
        end = total if segment.stop is None else segment.stop
        start, stop = max(0, segment.start - REACH), min(end + REACH, total)
        watch = _SeamWatch(segment.start, end, self._options.pairs.ref_offset)
        # The last segment reads on to the ends of the videos, as a single run does.
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
            raise SeamError(f"some of the pairs {start} to {stop} are missing", READ_WHOLE)
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
        """Return what a model looks at for the maps of these pairs."""
        if not self._options.needs_model:
            return None
        how = self._options.extract_options()
        shifted = Segment(start + how.start, None if stop is None else stop + how.start)
        return frames_of(shifted, how)


class _SeamWatch:
    """Takes digests of the pairs on both sides of a segment's two seams.

    Args:
        start: first pair of the segment.
        stop: the pair after its last.
        offset: frames of the reference that are left out.
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
        """Digest the pairs before and after a seam: samples, map and row."""
        found = []
        for number in (at - 1, at):
            row = number - log.frame_num[0]
            digest = self._digests[number].copy()
            columns = log.pts_time, *(log.values[name] for name in log.columns)
            digest.update(np.array([column[row] for column in columns]))
            found.append(digest.hexdigest())
        return "+".join(found)
