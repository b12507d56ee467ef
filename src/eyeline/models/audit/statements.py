"""What documents and source files *say* about terms: sentences, read for names and restrictions.

A statement never admits anything: only a licence text does. It can block: a README that says
"non-commercial" contradicts the LICENSE beside it, and the doubt is ours to lose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eyeline.models.audit.licence_text import licences

MAX_STATEMENTS = 500
MAX_LINE = 4000
"""Characters of a line that is read: a longer one is data, or there to keep a reader busy."""
_CC = re.compile(
    r"\bcc[\s-]?by(?P<tags>(?:[\s-](?:nc|sa|nd))*)(?:[\s-](?P<v>\d\.\d))?\b|"
    r"creativecommons\.org/licenses/by(?P<utags>(?:-(?:nc|sa|nd))*)/(?P<uv>\d\.\d)|"
    r"creative\s+commons\s+attribution(?P<words>(?:[\s-]*(?:non-?commercial|share-?alike|no-?deriv\w*))*)"
    r"(?:\s*(?P<wv>\d\.\d))?",
    re.IGNORECASE,
)
_NAMES: tuple[tuple[str, str], ...] = (
    (r"apache(?:[\s-]+(?:software[\s-]+)?licen[cs]e)?[\s,-]*(?:v(?:ersion)?[\s.]*)?2(?:\.0)?\b",
     "Apache-2.0"),
    (r"\bmit[\s-]*(?:style\s+)?licen[cs]e|licen[cs]e[d\s:/-]+(?:under\s+)?(?:the\s+)?mit\b|licen[cs]e-mit\b",
     "MIT"),
    (r"\bbsd[\s-]*3\b|\b3-clause\s+bsd|new\s+bsd", "BSD-3-Clause"),
    (r"\bbsd[\s-]*2\b|\b2-clause\s+bsd|simplified\s+bsd", "BSD-2-Clause"),
    (r"\bagpl|affero\s+general\s+public", "AGPL-3.0-only"),
    (r"\blgpl|lesser\s+general\s+public", "LGPL-3.0-only"),
    (r"(?<![al])\bgpl[\s-]*(?:v|version)?[\s-]*2\b", "GPL-2.0-only"),
    (r"(?<![al])\bgpl\b(?![\s-]*(?:v|version)?[\s-]*2\b)|gnu\s+general\s+public\s+licen[cs]e",
     "GPL-3.0-only"),
    (r"\bmozilla\s+public\b|\bmpl[\s-]*2", "MPL-2.0"),
)  # fmt: skip
_NAME_PATTERNS = tuple((re.compile(p, re.IGNORECASE), spdx) for p, spdx in _NAMES)
_RESTRICTION = re.compile(
    r"\bnon-?\s?commercial\b|\bnoncommercial\b|\bno\s+commercial\b|"
    r"\bnot\s+(?:be\s+)?(?:used?\s+)?(?:for\s+)?commercial|\bcommercial\s+use\s+is\s+(?:not|prohibited|forbidden)|"
    r"\b(?:only|solely|exclusively)\b[^.]{0,40}\b(?:research|academic|educational)\b|"
    r"\b(?:research|academic|educational)\s+(?:purposes?|use)\s+only\b",
    re.IGNORECASE,
)
_TAG = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+\-() ]{2,120})")
_ABOUT_US = re.compile(
    r"\b(code|model|models|weights?|checkpoints?|repo\w*|project|software|this work)\b", re.I
)
_ABOUT_DATA = re.compile(r"\b(datasets?|data|images|annotations?|benchmark)\b", re.I)
_ABOUT_OTHERS = re.compile(
    r"\btheir\b|\bthanks?\b|\bthird[\s-]party\b|\backnowledg|\bfollowing\b.*\bprojects?\b", re.I
)


@dataclass(frozen=True)
class Stated:
    """A sentence about terms.

    Attributes:
        path: file.
        line: 1-based.
        text: the sentence, on one line, at most 240 characters.
        ids: SPDX ids or expressions that it names.
        restricts: whether it takes away commercial use.
        subject: what it speaks of: `us` (code or weights here), `data`, `others`, or `unclear`.
    """

    path: str
    line: int
    text: str
    ids: tuple[str, ...]
    restricts: bool
    subject: str

    @property
    def where(self) -> str:
        """`path:line`."""
        return f"{self.path}:{self.line}"


def named_ids(text: str) -> tuple[str, ...]:
    """SPDX ids that a sentence names, in its order of kinds."""
    found = []
    for match in _CC.finditer(text):
        tags = (match["tags"] or match["utags"] or "").lower()
        words = (match["words"] or "").lower().replace("-", "")
        parts = [
            tag for tag, word in (("nc", "noncommercial"), ("sa", "sharealike"), ("nd", "noderiv"))
            if tag in re.split(r"[\s-]", tags) or word in words
        ]  # fmt: skip
        version = match["v"] or match["uv"] or match["wv"] or "4.0"
        found.append("-".join(["CC-BY", *(p.upper() for p in parts), version]))
    found += [spdx for pattern, spdx in _NAME_PATTERNS if pattern.search(text)]
    return tuple(dict.fromkeys(found))


def read_statements(path: str, text: str) -> list[Stated]:
    """Sentences of a document that name a licence or restrict use."""
    found: list[Stated] = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if len(found) > MAX_STATEMENTS:
            break
        if not bare or len(bare) > MAX_LINE:
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\[*])", bare):
            stated = _stated(path, number, sentence)
            if stated:
                found.append(stated)
    return found


def _stated(path: str, number: int, sentence: str) -> Stated | None:
    ids = named_ids(sentence)
    restricts = bool(_RESTRICTION.search(sentence))
    speaks = re.search(r"licen[cs]|creative\s*commons|\bcc[\s-]by|released under", sentence, re.I)
    if not restricts and not (ids and speaks):
        return None
    if _ABOUT_OTHERS.search(sentence):
        subject = "others"
    elif _ABOUT_US.search(sentence):
        subject = "us"
    elif _ABOUT_DATA.search(sentence):
        subject = "data"
    else:
        subject = "unclear"
    shown = " ".join(re.sub(r"<[^>]{0,300}>", " ", sentence).split()) or " ".join(sentence.split())
    return Stated(path, number, shown[:240], ids, restricts, subject)


def header_statements(path: str, text: str) -> tuple[list[Stated], list[str]]:
    """Statements and copyright lines of a source file's first 60 lines."""
    head = "\n".join(text.splitlines()[:60])
    found, notices = [], []
    for number, line in enumerate(head.splitlines(), 1):
        if len(line) > MAX_LINE:
            continue
        tag = _TAG.search(line)
        if tag:
            found.append(Stated(path, number, line.strip()[:240], (tag[1].strip(),), False, "us"))
            continue
        if not line.lstrip().startswith(("#", "//", "*", "/*", '"', "'", "%")) and number > 30:
            continue
        if re.search(r"copyright\s*(\(c\)|©|\d{4})", line, re.I):
            notices.append(line.strip(" \t#/*%\"'")[:200])
        stated = _stated(path, number, line.strip(" \t#/*%\"'"))
        if stated:
            found.append(stated)
    return found, notices


def restriction_codes(stated: Stated) -> tuple[str, ...]:
    """What a statement holds against shipping: codes of the licences it names, `NC` if it restricts."""
    table = licences()
    named = [code for i in stated.ids if i in table for code in table[i].codes]
    return tuple(dict.fromkeys([*named, *(["NC"] if stated.restricts else [])]))
