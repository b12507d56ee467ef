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
    parser.add_argument(
        "--only", default="", help="a package or module, such as roi or roi/maps.py"
    )
    options = parser.parse_args()
    pick = random.Random(options.seed)
    sentences, messages = [], []
    for path in sorted(SOURCE.rglob("*.py")):
        if not str(path.relative_to(SOURCE)).startswith(options.only):
            continue
        text = path.read_text()
        tree = ast.parse(text)
        sentences += [*docstrings(tree, path.stem), *comments(text)]
        messages += error_messages(tree)
    for title, lines, count in (
        ("Sentences of docstrings and comments", sentences, options.sentences),
        ("Error messages", messages, options.messages),
    ):
        print(f"\n{title} ({min(count, len(lines))} of {len(lines)})\n")
        shown = lines if count >= len(lines) else pick.sample(lines, count)
        for number, line in enumerate(shown, 1):
            print(f"{number:3}. {line}")


def docstrings(tree: ast.Module, module: str) -> Iterator[str]:
    """Yield every sentence of a docstring, behind the name that it documents."""

    def visit(body: list[ast.stmt], owner: str) -> Iterator[str]:
        name = owner
        for node in body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                yield from (f"[{name}] {s}" for s in split(str(node.value.value)))
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield from visit(node.body, node.name)
                name = owner
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[-1] if isinstance(node, ast.Assign) else node.target
                name = ast.unparse(target)

    yield from visit(tree.body, module)


def split(docstring: str) -> Iterator[str]:
    """Yield the sentences of a docstring, and each parameter of `Args:` and the like as one."""
    paragraphs: list[str] = []
    code = False
    for line in [*docstring.splitlines(), ""]:
        entry = re.match(r"    +([\w*, ]+|\w+Error[\w, ]*): \S", line)
        if code and (line.startswith("    ") or not line.strip()):
            continue
        code = line.strip() == "::" or line.rstrip().endswith("::")
        if ENTRY.match(line) or code:
            paragraphs.append("")
        elif not line.strip() or entry or line.lstrip().startswith(("|", "- ")):
            paragraphs.append(line.strip())
        elif paragraphs and paragraphs[-1]:
            paragraphs[-1] += " " + line.strip()
        else:
            paragraphs.append(line.strip())
    for text in paragraphs:
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z`])", text):
            if len(sentence.split()) >= 3 and not sentence.startswith("|"):
                yield sentence


def comments(text: str) -> Iterator[str]:
    """Yield the comments of a module; a comment over several lines is one."""
    held, last = "", -2
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        words = token.string.lstrip("# ")
        if token.type != tokenize.COMMENT or words.startswith(("noqa", "type:", "fmt:")):
            continue
        alone = not token.line[: token.start[1]].strip()
        if alone and token.start[0] == last + 1:
            held += " " + words
        else:
            if len(held.split()) >= 3:
                yield f"# {held}"
            held = words
        last = token.start[0] if alone else -2
    if len(held.split()) >= 3:
        yield f"# {held}"


def error_messages(tree: ast.AST) -> Iterator[str]:
    """Yield message and hint of every error that is made in place, with {} for values."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id.endswith("Error") and node.func.id != "MissingExtraError" and node.args:
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
