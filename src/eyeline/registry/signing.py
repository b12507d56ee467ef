"""Sign a release of a model, and verify a model before it is loaded. Nothing here uses the network.

A release is a model, its id and a number that only grows. It is written to `NAME.release.json` and signed
together with the model's bytes by `model-signing` (an in-toto statement in a DSSE envelope, ECDSA), so
that a signature cannot be moved to another model, id or release. There is no certificate mode:
`model-signing` never checks whether a certificate has expired.

A Sigstore bundle is verified with a trusted root that `trust.json` pins by its digest. Sigstore's own
`--offline` trusts a cache file that nobody verified.
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
"""Name of the release record within the signed package."""

MAX_SIDE_FILE = 1 << 20  # bytes of a release record, signature, bundle or key

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"


class Release(Strict):
    """A release record: what is signed together with the model's bytes.

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
        """Return canonical JSON, the only form that `read_release` accepts."""
        return (json.dumps(self.model_dump(), sort_keys=True, indent=1) + "\n").encode()


@dataclass(frozen=True)
class Verified:
    """A verified model.

    Attributes:
        id: registry id.
        sha256: hex digest of its bytes.
        release: number of its release; None where a Sigstore bundle signs the model alone.
        signer: name in the trust policy.
        method: `key` or `sigstore`.
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
    """Return the path of a model's release record, signature or bundle."""
    return folder / (file.removesuffix(".onnx") + suffix)


def read_if_present(path: Path, limit: int = MAX_SIDE_FILE) -> bytes | None:
    """Read a file of at most `limit` bytes; None when there is no file of that name."""
    return read_regular_file(path, limit=limit) if os.path.lexists(path) else None


