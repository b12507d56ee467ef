"""The command line, in this process or in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from eyeline.cli import main


def run(
    *words: object,
    cwd: Path | str = ".",
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `eyeline WORDS` in this process, which saves the start of an interpreter.

    `env` is added to this process's environment.
    """
    command = ["eyeline", *map(str, words)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: Any = 0
    with (
        patch.object(sys, "argv", command),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8")),
        patch.dict(os.environ, env or {}),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as caught:
            code = caught.code or 0
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(command, code, *said)


def run_process(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `eyeline WORDS` in a process of its own; `env` is added to this process's environment."""
    options["env"] = os.environ | options.get("env", {})
    return subprocess.run(
        [sys.executable, "-m", "eyeline", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **options,
    )
