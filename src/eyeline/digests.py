"""Digests of bytes and files: the one owner of sha256 as text."""

from __future__ import annotations

import hashlib
from pathlib import Path

from eyeline.errors import EyelineError


def sha256_hex(data: bytes) -> str:
    """sha256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 hex digest of a file, read in blocks.

    Raises:
        EyelineError: it can't be read.
    """
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as exc:
        raise EyelineError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
