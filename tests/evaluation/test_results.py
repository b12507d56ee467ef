"""The JSON of an evaluation: written, summarised, and read back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from eyeline.digests import sha256_hex
from eyeline.errors import RegistryError
from eyeline.evaluation.results import (
    EvaluationReport,
    GazeReport,
    GazeResult,
    MaskResult,
    read_evaluation,
)
from eyeline.evaluation.statistics import Difference, Estimate, ModelComparison

NAN = math.nan
ROW = MaskResult(
    model="m", model_sha256="a" * 64, parameters=4, smoke=False, io={"multiple": 1}, dataset="d",
    dataset_digest="b" * 64, size="model", working_size=(64, 48), latency_ms=1.5,
    estimates={"iou": Estimate(0.5, 0.4, 0.6), "plcc": Estimate(NAN, NAN, NAN)},
    empty_masks=[], full_masks=[], without_plcc=0, videos=[],
    images=[{"name": f"{i}", "iou": (i - 3) ** 2 / 100} for i in range(20)],
)  # fmt: skip
REPORT = EvaluationReport(
    [ROW],
    [ModelComparison("d", "m", "n", {"iou": Difference(0.1, 0.0, 0.2, 0.04)})],
    {"versions": {"numpy": "2"}, "resample": "area"},
)


def read(folder: Path, text: str):
    path = folder / "e.json"
    path.write_text(text)
    return read_evaluation(path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found, digest = read(tmp_path, REPORT.dumps())
    assert digest == sha256_hex(REPORT.dumps().encode())
    (row,) = found.results
    assert (row.model, row.working_size, row.latency_ms) == ("m", (64, 48), 1.5)
    assert row.estimates["iou"] == Estimate(0.5, 0.4, 0.6)
    assert math.isnan(row.estimates["plcc"].value)
    assert row.image_count == 20
    assert found.comparisons == tuple(REPORT.comparisons)
    assert found.notes == tuple(REPORT.notes())
    assert (found.tables("objects"), found.tables("gaze")) == (found, None)


def test_a_summary_reads_as_the_whole_does(tmp_path: Path) -> None:
    assert "images" not in json.loads(REPORT.summary())["results"][0]
    whole, _ = read(tmp_path, REPORT.dumps())
    summary, _ = read(tmp_path, REPORT.summary())
    assert repr(summary) == repr(whole)  # NaN is not equal to itself


def test_the_worst_images_are_those_of_the_lowest_iou() -> None:
    assert ROW.worst[:3] == ["3", "2", "4"]
    assert len(ROW.worst) == 12


def test_the_worst_frames_are_of_several_videos() -> None:
    def video(name: str, nss: float) -> dict:
        return {"name": name, "frames": [{"nss": nss + i, "time_ms": i} for i in range(20)]}

    result = GazeResult("m", "d", "b" * 64, stimuli=[video("a", 0), video("b", 100)])
    assert [name for _, name, _ in result.worst] == ["a"] * 6 + ["b"] * 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"results": [{"model": "m"}]}, r"results\.0\.model_sha256: Field required"),
        ({"notes": 3}, "notes"),
    ],
)
def test_a_file_that_is_not_an_evaluation_says_where(
    tmp_path: Path, change: dict, said: str
) -> None:
    text = json.dumps(json.loads(REPORT.dumps()) | change)
    with pytest.raises(RegistryError, match=f"is not an evaluation: .*{said}") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_baseline_has_no_latency_but_a_model_needs_a_positive_one(tmp_path: Path) -> None:
    baseline = {"latency_ms": None, "model_sha256": None, "baseline": True}
    fields = json.loads(REPORT.dumps())
    fields["results"][0] |= baseline
    assert read(tmp_path, json.dumps(fields))[0].results[0].baseline
    with pytest.raises(RegistryError, match="latency_ms"):
        read(tmp_path, replace(REPORT, results=[replace(ROW, latency_ms=0.0)]).dumps())


def test_an_empty_gaze_report_is_left_out() -> None:
    assert GazeReport().notes() == []
    assert "gaze" not in REPORT.to_json()
