"""One long video in segments whose joined log equals the log of a single run, bit for bit.

::

    index = index_frames("film.mkv")
    options = options.for_model(session.model.io)
    segments = plan_segments(index, options, length=1500)
    runs = [run_segment("film.mkv", session, s, options=options, video_options=VideoOptions(index=index))
            for s in segments]                     # anywhere, in any order
    log = join_segments(runs)

What a row depends on decides how. Without a stride, a row depends on a few frames on its two sides
(`temporal.REACH`): each segment also runs over those and drops their rows. With a stride, or a filter
that remembers a whole scene, everything starts anew at a cut: a segment begins at the first cut in its
range and goes on to the first cut behind it, so that two neighbours agree without talking; one without
a cut is empty.

Nothing is taken on trust. A segment notes digests of the frame before its first and of its last,
so that neighbours, of which one sought what the other decoded straight on, must have seen the same
picture; where they did not, or where there was any damage, the video has to be run in one piece.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from eyeline.errors import DamagedMediaError, SeamError, SeekError, UsageError
from eyeline.inference.session import Session
from eyeline.logs.base import Log, compact
from eyeline.media.source import VideoPath, open_video
from eyeline.media.types import READ_WHOLE, DecodeReport, Frame, FrameIndex, VideoOptions
from eyeline.saliency.pipeline import (
    Extraction,
    ExtractOptions,
    FrameSaliency,
    Outputs,
    Span,
    open_log,
    outcome,
    run_extraction,
)
from eyeline.saliency.temporal import REACH

SEAM = "seam"
"""Key in a segment's provenance; gone from the joined log."""

SCORE_REACH = 2
"""Frames before one on which its scene score depends (see `eyeline.media.source.SceneScore`)."""


@dataclass(frozen=True)
class Segment:
    """A range of frames, which the cuts nearest to it may shift.

    Attributes:
        start: first frame.
        stop: the one after the last; None = to the end.
    """

    start: int
    stop: int | None


@dataclass
class SegmentRun:
    """What a segment gave.

    Attributes:
        segment: which one.
        log: its rows; what `join_segments` needs is in the provenance, so that a log that was
            written and read again will do.
        stopped: what ended it early, for a video in one piece: its rows are those before.
    """

    segment: Segment
    log: Log
    stopped: DamagedMediaError | None = None


def reach_of(options: ExtractOptions) -> tuple[int, int] | None:
    """Frames before and after one on which its map depends; None = those since the last cut.

    Args:
        options: of `ExtractOptions.for_model`; others count as depending on the most.
    """
    return REACH[options.temporal] if not options.skips else None


def lead_of(options: ExtractOptions) -> int:
    """Frames to decode before a segment's first."""
    reach = reach_of(options)
    # The features of a row look at the map before it, that map at those it depends on.
    return SCORE_REACH + (0 if reach is None else reach[0])


def plan_segments(index: FrameIndex | None, options: ExtractOptions, length: int) -> list[Segment]:
    """Split a video into ranges of about `length` frames, each as cheap to begin at as a keyframe.

    Args:
        index: from `eyeline.media.index.index_frames`.
        options: what will be done; the frames it names are those that are split.
        length: frames.

    Returns:
        The segments, in order; a single one where there is no index, or no need. They depend on
        nothing but the arguments.

    Raises:
        UsageError: a length below 1.
    """
    if length < 1:
        raise UsageError(f"segments of {length} frames", "give at least 1")
    segments = []
    start = options.start
    if index is not None:
        end = len(index) if options.stop is None else min(options.stop, len(index))
        lead = lead_of(options)
        for place in index.keyframes.tolist():
            if place + lead - start >= length and end - place - lead >= (length + 1) // 2:
                segments.append(Segment(start, place + lead))
                start = place + lead
    return [*segments, Segment(start, options.stop)]


def run_segment(
    path: VideoPath,
    session: Session,
    segment: Segment,
    *,
    options: ExtractOptions,
    video_options: VideoOptions,
    on_frame: Callable[[FrameSaliency], None] = lambda frame: None,
) -> SegmentRun:
    """Extract the rows of a segment.

    Args:
        path: the video.
        session: a loaded model.
        segment: from `plan_segments`, which was given the same options.
        options: what the whole run does.
        video_options: how to read the video, with the index that it was planned by.
        on_frame: called after each row, for progress.

    Raises:
        SeamError: the video must be run in one piece: damage, a change of size, or frames that are
            not where the index says. Not for a segment that is all there is.
        MediaError, ModelError: see `eyeline.saliency.pipeline.run_extraction`.
    """
    options = options.for_model(session.model.io)
    if segment == Segment(options.start, options.stop):
        video = open_video(path, replace(video_options, index=None))
        result = run_extraction(Extraction(video, session, options), Outputs(), on_frame)
        if result.stopped is not None and not isinstance(result.stopped, DamagedMediaError):
            raise result.stopped
        return SegmentRun(segment, result.log, result.stopped)
    try:
        video = open_video(path, video_options)
        with Extraction(video, session, options, span_of(segment, options)) as extraction:
            return _run(extraction, segment, options, on_frame)
    except (SeekError, DamagedMediaError) as exc:
        raise SeamError(exc.message, READ_WHOLE) from exc


def span_of(segment: Segment, options: ExtractOptions) -> Span:
    """What to decode and infer for the rows of a segment."""
    reach = reach_of(options)
    start = max(options.start, segment.start - lead_of(options))
    if reach is None:
        return Span(start, options.stop, segment.start, True, segment.stop)
    before, after = reach
    stop = segment.stop
    if stop is not None and stop != options.stop:
        stop = stop + after if options.stop is None else min(stop + after, options.stop)
    return Span(start, stop, max(options.start, segment.start - 1 - before))


