"""Licences: a text is one exactly or not at all; a document can block, never admit."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyeline.audit._licence import audit_licence, named_ids, read_statements
from eyeline.audit.records import AuditPolicy, load_policy
from eyeline.audit.tree import open_tree
from fake_upstream import APACHE, MIT, NET, PLANTED, README, make_checkout, write_files


@pytest.mark.parametrize(
    ("sentence", "ids"),
    [
        ("Released under CC BY-NC-SA 4.0.", ("CC-BY-NC-SA-4.0",)),
        (
            "the [Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International Public "
            "License](https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode)",
            ("CC-BY-NC-SA-4.0",),
        ),
        ("https://creativecommons.org/licenses/by-nd/3.0/", ("CC-BY-ND-3.0",)),
        ("licensed under the MIT license", ("MIT",)),
        ("https://img.shields.io/badge/license-MIT-blue", ("MIT",)),
        ("Apache License, Version 2.0", ("Apache-2.0",)),
        ("GNU General Public License v3", ("GPL-3.0-only",)),
        ("under LGPL", ("LGPL-3.0-only",)),
        ("We thank the committee of MIT for lunch", ()),
    ],
)
def test_licences_that_a_sentence_names(sentence: str, ids: tuple[str, ...]) -> None:
    assert named_ids(sentence) == ids


@pytest.mark.parametrize(
    ("sentence", "codes"),
    [
        ("The code is for NonCommercial use only.", ("NC",)),
        ("This model may not be used for commercial purposes.", ("NC",)),
        ("Please note the code can be only used for research purpose.", ("NC",)),
        ("For academic use only.", ("NC",)),
        ("The code is released under CC BY-SA 4.0.", ("SA",)),
        ("The code is licensed under GPL v2.", ("COPYLEFT",)),
        ("The code is under the MIT License.", ()),
    ],
)
def test_codes_of_a_sentence(sentence: str, codes: tuple[str, ...]) -> None:
    (stated,) = read_statements("README.md", f"# Title\n\n{sentence}\n")
    assert stated.codes() == codes
    assert stated.where == "README.md:3"


@pytest.mark.parametrize(
    ("sentence", "subject"),
    [
        ("The code is for research purposes only.", "us"),
        ("Their weights are for non-commercial use.", "others"),
        ("The dataset is for non-commercial use.", "data"),
        ("For non-commercial use.", "unclear"),
    ],
)
def test_whom_a_sentence_speaks_of(sentence: str, subject: str) -> None:
    (stated,) = read_statements("README.md", sentence)
    assert stated.subject == subject


# --- the axis


def codes(folder: Path, files: dict[str, str | bytes], policy: AuditPolicy | None = None,
          closure: tuple[str, ...] = ("model/tinynet.py",)) -> set[str]:  # fmt: skip
    """Codes that block a folder of files."""
    write_files(folder, {"model/tinynet.py": NET, **files})
    report = audit_licence(open_tree(folder), policy or load_policy(), frozenset(closure))
    return {f.code for f in report.blockers}


def test_a_clean_apache_upstream_is_not_blocked(tmp_path: Path) -> None:
    assert codes(tmp_path, {"LICENSE": APACHE, "README.md": README}) == set()


def test_without_license_and_word(tmp_path: Path) -> None:
    assert codes(tmp_path, {"README.md": README}) == {"NO-LICENSE-FILE"}


def test_a_readme_alone_never_admits(tmp_path: Path) -> None:
    assert codes(tmp_path, {"README.md": "The code is under the MIT License."}) == {"README-ONLY"}


def test_a_readme_alone_can_say_why_not(tmp_path: Path) -> None:
    text = "The code is released under CC BY-NC-SA 4.0."
    assert codes(tmp_path, {"README.md": text}) == {"README-ONLY", "NC", "SA"}


def test_a_readme_can_block_a_clean_license(tmp_path: Path) -> None:
    text = README + "\nThe weights are for non-commercial use only.\n"
    assert codes(tmp_path, {"LICENSE": MIT, "README.md": text}) == {"NC"}


def test_a_lying_readme_does_not_whiten_a_planted_clause(tmp_path: Path) -> None:
    text = "Licensed under the Apache License, Version 2.0."
    assert codes(tmp_path, {"LICENSE": PLANTED, "README.md": text}) >= {"UNKNOWN"}


def test_other_peoples_terms_in_a_readme_do_not_block(tmp_path: Path) -> None:
    text = "Thanks to the authors of X: their weights are for non-commercial use."
    assert codes(tmp_path, {"LICENSE": MIT, "README.md": text}) == set()


def test_copyleft_license(tmp_path: Path) -> None:
    text = "GNU GENERAL PUBLIC LICENSE\nVersion 3, with changes of ours"
    assert codes(tmp_path, {"LICENSE": text}) == {"UNKNOWN", "COPYLEFT"}


def test_two_licences_at_the_root_block(tmp_path: Path) -> None:
    assert codes(tmp_path, {"LICENSE": MIT, "LICENSE-2": APACHE}) == {"UNKNOWN"}


@pytest.mark.parametrize("used", [True, False], ids=["part of the net", "aside"])
def test_terms_of_single_files(tmp_path: Path, used: bool) -> None:
    files: dict[str, str | bytes] = {
        "LICENSE": MIT,
        "model/part.py": "# SPDX-License-Identifier: GPL-3.0-only\nx = 1\n",
    }
    closure = ("model/part.py",) if used else ()
    assert codes(tmp_path, files, closure=closure) == ({"COPYLEFT"} if used else set())


@pytest.mark.parametrize("used", [True, False], ids=["part of the net", "aside"])
def test_a_license_of_a_folder(tmp_path: Path, used: bool) -> None:
    files: dict[str, str | bytes] = {
        "LICENSE": MIT, "third/LICENSE": PLANTED, "third/part.py": "x = 1\n"
    }  # fmt: skip
    closure = ("third/part.py",) if used else ()
    assert codes(tmp_path, files, closure=closure) == ({"UNKNOWN"} if used else set())


def test_a_notice_file_is_reported_with_its_digest(tmp_path: Path) -> None:
    write_files(tmp_path, {"LICENSE": APACHE, "NOTICE": "TinyNet\nCopyright 2021 Jane Example\n"})
    report = audit_licence(open_tree(tmp_path), load_policy())
    assert list(report.facts["notice_files"]) == ["NOTICE"]  # type: ignore[call-overload]
    assert [f.where for f in report.findings if f.code == "NOTICE"] == ["NOTICE"]


def test_weights_without_a_word_follow_the_code_or_block(tmp_path: Path) -> None:
    strict = load_policy().model_copy(update={"weights_without_statement": "deny"})
    files: dict[str, str | bytes] = {"LICENSE": APACHE, "README.md": README}
    assert codes(tmp_path, files) == set()
    assert codes(tmp_path, files, strict) == {"UNKNOWN"}


def test_a_recorded_statement_holds_for_its_commit_only(tmp_path: Path) -> None:
    tree = open_tree(make_checkout(tmp_path / "up", {"README.md": README, "model/tinynet.py": NET}))
    row = {"covers": "both", "license": "MIT", "evidence": "letter of 2024-03-01"}
    for commit, blocked in ((tree.commit, False), ("0" * 40, True)):
        policy = AuditPolicy.model_validate(
            load_policy().model_dump() | {"statement": [row | {"upstream": commit}]}
        )
        assert bool(audit_licence(tree, policy).blockers) is blocked
