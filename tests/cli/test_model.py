"""`eyeline model`: what the registry holds, as tables, JSON and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import CommandLine
from eyeline.registry.registry import Registry

DOCS = Path(__file__).parents[2] / "docs/models"


def test_every_model_is_listed(command_line: CommandLine) -> None:
    ids = [m.id for m in Registry()]
    code, out, _ = command_line("model", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ids
    assert [r["id"] for r in json.loads(command_line("model", "list", "--json")[1])] == ids


def test_a_model_is_shown_after_its_digest_is_checked(command_line: CommandLine) -> None:
    shown = json.loads(command_line("model", "show", "placeholder")[1])
    found = Registry().get("placeholder")
    assert (shown["sha256"], shown["bytes"]) == (found.sha256, len(found.data))


def test_a_card_is_made_and_checked(command_line: CommandLine, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    words = ("model", "card", "placeholder", "--sources", DOCS)
    assert command_line(*words, "-o", card)[0] == 0
    assert command_line(*words, "--check", card)[:2] == (0, f"{card}: matches its sources\n")
    card.write_text(card.read_text().replace("placeholder", "other"))
    code, out, err = command_line(*words, "--check", card)
    assert code == 1
    assert "+++" in out
    assert err == f"{card}: differs from its sources\n"


@pytest.mark.parametrize(
    "words",
    [
        ["remove", "x"],
        ["promote", "x"],
        ["fetch", "u2netp_mirror_v1"],
        ["add", "x.onnx", "--license", "MIT", "--description", "x", "--provenance", "x"],
    ],
)
def test_a_change_needs_a_registry(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.delenv("EYELINE_REGISTRY", raising=False)
    code, _, err = command_line("model", *words)
    assert code == 2
    assert "no registry is given" in err
