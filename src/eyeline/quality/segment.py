"""A long pair of videos in segments whose joined scores equal those of a single run, bit for bit.

::

    indexes = index_frames("ref.mkv"), index_frames("dist.mp4")
    options = options.for_model(model.io)
    plan = plan_pairs(*indexes, options, length=500)
    logs = [score_segment("ref.mkv", "dist.mp4", s, indexes, options=options) for s in plan]
    log = join_scores(list(zip(plan, logs)))           # run anywhere, in any order

A segment is a range of pairs. Each video is sought by its own index, to its own keyframe. The row of
a pair depends on the pair and on its two neighbours (VMAF's motion looks at the frame before and at
the next, in libvmaf as in `sw_vmaf`), and its map on a few frames of the reference
(`eyeline.segments.frames.span_of`). So a segment also measures `REACH` pairs before and behind it
and drops their rows.

Nothing is taken on trust. At each seam both neighbours measured the last pair of the one and the
first of the other, and note a digest of the samples, the maps and the rows; where these differ, or
where there was any damage, the pair of videos has to be scored in one piece.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.errors import DamagedMediaError, SeamError, SeekError, UsageError
from eyeline.logs.base import Log, compact
from eyeline.media.colour import Planes
from eyeline.media.types import READ_WHOLE, FrameIndex, VideoOptions
from eyeline.quality.options import ScoreOptions, ScoreResult, Seen
from eyeline.quality.score import Part, looking, score_part
from eyeline.registry.registry import Model, resolve_model
from eyeline.saliency.pipeline import Span
from eyeline.segments.frames import SEAM, Segment, lead_of, reach_of, span_of

REACH = 2
"""Pairs that a segment measures on each side of its own: the first row depends on the pair before it,
and that pair's row, which the neighbour has too, on one more."""

SLACK = 4
"""A segment may be longer by one part in so many, where beginning the next one costs less."""

Indexes = tuple[FrameIndex, FrameIndex]
"""Of the reference and of the distorted video, by `eyeline.media.index.index_frames`."""

_Path = str | os.PathLike[str]


