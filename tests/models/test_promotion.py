"""The gate: a clear win passes; a tie, a gap in the evidence or a contradiction is a "no"."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from eyeline.cli import main
from eyeline.digest import sha256_hex
from eyeline.errors import RegistryError, UsageError
from eyeline.models.placeholder import placeholder_bytes
from eyeline.models.promotion import load_promotion_policy, promote
from eyeline.models.records import Decision
from eyeline.models.registry import Registry, read_registry
from tiny_models import plane_model, record_fields

SET = "a" * 64
POLICY = f"""
schema_version = 1
significance = 0.05
[[better]]
measure = "iou"
margin = 0.01
[[no_worse]]
measure = "mae"
margin = 0.01
[latency]
ratio = 1.25
milliseconds = 20
[[set]]
name = "few"
digest = "{SET}"
"""
OLD, NEW = plane_model(gain=0.5), plane_model(gain=0.25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "r"
    place.mkdir()
    records = []
    for model_id, data, role in (("old", OLD, "production"), ("new", NEW, "candidate")):
        (place / f"{model_id}.onnx").write_bytes(data)
        records.append(record_fields(model_id, data) | {"role": role})
    (place / "registry.json").write_text(json.dumps({"schema_version": 1, "models": records}))
    (place / "promotion.toml").write_text(POLICY)
    return place


def result(label: str, data: bytes, iou: float, mae: float, ms: float, folder: Path) -> dict:
    io = next(m.io for m in read_registry(folder).models if m.id == label)
    return {
        "model": label, "model_sha256": sha256_hex(data), "smoke": False,
        "io": io.model_dump(), "dataset": "few", "dataset_digest": SET, "size": "model",
        "latency_ms": ms, "estimates": {"iou": {"value": iou}, "mae": {"value": mae}},
    }  # fmt: skip


def evaluation(folder: Path) -> dict[str, Any]:
    """The new one wins: IoU +.05, MAE -.02, as fast."""
    content = {
        "schema_version": 1,
        "lower_is_better": ["mae"],
        "results": [
            result("old", OLD, 0.70, 0.10, 8.0, folder),
            result("new", NEW, 0.75, 0.08, 9.0, folder),
        ],
        "comparisons": [
            {
                "dataset": "few", "model": "new", "other": "old",
                "differences": {
                    "iou": {"value": 0.05, "low": 0.03, "high": 0.07, "p_value": 0.001},
                    "mae": {"value": -0.02, "low": -0.03, "high": -0.01, "p_value": 0.001},
                },
            }
        ],
    }  # fmt: skip
    return copy.deepcopy(content)


def decide(folder: Path, content: dict[str, Any] | None, **options: Any) -> Decision:
    report = folder.parent / "report.json"
    if content is not None:
        report.write_text(json.dumps(content))
    return promote("new", folder, report=report, **options)


def roles(folder: Path) -> dict[str, str]:
    return {m.id: m.role for m in read_registry(folder).models}


def test_a_clear_win_becomes_the_default_and_is_recorded(folder: Path) -> None:
    decision = decide(folder, evaluation(folder))
    assert decision.promoted
    assert roles(folder) == {"old": "candidate", "new": "production"}
    assert Registry(folder).default().id == "new"
    recorded = read_registry(folder).decisions
    assert recorded == [decision]
    assert recorded[0].report_sha256 == sha256_hex((folder.parent / "report.json").read_bytes())
    assert recorded[0].default_sha256 == sha256_hex(OLD)
    assert "+0.0500 [+0.0300, +0.0700], p 0.0010" in str(recorded[0].grounds)


def test_it_does_not_matter_which_one_is_subtracted(folder: Path) -> None:
    content = evaluation(folder)
    c = content["comparisons"][0]
    c["model"], c["other"] = c["other"], c["model"]
    for d in c["differences"].values():
        d["value"], d["low"], d["high"] = -d["value"], -d["high"], -d["low"]
    assert decide(folder, content).promoted


def change(path: str, value: object) -> Any:
    def apply(content: Any) -> None:
        *way, last = [int(p) if p.isdigit() else p for p in path.split("/")]
        for step in way:
            content = content[step]
        content[last] = value

    return apply


IOU = "comparisons/0/differences/iou"


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (f"{IOU}/p_value", 0.05, "iou on few"),
        (f"{IOU}/p_value", None, "no number"),
        (f"{IOU}/low", -0.001, "iou on few"),
        ("comparisons/0/differences", {}, "no number"),
        ("comparisons", [], "no paired comparison"),
        ("comparisons/0/dataset", "many", "no paired comparison"),
        ("results/1/estimates/iou/value", 0.71, "contradicts"),
        ("results/1/dataset_digest", "b" * 64, "not on the set"),
        ("results/1/model_sha256", "b" * 64, "not in the report"),
        ("results/0/model_sha256", "b" * 64, "not in the report"),
        ("results/1/size", 384, "own I/O spec"),
        ("results/1/io", {}, "own I/O spec"),
        ("results/1/smoke", True, "smoke"),
        ("results/1/latency_ms", 11.0, "latency"),
        ("results/1/model", "old", "no paired comparison"),
        ("comparisons/0/differences/mae/high", 0.02, "mae on few"),
    ],
)
def test_every_gap_is_a_no(folder: Path, path: str, value: object, why: str) -> None:
    content = evaluation(folder)
    change(path, value)(content)
    decision = decide(folder, content)
    assert not decision.promoted
    assert why in " ".join(f"{g.name}: {g.detail}" for g in decision.grounds if not g.passed)
    assert roles(folder) == {"old": "production", "new": "candidate"}
    assert read_registry(folder).decisions == [decision]


def test_a_tie_is_a_no(folder: Path) -> None:
    content = evaluation(folder)
    content["results"][1]["estimates"] = content["results"][0]["estimates"]
    for d in content["comparisons"][0]["differences"].values():
        d.update(value=0.0, low=0.0, high=0.0, p_value=1.0)
    assert not decide(folder, content).promoted


def test_a_win_below_the_margin_is_a_no(folder: Path) -> None:
    content = evaluation(folder)
    content["results"][1]["estimates"]["iou"]["value"] = 0.709
    content["comparisons"][0]["differences"]["iou"].update(value=0.709 - 0.70, low=0.005)
    assert not decide(folder, content).promoted


def test_the_absolute_budget_counts_too(folder: Path) -> None:
    content = evaluation(folder)
    content["results"][0]["latency_ms"] = content["results"][1]["latency_ms"] = 21.0
    failed = [g.name for g in decide(folder, content).grounds if not g.passed]
    assert failed == ["latency on few"]


def test_no_report_is_a_no(folder: Path) -> None:
    decision = decide(folder, None)
    assert not decision.promoted
    assert decision.report_sha256 is None


def test_changed_bytes_are_not_promoted(folder: Path) -> None:
    (folder / "new.onnx").write_bytes(placeholder_bytes())
    decision = decide(folder, evaluation(folder))
    assert [g.name for g in decision.grounds if not g.passed] == ["verified"]


def test_a_trust_policy_asks_as_of_a_default(folder: Path) -> None:
    pytest.importorskip("model_signing", reason="extra `sign` is not installed")
    (folder / "trust.json").write_text(
        '{"schema_version": 1, "roles": {"candidate": {"signed": false}}}'
    )
    decision = decide(folder, evaluation(folder))
    assert [g.name for g in decision.grounds if not g.passed] == ["verified"]


def test_a_policy_may_demand_a_trust_policy(folder: Path) -> None:
    path = folder / "promotion.toml"
    path.write_text("require_signature = true\n" + POLICY)
    assert not decide(folder, evaluation(folder)).promoted


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    before = (folder / "registry.json").read_bytes()
    assert decide(folder, evaluation(folder), dry_run=True).promoted
    assert (folder / "registry.json").read_bytes() == before


def test_a_first_own_default_must_beat_the_builtin_one(folder: Path) -> None:
    content = json.loads((folder / "registry.json").read_text())
    content["models"] = [m for m in content["models"] if m["id"] == "new"]
    (folder / "registry.json").write_text(json.dumps(content))
    decision = decide(folder, None)
    assert decision.default == "saliency_student_v4"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2}', "[" * 100_000])
def test_what_is_no_evaluation(folder: Path, text: str) -> None:
    report = folder.parent / "report.json"
    report.write_text(text)
    with pytest.raises(RegistryError):
        promote("new", folder, report=report)


@pytest.mark.parametrize(
    "text",
    ["", "x", POLICY + "more = 1", POLICY.replace("0.05", "0.5"), POLICY.replace("1.25", "0")],
)
def test_what_is_no_policy(folder: Path, text: str) -> None:
    policy = folder.parent / "p.toml"
    policy.write_text(text or "\n")
    with pytest.raises(UsageError, match="not a promotion policy"):
        promote("new", folder, report=None, policy=policy)


def test_only_own_candidates(folder: Path) -> None:
    for model_id, why in (("old", "production"), ("saliency_student_v3", "of its own")):
        with pytest.raises(RegistryError, match=why):
            promote(model_id, folder, report=None)


def test_the_builtin_policy_parses(tmp_path: Path) -> None:
    policy, digest = load_promotion_policy(None, tmp_path)
    assert policy.set[0].name == "ECSSD"
    assert len(digest) == 64


def test_the_command_explains(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = folder.parent / "report.json"
    report.write_text(json.dumps(evaluation(folder)))
    words = ["promote", "new", "--registry", str(folder), "--explain"]
    for extra, code, said in (
        ([], 1, "no  evaluation: no report"),
        (["--evaluation", str(report)], 0, "yes iou on few: +0.0500"),
    ):
        monkeypatch.setattr(sys, "argv", ["eyeline", "model", *words, *extra])
        with pytest.raises(SystemExit) as caught:
            main()
        assert int(caught.value.code or 0) == code
        assert said in capsys.readouterr().out
