"""Sign a release of a model with a key.

A release is a model, its id and a number that only grows, written down in `NAME.release.json` and signed
together with the model's bytes by `model-signing` (an in-toto statement in a DSSE envelope, ECDSA). So a
signature can't be moved to another model, id or release. `verifying` is the other half.

What is signed: a model's bytes, and a record of which release of which id they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from eyeline.digests import sha256_hex
from eyeline.errors import MissingExtraError, ModelError, VerificationError
from eyeline.files import read_regular_file, write_bytes
from eyeline.registry.records import Digest, FileName, ModelId
from eyeline.validation import Strict

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


def make_key(private: Path, public: Path) -> str:
    """Make a P-256 key pair, PEM files; the private one readable by its owner only.

    Returns:
        The key's id, see `key_id`.

    Raises:
        ModelError: the private key exists already: it is never overwritten.
        MissingExtraError: extra `sign` is not installed.
    """
    ec, serialization = _cryptography()
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise ModelError(f"{private}: can't be made: {exc.strerror}", "name a new file") from exc
    with os.fdopen(handle, "wb") as f:
        f.write(pem)
    public_pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_bytes(public, public_pem)
    return key_id(public_pem.decode())


def key_id(public_key: str) -> str:
    """sha256 of a public key's canonical PEM, 64 hex digits: the hint in a signature.

    Raises:
        VerificationError: no public key on a supported curve.
        MissingExtraError: extra `sign` is not installed.
    """
    ec, serialization = _cryptography()
    try:
        key = serialization.load_pem_public_key(public_key.encode())
    except (ValueError, TypeError) as exc:
        raise VerificationError("a public key that can't be read", "give its PEM") from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in (
        "secp256r1",
        "secp384r1",
        "secp521r1",
    ):
        raise VerificationError("a public key of another kind", "an EC key: P-256, P-384, P-521")
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(pem).hexdigest()


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "cryptography", "sign") from exc
    return ec, serialization


def import_model_signing() -> tuple[Any, Any]:
    """`model_signing.signing` and `.verifying`."""
    try:
        from model_signing import signing, verifying
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "model_signing", "sign") from exc
    return signing, verifying


def sign_model(
    path: Path, key: Path, *, model_id: str, release: int, password: str | None = None
) -> Release:
    """Sign a model: writes its release record and its signature beside it.

    Args:
        path: the ONNX file.
        key: private key, PEM.
        model_id: its registry id.
        release: its number, larger than that of any earlier release of this id.
        password: of the key.

    Raises:
        ModelError: an id, name or key that can't be used.
        RegistryError: the model can't be read.
        MissingExtraError: extra `sign` is not installed.
    """
    signing, _ = import_model_signing()
    data = read_regular_file(path)
    try:
        record = Release(id=model_id, file=path.name, sha256=sha256_hex(data), release=release)
    except ValidationError as exc:
        first = " ".join(str(exc).split())[:200]
        raise ModelError(f"{path}: can't be a release: {first}", "fix the id or the name") from exc
    with signed_package(record, data, record.to_bytes()) as folder:
        made = folder.parent / "signature"
        try:
            config = signing.Config().use_elliptic_key_signer(
                private_key=key, password=password.encode() if password else None
            )
            config.sign(folder, made)
        except (ValueError, TypeError, AttributeError, OSError) as exc:
            first = " ".join(str(exc).split())[:200]
            raise ModelError(
                f"{key}: can't sign: {first}", "an EC key in PEM, and its password"
            ) from exc
        signature = made.read_bytes()
    write_bytes(side_file(path.parent, path.name, RELEASE_SUFFIX), record.to_bytes())
    write_bytes(side_file(path.parent, path.name, SIGNATURE_SUFFIX), signature)
    return record
