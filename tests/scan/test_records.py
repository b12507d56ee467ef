"""The policy: every row has a reason, and a mistake in a policy file is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyeline.errors import UsageError
from eyeline.scan import load_policy, scan
from eyeline.scan.records import BUILTIN_POLICY
from hostile import node
from tiny_models import conv, make_model, plane_weights


def test_every_row_of_the_policy_has_a_reason() -> None:
    policy = load_policy()
    assert len(policy.ops) > 40
    assert all(len(rule.reason) > 8 for rule in policy.ops.values())
    for op in ("If", "Loop", "Scan", "SequenceMap", "Expand", "Tile", "Mod"):
        assert op not in policy.ops


def test_a_policy_of_ones_own_takes_an_op_away(tmp_path: Path) -> None:
    text = BUILTIN_POLICY.read_text()
    start = text.index('[[op]]\ntype = "Sigmoid"')
    own = tmp_path / "own.toml"
    own.write_text(text[:start] + text[text.index("[[op]]", start + 6) :])
    model = make_model(
        [conv(target="y"), node("Sigmoid", ["y"], ["saliency_map"])], plane_weights((1, 0, 0))
    )
    assert scan(model, load=False).admitted
    report = scan(model, load_policy(own), load=False)
    assert [(f.code, f.op_type) for f in report.findings] == [("op", "Sigmoid")]
    assert report.policy["sha256"] != scan(model, load=False).policy["sha256"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_rank = 8", "max_rank = 'eight'"),
        ("max_rank = 8", ""),
        ("max_rank = 8", "max_rank = 8\nmax_fun = 1"),
        ("opsets = [11, 24]", "opsets = 11"),
        ("sizes = [[1088, 1920], [1920, 1088], [192, 320], [64, 64]]", "sizes = []"),
        ('type = "float64"', 'type = "float8"'),
        ('type = "Tanh"', 'type = "Loop"'),
        ("axis = { min = -8, max = 7 }", "axis = { least = 0 }"),
        ('name = "eyeline-saliency"', "name = ["),
    ],
)
def test_a_policy_with_a_mistake_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = BUILTIN_POLICY.read_text()
    assert old in text
    (tmp_path / "p.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_policy(tmp_path / "p.toml")
    assert "p.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_policy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        load_policy(tmp_path / "none.toml")
