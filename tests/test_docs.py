"""What the documents show is what the program takes."""

import functools
import re
import shlex
from pathlib import Path

import pytest

from commands import run
from eyeline.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUPS = {group.name for group in app.registered_groups}


def commands(text: str) -> list[list[str]]:
    """Every `eyeline ...` in code blocks and code spans, split as a shell would."""
    text = re.sub(r"\\\n\s+", "", text)  # a command that goes on in the next line
    lines = re.findall(r"^    .*$|`[^`\n]+`", text, re.MULTILINE)
    found = []
    for line in lines:
        for part in re.split(r"\\?\||&&", line.strip().strip("`")):
            words = part.strip().split("#")[0].strip()
            if words.startswith("eyeline "):
                found.append(shlex.split(words)[1:])
    return found


SHOWN = [(d.name, c) for d in DOCUMENTS for c in commands(d.read_text())]


@functools.cache
def help_of(*words: str) -> str:
    plain = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return run(*words, "--help", env=plain).stdout


def test_documents_show_commands() -> None:
    assert any(c[0] == "extract" for _, c in SHOWN)


@pytest.mark.parametrize(
    ("document", "words"), SHOWN, ids=[f"{d}: {' '.join(c)[:60]}" for d, c in SHOWN]
)
def test_documented_options_exist(document: str, words: list[str]) -> None:
    command = words[:2] if words[0] in GROUPS else words[:1]
    options = {w.split("=")[0] for w in words if w.startswith("-") and w != "-"}
    if options <= {"--help", "--version"}:
        return
    text = help_of(*command)
    missing = {o for o in options if not re.search(rf"(?<![\w-]){re.escape(o)}(?![\w-])", text)}
    assert not missing, f"{document} shows {missing}"


def test_every_command_is_in_the_readme() -> None:
    listed = re.findall(r"^│ (\w+)  ", help_of(), re.MULTILINE)
    readme = (ROOT / "README.md").read_text()
    assert listed
    assert not [c for c in listed if f"eyeline {c}" not in readme]
