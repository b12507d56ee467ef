"""Tables as Markdown and HTML."""

from __future__ import annotations

from eyeline.tables import Table, escape_markdown, html_page, markdown_table, markdown_tables


def test_a_markdown_table_escapes_what_would_end_a_cell() -> None:
    assert markdown_table(["a|b", "c"], [["1\n2", "**3**"]]) == [
        "| a\\|b | c |",
        "|---|---|",
        "| 1 2 | **3** |",
    ]


def test_the_columns_of_an_aligned_table_line_up() -> None:
    assert markdown_table(["a", "long"], [["|", "x"]], aligned=True) == [
        "| a  | long |",
        "| -- | ---- |",
        "| \\| | x    |",
    ]


def test_untrusted_text_adds_nothing_to_markdown() -> None:
    assert escape_markdown("<b>[x](y)|`*\n\x1b") == "\\<b\\>\\[x\\](y)\\|\\`\\*??"
    rows = [["[x](y)"]]
    assert markdown_table(["h"], rows, rule=" - ", escape=escape_markdown)[1:] == [
        "| - |",
        "| \\[x\\](y) |",
    ]


def test_tables_stand_under_their_titles() -> None:
    table = Table("one & two", ["h"], [["<1>"]])
    assert markdown_tables([table]) == "### one & two\n\n| h |\n|---|\n| <1> |\n"
    page = html_page("T&", [table], ["a < b"])
    assert "<h2>one &amp; two</h2>" in page
    assert "<tr><td>&lt;1&gt;</td></tr>" in page
    assert "<title>T&amp;</title>" in page
    assert "<li>a &lt; b</li>" in page
