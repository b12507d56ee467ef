"""Sign a release of a model, and verify a model before it is loaded. This module uses no network.

A release record names the id of a model, its sha256 and a release number that must grow. The record is
written to `NAME.release.json`. `model-signing` signs the record together with the bytes of the model (an
in-toto statement in a DSSE envelope, ECDSA), so a signature is valid for one model, id and release only.
Certificates are not supported, because `model-signing` does not check whether they have expired.

A Sigstore bundle is verified with the trusted root whose digest `trust.json` records. The option
`--offline` of Sigstore is not used, because it trusts a cache file that is not verified.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from eyeline.digests import sha256_hex
from eyeline.errors import MissingExtraError, ModelError, VerificationError, first_line
from eyeline.files import read_regular_file, write_bytes
from eyeline.registry.records import (
    Digest,
    FileName,
    ModelId,
    ModelRecord,
    SigstoreIdentity,
    TrustedKey,
    TrustPolicy,
)
from eyeline.validation import Strict

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

RELEASE_SUFFIX = ".release.json"
SIGNATURE_SUFFIX = ".sig"
BUNDLE_SUFFIX = ".sigstore.json"
RELEASE_NAME = "release.json"
"""Name of the release record in the temporary folder that is signed."""

MAX_SIDE_FILE = 1 << 20  # bytes of a release record, signature, bundle or key

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"


class Release(Strict):
    """A release record, which is signed together with the bytes of the model.

    Attributes:
        id: registry id of the model.
        file: name of the ONNX file.
        sha256: hex digest of that file.
        release: release number; it must grow with every release of this id.
    """

    schema_version: Literal[1] = 1
    id: ModelId
    file: FileName
    sha256: Digest
    release: int = Field(ge=1, lt=1 << 31)

    def to_bytes(self) -> bytes:
        """Return canonical JSON; `read_release` accepts no other form."""
        return (json.dumps(self.model_dump(), sort_keys=True, indent=1) + "\n").encode()


@dataclass(frozen=True)
class Verified:
    """A model with a valid signature.

    Attributes:
        id: registry id.
        sha256: hex digest of the model.
        release: release number; None if a Sigstore bundle covers no release record.
        signer: name of the signer in the trust policy.
        method: kind of the signature, `key` or `sigstore`.
    """

    id: str
    sha256: str
    release: int | None
    signer: str
    method: Literal["key", "sigstore"]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, `verified` first."""
        return {"verified": True, **asdict(self)}


def side_file(folder: Path, file: str, suffix: str) -> Path:
    """Return the path of the release record, signature or bundle of a model, by suffix."""
    return folder / (file.removesuffix(".onnx") + suffix)


def read_if_present(path: Path, limit: int = MAX_SIDE_FILE) -> bytes | None:
    """Read a file of at most `limit` bytes; return None if it does not exist."""
    return read_regular_file(path, limit=limit) if os.path.lexists(path) else None


@contextmanager
def _signed_package(record: Release, data: bytes, release: bytes) -> Iterator[Path]:
    # model-signing signs folders, so write the bytes to a temporary folder.
    with tempfile.TemporaryDirectory(prefix="eyeline-") as place:
        folder = Path(place) / record.id
        folder.mkdir()
        (folder / record.file).write_bytes(data)
        (folder / RELEASE_NAME).write_bytes(release)
        yield folder


def read_release(data: bytes) -> Release:
    """Parse a release record in canonical form, or raise `VerificationError`."""
    try:
        release = Release.model_validate_json(data)
    except ValidationError as exc:
        raise VerificationError("the release record is not valid", "sign the model again") from exc
    if release.to_bytes() != data:
        raise VerificationError("the release record was changed", "sign the model again")
    return release


# --- keys and signing


