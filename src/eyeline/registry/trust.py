"""Whom a registry trusts: the records of `trust.json`, which says what each role needs.

Everything is exact or anchored. There is no certificate mode: `model-signing` never checks whether a
certificate has expired.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from eyeline.errors import RegistryError
from eyeline.registry.records import Digest, ModelId, Role
from eyeline.validation import Strict

TRUST_FILE = "trust.json"

SignerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Https = Annotated[str, StringConstraints(pattern=r"^https://[\x21-\x7e]{4,500}$")]
RootFile = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.json$")]


class Signer(Strict):
    """Somebody who may sign.

    Attributes:
        name: for requirements and messages.
    """

    name: SignerName


class TrustedKey(Signer):
    """An elliptic-curve key that may sign.

    Attributes:
        public_key: PEM, curve P-256, P-384 or P-521.
    """

    public_key: str = Field(min_length=64, max_length=2000)


class SigstoreIdentity(Signer):
    """A Sigstore identity that may sign: every field must match the certificate.

    Attributes:
        identity: the certificate's subject, exactly, such as a workflow's URL with its ref.
        identity_pattern: or a regular expression that must match the *whole* of it.
        issuer: OpenID Connect issuer, exactly.
        repository: source repository URI, exactly.
        ref: source ref, exactly, such as `refs/heads/main`; None: any.
    """

    identity: str | None = Field(default=None, min_length=3)
    identity_pattern: str | None = Field(default=None, min_length=3, max_length=500)
    issuer: Https
    repository: Https
    ref: str | None = None

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        if (self.identity is None) == (self.identity_pattern is None):
            raise ValueError("give identity or identity_pattern, not both")
        if self.identity_pattern is not None:
            try:
                re.compile(self.identity_pattern)
            except re.error as exc:
                raise ValueError(
                    f"identity_pattern {self.identity_pattern!r} is not a regular expression: {exc}"
                ) from exc
        return self

    def admits(self, subject: str) -> bool:
        """Whether a certificate's subject is this identity."""
        if self.identity_pattern is not None:
            return re.fullmatch(self.identity_pattern, subject) is not None
        return subject == self.identity


class TrustedRoot(Strict):
    """Sigstore's keys and certificates, pinned.

    Attributes:
        file: `trusted_root.json`, in the registry's folder.
        sha256: its hex digest.
    """

    file: RootFile
    sha256: Digest


class Requirement(Strict):
    """What a role needs.

    Attributes:
        signed: whether a model of this role must be signed at all.
        signers: names of keys and identities that may sign for it.
    """

    signed: bool = True
    signers: tuple[SignerName, ...] = ()


class TrustPolicy(Strict):
    """The content of `trust.json`.

    Attributes:
        require_signature: whether signatures are required at load; False: only `verify` looks.
        keys: see `TrustedKey`.
        identities: see `SigstoreIdentity`.
        trusted_root: see `TrustedRoot`; needed when there are identities.
        roles: role to what it needs; a role that is not named needs a signature of anybody trusted.
        revoked_keys: names or key ids (see `signing.key_id`) that may sign no more.
        revoked_models: digests of models that must not be loaded, whoever signed them.
        minimum_release: model id to the oldest release that may be loaded.
    """

    schema_version: Literal[1] = 1
    require_signature: bool = False
    keys: tuple[TrustedKey, ...] = ()
    identities: tuple[SigstoreIdentity, ...] = ()
    trusted_root: TrustedRoot | None = None
    roles: dict[Role, Requirement] = Field(default_factory=dict)
    revoked_keys: tuple[SignerName | Digest, ...] = ()
    revoked_models: tuple[Digest, ...] = ()
    minimum_release: dict[ModelId, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [s.name for s in self.signers()]
        if len(set(names)) != len(names):
            raise ValueError("a signer's name stands there twice")
        unknown = {n for r in self.roles.values() for n in r.signers} - set(names)
        if unknown:
            raise ValueError(f"no signer {min(unknown)!r}")
        if self.identities and self.trusted_root is None:
            raise ValueError("identities need a trusted_root")
        return self

    def signers(self) -> tuple[TrustedKey | SigstoreIdentity, ...]:
        """Every key and identity."""
        return (*self.keys, *self.identities)

    def requirement(self, role: Role) -> Requirement:
        """What a role needs; anybody trusted when the policy does not name it."""
        found = self.roles.get(role)
        everybody = tuple(s.name for s in self.signers())
        return found if found is not None else Requirement(signers=everybody)


def load_trust(folder: Path) -> TrustPolicy | None:
    """The trust policy of a registry folder, None when it has none.

    Raises:
        RegistryError: a policy that can't be read or does not parse.
    """
    from eyeline.files import read_regular_file

    path = folder / TRUST_FILE
    if not path.exists() and not path.is_symlink():
        return None
    try:
        return TrustPolicy.model_validate_json(read_regular_file(path, limit=1 << 20))
    except ValidationError as exc:
        first = " ".join(str(exc).split())[:200]
        raise RegistryError(f"{path}: not a trust policy: {first}", "fix the file") from exc
