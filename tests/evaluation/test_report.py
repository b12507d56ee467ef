"""The tables of an evaluation for people."""

from __future__ import annotations

from dataclasses import replace

from evaluation.test_results import REPORT, ROW
from eyeline.evaluation.report import COLUMNS, html_page, markdown
from eyeline.evaluation.results import EvaluationReport, VideoScore
from eyeline.evaluation.statistics import Difference, Estimate, ModelComparison

FULL = replace(
    ROW, model="a|b", estimates=dict.fromkeys(COLUMNS, Estimate(0.5, 0.4, 0.6)), smoke=True
)
WITH_VIDEO = replace(FULL, videos=[VideoScore("v", 2, 0.5, 0.1, 0.02, 0.01, None)])


def test_a_row_has_its_intervals_and_escapes_its_name() -> None:
    text = markdown(replace(REPORT, results=[FULL], comparisons=[]))
    assert text.startswith("### d, 20 images\n\n| model | parameters | size | ms | max F")
    assert "| a\\|b (smoke: numbers mean nothing) | 4 | 64x48 | 1.50 | 0.500 [0.400, 0.600]" in text
    assert (
        "Images are scaled to the size shown by area averaging, as frames of a video are." in text
    )
    assert text.endswith(f"- Made with numpy 2. a|b sha256 {'a' * 16}; d digest {'b' * 16}.\n")


def test_videos_and_differences_have_tables() -> None:
    difference = dict.fromkeys(COLUMNS, Difference(-0.1, -0.2, 0.0, 0.0001))
    found = EvaluationReport(
        [WITH_VIDEO], [ModelComparison("d", "x", "y", difference)], REPORT.about
    )
    text = markdown(found)
    assert "| x - y | -0.100 [-0.200, 0.000] (p <0.001)" in text
    assert "| a\\|b | v | 2 | 0.5000 | 0.1000 | 0.0200 | 0.0100 | - |" in text


def test_the_page_has_the_same_tables() -> None:
    page = html_page(replace(REPORT, results=[FULL], comparisons=[]))
    assert "<td>a|b (smoke: numbers mean nothing)</td>" in page
    assert "<h2>d, 20 images</h2>" in page
