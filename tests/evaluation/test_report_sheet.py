"""The formats of a contact sheet; test_benchmark and test_gaze draw them."""

from __future__ import annotations

import pytest

from eyeline.errors import OutputError

pytest.importorskip("PIL")

from eyeline.evaluation.report import sheet_format


def test_the_suffix_names_the_format() -> None:
    assert [sheet_format(f"a{s}") for s in (".png", ".JPG", ".jpeg")] == ["PNG", "JPEG", "JPEG"]


@pytest.mark.parametrize("path", ["a.gif", "a"])
def test_another_suffix_is_refused(path: str) -> None:
    with pytest.raises(OutputError, match=r"choose one of: \.png"):
        sheet_format(path)
