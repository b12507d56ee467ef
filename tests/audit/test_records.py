"""The policy: it refuses the licences that it does not list."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyeline.audit.records import load_policy
from eyeline.errors import LicenceError, UsageError


def test_the_default_policy_denies_what_it_does_not_name() -> None:
    policy = load_policy()
    assert policy.codes("MIT") == ()
    assert policy.codes("CC-BY-NC-SA-4.0") == ("NC", "SA")
    assert policy.codes("GPL-3.0-only") == ("COPYLEFT",)
    assert policy.codes("LicenseRef-Mine") == ("UNKNOWN",)


@pytest.mark.parametrize(
    ("expression", "codes"),
    [
        ("MIT", ()),
        ("MIT OR GPL-3.0-only", ()),
        ("MIT AND GPL-3.0-only", ("COPYLEFT",)),
        ("Apache-2.0 WITH LLVM-exception", ()),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ("COPYLEFT",)),
        ("CC-BY-NC-4.0 OR AGPL-3.0-only", ("NC", "COPYLEFT")),
    ],
)
def test_expressions(expression: str, codes: tuple[str, ...]) -> None:
    pytest.importorskip("license_expression")
    assert load_policy().judge(expression) == codes


def test_an_expression_that_is_none_is_one_line() -> None:
    pytest.importorskip("license_expression")
    with pytest.raises(LicenceError, match="not an SPDX expression"):
        load_policy().judge("MIT AND AND")


@pytest.mark.parametrize(
    "text",
    ["outbound = 3", "outbound = 'MIT'\nallow_all = true", "not toml ["],
    ids=["type", "key", "form"],
)
def test_a_policy_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(UsageError, match="not an audit policy") as caught:
        load_policy(tmp_path / "p.toml")
    assert "\n" not in str(caught.value)
