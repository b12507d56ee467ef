"""Print random sentences and error messages of the source, for a reader who has not seen the code.

::

    python tools/sample_language.py --sentences 100 --messages 60 --seed 1

The reader marks each line "clear", "second reading" or "unclear". The standard of this project is at
least 95 of 100 clear and none unclear.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "eyeline"
ENTRY = re.compile(r"^\s*(Args|Returns|Raises|Yields|Attributes):\s*$")


def main() -> None:
    """Parse the options and print the sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--messages", type=int, default=60)
    parser.add_argument("--seed", type=int, default=None, help="fixed seed; random by default")
    options = parser.parse_args()
    pick = random.Random(options.seed)
    sentences, messages = [], []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text)
        sentences += [s for d in docstrings(tree) for s in split(d)] + list(comments(text))
        messages += error_messages(tree)
    for title, lines, count in (
        ("Sentences of docstrings and comments", sentences, options.sentences),
        ("Error messages", messages, options.messages),
    ):
        print(f"\n{title} ({count} of {len(lines)})\n")
        for number, line in enumerate(pick.sample(lines, min(count, len(lines))), 1):
            print(f"{number:3}. {line}")


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Yield every docstring, and every string below a constant that documents it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def split(docstring: str) -> Iterator[str]:
    """Yield the sentences of a docstring: no code blocks, no headings such as `Args:`."""
    lines = [x for x in docstring.split("\n\n") if not x.strip().startswith(("::", ">>>"))]
    for block in lines:
        rows = [r for r in block.splitlines() if not ENTRY.match(r)]
        if not rows or all(r.startswith("    ") and "=" in r for r in rows):
            continue
        joined = re.sub(r"\s+", " ", " ".join(rows)).strip()
        for sentence in re.split(r"(?<=[.;:!?]) (?=[A-Z`])", joined):
            if len(sentence.split()) >= 3:
                yield sentence


def comments(text: str) -> Iterator[str]:
    """Yield the comments of a module, without markers for tools."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        words = token.string.lstrip("# ")
        if token.type != tokenize.COMMENT or words.startswith(("noqa", "type:", "fmt:")):
            continue
        if len(words.split()) >= 3:
            yield words


def error_messages(tree: ast.AST) -> Iterator[str]:
    """Yield message and hint of every error that is made in place, with {} for values."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id.endswith("Error") and node.args:
            parts = [literal(a) for a in node.args[:2]]
            if any(p for p in parts) and parts[0]:
                yield "  ->  ".join(p for p in parts if p)


def literal(node: ast.expr) -> str:
    """Return the text of a string or f-string; expressions appear as {name}."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            v.value if isinstance(v, ast.Constant) else "{" + ast.unparse(v.value) + "}"
            for v in node.values
            if isinstance(v, ast.Constant | ast.FormattedValue)
        )
    return ""


if __name__ == "__main__":
    main()
