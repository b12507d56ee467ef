"""The licence check: LICENSE texts, statements in documents, NOTICE files, and terms of single files.

Only a licence text can allow a release; a statement in a document can't. A statement can block a release:
a README that says "non-commercial" contradicts a permissive LICENSE, and in doubt the audit blocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eyeline.audit.licence_text import TextMatch, hint_codes, licences, match_text
from eyeline.audit.records import (
    UNBLOCK,
    WORDS,
    AuditPolicy,
    AxisFindings,
    AxisReport,
    LicenceEvidence,
    Severity,
)
from eyeline.audit.tree import Tree

MAX_STATEMENTS = 500
MAX_STATEMENT = 4000
"""Largest number of characters of a line; longer lines are data or an attack, and are skipped."""
_CC = re.compile(
    r"\bcc[\s-]?by(?P<tags>(?:[\s-](?:nc|sa|nd))*)(?:[\s-](?P<v>\d\.\d))?\b|"
    r"creativecommons\.org/licenses/by(?P<utags>(?:-(?:nc|sa|nd))*)/(?P<uv>\d\.\d)|"
    r"creative\s+commons\s+attribution(?P<words>(?:[\s-]*(?:non-?commercial|share-?alike|no-?deriv\w*))*)"
    r"(?:\s*(?P<wv>\d\.\d))?",
    re.IGNORECASE,
)
_NAMES = {spdx: re.compile(p, re.IGNORECASE) for spdx, p in WORDS["licence_names"].items()}
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
_ABOUT_TERMS = re.compile(r"licen[cs]|creative\s*commons|\bcc[\s-]by|released under", re.I)


@dataclass(frozen=True)
class LicenceStatement:
    """A sentence about licence terms in a document or source file.

    `where` is `path:line`. `ids` are the SPDX ids or expressions that the sentence names. `restricts` is
    true if the sentence forbids commercial use. `subject` is `us` (code or weights of this upstream),
    `data`, `others`, or `unclear`.
    """

    where: str
    text: str
    ids: tuple[str, ...]
    restricts: bool
    subject: str

    def codes(self) -> tuple[str, ...]:
        """Return the reason codes of the licences that a sentence names, and `NC` if it restricts use."""
        named = [code for i in self.ids if i in licences() for code in licences()[i].codes]
        return tuple(dict.fromkeys([*named, *(["NC"] if self.restricts else [])]))


def named_ids(text: str) -> tuple[str, ...]:
    """Return the SPDX ids that a sentence names."""
    found = []
    for match in _CC.finditer(text):
        tags = re.split(r"[\s-]", (match["tags"] or match["utags"] or "").lower())
        words = (match["words"] or "").lower().replace("-", "")
        kinds = (("nc", "noncommercial"), ("sa", "sharealike"), ("nd", "noderiv"))
        parts = [tag.upper() for tag, word in kinds if tag in tags or word in words]
        version = match["v"] or match["uv"] or match["wv"] or "4.0"
        found.append("-".join(["CC-BY", *parts, version]))
    found += [spdx for spdx, pattern in _NAMES.items() if pattern.search(text)]
    return tuple(dict.fromkeys(found))


def read_statements(path: str, text: str) -> list[LicenceStatement]:
    """Return the sentences of a document that name a licence or restrict use."""
    found: list[LicenceStatement] = []
    for number, line in enumerate(text.splitlines(), 1):
        if len(found) > MAX_STATEMENTS:
            break
        bare = line.strip()
        if bare and len(bare) <= MAX_STATEMENT:
            sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z\[*])", bare)
            found += [s for x in sentences if (s := _statement(f"{path}:{number}", x))]
    return found


def _statement(where: str, sentence: str) -> LicenceStatement | None:
    ids = named_ids(sentence)
    restricts = bool(_RESTRICTION.search(sentence))
    if not restricts and not (ids and _ABOUT_TERMS.search(sentence)):
        return None
    subjects = (("others", _ABOUT_OTHERS), ("us", _ABOUT_US), ("data", _ABOUT_DATA))
    subject = next((name for name, words in subjects if words.search(sentence)), "unclear")
    shown = " ".join(re.sub(r"<[^>]{0,300}>", " ", sentence).split()) or " ".join(sentence.split())
    return LicenceStatement(where, shown[:240], ids, restricts, subject)


def _header_statements(path: str, text: str) -> tuple[list[LicenceStatement], list[str]]:
    found, notices = [], []
    for number, line in enumerate(text.splitlines()[:60], 1):
        where = f"{path}:{number}"
        if len(line) > MAX_STATEMENT:
            continue
        if tag := _TAG.search(line):
            ids = (tag[1].strip(),)
            found.append(LicenceStatement(where, line.strip()[:240], ids, False, "us"))
            continue
        if not line.lstrip().startswith(("#", "//", "*", "/*", '"', "'", "%")) and number > 30:
            continue
        bare = line.strip(" \t#/*%\"'")
        if re.search(r"copyright\s*(\(c\)|©|\d{4})", line, re.I):
            notices.append(bare[:200])
        if statement := _statement(where, bare):
            found.append(statement)
    return found, notices


_LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|unlicense)(?:[.-][\w.-]+)?$", re.IGNORECASE)
_NOTICE_FILE = re.compile(r"^notice(\.\w+)?$", re.IGNORECASE)
_DOCUMENT = re.compile(r"\.(md|rst|txt|markdown)$|^readme", re.IGNORECASE)
_SOURCE = re.compile(r"\.(py|c|cc|cpp|cu|h|hpp|m|ipynb)$", re.IGNORECASE)


def is_document(path: str) -> bool:
    """Return whether a path is a README or another documentation file."""
    folder, _, name = path.rpartition("/")
    documented = not folder or folder.split("/")[0].lower() in ("docs", "doc", ".github")
    return bool(_DOCUMENT.search(name)) and documented and not _LICENCE_FILE.match(name)


def audit_licence(
    tree: Tree, policy: AuditPolicy, closure: frozenset[str] = frozenset()
) -> AxisReport:
    """Check the licence terms of a tree; only source files in `closure` can block a release."""
    return _LicenceAudit(tree, policy, closure).report()


class _LicenceAudit:
    def __init__(self, tree: Tree, policy: AuditPolicy, closure: frozenset[str]) -> None:
        self.tree, self.policy, self.closure = tree, policy, closure
        self.findings = AxisFindings()
        documents = ((p, tree.text(p) or "") for p in tree.entries if is_document(p))
        self.statements = [s for p, text in documents for s in read_statements(p, text)]

    def report(self) -> AxisReport:
        tree, policy = self.tree, self.policy
        names = {p: p.rsplit("/", 1)[-1] for p in tree.entries}
        found = {p: tree.text(p) for p, name in names.items() if _LICENCE_FILE.match(name)}
        texts = {p: text for p, text in found.items() if text}
        matches = {p: match_text(text) for p, text in texts.items()}
        root = {p: match for p, match in matches.items() if "/" not in p}
        ours = (s for s in self.statements if s.subject in ("us", "unclear"))
        named = next((i for s in ours for i in s.ids), None)
        code = self.judge_root(root, texts, named)
        self.judge_statements(code, has_file=bool(root))
        for path, match in matches.items():
            if path not in root:
                self.judge_folder(path, match)
        file_terms = self.judge_files(code)
        notices = [p for p, name in names.items() if _NOTICE_FILE.match(name)]
        for p in notices:
            self.findings.note("NOTICE", "a NOTICE file: its text must travel with every copy", p)
        weights = self.judge_weights(code)
        summary = code or "the text is not a known licence"
        if not code and not root:
            summary = f"{named}, in the README only" if named else "none stated, no LICENSE"
        facts: dict[str, object] = {
            "code": code,
            "weights": weights,
            "license_files": {
                p: {"spdx": m.id, "notices": list(m.notices), "sha256": tree.digest(p)}
                for p, m in root.items()
            },
            "statements": [
                {"where": s.where, "text": s.text, "names": list(s.ids), "about": s.subject}
                for s in self.statements
            ],
            "notice_files": {p: tree.digest(p) for p in notices},
            "file_terms": file_terms,
            "outbound": policy.outbound,
        }
        return self.findings.report("licence", summary, facts)

    def evidence(self, other: str) -> LicenceEvidence | None:
        """Return the licence that a person confirmed, unless this covers only the part `other`."""
        rows = self.policy.statement
        return next((s for s in rows if s.upstream == self.tree.commit and s.covers != other), None)

    def judge_root(
        self, root: dict[str, TextMatch], texts: dict[str, str], named: str | None
    ) -> str | None:
        """Return the SPDX id of the code; None unless exactly one known licence text exists."""
        findings = self.findings
        if evidence := self.evidence("weights"):
            findings.note("STATEMENT", f"{evidence.license}: {evidence.evidence}")
            return evidence.license
        if not root:
            code = "README-ONLY" if named else "NO-LICENSE-FILE"
            beside = f"only the README names {named}" if named else "no document names a licence"
            findings.block(code, f"there is no LICENSE file, and {beside}")
        for path, match in root.items():
            if match.id is None:
                findings.block("UNKNOWN", *_difference(path, match))
                for c in hint_codes(texts[path]):
                    findings.block(c, "the words of the unknown text suggest it", path)
                continue
            name = licences()[match.id].name
            findings.note("LICENSE", f"the text is exactly {match.id} ({name})", path)
            for c in self.policy.codes(match.id):
                findings.block(c, f"{match.id} is not admitted for {self.policy.outbound}", path)
        ids = {match.id for match in root.values()}
        known = sorted(i for i in ids if i)
        if len(known) > 1:
            findings.block("UNKNOWN", f"the licence texts {', '.join(known)} contradict each other")
        return known[0] if len(ids) == len(known) == 1 else None

    def judge_statements(self, code: str | None, *, has_file: bool) -> None:
        """Check the statements that restrict use or contradict the LICENSE."""
        for s in self.statements:
            codes, quote = s.codes(), f'"{s.text}"'
            if codes and s.subject in ("us", "unclear"):
                # If a licence text exists, a restriction without subject and licence needs a review.
                named = any(i in licences() for i in s.ids)
                severity: Severity = "review"
                if s.subject == "us" or named or not has_file:
                    severity = "blocker"
                for c in codes:
                    message = f"the document says {quote}"
                    self.findings.add(severity, c, message, s.where, UNBLOCK[c])
            elif codes:
                self.findings.review(codes[0], f"about {s.subject}: {quote}", s.where)
            elif code and s.ids and code not in s.ids and s.subject != "others":
                message = f"LICENSE is {code}, but the document says {quote}"
                self.findings.review("CONTRADICTION", message, s.where)

    def judge_folder(self, path: str, match: TextMatch) -> None:
        """Check a LICENSE in a subfolder, which applies to this folder."""
        folder = path.rsplit("/", 1)[0] + "/"
        used = any(p.startswith(folder) for p in self.closure)
        codes = self.policy.codes(match.id) if match.id else ("UNKNOWN",)
        message = f"{folder} has its own terms: {match.id or 'a text that is not a known licence'}"
        if not codes:
            self.findings.note("FILE-TERMS", message, path)
        self.judge_codes(
            codes, used, message + ("" if used else "; the net uses no file of it"), path
        )

    def judge_codes(self, codes: tuple[str, ...], used: bool, message: str, where: str) -> None:
        """Add findings about files; the findings block only if the network uses one of the files."""
        for c in codes:
            (self.findings.block if used else self.findings.review)(c, message, where)

    def judge_files(self, code: str | None) -> dict[str, list[str]]:
        """Check the headers of source files; return their statements and copyright lines by path."""
        found: dict[str, list[str]] = {}
        for path in filter(_SOURCE.search, self.tree.entries):
            statements, notices = _header_statements(path, self.tree.text(path) or "")
            if statements or notices:
                found[path] = [*(s.text for s in statements), *notices]
            used = path in self.closure
            for s in statements:
                tagged = "SPDX-License-Identifier" in s.text
                codes = self.policy.judge(s.ids[0]) if tagged else s.codes()
                message = f'the file says "{s.text}"'
                self.judge_codes(codes, used, message, s.where)
                if not codes and s.ids and code not in s.ids:
                    severity: Severity = "review" if used else "note"
                    self.findings.add(severity, "FILE-TERMS", message, s.where)
            if notices:
                self.findings.note("FILE-NOTICE", "; ".join(notices)[:200], path)
        return found

    def judge_weights(self, code: str | None) -> str | None:
        """Return the SPDX id of the weights, from evidence, a statement, or the code."""
        if evidence := self.evidence("code"):
            self.findings.note("STATEMENT", f"weights: {evidence.license}: {evidence.evidence}")
            return evidence.license
        about = re.compile(r"weight|checkpoint|model", re.I)
        ours = (s for s in self.statements if s.subject == "us" and about.search(s.text))
        if stated := next((i for s in ours for i in s.ids if i in licences()), None):
            return stated
        message = "no document states the weights' licence"
        if self.policy.weights_without_statement == "deny":
            hint = "a statement of the rights holder, recorded as a [[statement]] of the policy"
            self.findings.block("UNKNOWN", message, unblock=hint)
            return None
        if code:
            self.findings.review("WEIGHTS", f"{message}: the audit takes the code's ({code})")
        return code


def _difference(path: str, match: TextMatch) -> tuple[str, str]:
    """Describe how an unknown text differs from the nearest licence; return message and place."""
    if match.nearest is None:
        return "the text equals no licence of the SPDX list word by word", path
    if not match.foreign:
        return f"the text resembles {match.nearest}, but lacks some of its sentences", path
    line, words = match.foreign[0]
    count = f"{len(match.foreign)} other sentence(s)"
    message = f"the text resembles {match.nearest}, but has {count}; the first, in line {line}:"
    return f'{message} "{words[:160]}"', f"{path}:{line}"
