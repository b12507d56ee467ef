"""A lock on a file: one holder at a time, which may be in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eyeline.errors import BatchError, OutputError
from eyeline.locks import file_lock

HOLD = """
import sys
from pathlib import Path
from eyeline.locks import file_lock
with file_lock(Path(sys.argv[1]), RuntimeError, note="held by a test"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_with_the_note_and_a_killed_holder_gives_the_lock_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BatchError, match="held by a test"), file_lock(path, BatchError):
        pass
    holder.kill()
    holder.wait()
    with file_lock(path, BatchError, note="mine"):
        assert path.read_text() == "mine"


def test_the_lock_ends_with_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with file_lock(tmp_path / "lock", BatchError):
            pass


def test_an_error_of_the_block_is_not_an_error_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), file_lock(tmp_path / "lock", BatchError, note="n"):
        raise BlockingIOError


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError), file_lock(tmp_path / "lock", BatchError):
        pass
    assert not (tmp_path / "elsewhere").exists()
