"""Verify a model before it is loaded: by one key, or by what a registry's trust policy demands.

Everything that goes wrong is a `VerificationError`. Nothing here asks the network.

Verify a Sigstore bundle offline, against a pinned trusted root and an anchored identity.

Sigstore's own `--offline` trusts a cache file that nobody verified; here the root is bytes with a digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eyeline.digests import sha256_hex
from eyeline.errors import MissingExtraError, VerificationError
from eyeline.files import read_regular_file
from eyeline.registry.records import ModelRecord
from eyeline.registry.signing import (
    BUNDLE_SUFFIX,
    MAX_SIDE_FILE,
    RELEASE_NAME,
    RELEASE_SUFFIX,
    SIGNATURE_SUFFIX,
    Release,
    import_model_signing,
    key_id,
    read_release,
    side_file,
    signed_package,
)
from eyeline.registry.trust import SigstoreIdentity, TrustedKey, TrustPolicy

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_STATEMENT = "https://in-toto.io/Statement/v1"


class _Subject:
    """Sigstore's verification policy: the certificate's subject, exact or matched as a whole."""

    def __init__(self, identity: SigstoreIdentity) -> None:
        self._identity = identity

    def verify(self, cert: Certificate) -> None:
        """Raise sigstore's error unless a subject is the identity."""
        from cryptography.x509 import (
            ExtensionNotFound,
            RFC822Name,
            SubjectAlternativeName,
            UniformResourceIdentifier,
        )
        from sigstore.errors import VerificationError as SigstoreError

        try:
            names = cert.extensions.get_extension_for_class(SubjectAlternativeName).value
        except ExtensionNotFound as exc:
            raise SigstoreError("the certificate names nobody") from exc
        subjects = [
            *names.get_values_for_type(RFC822Name),
            *names.get_values_for_type(UniformResourceIdentifier),
        ]
        if len(subjects) != 1 or not self._identity.admits(subjects[0]):
            raise SigstoreError(f"signed by {', '.join(subjects)[:200] or 'nobody'}")