def make_key(private: Path, public: Path) -> str:
    """Make a P-256 key pair and write it to PEM files; only the owner can read the private key.

    Returns:
        The id of the key, see `key_id`.

    Raises:
        ModelError: the file of the private key exists already; it is never overwritten.
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
        raise ModelError(
            f"{private}: the private key can't be written: {exc.strerror}", "name a new file"
        ) from exc
    with os.fdopen(handle, "wb") as f:
        f.write(pem)
    public_pem = _public_pem(key.public_key(), serialization)
    write_bytes(public, public_pem)
    return sha256_hex(public_pem)


def key_id(public_key: str) -> str:
    """Return the sha256 hex digest of the canonical PEM form of a public key."""
    ec, serialization = _cryptography()
    try:
        key = serialization.load_pem_public_key(public_key.encode())
    except (ValueError, TypeError) as exc:
        raise VerificationError("the public key is not valid PEM", "give a PEM file") from exc
    curves = ("secp256r1", "secp384r1", "secp521r1")
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in curves:
        raise VerificationError(
            "the public key is not an elliptic-curve key that eyeline supports",
            "give a key of curve P-256, P-384 or P-521",
        )
    return sha256_hex(_public_pem(key, serialization))


def _public_pem(key: Any, serialization: Any) -> bytes:
    pem: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "cryptography", "sign") from exc
    return ec, serialization


def _model_signing() -> Any:
    try:
        import model_signing.signing
        import model_signing.verifying
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "model_signing", "sign") from exc
    return model_signing


def sign_model(
    path: Path, key: Path, *, model_id: str, release: int, password: str | None = None
) -> Release:
    """Sign a model; write the release record and the signature beside it.

    Args:
        path: the ONNX file.
        key: PEM file with the private key.
        model_id: registry id of the model.
        release: release number, larger than that of any earlier release of this id.
        password: password of the private key, None if it is not encrypted.

    Raises:
        ModelError: the id, the file name, the release number or the key is invalid.
        RegistryError: the model cannot be read.
        MissingExtraError: extra `sign` is not installed.
    """
    signing = _model_signing().signing
    data = read_regular_file(path)
    try:
        record = Release(id=model_id, file=path.name, sha256=sha256_hex(data), release=release)
    except ValidationError as exc:
        raise ModelError(
            f"{path}: can't make a release record: {first_line(exc)}",
            "correct the model id, the file name or the release number",
        ) from exc
    with _signed_package(record, data, record.to_bytes()) as folder:
        made = folder.parent / "signature"
        try:
            config = signing.Config().use_elliptic_key_signer(
                private_key=key, password=password.encode() if password else None
            )
            config.sign(folder, made)
        except (ValueError, TypeError, AttributeError, OSError) as exc:
            raise ModelError(
                f"{key}: can't sign with this key: {first_line(exc)}",
                "give a private elliptic-curve key in PEM, and its password",
            ) from exc
        signature = made.read_bytes()
    write_bytes(side_file(path.parent, path.name, RELEASE_SUFFIX), record.to_bytes())
    write_bytes(side_file(path.parent, path.name, SIGNATURE_SUFFIX), signature)
    return record


# --- verification of one signature


def verify_signature(data: bytes, release: bytes, signature: bytes, public_key: str) -> Release:
    """Verify a signature of a model and its release record with a public key; return the release record.

    Raises:
        VerificationError: the signature is not valid for these bytes and this key.
    """
    verifying = _model_signing().verifying
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    record = read_release(release)
    if record.sha256 != sha256_hex(data):
        raise VerificationError(
            f"{record.file}: its sha256 differs from the one in the release record",
            "restore the file, or sign the changed file as a new release",
        )
    payload = _signed_payload(signature, key_id(public_key))
    with _signed_package(record, data, release) as folder:
        key, file = folder.parent / "key.pem", folder.parent / "signature"
        key.write_text(public_key)
        file.write_bytes(signature)
        try:
            verifying.Config().use_elliptic_key_verifier(public_key=key).verify(folder, file)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as exc:
            reason = first_line(exc) or "it was not made with this key"
            raise VerificationError(
                f"{record.file}: the signature is not valid: {reason}",
                "check that the file is unchanged and the public key is that of the signer",
            ) from exc
    # model-signing skips paths that the statement lists as ignored, so check the covered files here.
    wanted = {record.file: record.sha256, RELEASE_NAME: sha256_hex(release)}
    resources = payload["predicate"]["resources"]
    covered = {r["name"]: r["digest"] for r in resources if r["algorithm"] == "sha256"}
    if payload["predicateType"] != _PREDICATE or covered != wanted or len(resources) != len(wanted):
        raise VerificationError(
            f"{record.file}: the signature does not cover exactly the model and its release record",
            "sign the model with eyeline model sign",
        )
    return record


def _signed_payload(signature: bytes, key: str) -> Any:
    """Return the statement in a signature file; the file must be in the form that the signer writes."""
    from sigstore_models.bundle.v1 import Bundle

    try:
        bundle = Bundle.from_json(signature)
        envelope = bundle.dsse_envelope
        if envelope is None or bundle.to_json().encode() != signature:
            raise VerificationError(
                "the signature file was changed", "restore the file, or sign the model again"
            )
        if envelope.payload_type != _PAYLOAD_TYPE or len(envelope.signatures) != 1:
            raise VerificationError(
                "the signature file contains no signature of a model",
                "sign the model with eyeline model sign",
            )
        hint = bundle.verification_material.public_key
        if hint is None or hint.hint != key:
            raise VerificationError(
                "signed with another key",
                "give the public key of the signer, or sign the model again",
            )
        return json.loads(envelope.payload)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise VerificationError(
            "the signature file is not valid", "restore the file, or sign the model again"
        ) from exc


class _SubjectPolicy:
    """A policy for sigstore: the certificate must have one subject, which matches the identity."""

    def __init__(self, identity: SigstoreIdentity) -> None:
        self._identity = identity

    def verify(self, cert: Certificate) -> None:
        from cryptography import x509
        from sigstore.errors import VerificationError as SigstoreError

        try:
            names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound as exc:
            raise SigstoreError("the certificate has no subject") from exc
        subjects = [
            *names.get_values_for_type(x509.RFC822Name),
            *names.get_values_for_type(x509.UniformResourceIdentifier),
        ]
        if len(subjects) != 1 or not self._identity.admits(subjects[0]):
            raise SigstoreError(f"the signer is {', '.join(subjects)[:200] or 'not named'}")


def verify_bundle(
    data: bytes, bundle: bytes, identity: SigstoreIdentity, trusted_root: bytes, root_sha256: str
) -> set[str]:
    """Verify a Sigstore bundle: an identity must have signed these bytes.

    Args:
        data: content of the signed file.
        bundle: JSON bundle that signs the file itself, or an in-toto statement with its digest.
        identity: the required signer.
        trusted_root: content of `trusted_root.json`.
        root_sha256: hex digest that `trusted_root` must have.

    Returns:
        Hex digests of all files that the bundle covers, including this file.
    """
    try:
        from sigstore.errors import Error as SigstoreError
        from sigstore.models import Bundle, TrustedRoot
        from sigstore.verify import Verifier, policy
        from sigstore_models.trustroot.v1 import TrustedRoot as RootRecord
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "sigstore", "sign") from exc
    if sha256_hex(trusted_root) != root_sha256:
        raise VerificationError(
            "the sha256 of the trusted root differs from the one in trust.json",
            "restore the file, or write the sha256 of the new file into trust.json",
        )
    rules: list[Any] = [
        _SubjectPolicy(identity),
        policy.OIDCIssuerV2(identity.issuer),
        policy.OIDCSourceRepositoryURI(identity.repository),
    ]
    if identity.ref is not None:
        rules.append(policy.OIDCSourceRepositoryRef(identity.ref))
    digest = sha256_hex(data)
    try:
        verifier = Verifier(trusted_root=TrustedRoot(RootRecord.from_json(trusted_root)))
        parsed = Bundle.from_json(bundle)
        if '"dsseEnvelope"' not in parsed.to_json():
            verifier.verify_artifact(data, parsed, policy.AllOf(rules))
            return {digest}
        kind, payload = verifier.verify_dsse(parsed, policy.AllOf(rules))
        subjects = _statement_subjects(kind, payload)
    except (SigstoreError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise VerificationError(
            f"the Sigstore bundle is not valid: {first_line(exc)}",
            "check that the bundle belongs to this file and this signer",
        ) from exc
    if digest not in subjects:
        raise VerificationError(
            "the Sigstore bundle is that of another file", "give the bundle of this file"
        )
    return subjects


def _statement_subjects(kind: str, payload: bytes) -> set[str]:
    # verify_dsse of Sigstore does not check the subjects.
    statement = json.loads(payload)
    if kind != _PAYLOAD_TYPE or statement["_type"] != _STATEMENT:
        raise ValueError(f"the signed payload is {kind}, not an in-toto statement of version 1")
    return {str(subject["digest"]["sha256"]) for subject in statement["subject"]}


# --- verification of a model


def verify_file(path: Path, key: Path, minimum_release: int | None = None) -> Verified:
    """Verify a signed file with a public key, without a registry.

    Args:
        path: the ONNX file; its release record and signature must be beside it.
        key: PEM file with the public key.
        minimum_release: oldest release number to accept.

    Raises:
        VerificationError: the signature is missing or not valid (see `verify_signature`), the file has
            another name than the signed one, or the release is too old.
        RegistryError: the model or the key cannot be read.
        MissingExtraError: extra `sign` is not installed.
    """
    data = read_regular_file(path)
    public_key = read_regular_file(key, limit=MAX_SIDE_FILE).decode("ascii", "replace")
    release, signature = (
        read_if_present(side_file(path.parent, path.name, suffix))
        for suffix in (RELEASE_SUFFIX, SIGNATURE_SUFFIX)
    )
    if release is None or signature is None:
        raise VerificationError(f"{path}: the model is not signed", "use eyeline model sign")
    try:
        signed = verify_signature(data, release, signature, public_key)
    except VerificationError as exc:
        raise VerificationError(f"{path}: {exc.message}", exc.hint) from exc
    if signed.file != path.name:
        raise VerificationError(
            f"{path}: the file was signed with the name {signed.file!r}",
            f"rename it to {signed.file}",
        )
    verified = Verified(signed.id, signed.sha256, signed.release, str(key), "key")
    _check_release(verified, {signed.id: minimum_release} if minimum_release else {})
    return verified


def verify_model(record: ModelRecord, data: bytes, policy: TrustPolicy, folder: Path) -> Verified:
    """Verify the signature of a model by the trust policy of its registry.

    Args:
        record: registry record of the model.
        data: content of the ONNX file.
        policy: trust policy of the registry.
        folder: registry folder, which contains the release record, signature and bundle.

    Raises:
        VerificationError: the model is unsigned, changed, revoked, older than the minimum release, or
            signed by another signer or for another model.
        MissingExtraError: extra `sign` is not installed.
    """
    record.check_digest(data, folder / record.file)
    _check_not_revoked(record, policy)
    release, signature, bundle = (
        read_if_present(side_file(folder, record.file, suffix))
        for suffix in (RELEASE_SUFFIX, SIGNATURE_SUFFIX, BUNDLE_SUFFIX)
    )
    if signature is None and bundle is None:
        raise VerificationError(
            f"{record.id}: the model has no signature, but its role {record.role!r} requires one",
            "sign it with eyeline model sign, or use a signed model",
        )
    wanted = policy.requirement(record.role).signers
    failures = []
    for signer in policy.signers():
        if signer.name not in wanted:
            continue
        try:
            if isinstance(signer, TrustedKey):
                verified = _verify_by_key(signer, record, data, release, signature, policy)
            else:
                verified = _verify_by_identity(
                    signer, record, data, release, bundle, policy, folder
                )
        except VerificationError as exc:
            failures.append(f"{signer.name}: {exc.message}")
            continue
        _check_release(verified, policy.minimum_release)
        return verified
    reasons = "; ".join(failures)[:400] or f"no signer is trusted for role {record.role!r}"
    raise VerificationError(
        f"{record.id}: no valid signature by a trusted signer: {reasons}",
        "sign it with a trusted key, or correct trust.json; see docs/signing.md",
    )


def check_at_load(record: ModelRecord, data: bytes, policy: TrustPolicy, folder: Path) -> None:
    """Check a model before it is loaded: its signature if the trust policy requires one, and revocation.

    Raises:
        VerificationError: see `verify_model`; revoked models are rejected in every role.
    """
    if policy.require_signature and policy.requirement(record.role).signed:
        verify_model(record, data, policy, folder)
    else:
        _check_not_revoked(record, policy)


def _check_not_revoked(record: ModelRecord, policy: TrustPolicy) -> None:
    if record.sha256 in policy.revoked_models:
        raise VerificationError(f"{record.id}: this model is revoked", "use a newer release")


def _verify_by_key(
    signer: TrustedKey,
    record: ModelRecord,
    data: bytes,
    release: bytes | None,
    signature: bytes | None,
    policy: TrustPolicy,
) -> Verified:
    if {signer.name, key_id(signer.public_key)} & set(policy.revoked_keys):
        raise VerificationError("this key is revoked")
    if signature is None or release is None:
        raise VerificationError("the signature or the release record is missing")
    signed = verify_signature(data, release, signature, signer.public_key)
    if (signed.id, signed.file) != (record.id, record.file):
        raise VerificationError(
            f"the signature is for another model, {signed.id!r} ({signed.file})", "sign this model"
        )
    return Verified(record.id, record.sha256, signed.release, signer.name, "key")


def _verify_by_identity(
    signer: SigstoreIdentity,
    record: ModelRecord,
    data: bytes,
    release: bytes | None,
    bundle: bytes | None,
    policy: TrustPolicy,
    folder: Path,
) -> Verified:
    if signer.name in policy.revoked_keys:
        raise VerificationError("this identity is revoked")
    if bundle is None or policy.trusted_root is None:
        raise VerificationError("the Sigstore bundle is missing")
    root = read_regular_file(folder / policy.trusted_root.file, limit=MAX_SIDE_FILE)
    subjects = verify_bundle(data, bundle, signer, root, policy.trusted_root.sha256)
    number = None
    if release is not None and sha256_hex(release) in subjects:
        stated = read_release(release)
        if (stated.id, stated.sha256) != (record.id, record.sha256):
            raise VerificationError(
                f"the release record is for another model, {stated.id!r}", "sign this model"
            )
        number = stated.release
    return Verified(record.id, record.sha256, number, signer.name, "sigstore")


def _check_release(verified: Verified, minimum: Mapping[str, int]) -> None:
    oldest = minimum.get(verified.id)
    if oldest is not None and (verified.release is None or verified.release < oldest):
        stated = f"release {verified.release}" if verified.release else "no signed release number"
        raise VerificationError(
            f"{verified.id}: the model has {stated}, but the minimum release is {oldest}",
            "use a newer release",
        )