@contextmanager
def _signed_package(record: Release, data: bytes, release: bytes) -> Iterator[Path]:
    # model-signing signs folders: this one holds the bytes at hand, wherever the model lies.
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
    """Make a P-256 key pair as PEM files; only the owner can read the private one.

    Returns:
        The key's id, see `key_id`.

    Raises:
        ModelError: the private key's file exists already; it is never overwritten.
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
    public_pem = _public_pem(key.public_key(), serialization)
    write_bytes(public, public_pem)
    return sha256_hex(public_pem)


def key_id(public_key: str) -> str:
    """Return the sha256 of a public key's canonical PEM, 64 hex digits."""
    ec, serialization = _cryptography()
    try:
        key = serialization.load_pem_public_key(public_key.encode())
    except (ValueError, TypeError) as exc:
        raise VerificationError("the public key can't be read", "give its PEM") from exc
    curves = ("secp256r1", "secp384r1", "secp521r1")
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in curves:
        raise VerificationError(
            "the public key is of another kind", "give an EC key: P-256, P-384 or P-521"
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
    """Sign a model: write its release record and its signature beside it.

    Args:
        path: the ONNX file.
        key: private key, PEM.
        model_id: its registry id.
        release: its number, larger than that of any earlier release of this id.
        password: of the key.

    Raises:
        ModelError: the id, the file's name or the key cannot be used.
        RegistryError: the model cannot be read.
        MissingExtraError: extra `sign` is not installed.
    """
    signing = _model_signing().signing
    data = read_regular_file(path)
    try:
        record = Release(id=model_id, file=path.name, sha256=sha256_hex(data), release=release)
    except ValidationError as exc:
        raise ModelError(
            f"{path}: can't be a release: {first_line(exc)}", "correct the id, name or number"
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
                f"{key}: can't sign: {first_line(exc)}", "give an EC key in PEM, and its password"
            ) from exc
        signature = made.read_bytes()
    write_bytes(side_file(path.parent, path.name, RELEASE_SUFFIX), record.to_bytes())
    write_bytes(side_file(path.parent, path.name, SIGNATURE_SUFFIX), signature)
    return record


# --- one signature


def verify_signature(data: bytes, release: bytes, signature: bytes, public_key: str) -> Release:
    """Verify one key's signature over a model and its release record; return the release.

    Raises:
        VerificationError: anything differs from what was signed.
    """
    verifying = _model_signing().verifying
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    record = read_release(release)
    if record.sha256 != sha256_hex(data):
        raise VerificationError(
            f"{record.file}: these bytes are not the signed ones",
            "restore the file, or sign the new one as a new release",
        )
    payload = _signed_payload(signature, key_id(public_key))
    with _signed_package(record, data, release) as folder:
        key, file = folder.parent / "key.pem", folder.parent / "signature"
        key.write_text(public_key)
        file.write_bytes(signature)
        try:
            verifying.Config().use_elliptic_key_verifier(public_key=key).verify(folder, file)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as exc:
            reason = first_line(exc) or "the key did not make it"
            raise VerificationError(
                f"{record.file}: the signature does not verify: {reason}",
                "is it the right key, and the signed file?",
            ) from exc
    # model-signing skips the paths that the statement itself lists as ignored.
    wanted = {record.file: record.sha256, RELEASE_NAME: sha256_hex(release)}
    resources = payload["predicate"]["resources"]
    covered = {r["name"]: r["digest"] for r in resources if r["algorithm"] == "sha256"}
    if payload["predicateType"] != _PREDICATE or covered != wanted or len(resources) != len(wanted):
        raise VerificationError(
            f"{record.file}: the signature covers something else", "sign the model and its release"
        )
    return record


def _signed_payload(signature: bytes, key: str) -> Any:
    """Return the statement in a signature file that is byte for byte what the signer wrote."""
    from sigstore_models.bundle.v1 import Bundle

    try:
        bundle = Bundle.from_json(signature)
        envelope = bundle.dsse_envelope
        if envelope is None or bundle.to_json().encode() != signature:
            raise VerificationError("the signature file was changed", "restore it")
        if envelope.payload_type != _PAYLOAD_TYPE or len(envelope.signatures) != 1:
            raise VerificationError("not a signature of a model", "eyeline model sign makes one")
        hint = bundle.verification_material.public_key
        if hint is None or hint.hint != key:
            raise VerificationError("signed with another key", "trust that key, or sign again")
        return json.loads(envelope.payload)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise VerificationError("the signature file is not valid", "restore it") from exc


class _SubjectPolicy:
    """A policy for sigstore: the certificate has one subject, and the identity admits it."""

    def __init__(self, identity: SigstoreIdentity) -> None:
        self._identity = identity

    def verify(self, cert: Certificate) -> None:
        from cryptography import x509
        from sigstore.errors import VerificationError as SigstoreError

        try:
            names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound as exc:
            raise SigstoreError("the certificate names nobody") from exc
        subjects = [
            *names.get_values_for_type(x509.RFC822Name),
            *names.get_values_for_type(x509.UniformResourceIdentifier),
        ]
        if len(subjects) != 1 or not self._identity.admits(subjects[0]):
            raise SigstoreError(f"signed by {', '.join(subjects)[:200] or 'nobody'}")


def verify_bundle(
    data: bytes, bundle: bytes, identity: SigstoreIdentity, trusted_root: bytes, root_sha256: str
) -> set[str]:
    """Verify that an identity signed these bytes, by a Sigstore bundle.

    Args:
        data: the signed file.
        bundle: JSON, over the file itself, or an in-toto statement about it.
        identity: who must have signed.
        trusted_root: content of `trusted_root.json`.
        root_sha256: its pinned hex digest.

    Returns:
        Hex digests of all files that the bundle covers, this file's among them.
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
            "the trusted root is not the pinned one", "restore it, or pin the new one's sha256"
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
            f"the Sigstore bundle does not verify: {first_line(exc)}",
            "is it of this file and this signer?",
        ) from exc
    if digest not in subjects:
        raise VerificationError(
            "the Sigstore bundle is of another file", "take the file's own bundle"
        )
    return subjects


def _statement_subjects(kind: str, payload: bytes) -> set[str]:
    # Sigstore's verify_dsse does not look at the subjects.
    statement = json.loads(payload)
    if kind != _PAYLOAD_TYPE or statement["_type"] != _STATEMENT:
        raise ValueError(f"the signed payload is {kind}, not an in-toto statement of version 1")
    return {str(subject["digest"]["sha256"]) for subject in statement["subject"]}


# --- a model


def verify_file(path: Path, key: Path, minimum_release: int | None = None) -> Verified:
    """Verify a signed file by one public key, without a registry.

    Args:
        path: the ONNX file, its release record and signature beside it.
        key: public key, PEM.
        minimum_release: oldest release to accept.

    Raises:
        VerificationError: see `verify_signature`; or no signature, another name, or too old.
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
        raise VerificationError(f"{path}: not signed", "eyeline model sign signs it")
    try:
        signed = verify_signature(data, release, signature, public_key)
    except VerificationError as exc:
        raise VerificationError(f"{path}: {exc.message}", exc.hint) from exc
    if signed.file != path.name:
        raise VerificationError(f"{path}: signed as {signed.file!r}", f"rename it to {signed.file}")
    verified = Verified(signed.id, signed.sha256, signed.release, str(key), "key")
    _check_release(verified, {signed.id: minimum_release} if minimum_release else {})
    return verified


def verify_model(record: ModelRecord, data: bytes, policy: TrustPolicy, folder: Path) -> Verified:
    """Verify a model by its registry's trust policy.

    Args:
        record: its registry record.
        data: its bytes.
        policy: the registry's.
        folder: the registry's, with the release record, signature and bundle.

    Raises:
        VerificationError: unsigned, changed, signed by somebody else, revoked, swapped or rolled back.
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
            f"{record.id}: no signature, and role {record.role!r} needs one",
            "eyeline model sign, or take a signed model",
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
    reasons = "; ".join(failures)[:400] or f"nobody may sign for role {record.role!r}"
    raise VerificationError(f"{record.id}: not verified: {reasons}", "see docs/signing.md")


def check_at_load(record: ModelRecord, data: bytes, policy: TrustPolicy, folder: Path) -> None:
    """Verify a model that is about to be loaded, as far as the trust policy demands it.

    Raises:
        VerificationError: see `verify_model`; a revoked model is refused in every role.
    """
    if policy.require_signature and policy.requirement(record.role).signed:
        verify_model(record, data, policy, folder)
    else:
        _check_not_revoked(record, policy)


def _check_not_revoked(record: ModelRecord, policy: TrustPolicy) -> None:
    if record.sha256 in policy.revoked_models:
        raise VerificationError(f"{record.id}: this model is revoked", "take a newer release")


def _verify_by_key(
    signer: TrustedKey,
    record: ModelRecord,
    data: bytes,
    release: bytes | None,
    signature: bytes | None,
    policy: TrustPolicy,
) -> Verified:
    if {signer.name, key_id(signer.public_key)} & set(policy.revoked_keys):
        raise VerificationError("revoked")
    if signature is None or release is None:
        raise VerificationError("no signature of a key")
    signed = verify_signature(data, release, signature, signer.public_key)
    if (signed.id, signed.file) != (record.id, record.file):
        raise VerificationError(f"signed as {signed.id!r} ({signed.file})")
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
        raise VerificationError("revoked")
    if bundle is None or policy.trusted_root is None:
        raise VerificationError("no Sigstore bundle")
    root = read_regular_file(folder / policy.trusted_root.file, limit=MAX_SIDE_FILE)
    subjects = verify_bundle(data, bundle, signer, root, policy.trusted_root.sha256)
    number = None
    if release is not None and sha256_hex(release) in subjects:
        stated = read_release(release)
        if (stated.id, stated.sha256) != (record.id, record.sha256):
            raise VerificationError(f"signed as {stated.id!r}")
        number = stated.release
    return Verified(record.id, record.sha256, number, signer.name, "sigstore")


def _check_release(verified: Verified, minimum: Mapping[str, int]) -> None:
    oldest = minimum.get(verified.id)
    if oldest is not None and (verified.release is None or verified.release < oldest):
        stated = f"release {verified.release}" if verified.release else "no signed release number"
        raise VerificationError(
            f"{verified.id}: {stated}, rolled back: {oldest} is the oldest admitted",
            "take a newer release",
        )
