"""Read and validate records from JSON and TOML files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from eyeline.errors import EyelineError, UsageError, first_line
from eyeline.files import read_regular_file

Record = TypeVar("Record", bound=BaseModel)

MAX_RECORD_BYTES = 1 << 20


class Strict(BaseModel):
    """Base class of immutable records; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_record(
    kind: type[Record],
    data: bytes,
    path: Path | str,
    what: str,
    *,
    hint: str,
    error: type[EyelineError] = UsageError,
) -> Record:
    """Parse a record from TOML if the file name ends in `.toml`, and from JSON otherwise.

    Args:
        kind: class of the record.
        data: content of the file.
        path: name of the file; selects the format and appears in the error.
        what: name of the record type with its article, such as `a trust policy`, for the error.
        hint: hint of the error.
        error: class of the error.

    Raises:
        EyelineError: the data are not a valid record; the error is of class `error`.
    """
    try:
        if str(path).endswith(".toml"):
            return kind.model_validate(tomllib.loads(data.decode()))
        return kind.model_validate_json(data)
    except (ValueError, RecursionError) as exc:  # all three parsers raise subclasses of ValueError
        raise error(f"{path}: the file is not {what}: {first_line(exc)}", hint) from exc


def read_record(
    kind: type[Record],
    path: Path,
    what: str,
    *,
    hint: str,
    error: type[EyelineError] = UsageError,
    limit: int = MAX_RECORD_BYTES,
) -> Record:
    """Read a record from a TOML or JSON file; see `parse_record` for the arguments.

    Raises:
        RegistryError: the file cannot be read, or it is larger than `limit` bytes.
        EyelineError: see `parse_record`.
    """
    data = read_regular_file(path, limit=limit)
    return parse_record(kind, data, path, what, hint=hint, error=error)
