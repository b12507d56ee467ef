"""`eyeline batch`: options of the execution, and the state of a dataset."""

from __future__ import annotations

import json
from pathlib import Path

from clips import moving, write_clip
from command_line import CommandLine


def test_a_dataset_and_its_state(command_line: CommandLine, tmp_path: Path) -> None:
    films, out = tmp_path / "films", tmp_path / "dataset"
    films.mkdir()
    write_clip(films / "a.mp4", moving(3, (32, 32)))
    (films / "b.mp4").write_bytes(b"no video")
    words = ("batch", "extract", films, "-o", out, "-m", "placeholder", "--workers", "1")
    code, _, err = command_line(*words)
    assert code == 3
    assert "1 ok, 1 failed, 0 skipped; 3 frames" in err
    assert "failed: b: " in err
    code, table, _ = command_line("batch", "status", out)
    assert code == 1
    assert "1 ok, 1 failed, 3 frames" in table
    code, lines, _ = command_line("batch", "status", out, "--failed", "--json")
    assert code == 1
    assert [json.loads(line)["title"] for line in lines.splitlines()] == ["b"]


def test_an_address_needs_ray(command_line: CommandLine, tmp_path: Path) -> None:
    code, _, err = command_line("batch", "extract", tmp_path, "-o", tmp_path, "--address", "auto")
    assert code == 2
    assert "--address is given without --engine ray" in err