def plan_pairs(
    ref: FrameIndex, dist: FrameIndex, options: ScoreOptions, length: int
) -> list[Segment]:
    """Split two videos into ranges of about `length` pairs, where decoding both costs least.

    Args:
        ref: index of the reference.
        dist: of the distorted video.
        options: what will be done; those of `ScoreOptions.for_model`, since a temporal filter that is
            left to the model counts as one that remembers whole scenes.
        length: pairs.

    Returns:
        The segments, in order; a single one where there is no need, or it can't be done: see
        `may_split`, and lengths that differ and are to be refused. They depend on nothing but the
        arguments.

    Raises:
        UsageError: a length below 1.
    """
    if length < 1:
        raise UsageError(f"segments of {length} pairs", "give at least 1")
    if not may_split(options):
        return [Segment(0, None)]
    o = options.pairs
    starts = (
        ref.keyframes - o.ref_offset + _lead(options),
        dist.keyframes - o.dist_offset + REACH,
    )
    last = _count((ref, dist), options) - (length + 1) // 2  # what is left must be worth it
    places = np.union1d(*starts)
    places = places[(places >= length) & (places <= last)]
    waste = sum((_waste(places, s) for s in starts), np.zeros(len(places), np.int64))
    segments = []
    start = at = 0
    while (at := int(np.searchsorted(places, start + length))) < len(places):
        behind = int(np.searchsorted(places, start + length + length // SLACK, "right"))
        best = at + int(np.argmin(waste[at : max(behind, at + 1)]))
        segments.append(Segment(start, int(places[best])))
        start = int(places[best])
    return [*segments, Segment(start, None)]


def may_split(options: ScoreOptions) -> bool:
    """Whether rows depend on a few pairs around them alone.

    They don't when frames are paired by time, nor when maps depend on whole scenes (`reach_of`).
    Nor is a score by recorded gaze split, whose provenance counts frames over the whole run.
    """
    by_scenes = options.needs_model and reach_of(looking(options)) is None
    return not (options.pairs.resample or by_scenes or options.fixations)


def _waste(places: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Frames to decode for nothing at each place, when decoding may begin at `starts`; both rise."""
    before = np.maximum(0, np.searchsorted(starts, places, "right") - 1)
    waste: npt.NDArray[np.int64] = np.maximum(0, places - starts[before])
    return waste


def _lead(options: ScoreOptions) -> int:
    """Frames of the reference to decode before a segment's first, less its offset."""
    return REACH + (lead_of(looking(options)) if options.needs_model else 0)


def _count(indexes: Indexes, options: ScoreOptions) -> int:
    """How many pairs there are; 0 where the lengths differ and nothing allows that."""
    o = options.pairs
    counts = len(indexes[0]) - o.ref_offset, len(indexes[1]) - o.dist_offset
    count = min(counts)
    if counts[0] != counts[1] and not o.shortest and (o.frames is None or count < o.frames):
        return 0
    return max(0, count if o.frames is None else min(count, o.frames))


def score_segment(
    reference: _Path,
    distorted: _Path,
    segment: Segment,
    indexes: Indexes,
    *,
    model: str | Model | None = None,
    options: ScoreOptions,
    ref_options: VideoOptions | None = None,
    dist_options: VideoOptions | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> Log:
    """Score the pairs of a segment.

    Args:
        reference: the pristine video.
        distorted: the video to be scored.
        segment: from `plan_pairs`, which was given the same options; not one that is all there is.
        indexes: that it was planned by.
        model: of the maps; see `eyeline.quality.score.score`.
        options: what the whole run does.
        ref_options: how to read the reference.
        dist_options: how to read the other.
        on_frame: called after each pair, for progress.

    Returns:
        Its rows; what `join_scores` needs is in the provenance, so that a log that was written and
        read again will do.

    Raises:
        SeamError: the videos must be scored in one piece: damage, a change of size, or frames that
            are not where the indexes say.
        MediaError, ModelError, QualityError: see `eyeline.quality.score.score`.
    """
    if options.needs_model:
        model = resolve_model(model, use="score")
        options = options.for_model(model.io)
    total = _count(indexes, options)
    end = total if segment.stop is None else segment.stop
    start, stop = max(0, segment.start - REACH), min(end + REACH, total)
    watch = _Watch(segment.start, end, options.pairs.ref_offset)
    # The last one reads on to the ends of the videos, as a single run does.
    last = None if segment.stop is None else stop
    try:
        result = score_part(
            reference,
            distorted,
            Part(start, last, _span(start, last, options), watch.look),
            model=model,
            options=options,
            ref_options=replace(ref_options or VideoOptions(), index=indexes[0]),
            dist_options=replace(dist_options or VideoOptions(), index=indexes[1]),
            on_frame=on_frame,
        )
    except (SeekError, DamagedMediaError) as exc:
        raise SeamError(exc.message, READ_WHOLE) from exc
    _check_sound((reference, distorted), result)
    log = result.log
    if list(log.frame_num) != list(range(start, stop)):
        raise SeamError(f"pairs {start} to {stop} are not all there", READ_WHOLE)
    part = log.sliced(segment.start - start, end - start)
    part.provenance |= {
        "frames": len(part),
        SEAM: {
            "segment": [segment.start, segment.stop],
            "head": watch.digests(log, segment.start) if segment.start else [],
            "tail": watch.digests(log, end) if segment.stop is not None else [],
        },
    }
    return part


def _span(start: int, stop: int | None, options: ScoreOptions) -> Span | None:
    """What a model looks at for the maps of these pairs."""
    if not options.needs_model:
        return None
    how = looking(options)
    return span_of(Segment(start + how.start, None if stop is None else stop + how.start), how)


def _check_sound(paths: tuple[_Path, _Path], result: ScoreResult) -> None:
    for path, report in zip(paths, result.reports, strict=True):
        what = "is damaged" if report.corrupt else "changes its size" if report.size_changes else ""
        if what:
            raise SeamError(f"{path}: {what}, so its segments can't be joined", READ_WHOLE)
    if isinstance(result.stopped, DamagedMediaError):
        raise SeamError(result.stopped.message, READ_WHOLE) from result.stopped
    if result.stopped is not None:
        raise result.stopped


class _Watch:
    """Takes digests of the pairs on both sides of a segment's two seams.

    Args:
        start: first pair of the segment.
        stop: the one after its last.
        offset: frames of the reference that are left out.
    """

    def __init__(self, start: int, stop: int, offset: int) -> None:
        self._wanted = {start - 1, start, stop - 1, stop}
        self._offset = offset
        self._seen: dict[int, Any] = {}

    def look(self, seen: Seen, reference: Planes, distorted: Planes) -> None:
        """See a pair before it is measured."""
        number = seen.index - self._offset
        if number not in self._wanted:
            return
        digest = hashlib.blake2b(digest_size=16)
        for plane in (seen.map, *reference.planes, *distorted.planes):
            digest.update(f"{plane.dtype} {plane.shape} ".encode())
            digest.update(np.ascontiguousarray(plane).data)
        self._seen[number] = digest

    def digests(self, log: Log, at: int) -> list[str]:
        """Of the pairs before and behind a seam: samples, map and row."""
        found = []
        for number in (at - 1, at):
            row = number - log.frame_num[0]
            digest = self._seen[number].copy()
            digest.update(np.array([column[row] for column in _columns(log)]))
            found.append(digest.hexdigest())
        return found


def _columns(log: Log) -> list[Sequence[float]]:
    return [log.pts_time, *(log.values[name] for name in log.columns)]


def join_scores(pieces: Sequence[tuple[Segment, Log]]) -> Log:
    """Join what the segments of one pair of videos gave.

    Args:
        pieces: every segment of a plan and its log, in order.

    Returns:
        The log that a single run gives, bit for bit.

    Raises:
        SeamError: a segment is missing, was made with other means, or does not fit its neighbour.
    """
    if not pieces:
        raise SeamError("there are no segments to join", READ_WHOLE)
    edges = [(s.start, s.stop) for s, _ in pieces]
    gaps = any(left[1] != right[0] for left, right in pairwise(edges))
    if gaps or edges[0][0] != 0 or edges[-1][1] is not None:
        raise SeamError("a segment is missing, or out of order", READ_WHOLE)
    first = pieces[0][1]
    for segment, log in pieces:
        _check_piece(segment, log, first)
    for (_, left), (segment, right) in pairwise(pieces):
        if left.provenance[SEAM]["tail"] != right.provenance[SEAM]["head"]:
            raise SeamError(
                f"pairs {segment.start - 1} and {segment.start} differ after a seek from what a "
                "decode from the start gives",
                READ_WHOLE,
            )
    joined = Log(list(first.columns), _common(first), first.fps)
    for _, log in pieces:
        joined.extend(log)
    joined.provenance["frames"] = len(joined)
    return joined


def _common(log: Log) -> dict[str, Any]:
    """The provenance of a segment that a single run has, too, but for the number of frames."""
    return {k: v if k != "frames" else 0 for k, v in log.provenance.items() if k != SEAM}


def _check_piece(segment: Segment, log: Log, first: Log) -> None:
    """Is this log of this segment, whole, and made as the first one was?"""
    where = f"segment {segment.start}:{'' if segment.stop is None else segment.stop}"
    said = log.provenance.get(SEAM)
    if said is None or list(said["segment"]) != [segment.start, segment.stop]:
        raise SeamError(f"{where} is another one, or none", READ_WHOLE)
    texts = [compact([_common(one), one.columns, one.fps]) for one in (first, log)]
    if texts[0] != texts[1]:
        raise SeamError(f"{where} was made with other means than the first", READ_WHOLE)
    stop = segment.start + len(log) if segment.stop is None else segment.stop
    sound = log.provenance["complete"] and log.provenance["frames"] == len(log) > 0
    if not sound or list(log.frame_num) != list(range(segment.start, stop)):
        raise SeamError(f"{where} is not whole", READ_WHOLE)
