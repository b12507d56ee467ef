"""Write tables as Markdown and HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of text cells with a title and column headings."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def escape_cell(text: str) -> str:
    """Escape bars and line breaks for a Markdown table cell; keep all other Markdown as it is."""
    return text.replace("|", "\\|").replace("\n", " ")


def escape_markdown(text: str) -> str:
    """Escape untrusted text so that it cannot add formatting, links, HTML, cells or lines."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return text


def markdown_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    aligned: bool = False,
    rule: str = "---",
    escape: Callable[[str], str] = escape_cell,
) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        heads: column headings.
        rows: cells of each row; each row has as many cells as there are headings.
        aligned: pad the cells so that the columns also line up in a text editor.
        rule: text of each cell of the line below the headings; ignored if `aligned`.
        escape: function that escapes the text of headings and cells.
    """
    cells = [[escape(cell) for cell in row] for row in (heads, *rows)]
    if not aligned:
        lines = [f"| {' | '.join(row)} |" for row in cells]
        return [lines[0], f"|{rule}" * len(heads) + "|", *lines[1:]]
    sizes = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        f"| {' | '.join(cell.ljust(n) for cell, n in zip(row, sizes, strict=True))} |"
        for row in (cells[0], ["-" * n for n in sizes], *cells[1:])
    ]


def markdown_tables(tables: Iterable[Table]) -> str:
    """Return tables as Markdown with a title above each table."""
    parts = [(f"### {t.title}", "", *markdown_table(t.heads, t.rows), "") for t in tables]
    return "\n".join(line for part in parts for line in part)


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
li { max-width: 75ch; color: #555 }
"""


def html_page(title: str, tables: Iterable[Table], notes: Iterable[str]) -> str:
    """Return a self-contained HTML page with titled tables and a list of notes."""
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>",
    ]
    for table in tables:
        parts.append(f'<h2>{html.escape(table.title)}</h2><div class="wide"><table>')
        parts.append(f"<thead>{_html_row('th', table.heads)}</thead><tbody>")
        parts += [_html_row("td", row) for row in table.rows]
        parts.append("</tbody></table></div>")
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    parts.append(f"<ul>{items}</ul></body></html>")
    return "\n".join(parts) + "\n"


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
