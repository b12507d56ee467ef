"""Tables of an evaluation as Markdown and HTML, and how numbers stand in their cells."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eyeline.evaluation.statistics import Difference, Estimate


@dataclass(frozen=True)
class Table:
    """A title, heads, and rows of cells, before they become Markdown or HTML."""

    title: str
    heads: list[str]
    rows: list[list[str]]


def number(value: float, *, sign: bool = False) -> str:
    """Return a number with three decimals; a dash where there is none."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.lstrip("-+") if float(text) == 0 else text


def estimate_cell(estimate: Estimate) -> str:
    """Return a number with its interval in brackets."""
    if not math.isfinite(estimate.low):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def difference_cells(differences: Mapping[str, Difference], measures: Iterable[str]) -> list[str]:
    """Return each difference with its interval and p-value."""
    cells = []
    for name in measures:
        d = differences[name]
        ends = f" [{number(d.low, sign=True)}, {number(d.high, sign=True)}]"
        shown = ends if math.isfinite(d.low) else ""
        cells.append(f"{number(d.value, sign=True)}{shown} (p {p_cell(d.p_value)})")
    return cells


def p_cell(value: float) -> str:
    """Return a p-value."""
    return "<0.001" if value < 0.001 else number(value)


def markdown_tables(tables: Iterable[Table]) -> str:
    """Return tables as Markdown, each under its title."""
    lines: list[str] = []
    for table in tables:
        lines += [f"### {table.title}", "", _line(table.heads), "|---" * len(table.heads) + "|"]
        lines += [*(_line(row) for row in table.rows), ""]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
li { max-width: 75ch; color: #555 }
"""


def html_tables(tables: Iterable[Table], notes: Iterable[str]) -> str:
    """Return tables and notes as one page that needs nothing else."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>',
        f"<style>{STYLE}</style></head><body><h1>Evaluation</h1>",
    ]
    for table in tables:
        parts.append(f'<h2>{html.escape(table.title)}</h2><div class="wide"><table>')
        heads = "".join(f"<th>{html.escape(h)}</th>" for h in table.heads)
        parts.append(f"<thead><tr>{heads}</tr></thead><tbody>")
        for row in table.rows:
            cells = "".join(f"<td>{html.escape(c)}</td>" for c in row)
            parts.append(f"<tr>{cells}</tr>")
        parts.append("</tbody></table></div>")
    items = "".join(f"<li>{html.escape(n)}</li>" for n in notes)
    parts.append(f"<ul>{items}</ul></body></html>")
    return "\n".join(parts) + "\n"
