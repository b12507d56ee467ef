"""The one writer of a registry: one at a time, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from eyeline.errors import RegistryError, VerificationError
from eyeline.models.records import ModelRecord, RegistryFile
from eyeline.models.registry import REGISTRY_FILE, read_registry, read_regular_file, sha256_hex
from eyeline.output import output_error, write_bytes

LOCK_FILE = ".registry.lock"


@contextlib.contextmanager
def registry_lock(folder: Path) -> Iterator[None]:
    """Hold a registry for writing; the lock goes with the process that holds it.

    Raises:
        RegistryError: somebody else is writing.
        OutputError: the folder can't be written.
    """
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as exc:
        raise output_error(folder / LOCK_FILE, exc) from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(handle)
        raise RegistryError(
            f"{folder}: another process is writing the registry", "wait for it"
        ) from exc
    try:
        yield
    finally:
        os.close(handle)  # which also gives the lock back


def put_record(folder: Path, record: ModelRecord) -> None:
    """Add a record, or replace the one of its id and role; the registry is made when absent.

    Args:
        folder: the registry's folder, with the record's file in it.
        record: what to register.

    Raises:
        VerificationError: the file's bytes are not the record's.
        RegistryError: the id has another role here, the registry does not parse, or somebody else
            is writing it.
        OutputError: the folder can't be written.
    """
    if sha256_hex(read_regular_file(folder / record.file)) != record.sha256:
        raise VerificationError(
            f"{folder / record.file}: not the bytes to register", "export it again"
        )
    with registry_lock(folder):
        models = read_registry(folder).models if (folder / REGISTRY_FILE).exists() else []
        for known in models:
            if known.id == record.id and known.role != record.role:
                raise RegistryError(
                    f"{folder}: {record.id} is registered as {known.role}, not {record.role}",
                    "remove it first",
                )
        kept = [m for m in models if m.id != record.id]
        content = RegistryFile(models=[*kept, record]).model_dump_json(
            indent=1, exclude_defaults=False
        )
        write_bytes(folder / REGISTRY_FILE, content.encode() + b"\n")
