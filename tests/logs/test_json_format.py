"""JSON logs: libvmaf's layout, and nothing that JSON does not allow."""

import json
import math
from pathlib import Path

import pytest

from eyeline.logs import Log, read_log, write_log
from eyeline.logs.base import POOLED
from sample_logs import make_log

DATA = Path(__file__).parent / "data"


def test_json_stays_valid_json(tmp_path):
    log = Log(["x"], {"lr": math.nan})
    log.append(0, math.nan, {"x": math.inf})
    write_log(log, tmp_path / "log.json")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    document = json.loads((tmp_path / "log.json").read_text(), parse_constant=refuse)
    assert document["frames"] == [{"frameNum": 0, "pts_time": None, "metrics": {"x": None}}]
    assert document["pooled_metrics"]["x"]["mean"] is None


def test_json_has_the_layout_of_libvmaf(tmp_path):
    write_log(make_log(), tmp_path / "log.json")
    text = (tmp_path / "log.json").read_text()
    ours, theirs = json.loads(text), json.loads((DATA / "vmaf.json").read_text())
    assert list(ours)[: len(theirs)] == list(theirs)
    assert set(theirs["frames"][0]) <= set(ours["frames"][0])
    assert text.startswith('{\n  "version": "')
    assert '\n    {\n      "frameNum": 1,\n' in text
    pooled = ours["pooled_metrics"]["saliency_mean"]
    assert tuple(pooled) == POOLED
    assert pooled["mean"] == pytest.approx(2 / 3)


def test_a_metric_that_a_frame_lacks_is_nan(tmp_path):
    frames = [
        {"frameNum": 0, "metrics": {"a": 1}},
        {"frameNum": 1, "metrics": {"a": 2, "b": 3.5}},
    ]
    (tmp_path / "log.json").write_text(json.dumps({"frames": frames}))
    log = read_log(tmp_path / "log.json")
    assert list(log.values["a"]) == [1, 2]
    assert math.isnan(log.values["b"][0])
    assert log.values["b"][1] == 3.5
