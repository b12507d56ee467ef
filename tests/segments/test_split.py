"""The plan, the run and the join of segments, by a command that only counts."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.errors import DamagedMediaError, SeamError, SeekError, UsageError
from eyeline.logs.base import Log
from eyeline.media.types import DecodeReport, FrameIndex
from eyeline.segments import Segment, SegmentedRun, join_segments, run_segment
from eyeline.segments.split import Indexes, OnFrame, SegmentRows, split_frames

COUNT = 40
INDEXES = (FrameIndex(np.arange(COUNT), np.arange(0, COUNT, 5)),)


class Counting(SegmentedRun):
    """Rows hold their own number; every tenth frame begins a scene."""

    def __init__(self, report: DecodeReport | None = None, error: Exception | None = None) -> None:
        self._report, self._error = report or DecodeReport(), error

    def index(self) -> Indexes:
        return INDEXES

    def plan(self, indexes: Indexes, length: int) -> list[Segment]:
        return split_frames([indexes[0].keyframes], 0, len(indexes[0]), None, length)

    def rows(self, segment: Segment, indexes: Indexes, on_frame: OnFrame) -> SegmentRows:
        if self._error is not None:
            raise self._error
        stop = COUNT if segment.stop is None else segment.stop
        log = Log(["number"], {"model": "counter", "complete": True}, 25.0)
        for i in range(segment.start, stop):
            log.append(i, i / 25, {"number": float(i)})
            on_frame()
        cuts = [i / 25 for i in range(segment.start, stop) if i % 10 == 0]
        log.provenance |= {"frames": len(log), "cuts": cuts}
        head = f"before {segment.start}" if segment.start else None
        tail = f"before {stop}" if len(log) else None
        return SegmentRows(log, head, tail, segment.stop is None, [("film.mp4", self._report)])


def run_all(length: int = 10, run: Counting | None = None) -> list[Log]:
    run = run or Counting()
    return [run_segment(run, s, INDEXES) for s in run.plan(INDEXES, length)]


# --- the plan


def test_a_plan_takes_the_place_where_both_sources_waste_least() -> None:
    places = np.array([0, 42, 57, 82, 122, 162]), np.array([2, 52, 102, 152])
    assert [s.start for s in split_frames(places, 0, 200, None, 42)] == [0, 52, 102, 152]
    assert [s.start for s in split_frames(places[:1], 0, 200, None, 42)] == [0, 42, 122]
    assert split_frames(places, 0, 200, None, 1000) == [Segment(0, None)]


def test_a_segment_may_be_a_quarter_longer_where_that_wastes_less() -> None:
    places = np.array([0, 20, 24]), np.array([0, 24])
    assert [s.start for s in split_frames(places, 0, 100, None, 20)] == [0, 24]
    assert [s.start for s in split_frames(places, 0, 100, None, 18)] == [0, 20]


def test_a_segment_without_frames_is_refused() -> None:
    with pytest.raises(UsageError, match="length of 0 frames"):
        split_frames([np.arange(9)], 0, 9, None, 0)


@given(
    keys=st.lists(st.sets(st.integers(0, 399), min_size=1), min_size=1, max_size=3),
    end=st.integers(1, 400),
    length=st.integers(1, 200),
    start=st.integers(0, 50),
    stop=st.none() | st.integers(51, 400),
)
def test_a_plan_covers_every_frame_once(
    keys: list[set[int]], end: int, length: int, start: int, stop: int | None
) -> None:
    end = end if stop is None else min(end, stop)
    plan = split_frames([np.array(sorted(k)) for k in keys], start, end, stop, length)
    assert (plan[0].start, plan[-1].stop) == (start, stop)
    for left, right in pairwise(plan):
        assert left.stop == right.start
        assert right.start - left.start >= length
    if len(plan) > 1:
        assert 2 * (end - plan[-1].start) >= length


# --- the run


def test_a_run_counts_its_rows_and_notes_its_seam() -> None:
    rows: list[None] = []
    log = run_segment(Counting(), Segment(10, 20), INDEXES, lambda: rows.append(None))
    assert len(rows) == len(log) == 10
    assert log.provenance["seam"]["segment"] == [10, 20]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (Counting(DecodeReport(corrupt=1)), "film.mp4: is damaged"),
        (Counting(DecodeReport(size_changes=[(3, (64, 48))])), "film.mp4: changes its size"),
        (Counting(error=SeekError("frames are elsewhere")), "frames are elsewhere"),
        (Counting(error=DamagedMediaError("cut off", frames=3)), "cut off"),
    ],
)
def test_what_only_one_piece_survives_is_a_seam_error(run: Counting, message: str) -> None:
    with pytest.raises(SeamError, match=message) as caught:
        run_all(run=run)
    assert caught.value.hint == "read the video from its start, in one piece"


# --- the join


@pytest.mark.parametrize("length", [5, 10, 17])
def test_a_joined_log_is_that_of_a_single_run(length: int) -> None:
    logs = run_all(length)
    assert len(logs) > 1
    joined = join_segments(logs)
    assert list(joined.frame_num) == list(range(COUNT))
    assert list(joined.values["number"]) == list(range(COUNT))
    assert joined.provenance == {
        "model": "counter", "complete": True, "frames": COUNT, "cuts": [0.0, 0.4, 0.8, 1.2],
    }  # fmt: skip


def empty(log: Log) -> Log:
    """The log as of a segment that has no cut, where rows belong to whole scenes."""
    log = altered(log, frames=0, cuts=[], head=log.provenance["seam"]["head"], tail=None)
    log.frame_num, log.pts_time, log.values = array("q"), array("d"), {}
    log.columns = []  # as some formats read it
    return log


def altered(log: Log, **changes: object) -> Log:
    log = copy.deepcopy(log)
    for name, value in changes.items():
        into = log.provenance["seam"] if name in log.provenance["seam"] else log.provenance
        into[name] = value
    return log


def test_a_segment_may_have_no_rows() -> None:
    first, second, *others = run_all(10)
    first = altered(first, tail="before 20", frames=20)
    first.extend(second)
    joined = join_segments([first, empty(second), *others])
    assert list(joined.frame_num) == list(range(COUNT))


def bare(log: Log) -> Log:
    log = copy.deepcopy(log)
    del log.provenance["seam"]
    return log


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [], "are not segments"),
        (lambda r: [bare(r[0]), *r[1:]], "are not segments"),
        (lambda r: [bare(r[0])], "are not segments"),
        (lambda r: r[1:], "first segment of the video is missing"),
        (lambda r: r[:-1], "last segment of the video is missing"),
        (lambda r: [r[0], r[2], r[3]], "a segment is missing"),
        (lambda r: [r[1], r[0], *r[2:]], "out of order"),
        (lambda r: [r[0], r[2], *r[2:]], "out of order"),
        (lambda r: [r[0], altered(r[1], model="0"), *r[2:]], "made with another model"),
        (lambda r: [r[0], altered(r[1], corrupt_frames=1), *r[2:]], "is incomplete or damaged"),
        (lambda r: [r[0], altered(r[1], complete=False), *r[2:]], "is incomplete or damaged"),
        (lambda r: [r[0], altered(r[1], frames=3), *r[2:]], "is incomplete or damaged"),
        (lambda r: [r[0], r[1].sliced(0, 4), *r[2:]], "is incomplete or damaged"),
        (lambda r: [r[0], altered(r[1], head="0"), *r[2:]], "pictures at frame 10 differ"),
        (lambda r: [r[0], altered(r[1], tail="0"), *r[2:]], "pictures at frame 20 differ"),
        (lambda r: [r[0], altered(r[1], tail=None), *r[2:]], "pictures at frame 20 differ"),
        (lambda r: [altered(r[0], head="0"), *r[1:]], "first segment of the video is missing"),
        (lambda r: [*r[:3], altered(r[3], ends=False)], "last segment of the video is missing"),
        (
            lambda r: [r[0], empty(r[1]), *r[2:]],
            "ends with row 9, but the next one begins with row 20",
        ),
    ],
)
def test_what_does_not_fit_is_not_joined(
    change: Callable[[list[Log]], list[Log]], message: str
) -> None:
    logs = run_all(10)
    assert len(logs) == 4
    join_segments(logs)
    with pytest.raises(SeamError, match=message):
        join_segments(change(logs))
