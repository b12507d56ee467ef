"""Which licence a text *is*: equality of its words with a canonical text, never likeness.

A text's words are its letters and digits in order, lower case: white space, punctuation, list marks,
the title and the copyright lines aside (the SPDX matching guidelines, list version 3, ignore the
same). Nothing else is ignored, so a planted clause makes a text unknown. `licences.json` holds digests
of the canonical words, made by

    python -m eyeline.audit.licence_text FOLDER ... > src/eyeline/audit/licences.json

from folders of texts, one `ID.txt` or one `ID.json` with `licenseText` a licence: the SPDX licence list,
and the layouts in which choosealicense.com and Creative Commons publish the same licences.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent / "licences.json"

MAX_TEXT = 200_000
MAX_LINE = 20_000
"""Characters of a text and of a line: the longest licence here has 40,000 in all."""

# A line that holds one of these is no mere notice or title, whatever it begins with.
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
_FILLED_NAME = re.compile(
    r"neither the names? of (?:the )?((?:\w+ ){1,8}?)nor the names of (?:its|their|the) contributors"
)


@dataclass(frozen=True)
class Licence:
    """A row of `licences.json`.

    Attributes:
        id: SPDX id.
        name: its full name.
        codes: what a policy may hold against it: `NC`, `SA`, `ND`, `COPYLEFT`; none if permissive.
        digests: sha256 of the canonical words, one a layout.
        sentences: short digests of its sentences, for telling what was changed.
    """

    id: str
    name: str
    codes: tuple[str, ...]
    digests: tuple[str, ...]
    sentences: frozenset[str]


@dataclass(frozen=True)
class TextMatch:
    """What a licence text is.

    Attributes:
        id: SPDX id, None when it is none exactly.
        notices: the copyright lines, as they stand.
        nearest: id that shares most of its sentences when there is no match; never a match.
        foreign: sentences that the nearest does not hold, with their line numbers.
    """

    id: str | None
    notices: tuple[str, ...]
    nearest: str | None = None
    foreign: tuple[tuple[int, str], ...] = ()


@cache
def licences() -> dict[str, Licence]:
    """The table, by SPDX id."""
    rows = json.loads(DATA.read_text())
    return {
        r["id"]: Licence(
            r["id"], r["name"], tuple(r["codes"]), tuple(r["digests"]), frozenset(r["sentences"])
        )
        for r in rows
    }


def match_text(text: str) -> TextMatch:
    """Say which licence a text is.

    Args:
        text: content of a LICENSE file.
    """
    if len(text) > MAX_TEXT or max(map(len, text.splitlines()), default=0) > MAX_LINE:
        return TextMatch(None, ())
    lines, notices = _terms(text)
    digest = _digest(_words(lines))
    for licence in licences().values():
        if digest in licence.digests:
            return TextMatch(licence.id, notices)
    sentences = _sentences(lines)
    own = {_short(s) for _, s in sentences}
    shared = {
        i: len(own & k.sentences) / len(k.sentences) for i, k in licences().items() if k.sentences
    }
    nearest = max(shared, key=lambda i: shared[i], default=None)
    if nearest is None or shared[nearest] < 0.6:
        return TextMatch(None, notices)
    held = licences()[nearest].sentences
    foreign = tuple((n, s) for n, s in sentences if _short(s) not in held)
    return TextMatch(None, notices, nearest, foreign)


_KIND_WORDS = (
    (re.compile(r"\bnon-?\s?commercial\b", re.IGNORECASE), "NC"),
    (re.compile(r"\bshare-?\s?alike\b", re.IGNORECASE), "SA"),
    (re.compile(r"\bno-?\s?derivatives?\b", re.IGNORECASE), "ND"),
    (re.compile(r"\bgeneral public licen[cs]e\b|\bcopyleft\b", re.IGNORECASE), "COPYLEFT"),
)


def hints(text: str) -> tuple[str, ...]:
    """Reason codes that the words of an unknown text call for, beside `UNKNOWN`."""
    return tuple(code for pattern, code in _KIND_WORDS if pattern.search(text))


def _terms(text: str) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    """Numbered lines that carry terms, and the copyright lines taken out."""
    text = unicodedata.normalize("NFKC", text.removeprefix("\ufeff"))
    kept: list[tuple[int, str]] = []
    notices = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not bare:
            continue
        plain = len(bare.split()) <= 20 and not _TERMS.search(bare)
        if plain and _NOTICE.match(bare):
            notices.append(bare)
        elif plain and not kept and _TITLE.match(bare):
            continue
        else:
            kept.append((number, _MARK.sub("", line)))
    return kept, tuple(notices)


def _words(lines: list[tuple[int, str]]) -> str:
    words = " ".join(re.findall(r"\w+", " ".join(line for _, line in lines).lower()))
    # BSD texts name the holder inside a clause: a slot of the template, filled in many ways.
    words = _FILLED_NAME.sub(
        lambda m: (
            m[0]
            if _TERMS.search(m[1])
            else "neither the name of the copyright holder nor the names of its contributors"
        ),
        words,
    )
    return re.sub(r"\bcopyright owners?\b", lambda m: m[0].replace("owner", "holder"), words)


def _sentences(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Sentences as words, each with the line where it begins."""
    found, words, start = [], [], 0
    for number, line in lines:
        for piece in re.split(r"(?<=[.;:])\s+|(?<=[.;:])$", line.lower()):
            start = start or number
            words += re.findall(r"\w+", piece)
            if words and piece.rstrip().endswith((".", ";", ":")):
                found.append((start, " ".join(words)))
                words, start = [], 0
            elif not words:
                start = 0
    if words:
        found.append((start, " ".join(words)))
    return found


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()


