"""`eyeline train`: what cannot work is one line before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import CommandLine

pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing"),
        (["smoke", "--unlabelled", "x"], "--unlabelled has no effect with recipe smoke"),
        (["smoke", "--backbone", "x"], "--backbone has no effect with recipe smoke"),
        (["gaze_v1", "--without", "x"], "--without has no effect with recipe gaze_v1"),
        (["smoke"], "nowhere: no such dataset"),
    ],
)
def test_what_cannot_work_is_one_line(
    command_line: CommandLine, tmp_path: Path, words: list[str], message: str
) -> None:
    code, out, err = command_line("train", *words, "--data", "nowhere", "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "run" / "weights.pt").exists()
