"""An audit as JSON, Markdown and text: the verdict table, then what stands behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from eyeline.models.audit.findings import AXES, Finding
from eyeline.models.audit.verdict import Audit

HEADINGS = ("upstream", "commit", *AXES, "verdict")


def dumps(audits: Sequence[Audit]) -> str:
    """JSON: one object, or a list of several."""
    values = [a.to_json() for a in audits]
    return (
        json.dumps(values[0] if len(values) == 1 else values, indent=1, ensure_ascii=False) + "\n"
    )


def rows(audits: Sequence[Audit]) -> list[tuple[str, ...]]:
    """Cells of the verdict table, in the order of `HEADINGS`."""
    return [
        (
            a.name,
            (a.commit or a.tree)[: 12 if a.commit else 19],
            *(_cell(a, name) for name in AXES),
            "admissible" if a.admissible else "blocked: " + ", ".join(_codes(a)),
        )
        for a in audits
    ]


def _codes(a: Audit) -> list[str]:
    return list(dict.fromkeys(f.code for f in a.blockers))


def _cell(a: Audit, name: str) -> str:
    axis = a.axis(name)
    codes = ", ".join(dict.fromkeys(f.code for f in axis.blockers))
    return f"{axis.summary} [{codes}]" if codes else axis.summary


def markdown(audits: Sequence[Audit], details: bool = True) -> str:
    """A Markdown table, and a section a repository with every blocker and what wants review."""
    lines = [_row(HEADINGS), "|" + " --- |" * len(HEADINGS), *(_row(r) for r in rows(audits))]
    for a in audits if details else ():
        lines += ["", f"### {_escape(a.name)}", "", f"Read at {_pin(a)}.", ""]
        lines += [
            f"- **{f.severity}** {f.code}: {_escape(f.message)}{_escape(_place(f))}{_escape(_mend(f))}"
            for axis in a.axes for f in axis.findings if f.severity != "note"
        ] or ["- nothing to mend"]  # fmt: skip
    return "\n".join(lines) + "\n"


def text(a: Audit, verbose: bool = False) -> str:
    """Plain text for a terminal: the axes, what blocks and what would mend it; notes if `verbose`."""
    lines = [f"{a.name} at {_pin(a)}", ""]
    for axis in a.axes:
        lines.append(f"{axis.axis:<13} {axis.summary}")
        for f in axis.findings:
            if f.severity == "note" and not verbose:
                continue
            lines.append(f"  {f.severity:<8} {f.code}: {f.message}{_place(f)}")
            if f.unblock:
                lines.append(f"           mend: {f.unblock}")
    verdict = "admissible" if a.admissible else f"blocked: {', '.join(_codes(a))}"
    lines += ["", f"verdict: {verdict} (outbound {a.outbound})"]
    return "".join(_printable(line) + "\n" for line in lines)


def _printable(line: str) -> str:
    """Paths and sentences of an upstream can't carry terminal codes or lines of their own."""
    return "".join(c if c.isprintable() else "?" for c in line)


def _pin(a: Audit) -> str:
    return (
        f"commit {a.commit}, tree {a.tree}"
        if a.commit
        else f"tree {a.tree} (no git: not pinned to an origin)"
    )


def _place(f: Finding) -> str:
    return f" ({f.where})" if f.where else ""


def _mend(f: Finding) -> str:
    return f". Mend: {f.unblock}" if f.unblock else ""


def _escape(cell: str) -> str:
    """Text of an upstream can't add cells, links, HTML or lines to our table."""
    clean = _printable(cell)
    for mark in "\\`*_[]<>|":
        clean = clean.replace(mark, f"\\{mark}")
    return clean


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(c) for c in cells) + " |"
