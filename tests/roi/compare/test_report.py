"""Text, plots and stills of a comparison."""

from dataclasses import replace
from pathlib import Path

import av
import pytest

from eyeline.errors import OutputError, UsageError
from eyeline.roi.compare import Comparison
from eyeline.roi.compare.report import draw_still, plot_curves, to_markdown


def test_the_verdict_is_the_numbers_in_words(found: Comparison) -> None:
    rate = -found.deltas["psnr_inside"].rate
    assert f"The subject's PSNR stays the same with {rate:.1f} % fewer bits." in to_markdown(found)


def test_without_a_pair_there_is_no_still(found: Comparison, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="equal rate"):
        draw_still(replace(found, pair=None), tmp_path / "still.png")


def test_pictures_are_drawn(found: Comparison, tmp_path: Path) -> None:
    curves, still = tmp_path / "curves.png", tmp_path / "still.jpg"
    plot_curves(found, curves)
    draw_still(found, still)
    with av.open(str(curves)) as c, av.open(str(still)) as s:
        assert c.streams.video[0].width == 1050
        assert s.streams.video[0].width == 1200


def test_a_picture_of_another_kind_is_refused(found: Comparison, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.png or \.svg"):
        plot_curves(found, tmp_path / "curves.gif")
