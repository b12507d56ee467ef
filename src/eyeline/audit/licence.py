"""The licence axis: LICENSE text, README statements, NOTICE, and files with terms of their own.

What documents and source files *say* about terms: sentences, read for names and restrictions.

A statement never admits anything: only a licence text does. It can block: a README that says
"non-commercial" contradicts the LICENSE beside it, and the doubt is ours to lose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eyeline.audit.findings import AuditFinding, AxisReport, axis_report
from eyeline.audit.licence_text import TextMatch, hints, licences, match_text
from eyeline.audit.policy import AuditPolicy
from eyeline.audit.tree import Tree

MAX_STATEMENTS = 500
MAX_STATEMENT = 4000
"""Characters of a line that is read: a longer one is data, or there to keep a reader busy."""
_CC = re.compile(
    r"\bcc[\s-]?by(?P<tags>(?:[\s-](?:nc|sa|nd))*)(?:[\s-](?P<v>\d\.\d))?\b|"
    r"creativecommons\.org/licenses/by(?P<utags>(?:-(?:nc|sa|nd))*)/(?P<uv>\d\.\d)|"
    r"creative\s+commons\s+attribution(?P<words>(?:[\s-]*(?:non-?commercial|share-?alike|no-?deriv\w*))*)"
    r"(?:\s*(?P<wv>\d\.\d))?",
    re.IGNORECASE,
)
_NAMES: tuple[tuple[str, str], ...] = (
    (
        r"apache(?:[\s-]+(?:software[\s-]+)?licen[cs]e)?[\s,-]*(?:v(?:ersion)?[\s.]*)?2(?:\.0)?\b",
        "Apache-2.0",
    ),
    (
        r"\bmit[\s-]*(?:style\s+)?licen[cs]e|licen[cs]e[d\s:/-]+(?:under\s+)?(?:the\s+)?mit\b|licen[cs]e-mit\b",
        "MIT",
    ),
    (r"\bbsd[\s-]*3\b|\b3-clause\s+bsd|new\s+bsd", "BSD-3-Clause"),
    (r"\bbsd[\s-]*2\b|\b2-clause\s+bsd|simplified\s+bsd", "BSD-2-Clause"),
    (r"\bagpl|affero\s+general\s+public", "AGPL-3.0-only"),
    (r"\blgpl|lesser\s+general\s+public", "LGPL-3.0-only"),
    (r"(?<![al])\bgpl[\s-]*(?:v|version)?[\s-]*2\b", "GPL-2.0-only"),
    (
        r"(?<![al])\bgpl\b(?![\s-]*(?:v|version)?[\s-]*2\b)|gnu\s+general\s+public\s+licen[cs]e",
        "GPL-3.0-only",
    ),
    (r"\bmozilla\s+public\b|\bmpl[\s-]*2", "MPL-2.0"),
)
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
            tag
            for tag, word in (("nc", "noncommercial"), ("sa", "sharealike"), ("nd", "noderiv"))
            if tag in re.split(r"[\s-]", tags) or word in words
        ]
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
        if not bare or len(bare) > MAX_STATEMENT:
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
        if len(line) > MAX_STATEMENT:
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


_LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|unlicense)(?:[.-][\w.-]+)?$", re.IGNORECASE)
_NOTICE_FILE = re.compile(r"^notice(\.\w+)?$", re.IGNORECASE)
_DOCUMENT = re.compile(r"\.(md|rst|txt|markdown)$|^readme", re.IGNORECASE)
_SOURCE = re.compile(r"\.(py|c|cc|cpp|cu|h|hpp|m|ipynb)$", re.IGNORECASE)

_MEND = {
    "NC": "a written licence of the rights holder that allows commercial use",
    "SA": "a licence without share-alike, or a release under the same terms",
    "ND": "a licence that allows derivatives: an export is one",
    "COPYLEFT": "a permissive licence from the rights holder",
    "UNKNOWN": "have counsel read the text, then add it to the policy with a statement",
    "NO-LICENSE-FILE": "a LICENSE file in the upstream: without one all rights are reserved",
    "README-ONLY": "a LICENSE file in the upstream that says what its README says",
}


def is_document(path: str) -> bool:
    """Whether a path is a README or a text of the documentation."""
    name = path.rsplit("/", 1)[-1]
    inside = path.count("/") == 0 or path.split("/", maxsplit=1)[0].lower() in (
        "docs",
        "doc",
        ".github",
    )
    return bool(_DOCUMENT.search(name)) and inside and not _LICENCE_FILE.match(name)


def audit_licence(
    tree: Tree, policy: AuditPolicy, closure: frozenset[str] = frozenset()
) -> AxisReport:
    """Judge the terms of a tree.

    Args:
        tree: the upstream.
        policy: what is admitted.
        closure: source files that the net is made of; terms of other files are for review only.
    """
    findings: list[AuditFinding] = []
    texts = {
        p: t
        for p in tree.entries
        if _LICENCE_FILE.match(p.rsplit("/", 1)[-1]) and (t := tree.text(p))
    }
    root = {p: match_text(t) for p, t in texts.items() if "/" not in p}
    stated = [
        s for p in tree.entries if is_document(p) for s in read_statements(p, tree.text(p) or "")
    ]
    code = _judge_root(root, stated, policy, findings, tree)
    _judge_statements(stated, code, bool(root), findings)
    for path, text in texts.items():
        if "/" in path:
            _judge_folder(path, match_text(text), policy, closure, findings)
    exceptions = _judge_files(tree, code, policy, closure, findings)
    notices = [p for p in tree.entries if _NOTICE_FILE.match(p.rsplit("/", 1)[-1])]
    findings += [
        AuditFinding("note", "NOTICE", "a NOTICE file: its text travels with every copy", p)
        for p in notices
    ]
    weights = _judge_weights(tree, stated, code, policy, findings)
    named = code or _named(stated) or "none stated"
    return axis_report(
        "licence",
        named
        if code
        else f"{named}, {'in the README only' if _named(stated) else 'no LICENSE'}"
        if not root
        else "text is no known licence",
        findings,
        {
            "code": code,
            "weights": weights,
            "license_files": {
                p: {"spdx": m.id, "notices": list(m.notices), "sha256": tree.digest(p)}
                for p, m in root.items()
            },
            "statements": [
                {"where": s.where, "text": s.text, "names": list(s.ids), "about": s.subject}
                for s in stated
            ],
            "notice_files": {p: tree.digest(p) for p in notices},
            "file_terms": exceptions,
            "outbound": policy.outbound,
        },
    )


def _named(stated: list[Stated]) -> str | None:
    ids = [i for s in stated if s.subject in ("us", "unclear") for i in s.ids]
    return ids[0] if ids else None


def _judge_root(
    root: dict[str, TextMatch],
    stated: list[Stated],
    policy: AuditPolicy,
    findings: list[AuditFinding],
    tree: Tree,
) -> str | None:
    """SPDX id of the code, None when no text is a known one."""
    person = [s for s in policy.statement if s.upstream == tree.commit and s.covers != "weights"]
    if person:
        findings.append(
            AuditFinding("note", "STATEMENT", f"{person[0].license}: {person[0].evidence}")
        )
        return person[0].license
    if not root:
        code = "README-ONLY" if _named(stated) else "NO-LICENSE-FILE"
        text = (
            f"no LICENSE file: the README alone names {_named(stated)}"
            if code == "README-ONLY"
            else "no LICENSE file, and no document names a licence"
        )
        findings.append(AuditFinding("blocker", code, text, unblock=_MEND[code]))
        return None
    ids = []
    for path, match in root.items():
        if match.id is None:
            findings.append(_unknown(path, match))
            findings += [
                AuditFinding(
                    "blocker", c, "the words of the unknown text call for it", path, _MEND[c]
                )
                for c in hints(tree.text(path) or "")
            ]
            continue
        ids.append(match.id)
        name = licences()[match.id].name
        findings.append(
            AuditFinding("note", "LICENSE", f"the text is exactly {match.id} ({name})", path)
        )
        findings += [
            AuditFinding(
                "blocker", c, f"{match.id} is not admitted for {policy.outbound}", path, _MEND[c]
            )
            for c in policy.codes(match.id)
        ]
    if len(set(ids)) > 1:
        findings.append(
            AuditFinding(
                "blocker",
                "UNKNOWN",
                f"several licence texts ({', '.join(sorted(set(ids)))}): "
                "which one holds is not said",
                unblock=_MEND["UNKNOWN"],
            )
        )
    return ids[0] if ids and len(ids) == len(root) and len(set(ids)) == 1 else None


def _unknown(path: str, match: TextMatch) -> AuditFinding:
    if match.nearest is None:
        text = "the text is no licence of the SPDX list word by word"
    elif match.foreign:
        line, words = match.foreign[0]
        text = (
            f"reads like {match.nearest} but is not: line {line} has {len(match.foreign)} foreign "
            f'sentence(s), first "{words[:160]}"'
        )
        return AuditFinding("blocker", "UNKNOWN", text, f"{path}:{line}", _MEND["UNKNOWN"])
    else:
        text = f"reads like {match.nearest} but sentences of it are missing"
    return AuditFinding("blocker", "UNKNOWN", text, path, _MEND["UNKNOWN"])


def _judge_statements(
    stated: list[Stated], code: str | None, has_file: bool, findings: list[AuditFinding]
) -> None:
    """What documents say against the LICENSE, or without one."""
    for s in stated:
        codes = restriction_codes(s)
        quote = f'"{s.text}"'
        if codes and s.subject in ("us", "unclear"):
            # A bare hint without a subject stands beside a licence text for a person to read.
            named = any(i in licences() for i in s.ids)
            blocks = s.subject == "us" or named or not has_file
            findings += [
                AuditFinding(
                    "blocker" if blocks else "review",
                    c,
                    f"the document says {quote}",
                    s.where,
                    _MEND[c],
                )
                for c in codes
            ]
        elif codes:
            findings.append(
                AuditFinding("review", codes[0], f"about {s.subject}: {quote}", s.where)
            )
        elif code and s.ids and code not in s.ids and s.subject != "others":
            findings.append(
                AuditFinding(
                    "review",
                    "CONTRADICTION",
                    f"LICENSE is {code}, the document says {quote}",
                    s.where,
                )
            )


def _judge_folder(
    path: str,
    match: TextMatch,
    policy: AuditPolicy,
    closure: frozenset[str],
    findings: list[AuditFinding],
) -> None:
    """A LICENSE below the root holds for its folder."""
    folder = path.rsplit("/", 1)[0] + "/"
    used = any(p.startswith(folder) for p in closure)
    codes = policy.codes(match.id) if match.id else ("UNKNOWN",)
    text = f"{folder} has terms of its own: {match.id or 'a text that is no known licence'}"
    if not codes:
        findings.append(AuditFinding("note", "FILE-TERMS", text, path))
    for c in codes:
        findings.append(
            AuditFinding(
                "blocker" if used else "review",
                c,
                text + ("" if used else "; the net uses none of it"),
                path,
                _MEND[c] if used else "",
            )
        )


def _judge_files(
    tree: Tree,
    code: str | None,
    policy: AuditPolicy,
    closure: frozenset[str],
    findings: list[AuditFinding],
) -> dict[str, list[str]]:
    """Terms and foreign copyright lines in the heads of source files."""
    seen: dict[str, list[str]] = {}
    for path in tree.entries:
        if not _SOURCE.search(path):
            continue
        stated, notices = header_statements(path, tree.text(path) or "")
        if not stated and not notices:
            continue
        seen[path] = [*(s.text for s in stated), *notices]
        for s in stated:
            codes = restriction_codes(s)
            if "SPDX-License-Identifier" in s.text:
                codes = policy.judge(s.ids[0])
            used = path in closure
            if codes:
                findings += [
                    AuditFinding(
                        "blocker" if used else "review",
                        c,
                        f'the file says "{s.text}"',
                        s.where,
                        _MEND[c] if used else "",
                    )
                    for c in codes
                ]
            elif s.ids and code not in s.ids:
                findings.append(
                    AuditFinding(
                        "review" if used else "note",
                        "FILE-TERMS",
                        f'the file says "{s.text}"',
                        s.where,
                    )
                )
        if notices:
            findings.append(AuditFinding("note", "FILE-NOTICE", "; ".join(notices)[:200], path))
    return seen


def _judge_weights(
    tree: Tree,
    stated: list[Stated],
    code: str | None,
    policy: AuditPolicy,
    findings: list[AuditFinding],
) -> str | None:
    """SPDX id of the weights: a person's statement, a sentence about them, or the code's."""
    person = [s for s in policy.statement if s.upstream == tree.commit and s.covers != "code"]
    if person:
        findings.append(
            AuditFinding("note", "STATEMENT", f"weights: {person[0].license}: {person[0].evidence}")
        )
        return person[0].license
    spoken = [
        i
        for s in stated
        for i in s.ids
        if s.subject == "us"
        and re.search(r"weight|checkpoint|model", s.text, re.I)
        and i in licences()
    ]
    if spoken:
        return spoken[0]
    if policy.weights_without_statement == "deny":
        findings.append(
            AuditFinding(
                "blocker",
                "UNKNOWN",
                "no word about the weights' licence",
                unblock="a statement of the rights holder, recorded in the policy's [[statement]]",
            )
        )
        return None
    if code:
        findings.append(
            AuditFinding(
                "review", "WEIGHTS", f"no word about the weights: taken to follow the code ({code})"
            )
        )
    return code
