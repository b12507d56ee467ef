"""The gate: a clear win passes; a tie, a gap in the evidence or a contradiction is a "no"."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from eyeline.admission.promote import load_promotion_policy, promote
from eyeline.cli import main
from eyeline.digests import sha256_hex
from eyeline.errors import RegistryError, UsageError
from eyeline.registry.records import Decision
from eyeline.registry.registry import Registry, read_registry
from tiny_models import PLACEHOLDER, plane_model, record_fields

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


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


def result(label: str, data: bytes, iou: float, mae: float, ms: float, folder: Path) -> dict:
    io = next(m.io for m in read_registry(folder).models if m.id == label)
    return {
        "model": label, "model_sha256": sha256_hex(data), "smoke": False,
        "io": io.model_dump(), "dataset": "few", "dataset_digest": SET, "size": "model",
        "latency_ms": ms, "parameters": 4, "working_size": [16, 16], "image_count": 9,
        "estimates": {"iou": estimate(iou), "mae": estimate(mae)},
    }  # fmt: skip


def evaluation(folder: Path) -> dict[str, Any]:
    """The new one wins: IoU +.05, MAE -.02, as fast."""
    content = {
        "schema_version": 1,
        "lower_is_better": ["mae"],
        "notes": [],
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
        ("results/1/dataset_digest", "b" * 64, "not evaluated on dataset"),
        ("results/1/model_sha256", "b" * 64, "not in the report"),
        ("results/0/model_sha256", "b" * 64, "not in the report"),
        ("results/1/size", 384, "own I/O spec"),
        ("results/1/io", {}, "own I/O spec"),
        ("results/1/smoke", True, "smoke-test model"),
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
    (folder / "new.onnx").write_bytes(PLACEHOLDER)
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
    for model_id, why in (("old", "production"), ("saliency_student_v3", "has no model")):
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
        ([], 1, "no  evaluation: no evaluation report"),
        (["--evaluation", str(report)], 0, "yes iou on few: +0.0500"),
    ):
        monkeypatch.setattr(sys, "argv", ["eyeline", "model", *words, *extra])
        with pytest.raises(SystemExit) as caught:
            main()
        assert int(caught.value.code or 0) == code
        assert said in capsys.readouterr().out


# --- the gate of gaze

GAZE_POLICY = f"""
schema_version = 1
significance = 0.05
[[better]]
measure = "information_gain"
margin = 0.0
against = "centre prior"
[[better]]
measure = "nss"
margin = 0.0
[[no_worse]]
measure = "cc"
margin = 0.02
[latency.reference]
name = "the yardstick"
sha256 = "{"c" * 64}"
ratio = 1.5
[[set]]
name = "clips"
digest = "{SET}"
"""


@pytest.fixture
def two_tasks(folder: Path, no_builtin_models: None) -> Path:
    """`eyes` is a candidate for gaze; `old` is the default for objects, and there is none for gaze."""
    content = json.loads((folder / "registry.json").read_text())
    (folder / "eyes.onnx").write_bytes(OTHER)
    (folder / "gazer.onnx").write_bytes(GAZER)
    io = {"working_lines": 16, "multiple": 1, "temporal_ms": 150}
    content["models"] += [
        record_fields("eyes", OTHER) | {"task": "gaze", "io": io},
        record_fields("gazer", GAZER) | {"task": "gaze"},
    ]
    content["schema_version"] = 3
    (folder / "registry.json").write_text(json.dumps(content))
    (folder / "promotion_gaze.toml").write_text(GAZE_POLICY)
    return folder


OTHER, GAZER = plane_model(gain=0.75), plane_model(gain=0.9)


def gaze_evaluation(folder: Path) -> dict[str, Any]:
    """`eyes` beats the centre prior and `gazer`, at 1.4 times the time of the yardstick."""

    def row(name: str, sha256: str | None, gain: float, nss: float, ms: float | None) -> dict:
        known = {m.id: m.io.model_dump() for m in read_registry(folder).models}
        return {
            "model": name, "baseline": sha256 is None, "model_sha256": sha256, "smoke": False,
            "io": known.get(name, {}) if sha256 else None,
            "dataset": "clips", "dataset_digest": SET, "size": "model" if sha256 else None,
            "latency_ms": ms, "parameters": None, "working_size": None,
            "estimates": {
                "information_gain": estimate(gain), "nss": estimate(nss), "cc": estimate(0.5),
            },
        }  # fmt: skip

    def compared(other: str, gain: float, nss: float) -> dict:
        return {
            "dataset": "clips", "model": "eyes", "other": other,
            "differences": {
                "information_gain": {"value": gain, "low": 0.1, "high": 1, "p_value": 0.001},
                "nss": {"value": nss, "low": 0.1, "high": 3, "p_value": 0.001},
                "cc": {"value": 0.0, "low": -0.01, "high": 0.01, "p_value": 1.0},
            },
        }  # fmt: skip

    return {
        "schema_version": 1,
        "lower_is_better": [],
        "notes": [],
        "results": [],
        "comparisons": [],
        "gaze": {
            "lower_is_better": ["kl"],
            "notes": [],
            "sets": [
                {
                    "dataset": "clips",
                    "digest": SET,
                    "kind": "videos",
                    "stimuli": 5,
                    "viewers": 32,
                    "fixations": 4167,
                    "temporal": "model",
                }
            ],
            "results": [
                row("eyes", sha256_hex(OTHER), 0.75, 3.0, 14.0),
                row("gazer", sha256_hex(GAZER), 0.25, 2.0, 14.0),
                row("yardstick", "c" * 64, -1.0, 1.0, 10.0),
                row("centre prior", None, 0.0, 1.5, None),
            ],
            "comparisons": [compared("gazer", 0.5, 1.0), compared("centre prior", 0.75, 1.5)],
        },
    }


def decide_gaze(folder: Path, content: dict[str, Any]) -> Decision:
    report = folder.parent / "gaze.json"
    report.write_text(json.dumps(content))
    return promote("eyes", folder, report=report)


def test_a_first_default_for_gaze_must_beat_the_centre_prior(two_tasks: Path) -> None:
    decision = decide_gaze(two_tasks, gaze_evaluation(two_tasks))
    assert (decision.promoted, decision.task, decision.default) == (True, "gaze", None)
    names = [g.name for g in decision.grounds]
    assert "information_gain against the centre prior on clips" in names
    assert "nss on clips" not in names  # there is nothing else to compare with
    assert roles(two_tasks) == {
        "old": "production", "new": "candidate", "eyes": "production", "gazer": "candidate",
    }  # fmt: skip
    assert Registry(two_tasks).default("gaze").id == "eyes"
    assert read_registry(two_tasks).decisions == [decision]


def test_the_next_default_for_gaze_must_also_beat_the_first(two_tasks: Path) -> None:
    content = json.loads((two_tasks / "registry.json").read_text())
    content["models"][3]["role"] = "production"
    (two_tasks / "registry.json").write_text(json.dumps(content))
    found = gaze_evaluation(two_tasks)
    worse = copy.deepcopy(found)
    worse["gaze"]["comparisons"][0]["differences"]["cc"]["low"] = -0.03
    decision = decide_gaze(two_tasks, worse)
    assert [g.name for g in decision.grounds if not g.passed] == ["cc on clips"]
    decision = decide_gaze(two_tasks, found)
    assert (decision.promoted, decision.default) == (True, "gazer")
    assert roles(two_tasks)["gazer"] == "candidate"
    assert roles(two_tasks)["old"] == "production"


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("gaze", None, "no fixation set"),
        ("gaze/sets/0/temporal", "none", "own temporal filter"),
        ("gaze/results/0/io", {"working_lines": 16, "multiple": 1}, "own I/O spec"),
        ("gaze/results/0/latency_ms", 15.1, "1.51 times that of the yardstick (budget 1.5)"),
        ("gaze/results/0/latency_ms", None, "no latency of the model"),
        ("gaze/results/2/model_sha256", "d" * 64, "the report has no latency of the yardstick"),
        ("gaze/results/3/model", "blob", "no results of the centre prior"),
        ("gaze/results/3/baseline", False, "no results of the centre prior"),
        ("gaze/comparisons/1/differences/information_gain/low", -0.1, "information_gain against"),
        ("gaze/comparisons/1/other", "uniform", "no paired comparison with centre prior"),
    ],
)
def test_every_gap_in_the_evidence_of_gaze_is_a_no(
    two_tasks: Path, path: str, value: object, why: str
) -> None:
    content = gaze_evaluation(two_tasks)
    change(path, value)(content)
    decision = decide_gaze(two_tasks, content)
    assert not decision.promoted
    assert why in " ".join(f"{g.name}: {g.detail}" for g in decision.grounds if not g.passed)
    assert roles(two_tasks)["eyes"] == "candidate"


def test_a_set_of_few_videos_decides_by_its_means(two_tasks: Path) -> None:
    """Two sets: images with significant differences, and clips whose intervals hold zero."""
    images = "b" * 64
    policy = (
        GAZE_POLICY
        + f"""mean_only = true
