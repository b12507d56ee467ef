"""`eyeline model audit` as people run it: one table, three forms, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eyeline.audit.records import load_policy
from eyeline.audit.tree import open_tree
from eyeline.audit.verdict import audit, text
from eyeline.cli import main
from fake_upstream import FILES, README, make_checkout
from tiny_models import plane_model

Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command line in this process."""

    def run_here(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["eyeline", "model", "audit", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run_here


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "tinynet")


def test_blocked_is_exit_1_and_says_what_would_mend_it(here: Here, checkout: Path) -> None:
    code, out, _ = here(checkout)
    assert code == 1
    assert "verdict: blocked: VIEWER-LINK" in out
    assert "hint: give the file with --checkpoint" in out


def test_admissible_is_exit_0(here: Here, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"weights")
    code, out, _ = here(checkout, "--checkpoint", tmp_path / "net.pth")
    assert code == 0
    assert "verdict: admissible" in out


def test_an_onnx_is_scanned(here: Here, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(plane_model())
    code, out, _ = here(checkout, "--checkpoint", tmp_path / "net.onnx")
    assert code == 0
    assert "1 ops, all admitted" in out
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    code, out, _ = here(checkout, "--onnx", tmp_path / "bad.onnx")
    assert code == 1
    assert "SCAN-" in out


def test_json_on_stdout_is_all_of_stdout(here: Here, checkout: Path) -> None:
    code, out, _ = here(checkout, "--json", "-")
    assert code == 1
    assert json.loads(out)["reasons"] == ["VIEWER-LINK"]


def test_several_upstreams_are_one_table(here: Here, checkout: Path, tmp_path: Path) -> None:
    other = make_checkout(tmp_path / "other", dict(FILES) | {"LICENSE": "mine"})
    place = tmp_path / "table.md"
    code, out, _ = here(checkout, other, "--markdown", place, "--no-details", "-q")
    assert (code, out) == (1, "")
    rows = place.read_text().splitlines()
    assert len(rows) == 4
    assert rows[2].startswith("| tinynet | ")
    assert "UNKNOWN, VIEWER-LINK" in rows[3]


def test_an_upstreams_words_cannot_break_the_table(here: Here, tmp_path: Path) -> None:
    evil = README + "The code is for non-commercial use | **x** <script>\x1b[31m `a` |\n"
    checkout = make_checkout(tmp_path / "tinynet", dict(FILES) | {"README.md": evil})
    _, out, _ = here(checkout, "--markdown", "-")
    assert "\x1b" not in out
    (line,) = [row for row in out.splitlines() if "non-commercial" in row]
    assert "\\|" in line
    assert "\\<script\\>" in line or "script" not in line


def test_terminal_codes_of_an_upstream_do_not_reach_the_terminal(tmp_path: Path) -> None:
    evil = README + "The code is for non-commercial use \x1b[31m only.\n"
    checkout = make_checkout(tmp_path / "up", dict(FILES) | {"README.md": evil})
    verdict = audit(open_tree(checkout), load_policy())
    assert "\x1b" in verdict.blockers[0].message
    assert "\x1b" not in text(verdict)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "not a folder"),
        (["https://github.com/only-owner"], "not the URL of a repository"),
        (["a", "b", "--net", "X"], "belong to one upstream"),
        ([".", "--policy", "nowhere.toml"], "can't be read"),
        ([".", "--json", "-", "--markdown", "-"], "another output"),
    ],
)
def test_bad_input_is_exit_2_and_one_line(here: Here, words: list[str], message: str) -> None:
    code, out, err = here(*words)
    assert code == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err


def test_a_checkpoint_that_is_not_there(here: Here, checkout: Path) -> None:
    code, _, err = here(checkout, "--checkpoint", "nowhere.pth")
    assert code == 2
    assert "nowhere.pth" in err
