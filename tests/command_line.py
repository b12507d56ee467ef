"""The type of the fixture `command_line`."""

from collections.abc import Callable

CommandLine = Callable[..., tuple[int, str, str]]
"""Words of a command to its exit code, stdout and stderr."""
