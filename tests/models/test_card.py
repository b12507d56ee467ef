"""Cards: every number from a source, and a check that notices when one moves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eyeline.errors import RegistryError
from eyeline.models.card import check_card, make_card
from eyeline.models.registry import Registry

DOCS = Path(__file__).parents[2] / "docs/models"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The words of the placeholder, and a made-up evaluation of its very bytes."""
    shutil.copy(DOCS / "placeholder.toml", tmp_path)
    estimate = {"value": 0.25, "low": 0.2, "high": 0.3}
    row = {
        "model": "placeholder", "model_sha256": Registry().get("placeholder").sha256,
        "parameters": 4, "dataset": "discs", "working_size": [64, 48], "latency_ms": 0.1,
        "image_count": 7,
        "estimates": dict.fromkeys(
            ("max_fmeasure_dataset", "max_fmeasure_mean", "mae", "iou", "smeasure"), estimate
        ),
    }  # fmt: skip
    other = row | {"model": "other", "model_sha256": "0" * 64}
    difference = {"max_fmeasure_dataset": {"value": -0.5, "p_value": 0.0001}}
    evaluation = {
        "results": [row, other],
        "comparisons": [
            {
                "dataset": "discs",
                "model": "other",
                "other": "placeholder",
                "differences": difference,
            }
        ],
        "notes": ["a note"],
    }
    (tmp_path / "placeholder.evaluation.json").write_text(json.dumps(evaluation))
    return tmp_path


def test_quality_comes_from_the_evaluation(sources: Path) -> None:
    card = make_card(Registry().get("placeholder"), sources)
    assert "| **placeholder** | 4 | 64x48 | 0.1 | .250 [.200, .300] |" in card
    assert "- against other: max F +0.500 (p < .001, paired bootstrap)" in card


def test_operators_come_from_a_scan_of_the_file(sources: Path) -> None:
    card = make_card(Registry().get("placeholder"), sources)
    assert "Conv 1, Sigmoid 1: all admitted" in card


def test_an_evaluation_of_other_bytes_is_refused(sources: Path) -> None:
    path = sources / "placeholder.evaluation.json"
    path.write_text(path.read_text().replace(Registry().get("placeholder").sha256, "1" * 64))
    with pytest.raises(RegistryError, match="of other bytes"):
        make_card(Registry().get("placeholder"), sources)


def test_a_number_that_moved_fails_the_check(sources: Path) -> None:
    model = Registry().get("placeholder")
    card = make_card(model, sources)
    assert check_card(card, model, sources) == []
    path = sources / "placeholder.evaluation.json"
    path.write_text(path.read_text().replace("0.25", "0.26"))
    assert any(".260 [" in line for line in check_card(card, model, sources))


def test_a_card_without_words_says_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"placeholder\.toml.*needs its words"):
        make_card(Registry().get("placeholder"), tmp_path)


def test_the_command_exits_with_1_when_a_card_was_edited(sources: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "eyeline", "model", "card", "placeholder", "--sources", sources]
    target = tmp_path / "card.md"
    subprocess.run([*words, "-o", target], check=True)
    assert subprocess.run([*words, "--check", target], check=False).returncode == 0
    target.write_text(target.read_text().replace("role `smoke`", "role `production`"))
    done = subprocess.run([*words, "--check", target], capture_output=True, check=False, text=True)
    assert done.returncode == 1
    assert "no longer what its sources say" in done.stderr
    assert "role `production`" in done.stdout


@pytest.mark.parametrize("model", list(Registry()), ids=lambda m: m.id)
def test_the_cards_of_the_built_in_models_hold(model) -> None:  # type: ignore[no-untyped-def]
    assert check_card((DOCS / f"{model.id}.md").read_text(), model, DOCS) == []
