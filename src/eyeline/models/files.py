"""Model files as bytes: read once, regular files alone, bounded."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from eyeline.errors import RegistryError

MAX_MODEL_BYTES = 512 * 1024 * 1024


def read_regular_file(path: Path, limit: int = MAX_MODEL_BYTES) -> bytes:
    """Read a file once, refusing what is not a regular file or is larger than `limit` bytes.

    Raises:
        RegistryError: missing, unreadable, a folder, FIFO or device, empty, or too large.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused one line below.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as exc:
        raise RegistryError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RegistryError(f"{path}: not a regular file", "name a file")
    with os.fdopen(handle, "rb") as f:
        status = os.fstat(f.fileno())
        if status.st_size == 0:
            raise RegistryError(f"{path}: the file is empty", "is it the right one?")
        if status.st_size > limit:
            raise RegistryError(
                f"{path}: {status.st_size} bytes, more than {limit}", "is it the right one?"
            )
        return f.read(limit + 1)
