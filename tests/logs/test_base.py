"""Pooling of a metric over a video."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.logs.base import POOLED, pool

VMAF = Path(__file__).parent / "data" / "vmaf.json"


def test_known_answers():
    pooled = pool([0.0, 1.0, 3.0])
    assert pooled["min"] == 0.0
    assert pooled["max"] == 3.0
    assert pooled["mean"] == pytest.approx(4 / 3)
    assert pooled["harmonic_mean"] == pytest.approx(3 / (1 + 1 / 2 + 1 / 4) - 1)


def test_percentiles_interpolate_linearly():
    pooled = pool([30.0, 10.0, 20.0])
    assert [pooled[f"p{p}"] for p in (5, 25, 50, 75, 95)] == pytest.approx([11, 15, 20, 25, 29])


def test_agrees_with_libvmaf_on_its_own_log():
    log = json.loads(VMAF.read_text())
    for name, theirs in log["pooled_metrics"].items():
        ours = pool([frame["metrics"][name] for frame in log["frames"]])
        for method, value in theirs.items():
            # Both the values and the pooled number are printed with six decimals.
            assert ours[method] == pytest.approx(value, abs=3e-6), (name, method)


@pytest.mark.parametrize("values", [[], [0.5, math.nan, 0.25]])
def test_a_missing_answer_is_not_averaged_away(values):
    pooled = pool(values)
    assert tuple(pooled) == POOLED
    assert all(math.isnan(value) for value in pooled.values())


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_harmonic_mean_lies_between_min_and_mean(values):
    pooled = pool(values)
    slack = 1e-9 * (1 + pooled["max"])
    assert pooled["min"] - slack <= pooled["harmonic_mean"] <= pooled["mean"] + slack
