"""The command line in this process, for tests of parsing and messages."""

import pytest

from command_line import CommandLine
from commands import run


@pytest.fixture
def command_line() -> CommandLine:
    """Run `eyeline WORDS...` here; return exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        done = run(*words, env={"NO_COLOR": "1", "COLUMNS": "200"})
        return done.returncode, done.stdout, done.stderr

    return call
