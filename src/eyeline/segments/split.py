"""Split a video into segments, process one segment, and join the logs of all segments.

Each command that works in segments implements `SegmentedRun`, which plans the segments and makes the rows
of one segment: `ExtractSegments` for `extract`, `eyeline.quality.pair_segments` for `score`.

In `extract` without a stride, a row depends on a few frames before and after it (`temporal.REACH`).
Each segment also processes those frames and drops their rows. With a stride, or with a filter that
uses all earlier frames of a scene, a row may depend on its whole scene. A segment then begins at the
first cut in its range and ends at the first cut after its range. A segment without a cut in its range
has no rows.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.errors import DamagedMediaError, SeamError, SeekError, UsageError
from eyeline.inference.session import Session
from eyeline.logs.base import Log, compact
from eyeline.media.index import index_frames
from eyeline.media.source import VideoPath, open_video
from eyeline.media.types import READ_WHOLE, DecodeReport, Frame, FrameIndex, VideoOptions
from eyeline.saliency.pipeline import Extraction, ExtractOptions, FrameRange, open_log, outcome
from eyeline.saliency.temporal import REACH

SEAM = "seam"
"""Key in the provenance of a segment's log; the joined log does not have this key."""

SLACK = 4
"""A segment may be 1/SLACK longer than requested if the next one then begins closer to a keyframe."""

Frames = npt.NDArray[np.int64]
Indexes = tuple[FrameIndex, ...]
"""One index per source video, made by `eyeline.media.index.index_frames`."""

OnFrame = Callable[[], None]


@dataclass(frozen=True)
class Segment:
    """A range of frames.

    If rows depend on whole scenes, the segment runs from the first cut at or after `start` to the first
    cut at or after `stop`.

    Attributes:
        start: first frame.
        stop: the frame after the last; None = to the end.
    """

    start: int
    stop: int | None

    def __str__(self) -> str:
        return f"{self.start}:{'' if self.stop is None else self.stop}"


@dataclass
class SegmentRows:
    """The result of one segment.

    Attributes:
        log: the rows of the segment alone, with the provenance of a single run.
        head: digest of the picture before the first row; None for the first segment.
        tail: digest of the picture of the last row; it must equal the `head` of the next segment that
            has rows. None if the segment has no rows.
        ends: whether the last row is the last row of the video.
        reports: path and decode report of each source.
    """

    log: Log
    head: str | None
    tail: str | None
    ends: bool
    reports: Sequence[tuple[str, DecodeReport]]


class SegmentedRun(ABC):
    """The work of one command on one video, or pair of videos, that can be split into segments."""

    @abstractmethod
    def index(self) -> Indexes | None:
        """Index the sources; return None if the video can't be split.

        Raises:
            MediaError: a source can't be read.
        """

    @abstractmethod
    def plan(self, indexes: Indexes, length: int) -> list[Segment]:
        """Split the video with `split_frames` into segments of about `length` frames.

        Returns:
            The segments, in order. Equal options and arguments give equal segments.
        """

    @abstractmethod
    def rows(self, segment: Segment, indexes: Indexes, on_frame: OnFrame) -> SegmentRows:
        """Make the rows of a segment.

        Raises:
            SeamError, SeekError, DamagedMediaError: the video must be processed in one piece.
            EyelineError: the segment can't be processed.
        """


