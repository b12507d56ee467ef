"""`eyeline report`: which clips belong together, and the words at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import CommandLine
from eyeline.logs import Log, write_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    made = Log(["saliency_mean"], provenance={}, fps=25.0)
    for i in range(5):
        made.append(i, i / 25, {"saliency_mean": i / 10})
    write_log(made, tmp_path / "clip.json")
    return tmp_path / "clip.json"


def test_a_page_without_pictures(command_line: CommandLine, log: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, err = command_line("report", log, "-o", page, "--title", "Five frames")
    assert (code, out) == (0, "")
    assert err.startswith("5 frames; page ")
    assert err.endswith(f"; wrote {page}\n")
    assert "Five frames" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--video", "a.mp4", "--ref", "b.mp4", "--dist", "c.mp4"], "--video"),
        (["--ref", "b.mp4"], "--dist"),
        (["--map", "gaze"], "without a clip"),
        (["--map", "gaze", "--maps", "m.npz"], "--map gaze asks for the maps of a model"),
    ],
)
def test_clips_that_do_not_belong_together(
    command_line: CommandLine, log: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    code, _, err = command_line("report", log, "-o", tmp_path / "page.html", *words)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "page.html").exists()
