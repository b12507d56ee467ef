"""One writer at a time: a kernel lock on a file, which ends with the process that holds it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from eyeline.errors import EyelineError
from eyeline.files import output_error


@contextlib.contextmanager
def file_lock(
    path: Path, refusal: Callable[[str], EyelineError], *, note: str = ""
) -> Iterator[None]:
    """Hold the lock of a file while the block runs; do not wait for it.

    Args:
        path: the lock file, in a folder that exists. It is created, and stays; a symbolic link is
            refused.
        refusal: called with the note of the process that holds the lock; returns the error to raise.
        note: what the file says about this process to those that are refused.

    Raises:
        EyelineError: of `refusal`, when another process holds the lock.
        OutputError: the file can't be opened or written.
    """
    import fcntl  # not on Windows

    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as exc:
        raise output_error(path, exc) from exc
    with os.fdopen(handle, "r+", encoding="utf-8", errors="replace") as f:  # closing unlocks
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise refusal(f.read()) from exc
        if note:
            try:
                f.truncate(0)
                f.write(note)
                f.flush()
            except OSError as exc:
                raise output_error(path, exc) from exc
        yield