def split_frames(
    places: Sequence[Frames], start: int, end: int, stop: int | None, length: int
) -> list[Segment]:
    """Split a range of frames at the places where segments decode the fewest frames twice.

    Args:
        places: per source, int64 (K,): frames at which a segment can begin without decoding extra
            frames, in ascending order.
        start: first frame.
        end: the frame after the last frame of the sources.
        stop: end of the last segment; None = to the end of the sources.
        length: least number of frames per segment; the last segment may have half of them.

    Raises:
        UsageError: the length is below 1.
    """
    if length < 1:
        raise UsageError(
            f"a segment length of {length} frames is too small", "give at least 1 frame"
        )
    found = np.unique(np.concatenate(places))
    found = found[(found >= start + length) & (found <= end - (length + 1) // 2)]
    waste = np.zeros(len(found), np.int64)
    for own in places:
        before = np.maximum(0, np.searchsorted(own, found, "right") - 1)
        waste += np.maximum(0, found - own[before])
    segments = []
    at = 0
    while (at := int(np.searchsorted(found, start + length))) < len(found):
        behind = int(np.searchsorted(found, start + length + length // SLACK, "right"))
        best = int(found[at + int(np.argmin(waste[at : max(behind, at + 1)]))])
        segments.append(Segment(start, best))
        start = best
    return [*segments, Segment(start, stop)]


def run_segment(
    run: SegmentedRun, segment: Segment, indexes: Indexes, on_frame: OnFrame = lambda: None
) -> Log:
    """Make the log of a segment; its provenance holds the data that `join_segments` needs.

    Args:
        run: the work on the whole video.
        segment: a segment from `run.plan`.
        indexes: the indexes that `run.plan` was called with.
        on_frame: called after each row, for progress.

    Raises:
        SeamError: the video must be processed in one piece, because it is damaged, its picture size
            changes, or its frames differ from the indexes.
        EyelineError: the segment can't be processed.
    """
    try:
        rows = run.rows(segment, indexes, on_frame)
    except (SeekError, DamagedMediaError) as exc:
        raise SeamError(exc.message, READ_WHOLE) from exc
    for path, report in rows.reports:
        what = "is damaged" if report.corrupt else "changes its size" if report.size_changes else ""
        if what:
            raise SeamError(f"{path}: {what}, so it can't be split into segments", READ_WHOLE)
    rows.log.provenance[SEAM] = {
        "segment": [segment.start, segment.stop],
        "head": rows.head,
        "tail": rows.tail,
        "ends": rows.ends,
    }
    return rows.log


def join_segments(logs: Sequence[Log]) -> Log:
    """Join the logs of all segments of one video.

    Args:
        logs: results of `run_segment`, in the order of the plan; they may have been saved to files.

    Returns:
        A log that is bit-identical to the log of a single run.

    Raises:
        SeamError: a segment is missing or damaged, was made by another model, version or machine, or
            its digest differs from that of the neighbouring segment.
    """
    if not logs or any(SEAM not in log.provenance for log in logs):
        raise SeamError(
            "these logs are not segments of one video, so they cannot be joined", READ_WHOLE
        )
    for one, following in pairwise(_segment_of(log) for log in logs):
        if one.stop != following.start:
            raise SeamError(
                f"segment {one} is followed by segment {following}: a segment is missing, or the "
                "segments are out of order",
                READ_WHOLE,
            )
    for log in logs:
        _check_whole(log)
        _check_same(logs[0], log)
    filled = [log for log in logs if len(log)]
    if not filled or filled[0].provenance[SEAM]["head"] is not None:
        raise SeamError("the first segment of the video is missing", READ_WHOLE)
    if not filled[-1].provenance[SEAM]["ends"]:
        raise SeamError("the last segment of the video is missing", READ_WHOLE)
    for left, right in pairwise(filled):
        _check_seam(left, right)
    joined = Log(list(filled[0].columns), _common(filled[0]), filled[0].fps)
    for log in filled:
        joined.extend(log)
    joined.provenance["frames"] = len(joined)
    if "cuts" in joined.provenance:
        joined.provenance["cuts"] = [cut for log in filled for cut in log.provenance["cuts"]]
    return joined


def _segment_of(log: Log) -> Segment:
    return Segment(*log.provenance[SEAM]["segment"])


def _common(log: Log) -> dict[str, Any]:
    """Return the provenance with None for the values that may differ between segments."""
    own = ("frames", "cuts")
    return {k: None if k in own else v for k, v in log.provenance.items() if k != SEAM}


def _check_whole(log: Log) -> None:
    said = log.provenance
    sound = said["complete"] and not said.get("corrupt_frames") and not said.get("size_changes")
    rows = range(log.frame_num[0], log.frame_num[0] + len(log)) if len(log) else range(0)
    if not sound or said["frames"] != len(log) or list(log.frame_num) != list(rows):
        raise SeamError(f"segment {_segment_of(log)} is incomplete or damaged", READ_WHOLE)


def _check_same(first: Log, log: Log) -> None:
    same = compact([_common(log), log.fps]) == compact([_common(first), first.fps])
    # Some log formats do not store the columns of a log without rows.
    if not same or (len(log) and len(first) and log.columns != first.columns):
        raise SeamError(
            f"segment {_segment_of(log)} was made with another model, version, machine or set of "
            "options than the first segment",
            READ_WHOLE,
        )


def _check_seam(left: Log, right: Log) -> None:
    """Raise a `SeamError` if rows are missing between two segments, or their digests differ."""
    at = right.frame_num[0]
    if left.frame_num[-1] + 1 != at:
        raise SeamError(
            f"a segment ends with row {left.frame_num[-1]}, but the next one begins with row {at}",
            READ_WHOLE,
        )
    tail = left.provenance[SEAM]["tail"]
    if tail is None or tail != right.provenance[SEAM]["head"]:
        raise SeamError(
            f"the pictures at frame {at} differ between decoding after a seek and decoding from an "
            "earlier frame",
            READ_WHOLE,
        )


SCORE_REACH = 2
"""Number of earlier frames on which a scene score depends (see `eyeline.media.source.SceneScore`)."""


def reach_of(options: ExtractOptions) -> tuple[int, int] | None:
    """Return on how many frames before and after it a frame's map depends; None = on its whole scene.

    Args:
        options: the result of `ExtractOptions.for_model`, so `options.temporal` is not "model".
    """
    return None if options.skips else REACH[options.temporal]


def lead_of(options: ExtractOptions) -> int:
    """Return the number of frames to decode before the first frame of a segment."""
    reach = reach_of(options)
    # Flicker compares a row's map with the previous map, which depends on `reach[0]` more frames.
    return SCORE_REACH + (0 if reach is None else reach[0])


def plan_extract(index: FrameIndex, options: ExtractOptions, length: int) -> list[Segment]:
    """Plan the segments of a video, as `SegmentedRun.plan` describes."""
    end = len(index) if options.stop is None else min(options.stop, len(index))
    places = index.keyframes + lead_of(options)
    return split_frames([places], options.start, end, options.stop, length)


def frames_of(segment: Segment, options: ExtractOptions) -> FrameRange:
    """Return the frames to decode and to infer for the rows of a segment."""
    reach = reach_of(options)
    start = max(options.start, segment.start - lead_of(options))
    if reach is None:
        return FrameRange(
            start, options.stop, segment.start, start_at_cut=True, stop_at_cut_after=segment.stop
        )
    before, after = reach
    stop = segment.stop
    if stop is not None and stop != options.stop:
        stop = stop + after if options.stop is None else min(stop + after, options.stop)
    return FrameRange(start, stop, max(options.start, segment.start - 1 - before))


class ExtractSegments(SegmentedRun):
    """`extract` of one video, in segments."""

    def __init__(
        self,
        path: VideoPath,
        session: Session,
        options: ExtractOptions,
        video_options: VideoOptions,
    ) -> None:
        self._path, self._session, self._video_options = path, session, video_options
        self._options = options.for_model(session.model.io)

    def index(self) -> Indexes | None:
        """Index each source, without decoding."""
        index = index_frames(self._path, self._video_options)
        return None if index is None else (index,)

    def plan(self, indexes: Indexes, length: int) -> list[Segment]:
        """Plan segments that begin shortly after keyframes."""
        return plan_extract(indexes[0], self._options, length)

    def rows(self, segment: Segment, indexes: Indexes, on_frame: OnFrame) -> SegmentRows:
        """Process the segment with a few frames around it, and keep the rows of the segment."""
        o = self._options
        by_scene = reach_of(o) is None
        cuts: list[float] = []
        before: Frame | None = None
        last: Frame | None = None
        video = open_video(self._path, replace(self._video_options, index=indexes[0]))
        with Extraction(video, self._session, o, frames_of(segment, o)) as extraction:
            log = open_log(extraction)
            for frame in extraction:
                if frame.index < segment.start:
                    before = frame.frame
                elif by_scene or segment.stop is None or frame.index < segment.stop:
                    log.append(frame.index, frame.pts_time, frame.features)
                    if frame.cut:
                        cuts.append(frame.pts_time)
                    last = frame.frame
                    on_frame()
        log.provenance |= outcome(log, extraction.report, cuts, True)
        return SegmentRows(
            log,
            head=_digest(before or extraction.frame_before),
            tail=_digest(last),
            ends=not extraction.stopped_at_cut if by_scene else segment.stop == o.stop,
            reports=[(extraction.info.path, extraction.report)],
        )


def _digest(frame: Frame | None) -> str | None:
    """Return a digest of the frame's pixels at the working size."""
    if frame is None:
        return None
    digest = hashlib.blake2b(frame.rgb.tobytes(), digest_size=16)
    return f"{frame.rgb.shape[2]}x{frame.rgb.shape[1]}:{digest.hexdigest()}"
