"""What is signed: a model's bytes, and a record of which release of which id they are."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from eyeline.errors import VerificationError
from eyeline.models.records import Digest, FileName, ModelId, Strict

RELEASE_SUFFIX = ".release.json"
SIGNATURE_SUFFIX = ".sig"
BUNDLE_SUFFIX = ".sigstore.json"
RELEASE_NAME = "release.json"
"""Name of the release record within the signed package."""

MAX_SIDE_FILE = 1 << 20


class Release(Strict):
    """What is signed beside the model's bytes.

    Attributes:
        id: the model's registry id.
        file: name of the ONNX file.
        sha256: hex digest of that file.
        release: grows with every signed change of this id; an older one can be refused.
    """

    schema_version: Literal[1] = 1
    id: ModelId
    file: FileName
    sha256: Digest
    release: int = Field(ge=1, lt=1 << 31)

    def to_bytes(self) -> bytes:
        """Canonical JSON: the one form that is accepted back."""
        return (json.dumps(self.model_dump(), sort_keys=True, indent=1) + "\n").encode()


def side_file(folder: Path, file: str, suffix: str) -> Path:
    """Where a model's release record, signature or bundle is: beside it, under its stem."""
    return folder / (file.removesuffix(".onnx") + suffix)


@contextmanager
def signed_package(record: Release, data: bytes, release: bytes) -> Iterator[Path]:
    """The signed package as a folder: these very bytes, wherever the model lies."""
    with tempfile.TemporaryDirectory(prefix="eyeline-") as place:
        folder = Path(place) / record.id
        folder.mkdir()
        (folder / record.file).write_bytes(data)
        (folder / RELEASE_NAME).write_bytes(release)
        yield folder


def read_release(data: bytes) -> Release:
    """A release record in its canonical form.

    Raises:
        VerificationError: anything else.
    """
    try:
        release = Release.model_validate_json(data)
    except ValidationError as exc:
        raise VerificationError("its release record does not parse", "sign it again") from exc
    if release.to_bytes() != data:
        raise VerificationError("its release record is not canonical", "sign it again")
    return release