def _short(words: str) -> str:
    return _digest(words)[:10]


# Ids that code and weights are met under, by what a policy may hold against them.
_PERMISSIVE = (
    "0BSD AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent "
    "BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause BSL-1.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 ECL-2.0 HPND ISC "
    "MIT MIT-0 MulanPSL-2.0 NCSA PostgreSQL PSF-2.0 Python-2.0 Unlicense UPL-1.0 WTFPL X11 Zlib libpng-2.0"
)
_KINDS: dict[str, str] = {
    "": _PERMISSIVE,
    "COPYLEFT": "AGPL-3.0-only CDDL-1.0 EPL-1.0 EPL-2.0 EUPL-1.2 GPL-2.0-only GPL-3.0-only LGPL-2.1-only "
    "LGPL-3.0-only MPL-1.1 MPL-2.0 OSL-3.0",
    "SA": "CC-BY-SA-3.0 CC-BY-SA-4.0",
    "ND": "CC-BY-ND-3.0 CC-BY-ND-4.0",
    "NC": "CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 PolyForm-Noncommercial-1.0.0",
    "NC SA": "CC-BY-NC-SA-2.0 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0",
    "NC ND": "CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0",
}
_WITH_SENTENCES = "Apache-2.0 BSD-2-Clause BSD-3-Clause ISC MIT Zlib BSL-1.0 CC-BY-4.0 CC0-1.0"


def build_table(folders: list[Path]) -> list[dict[str, object]]:
    """The rows of `licences.json` from folders of canonical texts; an id needs one of them."""
    rows: list[dict[str, object]] = []
    for codes, ids in _KINDS.items():
        for spdx in ids.split():
            digests, name, sentences = set(), spdx, set()
            for text, title in _canonical(folders, spdx):
                lines, _ = _terms(text)
                digests |= {_digest(words) for words in _layouts(spdx, _words(lines))}
                name = title or name
                if spdx in _WITH_SENTENCES.split():
                    sentences |= {_short(s) for _, s in _sentences(lines)}
            rows.append(
                {
                    "id": spdx,
                    "name": name,
                    "codes": codes.split(),
                    "digests": sorted(digests),
                    "sentences": sorted(sentences),
                }
            )
    return sorted(rows, key=lambda r: str(r["id"]))


def _layouts(spdx: str, words: str) -> set[str]:
    """A text, and the same without or with what its SPDX template marks as optional."""
    found = {words}
    end = "end of terms and conditions"
    if f" {end}" in words:
        found.add(words.partition(f" {end}")[0] + f" {end}")
    if spdx == "MIT":
        paragraph = "this permission notice including the next paragraph shall"
        found.add(words.replace("this permission notice shall", paragraph))
    return found


def _canonical(folders: list[Path], spdx: str) -> list[tuple[str, str]]:
    """Texts of an id, each with the licence's name where the folder tells it."""
    found = []
    for folder in folders:
        plain, structured = folder / f"{spdx}.txt", folder / f"{spdx}.json"
        if structured.is_file():
            fields = json.loads(structured.read_text())
            found.append((fields["licenseText"], fields["name"]))
        elif plain.is_file():
            found.append((plain.read_text(), ""))
    if not found:
        raise FileNotFoundError(f"no text of {spdx}")
    return found


if __name__ == "__main__":
    rows = [json.dumps(r) for r in build_table([Path(a) for a in sys.argv[1:]])]
    sys.stdout.write("[\n" + ",\n".join(rows) + "\n]\n")
