"""The records that travel between the driver and the workers."""

from eyeline.batch.manifest import Title
from eyeline.batch.task import Task, TitlePlan
from eyeline.segments import Segment

TITLE = Title("film", "film.mp4")


def test_a_task_names_its_segment_and_its_frames() -> None:
    plan = TitlePlan((Segment(0, 20), Segment(20, None)), "0" * 64, {}, "work")
    first, last = (Task("segment", TITLE, plan, number) for number in (0, 1))
    assert (first.label, first.frames) == ("film 1/2", 20)
    assert (last.label, last.frames) == ("film 2/2", None)


def test_a_task_over_a_whole_title_has_its_name() -> None:
    assert (Task("title", TITLE).label, Task("title", TITLE).frames) == ("film", None)
