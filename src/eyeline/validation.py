"""Records that cross a trust boundary: their base class, and how one is read from a file."""

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
    """A frozen record that refuses fields it does not know."""

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
    """Parse a record from TOML when the file's name ends in `.toml`, and from JSON otherwise.

    Args:
        kind: the record's class.
        data: content of the file.
        path: name of the file, for its suffix and for the error.
        what: what the file should be, with its article, such as `a trust policy`.
        hint: what to do about a file that is not that.
        error: class of the error.

    Raises:
        EyelineError: of the class `error`; the data do not parse or are not such a record.
    """
    try:
        if str(path).endswith(".toml"):
            return kind.model_validate(tomllib.loads(data.decode()))
        return kind.model_validate_json(data)
    except (ValueError, RecursionError) as exc:  # the errors of all three parsers are ValueErrors
        raise error(f"{path}: not {what}: {first_line(exc)}", hint) from exc


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
        EyelineError: of the class `error`, see `parse_record`.
    """
    data = read_regular_file(path, limit=limit)
    return parse_record(kind, data, path, what, hint=hint, error=error)
