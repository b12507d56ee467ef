"""The one writer of a registry: one at a time, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from eyeline.digest import sha256_hex
from eyeline.errors import RegistryError, VerificationError
from eyeline.models.files import read_regular_file
from eyeline.models.records import Decision, ModelRecord, RegistryFile, needed_version
from eyeline.models.registry import REGISTRY_FILE, read_registry
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


def read_own(folder: Path) -> RegistryFile:
    """The records of a folder; none where there is no registry yet.

    Raises:
        RegistryError: a registry that does not parse.
    """
    path = folder / REGISTRY_FILE
    if not path.exists() and not path.is_symlink():
        return RegistryFile(models=[])
    return read_registry(folder)


def write_own(folder: Path, models: list[ModelRecord], decisions: list[Decision]) -> None:
    """Write a registry, whole or not at all; the caller holds `registry_lock`.

    Raises:
        OutputError: the folder can't be written.
    """
    version = needed_version(models, decisions)
    content = RegistryFile(schema_version=version, models=models, decisions=decisions)
    fields = content.model_dump(mode="json")
    fields["models"] = [m.model_dump(mode="json", exclude_none=True) for m in models]
    if not decisions:
        del fields["decisions"]
    for record in (*fields["models"], *fields.get("decisions", ())):
        if record["task"] == "objects":  # the default, which schema versions 1 and 2 do not know
            del record["task"]
    write_bytes(folder / REGISTRY_FILE, json.dumps(fields, indent=1).encode() + b"\n")


def put_record(folder: Path, record: ModelRecord) -> None:
    """Add a record, or replace the one of its id and role; the registry is made when absent.

    Args:
        folder: the registry's folder, with the record's file in it.
        record: what to register.

    Raises:
        VerificationError: the file's bytes are not the record's.
        RegistryError: the role is production, the id has another role here, the registry does not
            parse, or somebody else is writing it.
        OutputError: the folder can't be written.
    """
    if sha256_hex(read_regular_file(folder / record.file)) != record.sha256:
        raise VerificationError(
            f"{folder / record.file}: not the bytes to register", "export it again"
        )
    if record.role == "production":
        raise RegistryError(
            f"{record.id}: the default is not registered, it is promoted", "eyeline model promote"
        )
    with registry_lock(folder):
        own = read_own(folder)
        for known in own.models:
            if known.id == record.id and known.role != record.role:
                raise RegistryError(
                    f"{folder}: {record.id} is registered as {known.role}, not {record.role}",
                    "remove it first",
                )
        kept = [m for m in own.models if m.id != record.id]
        write_own(folder, [*kept, record], own.decisions)
