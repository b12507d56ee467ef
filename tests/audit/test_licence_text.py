"""Licence texts: a text is one known licence exactly, or it is unknown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.audit.licence_text import hint_codes, licences, match_text
from fake_upstream import APACHE, MIT, PLANTED


@pytest.mark.parametrize(
    "text",
    [
        APACHE,
        APACHE.replace("\n", "\r\n"),
        "\ufeff" + APACHE,
        "\n".join(line.strip() for line in APACHE.splitlines()),
        APACHE.upper(),
        APACHE.replace("[yyyy] [name of copyright owner]", "2020 Jane Example"),
        APACHE.partition("   APPENDIX")[0],
    ],
    ids=["as it is", "CRLF", "BOM", "no indent", "capitals", "owner filled in", "no appendix"],
)
def test_layouts_of_apache_are_apache(text: str) -> None:
    assert match_text(text).id == "Apache-2.0"


def test_mit_keeps_its_notice() -> None:
    match = match_text(MIT)
    assert match.id == "MIT"
    assert match.notices == ("Copyright (c) 2021 Jane Example",)


@pytest.mark.parametrize(
    "text",
    [
        MIT.replace("MIT License", ""),
        MIT.replace("MIT License", "The MIT License (MIT)"),
        MIT.replace('"', "”"),
        MIT.replace("notice shall", "notice (including the next paragraph) shall"),
    ],
    ids=["no title", "long title", "curly quotes", "next paragraph"],
)
def test_variants_that_spdx_names_are_mit(text: str) -> None:
    assert match_text(text).id == "MIT"


def test_a_clause_planted_in_apache_is_named_by_its_line() -> None:
    match = match_text(PLANTED)
    assert match.id is None
    assert match.nearest == "Apache-2.0"
    line = 1 + PLANTED[: PLANTED.index("2a.")].count("\n")
    assert line in [number for number, _ in match.foreign]
    assert any("commercial purposes" in words for _, words in match.foreign)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "Copyright (c) 2021 Jane Example",
            "Copyright (c) 2021 Jane Example, not for commercial use",
        ),
        ("MIT License", "MIT License for research only"),
        ("free of charge", "for a fee"),
        (
            "OR OTHER DEALINGS IN THE\nSOFTWARE.",
            "OR OTHER DEALINGS IN THE\nSOFTWARE.\n\nNo commercial use.",
        ),
    ],
    ids=["in the notice", "in the title", "changed words", "at the end"],
)
def test_mit_with_a_catch_is_not_mit(old: str, new: str) -> None:
    assert match_text(MIT.replace(old, new)).id is None


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(["not", "only", "except", "x", "2"]))
def test_one_more_word_makes_a_text_unknown(at: int, word: str) -> None:
    words = MIT.partition("Example\n")[2].split(" ")
    place = at % len(words)
    assert match_text(" ".join([*words[:place], word, *words[place:]])).id is None


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_one_word_less_makes_a_text_unknown(at: int) -> None:
    words = re.findall(r"\S+", APACHE.partition("APPENDIX")[0])
    place = at % len(words)
    if re.search(r"\w", words[place]) and not re.fullmatch(r"\(?\w{1,3}[.)]", words[place]):
        assert match_text(" ".join(words[:place] + words[place + 1 :])).id is None


def test_no_text_is_two_licences() -> None:
    digests = [d for licence in licences().values() for d in licence.digests]
    assert len(digests) == len(set(digests))
    assert len(licences()) > 50


def test_words_of_an_unknown_text_give_hints() -> None:
    assert hint_codes("Attribution-NonCommercial-ShareAlike 4.0 International") == ("NC", "SA")
    assert hint_codes(APACHE) == ()
