"""Verify a Sigstore bundle offline, against a pinned trusted root and an anchored identity.

Sigstore's own `--offline` trusts a cache file that nobody verified; here the root is bytes with a digest.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from eyeline.digest import sha256_hex
from eyeline.errors import MissingExtraError, VerificationError
from eyeline.models.trust import SigstoreIdentity

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_STATEMENT = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"


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