def verify_bundle(
    data: bytes, bundle: bytes, identity: SigstoreIdentity, trusted_root: bytes, root_sha256: str
) -> set[str]:
    """Verify that an identity signed these bytes; no network is used.

    Args:
        data: the signed file.
        bundle: Sigstore bundle, JSON: over the file itself, or an in-toto statement about it.
        identity: who must have signed.
        trusted_root: content of `trusted_root.json`.
        root_sha256: its pinned hex digest.

    Returns:
        Hex digests of everything that the bundle vouches for, this file's among them.

    Raises:
        VerificationError: another signer, other bytes, another root, or a bundle that does not verify.
        MissingExtraError: extra `sign` is not installed.
    """
    try:
        from sigstore.errors import Error as SigstoreError
        from sigstore.models import Bundle, TrustedRoot
        from sigstore.verify import Verifier, policy
        from sigstore_models.trustroot.v1 import TrustedRoot as RootRecord
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "sigstore", "sign") from exc
    if sha256_hex(trusted_root) != root_sha256:
        raise VerificationError("the trusted root is not the pinned one", "restore it, or pin anew")
    rules: list[Any] = [
        _Subject(identity),
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
        subjects = _subjects(kind, payload)
    except (SigstoreError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        reason = " ".join(str(exc).split())[:200]
        raise VerificationError(
            f"the Sigstore bundle does not verify: {reason}", "is it of this file and this signer?"
        ) from exc
    if digest not in subjects:
        raise VerificationError(
            "the Sigstore bundle is of another file", "take the file's own bundle"
        )
    return subjects


def _subjects(kind: str, payload: bytes) -> set[str]:
    """Digests of an in-toto statement's subjects: `verify_dsse` does not look at them."""
    statement = json.loads(payload)
    if kind != _PAYLOAD_TYPE or statement["_type"] != _STATEMENT:
        raise ValueError(f"the signed payload is {kind}, not an in-toto statement of version 1")
    return {str(subject["digest"]["sha256"]) for subject in statement["subject"]}


_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PREDICATE = "https://model_signing/signature/v1.0"


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
        """JSON values, `verified` first."""
        return {"verified": True, **asdict(self)}


def verify_signature(data: bytes, release: bytes, signature: bytes, public_key: str) -> Release:
    """Verify one signature of one key over a model and its release record.

    Args:
        data: the model.
        release: content of its release record.
        signature: content of its signature file.
        public_key: PEM.

    Returns:
        The release that was signed.

    Raises:
        VerificationError: anything that is not exactly what was signed.
        MissingExtraError: extra `sign` is not installed.
    """
    _, verifying = import_model_signing()
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    record = read_release(release)
    if record.sha256 != sha256_hex(data):
        raise VerificationError(
            f"{record.file}: these bytes are not the signed ones",
            "restore the file, or sign the new one as a new release",
        )
    payload = _signed_payload(signature, key_id(public_key))
    with signed_package(record, data, release) as folder:
        key, file = folder.parent / "key.pem", folder.parent / "signature"
        key.write_text(public_key)
        file.write_bytes(signature)
        try:
            verifying.Config().use_elliptic_key_verifier(public_key=key).verify(folder, file)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as exc:
            reason = " ".join(str(exc).split())[:120] or "the signature is not of this key"
            raise VerificationError(
                f"{record.file}: the signature does not verify: {reason}",
                "is it the right key, and the signed file?",
            ) from exc
    # The statement says itself which paths it ignores: what it covers is looked at here.
    _check_covers(payload, record, data, release)
    return record


def _signed_payload(signature: bytes, key: str) -> Any:
    """The statement in a signature file that is, byte for byte, what the signer wrote."""
    from sigstore_models.bundle.v1 import Bundle

    try:
        bundle = Bundle.from_json(signature)
        canonical = bundle.to_json().encode()
        envelope = bundle.dsse_envelope
        if envelope is None or canonical != signature:
            raise VerificationError("the signature file was changed", "restore it")
        if envelope.payload_type != _PAYLOAD_TYPE or len(envelope.signatures) != 1:
            raise VerificationError("not a signature of a model", "eyeline model sign makes one")
        hint = bundle.verification_material.public_key
        if hint is None or hint.hint != key:
            raise VerificationError("signed with another key", "trust that key, or sign again")
        return json.loads(envelope.payload)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise VerificationError("the signature file does not parse", "restore it") from exc


def _check_covers(payload: Any, record: Release, data: bytes, release: bytes) -> None:
    wanted = {record.file: sha256_hex(data), RELEASE_NAME: sha256_hex(release)}
    resources = payload["predicate"]["resources"]
    found = {r["name"]: r["digest"] for r in resources if r["algorithm"] == "sha256"}
    if payload["predicateType"] != _PREDICATE or found != wanted or len(resources) != len(wanted):
        raise VerificationError(
            f"{record.file}: the signature covers something else", "sign the model and its release"
        )


def verify_file(path: Path, key: Path, minimum_release: int | None = None) -> Verified:
    """Verify a signed file by one public key, whatever registries say.

    Args:
        path: the ONNX file, its release record and signature beside it.
        key: public key, PEM.
        minimum_release: oldest release to accept.

    Raises:
        VerificationError: see `verify_signature`; or no signature, another name, or too old.
        RegistryError: the model or the key can't be read.
        MissingExtraError: extra `sign` is not installed.
    """
    data = read_regular_file(path)
    public_key = read_regular_file(key, limit=MAX_SIDE_FILE).decode("ascii", "replace")
    release, signature = (
        _read_if_there(side_file(path.parent, path.name, suffix))
        for suffix in (RELEASE_SUFFIX, SIGNATURE_SUFFIX)
    )
    if release is None or signature is None:
        raise VerificationError(f"{path}: not signed", "eyeline model sign")
    try:
        signed = verify_signature(data, release, signature, public_key)
    except VerificationError as exc:
        raise VerificationError(f"{path}: {exc.message}", exc.hint) from exc
    if signed.file != path.name:
        raise VerificationError(f"{path}: signed as {signed.file!r}", "give it its own name back")
    verified = Verified(signed.id, signed.sha256, signed.release, str(key), "key")
    _check_release(verified, {signed.id: minimum_release} if minimum_release else {})
    return verified


def verify_model(record: ModelRecord, data: bytes, policy: TrustPolicy, folder: Path) -> Verified:
    """Hold a model to a registry's trust policy: called at load, on the very bytes that are loaded.

    Args:
        record: its registry record.
        data: its bytes.
        policy: the registry's.
        folder: the registry's, where release record, signature and bundle lie.

    Raises:
        VerificationError: unsigned, tampered, wrongly keyed, revoked, swapped or rolled back.
        MissingExtraError: extra `sign` is not installed.
    """
    where = f"{record.id}: "
    digest = sha256_hex(data)
    if digest != record.sha256:
        raise VerificationError(
            f"{where}the file's sha256 is {digest[:16]}..., the registry says {record.sha256[:16]}...",
            "restore the registered file, or register this one",
        )
    if digest in policy.revoked_models:
        raise VerificationError(f"{where}this model is revoked", "take a newer release")
    wanted = policy.requirement(record.role).signers
    signature, bundle = (
        _read_if_there(side_file(folder, record.file, suffix))
        for suffix in (SIGNATURE_SUFFIX, BUNDLE_SUFFIX)
    )
    release = _read_if_there(side_file(folder, record.file, RELEASE_SUFFIX))
    if signature is None and bundle is None:
        raise VerificationError(
            f"{where}no signature, and role {record.role!r} needs one",
            "eyeline model sign, or take a signed model",
        )
    failures = []
    for signer in policy.signers():
        if signer.name not in wanted:
            continue
        if _is_revoked(signer, policy):
            failures.append(f"{signer.name}: revoked")
            continue
        try:
            verified = _verify_by(signer, record, data, release, signature, bundle, policy, folder)
        except VerificationError as exc:
            failures.append(f"{signer.name}: {exc.message}")
            continue
        _check_release(verified, policy.minimum_release)
        return verified
    reasons = "; ".join(failures)[:400] or f"nobody may sign for role {record.role!r}"
    raise VerificationError(f"{where}not verified: {reasons}", "see docs/signing.md")


def check_at_load(
    record: ModelRecord, data: bytes, policy: TrustPolicy, folder: Path
) -> Verified | None:
    """What a registry with a trust policy calls before it hands out a model's bytes.

    Returns:
        See `verify_model`; None where the policy needs no signature of this role.

    Raises:
        VerificationError: see `verify_model`; a revoked model is refused whatever its role needs.
        MissingExtraError: extra `sign` is not installed.
    """
    if policy.require_signature and policy.requirement(record.role).signed:
        return verify_model(record, data, policy, folder)
    if sha256_hex(data) in policy.revoked_models:
        raise VerificationError(f"{record.id}: this model is revoked", "take a newer release")
    return None


def _is_revoked(signer: TrustedKey | SigstoreIdentity, policy: TrustPolicy) -> bool:
    if signer.name in policy.revoked_keys:
        return True
    return isinstance(signer, TrustedKey) and key_id(signer.public_key) in policy.revoked_keys


def _verify_by(
    signer: TrustedKey | SigstoreIdentity,
    record: ModelRecord,
    data: bytes,
    release: bytes | None,
    signature: bytes | None,
    bundle: bytes | None,
    policy: TrustPolicy,
    folder: Path,
) -> Verified:
    if isinstance(signer, TrustedKey):
        if signature is None or release is None:
            raise VerificationError("no signature of a key", "eyeline model sign")
        signed = verify_signature(data, release, signature, signer.public_key)
        if (signed.id, signed.file) != (record.id, record.file):
            raise VerificationError(
                f"signed as {signed.id!r} ({signed.file})", "sign it as this id"
            )
        return Verified(record.id, record.sha256, signed.release, signer.name, "key")
    if bundle is None or policy.trusted_root is None:
        raise VerificationError("no Sigstore bundle", "put it beside the model")

    root = read_regular_file(folder / policy.trusted_root.file, limit=MAX_SIDE_FILE)
    subjects = verify_bundle(data, bundle, signer, root, policy.trusted_root.sha256)
    number = None
    if release is not None and sha256_hex(release) in subjects:
        stated = read_release(release)
        if (stated.id, stated.sha256) != (record.id, record.sha256):
            raise VerificationError(f"signed as {stated.id!r}", "sign it as this id")
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


def _read_if_there(path: Path) -> bytes | None:
    if not path.exists() and not path.is_symlink():
        return None
    return read_regular_file(path, limit=MAX_SIDE_FILE)
