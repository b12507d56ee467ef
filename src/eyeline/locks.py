"""A file lock that lets one process write at a time; the kernel releases it when the process ends."""

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
    """Lock a file while the block runs; fail at once if another process holds the lock.

    Args:
        path: the lock file, in a folder that exists. The file is created if needed and is not removed.
            A symbolic link is an error.
        refusal: makes the error to raise from the note of the process that holds the lock.
        note: text about this process, written into the file for other processes to read.

    Raises:
        EyelineError: another process holds the lock; the error is the one that `refusal` returns.
        OutputError: the file can't be opened or written.
    """
    import fcntl  # Windows has no fcntl

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