def _run(
    extraction: Extraction,
    segment: Segment,
    options: ExtractOptions,
    on_frame: Callable[[FrameSaliency], None],
) -> SegmentRun:
    log, report = open_log(extraction), extraction.report
    by_scenes = reach_of(options) is None
    cuts: list[float] = []
    before: Frame | None = None
    last: Frame | None = None
    for frame in extraction:
        _check_sound(extraction.info.path, report)
        if frame.index < segment.start:
            before = frame.frame
        elif by_scenes or segment.stop is None or frame.index < segment.stop:
            log.append(frame.index, frame.pts_time, frame.features)
            if frame.cut:
                cuts.append(frame.pts_time)
            last = frame.frame
            on_frame(frame)
    _check_sound(extraction.info.path, report)
    log.provenance |= outcome(log, report, cuts, True)
    log.provenance[SEAM] = {
        "segment": [segment.start, segment.stop],
        "before": _digest(extraction.before if before is None else before),
        "last": _digest(last),
        "end": not extraction.rested if by_scenes else segment.stop == options.stop,
    }
    return SegmentRun(segment, log)


def _check_sound(path: str, report: DecodeReport) -> None:
    what = "is damaged" if report.corrupt else "changes its size" if report.size_changes else ""
    if what:
        raise SeamError(f"{path}: {what}, so its segments can't be joined", READ_WHOLE)


def _digest(frame: Frame | None) -> str | None:
    """A frame at the working size, as few bytes: equal for pictures that are equal."""
    if frame is None:
        return None
    digest = hashlib.blake2b(frame.rgb.tobytes(), digest_size=16)
    return f"{frame.rgb.shape[2]}x{frame.rgb.shape[1]}:{digest.hexdigest()}"


def join_segments(runs: Sequence[SegmentRun]) -> Log:
    """Join what the segments of one video gave.

    Args:
        runs: of every segment of a plan, in order.

    Returns:
        The log that a single run gives, bit for bit.

    Raises:
        SeamError: a segment is missing, was made by another model, version or machine, met damage,
            or does not fit its neighbour.
    """
    if not runs:
        raise SeamError("there are no segments to join", READ_WHOLE)
    if len(runs) == 1 and SEAM not in runs[0].log.provenance:
        return runs[0].log
    if any(SEAM not in run.log.provenance for run in runs):
        raise SeamError("what is to be joined are no segments", READ_WHOLE)
    first = runs[0].log
    common = _common(first)
    _check_plan(runs, common)
    filled = [run.log for run in runs if len(run.log)]
    for left, right in pairwise(filled):
        _check_seam(left, right)
    if not filled or filled[0] is not first or not filled[-1].provenance[SEAM]["end"]:
        raise SeamError("the segments lack rows at their ends", READ_WHOLE)
    joined = Log(list(first.columns), common, first.fps)
    cuts: list[float] = []
    for log in filled:
        joined.extend(log)
        cuts += log.provenance["cuts"]
    joined.provenance |= outcome(joined, DecodeReport(), cuts, True)
    return joined


def _common(log: Log) -> dict[str, Any]:
    """The provenance that does not depend on the segment, in the order of a single run's."""
    own = {SEAM, *outcome(log, DecodeReport(), [], True)}
    return {k: v for k, v in log.provenance.items() if k not in own}


def _check_plan(runs: Sequence[SegmentRun], common: dict[str, Any]) -> None:
    """Are these all segments of one plan, whole and sound?"""
    options = common["options"]
    edges = [(run.segment.start, run.segment.stop) for run in runs]
    gaps = any(left[1] != right[0] for left, right in pairwise(edges))
    if gaps or (edges[0][0], edges[-1][1]) != (options["start"], options["stop"]):
        raise SeamError("a segment is missing, or out of order", READ_WHOLE)
    text = compact([common, runs[0].log.fps])
    for run in runs:
        log, said = run.log, run.log.provenance
        where = (
            f"segment {run.segment.start}:{'' if run.segment.stop is None else run.segment.stop}"
        )
        same = compact([_common(log), log.fps]) == text
        # Some formats forget the columns of a log without rows.
        if not same or (len(log) and log.columns != runs[0].log.columns):
            raise SeamError(f"{where} was made with other means than the first", READ_WHOLE)
        if list(said[SEAM]["segment"]) != [run.segment.start, run.segment.stop]:
            raise SeamError(f"{where} is another one: {said[SEAM]['segment']}", READ_WHOLE)
        sound = said["complete"] and not said["corrupt_frames"] and not said["size_changes"]
        rows = range(log.frame_num[0], log.frame_num[0] + len(log)) if len(log) else range(0)
        if not sound or said["frames"] != len(log) or list(log.frame_num) != list(rows):
            raise SeamError(f"{where} is not whole", READ_WHOLE)


def _check_seam(left: Log, right: Log) -> None:
    """Do two neighbours meet, and did they see the same picture where they do?"""
    at = right.frame_num[0]
    if left.frame_num[-1] + 1 != at:
        raise SeamError(
            f"rows {left.frame_num[-1]} and {at} of two segments don't meet", READ_WHOLE
        )
    seen, sought = left.provenance[SEAM]["last"], right.provenance[SEAM]["before"]
    if seen is None or seen != sought:
        raise SeamError(
            f"frame {at - 1} is another picture after a seek than in a decode from the start",
            READ_WHOLE,
        )
