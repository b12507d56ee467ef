"""`eyeline data`: the catalogue, its terms, and checks of a dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
from sets import picture, write_folder

from command_line import CommandLine
from eyeline.datasets.catalogue import catalogue


def test_the_list_has_every_set_with_its_terms(command_line: CommandLine) -> None:
    code, out, _ = command_line("data", "list")
    assert code == 0
    for name, entry in catalogue().items():
        assert f"{name}: {entry.title}" in out
        assert f"terms: {entry.terms}" in out


def test_nothing_is_fetched_before_the_terms_are_accepted(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command_line("data", "fetch", "duts-tr")
    assert code == 2
    assert "terms:" in err
    assert "add --yes" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["fetch", "nothing"], ["import", "nothing", "x", "-o", "y"]])
def test_an_unknown_set_is_one_line(command_line: CommandLine, words: list[str]) -> None:
    code, _, err = command_line("data", *words)
    assert code == 2
    assert err.startswith("error: ")
    assert "nothing" in err


def test_images_and_masks_are_counted(command_line: CommandLine, tmp_path: Path) -> None:
    data = write_folder(tmp_path, {"images/a.png": picture(), "masks/a.png": picture()})
    assert command_line("data", "check", data)[:2] == (0, f"{data}: 1 images with masks\n")


def test_masks_of_another_size_are_an_error(command_line: CommandLine, tmp_path: Path) -> None:
    data = write_folder(tmp_path, {"images/a.png": picture(), "masks/a.png": picture(size=(3, 3))})
    code, out, err = command_line("data", "check", data)
    assert (code, out) == (2, "")
    assert "differ in size from their image" in err
