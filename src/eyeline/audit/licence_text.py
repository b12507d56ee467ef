"""Identify a licence text by comparing its words with those of known licences.

All words must be equal, so a text with an added clause is not identified. White space, punctuation, case,
list marks, the title and the copyright lines are ignored, as in the SPDX matching guidelines (list version
3). `tools/licence_table.py` writes `licences.json`, which contains the digests of the known texts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from eyeline.digests import sha256_hex

MAX_TEXT = 200_000
MAX_LINE = 20_000
"""Largest number of characters of a text and of a line; the longest known licence has 40,000."""

# A line with one of these words may be a term of the licence, so it is not ignored.
_TERMS = re.compile(
    r"\b(may|must|shall|should|not|non|no|only|use[ds]?|commercial\w*|noncommercial|research|academic|"
    r"permi\w+|prohibit\w*|except\w*|provided|forbid\w*|unless|without|distribut\w*|grant\w*)\b",
    re.IGNORECASE,
)
_NOTICE = re.compile(
    r"^\W*(?:(?:copyright\W*|\(c\)\s*|©\s*)+(?:\(?c\)|©|[\[<{(]?(?:year|yyyy|\d{4}))|"
    r"all rights reserved\W*$)",
    re.IGNORECASE,
)
_TITLE = re.compile(
    r"^\W*((the|an?)\s+)?[\w.,\-/()\" ']{0,70}\blicen[cs]es?\b[\w.,\-()\" ']{0,40}\W*$", re.I
)
_MARK = re.compile(r"^\s*(?:\(?(?:[0-9]{1,2}|[a-z]|[ivx]{1,4})[.)]|[-*•–])\s+", re.IGNORECASE)
_HOLDER = "neither the name of the copyright holder nor the names of its contributors"
_FILLED_HOLDER = re.compile(
    r"neither the names? of (?:the )?((?:\w+ ){1,8}?)nor the names of (?:its|their|the) contributors"
)
_HINTS = (
    (re.compile(r"\bnon-?\s?commercial\b", re.IGNORECASE), "NC"),
    (re.compile(r"\bshare-?\s?alike\b", re.IGNORECASE), "SA"),
    (re.compile(r"\bno-?\s?derivatives?\b", re.IGNORECASE), "ND"),
    (re.compile(r"\bgeneral public licen[cs]e\b|\bcopyleft\b", re.IGNORECASE), "COPYLEFT"),
)


@dataclass(frozen=True)
class KnownLicence:
    """A row of `licences.json`.

    `codes` are reasons against a release, such as `NC`; empty for a permissive licence. `digests` has one
    digest of the words per published version of the text. `sentences` are digests of single sentences.
    """

    id: str
    name: str
    codes: tuple[str, ...]
    digests: tuple[str, ...]
    sentences: frozenset[str]


@dataclass(frozen=True)
class TextMatch:
    """The result of identifying a licence text.

    Attributes:
        id: SPDX id; None if the text is not that of a known licence.
        notices: copyright lines of the text.
        nearest: if `id` is None, the licence that shares the most sentences with the text.
        foreign: (line number, sentence) of the sentences that the nearest licence does not have.
    """

    id: str | None
    notices: tuple[str, ...]
    nearest: str | None = None
    foreign: tuple[tuple[int, str], ...] = ()


@cache
def licences() -> dict[str, KnownLicence]:
    """Return the known licences by SPDX id."""
    rows = json.loads(Path(__file__).with_name("licences.json").read_text())
    return {
        r["id"]: KnownLicence(
            r["id"], r["name"], tuple(r["codes"]), tuple(r["digests"]), frozenset(r["sentences"])
        )
        for r in rows
    }


def match_text(text: str) -> TextMatch:
    """Identify the text of a LICENSE file."""
    if len(text) > MAX_TEXT or max(map(len, text.splitlines()), default=0) > MAX_LINE:
        return TextMatch(None, ())
    lines, notices = split_notices(text)
    digest = sha256_hex(normalised_words(lines).encode())
    for licence in licences().values():
        if digest in licence.digests:
            return TextMatch(licence.id, notices)
    sentences = split_sentences(lines)
    own = {sentence_digest(s) for _, s in sentences}
    shared = {
        i: len(own & k.sentences) / len(k.sentences) for i, k in licences().items() if k.sentences
    }
    nearest = max(shared, key=lambda i: shared[i])
    if shared[nearest] < 0.6:
        return TextMatch(None, notices)
    held = licences()[nearest].sentences
    foreign = tuple((n, s) for n, s in sentences if sentence_digest(s) not in held)
    return TextMatch(None, notices, nearest, foreign)


def hint_codes(text: str) -> tuple[str, ...]:
    """Return the reason codes that keywords of an unknown text suggest."""
    return tuple(code for pattern, code in _HINTS if pattern.search(text))


def split_notices(text: str) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    """Split a text into its lines with terms, with line numbers, and its copyright lines."""
    text = unicodedata.normalize("NFKC", text.removeprefix("\ufeff"))
    kept: list[tuple[int, str]] = []
    notices = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        plain = len(bare.split()) <= 20 and not _TERMS.search(bare)
        if plain and _NOTICE.match(bare):
            notices.append(bare)
        elif bare and not (plain and not kept and _TITLE.match(bare)):
            kept.append((number, _MARK.sub("", line)))
    return kept, tuple(notices)


def normalised_words(lines: list[tuple[int, str]]) -> str:
    """Return the words of a text as one line."""
    words = " ".join(re.findall(r"\w+", " ".join(line for _, line in lines).lower()))
    # BSD texts contain the name of the copyright holder in a clause, so replace the name.
    words = _FILLED_HOLDER.sub(lambda m: m[0] if _TERMS.search(m[1]) else _HOLDER, words)
    return re.sub(r"\bcopyright owners?\b", lambda m: m[0].replace("owner", "holder"), words)


def split_sentences(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return each sentence with the number of the line where it begins."""
    found, words, start = [], [], 0
    for number, line in lines:
        for piece in re.split(r"(?<=[.;:])\s+|(?<=[.;:])$", line.lower()):
            start = start or number
            words += re.findall(r"\w+", piece)
            if words and piece.rstrip().endswith((".", ";", ":")):
                found.append((start, " ".join(words)))
                words = []
            start = start if words else 0
    if words:
        found.append((start, " ".join(words)))
    return found


def sentence_digest(words: str) -> str:
    """Return a short digest of a sentence."""
    return sha256_hex(words.encode())[:10]
