"""Options of a comparison that contradict each other."""

from dataclasses import replace

import pytest
from witness import COMPARE

from eyeline.errors import UsageError
from eyeline.roi.steering import SteerOptions


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rates": (22.0, 27.0, 32.0, 32.0)}, "3 different rates"),
        ({"steer": SteerOptions(strength=0)}, "nothing to compare"),
        ({"judge_model": "a", "judge_masks": "b"}, "give only one"),
        ({"jobs": -1}, "jobs"),
        ({"steer_by": "recorded"}, "--steer recorded needs --judge-fixations"),
        ({"pixels_per_degree": 20.0}, "--pixels-per-degree needs --judge-fixations"),
        (
            {"judge_fixations": "a", "judge_masks": "b"},
            "--judge-masks and --judge-fixations are given together",
        ),
        ({"judge_fixations": "a", "pixels_per_degree": 0.0}, "must be between 1 and 1000"),
    ],
)
def test_contradictions_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(COMPARE, **change)