[[set]]
name = "images"
digest = "{images}"
fold = "report"
"""
    )
    (two_tasks / "promotion_gaze.toml").write_text(policy)
    content = gaze_evaluation(two_tasks)
    gaze = content["gaze"]
    more = copy.deepcopy(gaze)
    for row in [*more["results"], *more["comparisons"]]:
        row["dataset"] = "images"
        row["dataset_digest"] = images
    for c in gaze["comparisons"]:
        for d in c["differences"].values():
            d |= {"low": -2.0, "p_value": 0.07}
    gaze["results"] += more["results"]
    gaze["comparisons"] += more["comparisons"]
    gaze["sets"].append(gaze["sets"][0] | {"digest": images, "temporal": None, "fold": "report"})
    decision = decide_gaze(two_tasks, content)
    assert decision.promoted, [g for g in decision.grounds if not g.passed]
    (mean,) = [g for g in decision.grounds if g.name.endswith("centre prior on clips")]
    assert "the mean decides" in mean.detail


@pytest.mark.parametrize("fold", [None, "train"])
def test_another_fold_is_no_evidence(two_tasks: Path, fold: str | None) -> None:
    (two_tasks / "promotion_gaze.toml").write_text(GAZE_POLICY + 'fold = "report"')
    content = gaze_evaluation(two_tasks)
    content["gaze"]["sets"][0]["fold"] = fold
    decision = decide_gaze(two_tasks, content)
    assert not decision.promoted
    assert "not evaluated on the fold" in " ".join(g.detail for g in decision.grounds)


def test_one_fold_is_no_evidence_for_the_whole_set(two_tasks: Path) -> None:
    content = gaze_evaluation(two_tasks)
    content["gaze"]["sets"][0]["fold"] = "train"
    decision = decide_gaze(two_tasks, content)
    assert "not evaluated on the whole dataset" in " ".join(g.detail for g in decision.grounds)


def test_a_policy_needs_a_set_whose_intervals_count(two_tasks: Path) -> None:
    (two_tasks / "promotion_gaze.toml").write_text(GAZE_POLICY + "mean_only = true")
    with pytest.raises(UsageError, match="no confidence interval is tested"):
        decide_gaze(two_tasks, gaze_evaluation(two_tasks))


def test_the_builtin_policy_of_gaze_parses(tmp_path: Path) -> None:
    policy, _ = load_promotion_policy(None, tmp_path, "gaze")
    few = [s for s in policy.set if s.mean_only]
    assert [s.name for s in few] == ["hevc-dev"]  # five videos: p is never below 0.0625
    assert policy.significance < 2 * 2**-5
    assert {s.fold for s in policy.set if not s.mean_only} == {"report"}
    reference = policy.latency.reference
    assert reference is not None
    assert Registry().get(reference.name).sha256 == reference.sha256
