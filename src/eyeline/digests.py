"""sha256 digests of bytes and files, as 64 hex digits."""

from __future__ import annotations

import hashlib
from pathlib import Path

from eyeline.errors import EyelineError


def sha256_hex(data: bytes) -> str:
    """Return the sha256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits.

    Raises:
        EyelineError: the file cannot be read.
    """
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as exc:
        raise EyelineError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
