"""Split a title into segments, run one, and join their logs: the same for every command.

A command takes part by a `SegmentedRun`, which says where its segments may begin and makes the rows
of one. `eyeline.segments.extract` and `eyeline.quality.pair_segments` are the two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.errors import DamagedMediaError, SeamError, SeekError, UsageError
from eyeline.logs.base import Log, compact
from eyeline.media.types import READ_WHOLE, DecodeReport, FrameIndex

SEAM = "seam"
"""Key in the provenance of a segment's log; the joined log does not have it."""

SLACK = 4
"""A segment may be 1/4 longer than asked for, where decoding of the next one begins closer to it."""

Frames = npt.NDArray[np.int64]
Indexes = tuple[FrameIndex, ...]
"""One index per source of the title, made by `eyeline.media.index.index_frames`."""

OnFrame = Callable[[], None]


@dataclass(frozen=True)
class Segment:
    """A range of frames; where rows depend on whole scenes, the cuts after its ends count instead.

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
    """What a run over a segment gave.

    Attributes:
        log: the rows of the segment alone, with the provenance of a single run.
        head: digest of what was decoded around the first row; None for the first segment.
        tail: the same for the last row; equal to the `head` of the next segment with rows. None
            where no row is.
        ends: whether the rows go on to the end of the title.
        reports: path of each source, and what its decoder met.
    """

    log: Log
    head: str | None
    tail: str | None
    ends: bool
    reports: Sequence[tuple[str, DecodeReport]]


class SegmentedRun(ABC):
    """A run over one title that may be done in segments."""

    @abstractmethod
    def index(self) -> Indexes | None:
        """Index the sources; return None where the title can't be split.

        Raises:
            MediaError: a source can't be read.
        """

    @abstractmethod
    def plan(self, indexes: Indexes, length: int) -> list[Segment]:
        """Split the title by `split_frames` into segments of about `length` frames.

        Returns:
            The segments, in order. They depend on nothing but the options and arguments.
        """

    @abstractmethod
    def rows(self, segment: Segment, indexes: Indexes, on_frame: OnFrame) -> SegmentRows:
        """Make the rows of a segment.

        Raises:
            SeamError, SeekError, DamagedMediaError: the title must be run in one piece.
            EyelineError: it can't be run.
        """


def split_frames(
    places: Sequence[Frames], start: int, end: int, stop: int | None, length: int
) -> list[Segment]:
    """Split a range of frames where the least has to be decoded for nothing.

    Args:
        places: for each source, int64 (K,): the frames at which a segment costs nothing extra;
            they rise.
        start: first frame.
        end: the frame after the last that the sources have.
        stop: end of the last segment; None = to the end of the sources.
        length: frames per segment, at least; the last one may have half of them.

    Raises:
        UsageError: a length below 1.
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
    """Make the log of a segment, with what `join_segments` needs in its provenance.

    Args:
        run: the run over the whole title.
        segment: one of several, from `run.plan`.
        indexes: that it was planned by.
        on_frame: called after each row, for progress.

    Raises:
        SeamError: the title must be run in one piece: damage, a change of size, or frames that are
            not where the indexes say.
        EyelineError: it can't be run.
    """
    try:
        rows = run.rows(segment, indexes, on_frame)
    except (SeekError, DamagedMediaError) as exc:
        raise SeamError(exc.message, READ_WHOLE) from exc
    for path, report in rows.reports:
        what = "is damaged" if report.corrupt else "changes its size" if report.size_changes else ""
        if what:
            raise SeamError(f"{path}: {what}, so its segments can't be joined", READ_WHOLE)
    rows.log.provenance[SEAM] = {
        "segment": [segment.start, segment.stop],
        "head": rows.head,
        "tail": rows.tail,
        "ends": rows.ends,
    }
    return rows.log


def join_segments(logs: Sequence[Log]) -> Log:
    """Join the logs of all segments of one title.

    Args:
        logs: from `run_segment`, in the order of the plan; they may have been written and read.

    Returns:
        The log that a single run gives, bit for bit.

    Raises:
        SeamError: a segment is missing, was made by another model, version or machine, met damage,
            or does not fit its neighbour.
    """
    if not logs or any(SEAM not in log.provenance for log in logs):
        raise SeamError(
            "these logs are not segments of one video, so they cannot be joined", READ_WHOLE
        )
    for one, following in pairwise(_segment_of(log) for log in logs):
        if one.stop != following.start:
            raise SeamError(
                f"segments {one} and {following} follow each other: a segment is missing, or they are "
                "out of order",
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
    """Return the provenance that all segments share; what differs has a place, but no value."""
    own = ("frames", "cuts")
    return {k: None if k in own else v for k, v in log.provenance.items() if k != SEAM}


def _check_whole(log: Log) -> None:
    said = log.provenance
    sound = said["complete"] and not said.get("corrupt_frames") and not said.get("size_changes")
    rows = range(log.frame_num[0], log.frame_num[0] + len(log)) if len(log) else range(0)
    if not sound or said["frames"] != len(log) or list(log.frame_num) != list(rows):
        raise SeamError(f"segment {_segment_of(log)} is not whole", READ_WHOLE)


def _check_same(first: Log, log: Log) -> None:
    same = compact([_common(log), log.fps]) == compact([_common(first), first.fps])
    # Some formats forget the columns of a log without rows.
    if not same or (len(log) and len(first) and log.columns != first.columns):
        raise SeamError(
            f"segment {_segment_of(log)} was made by another model, version, machine or set of "
            "options than the first",
            READ_WHOLE,
        )


def _check_seam(left: Log, right: Log) -> None:
    """Refuse neighbours that don't meet, or saw different pictures where they do."""
    at = right.frame_num[0]
    if left.frame_num[-1] + 1 != at:
        raise SeamError(
            f"a segment ends with row {left.frame_num[-1]} and the next begins with row {at}",
            READ_WHOLE,
        )
    tail = left.provenance[SEAM]["tail"]
    if tail is None or tail != right.provenance[SEAM]["head"]:
        raise SeamError(
            f"the pictures at frame {at} differ between a decode from a keyframe near it and one "
            "from further back",
            READ_WHOLE,
        )
