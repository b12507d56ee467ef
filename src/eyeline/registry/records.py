"""The fields of `registry.json`, and of the trust policy `trust.json`, which lists the allowed signers.

Every field is validated, and an unknown field is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from eyeline.digests import sha256_hex
from eyeline.errors import VerificationError
from eyeline.validation import Strict

REGISTRY_FILE = "registry.json"
TRUST_FILE = "trust.json"

ModelId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.onnx$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=16, le=4320)]

Role = Literal["production", "candidate", "reference", "smoke"]
"""`production`: the default of its task. `candidate`: may be promoted to production. `reference`: for
comparisons only. `smoke`: for smoke tests; its maps have no meaning."""

Task = Literal["objects", "gaze"]
"""What a saliency map shows: the salient objects of a frame, or where its viewers look (gaze density)."""


class IoSpec(Strict):
    """The I/O spec: how a frame is converted to the input of a model, and its output to a map.

    Attributes:
        channels: `rgb`, or `luma_tiled` (the luma in all three channels).
        scale: divisor of the samples: `255`, or `max`, the largest sample of the frame.
        output: `none` keeps the map unchanged; `minmax` normalises each map to [0, 1].
        working_lines: short side to which frames are scaled, pixels; the aspect ratio is kept.
        squash: (width, height) to which frames are scaled instead, without keeping the aspect ratio;
            for models that were trained this way, such as U-2-Net.
        multiple: height and width are padded to a multiple of this by repeating the edge.
        temporal_ms: time constant of the causal exponential average over the maps of a video, in
            milliseconds (see `eyeline.saliency.temporal.ema`); 0 turns the average off.
    """

    channels: Literal["rgb", "luma_tiled"] = "rgb"
    scale: Literal["255", "max"] = "255"
    output: Literal["none", "minmax"] = "none"
    working_lines: int = Field(default=192, ge=16, le=4320)
    squash: tuple[Side, Side] | None = None
    multiple: int = Field(default=32, ge=1, le=256)
    temporal_ms: float = Field(default=0.0, ge=0, le=2000)

    @model_serializer(mode="wrap")
    def _leave_out_no_filter(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Earlier versions reject the unknown field, so it is written only if it is used.
        fields: dict[str, Any] = handler(self)
        if not self.temporal_ms:
            fields.pop("temporal_ms", None)
        return fields


class ModelRecord(Strict):
    """One model of a registry.

    Attributes:
        id: unique name, lower case.
        file: name of the ONNX file in the registry's folder.
        sha256: hex digest of that file, checked at every load.
        role: see `Role`.
        task: see `Task`.
        smoke: True for a model for smoke tests, whose maps have no meaning.
        opset: version of the default ONNX operator set.
        license: SPDX id of the weights' licence.
        description: one plain sentence.
        provenance: origin of the weights: training run, upstream commit, terms of the data.
        parameters: number of learnable parameters.
        io: the I/O spec.
        manifest_sha256: hex digest of the manifest `ID.intoto.json`.
        parity_sha256: hex digest of the parity report `ID.parity.json`.
        license_sha256: hex digest of the licence text `ID.license.txt` or receipt `ID.receipt.txt`.
    """

    id: ModelId
    file: FileName
    sha256: Digest
    role: Role
    task: Task = "objects"
    smoke: bool = False
    opset: int = Field(ge=11, le=30)
    license: str = Field(min_length=1)
    description: str = Field(min_length=1)
    provenance: str = Field(min_length=1)
    parameters: int = Field(ge=0)
    io: IoSpec = IoSpec()
    manifest_sha256: Digest | None = None
    parity_sha256: Digest | None = None
    license_sha256: Digest | None = None

    def check_digest(self, data: bytes, path: Path) -> None:
        """Raise `VerificationError` if `data`, the content of `path`, does not have the recorded sha256."""
        if (digest := sha256_hex(data)) != self.sha256:
            raise VerificationError(
                f"{self.id}: the sha256 of {path} is {digest[:16]}..., "
                f"but the registry has {self.sha256[:16]}...",
                "the file was changed: restore it, or register the new file",
            )


class Ground(Strict):
    """One criterion of a promotion, with its result.

    Attributes:
        name: name of the criterion, such as `iou on ECSSD`.
        passed: whether it is met.
        detail: the measured numbers, in one line.
    """

    name: str = Field(min_length=1)
    passed: bool
    detail: str


class Decision(Strict):
    """The result of one `eyeline model promote`.

    Attributes:
        model: id of the candidate.
        sha256: hex digest of the candidate.
        task: task of the candidate.
        promoted: whether the candidate became the default model; requires that all criteria are met.
        default: id of the previous default, None if there was none.
        default_sha256: hex digest of the previous default.
        report_sha256: hex digest of the evaluation file, None if there was none.
        policy_sha256: hex digest of the promotion policy.
        decided: time of the decision, UTC, such as `2026-01-31T12:00:00Z`.
        grounds: the criteria with their results.
    """

    model: ModelId
    sha256: Digest
    task: Task = "objects"
    promoted: bool
    default: ModelId | None
    default_sha256: Digest | None
    report_sha256: Digest | None
    policy_sha256: Digest
    decided: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    grounds: tuple[Ground, ...]

    @model_validator(mode="after")
    def _grounds_decide(self) -> Self:
        if self.promoted != (bool(self.grounds) and all(g.passed for g in self.grounds)):
            raise ValueError("promoted must be true if all criteria are met, and false otherwise")
        return self


class RegistryFile(Strict):
    """The content of `registry.json`.

    Attributes:
        schema_version: 3 if a model or decision has the task `gaze` or a temporal filter; else 2 if there
            are decisions or digests of sidecars; else 1. A version of eyeline that does not know a field
            rejects the file.
        models: the models, in the order of their registration.
        decisions: all decisions about promotions, the oldest first.
    """

    schema_version: Literal[1, 2, 3] = 1
    models: list[ModelRecord]
    decisions: list[Decision] = Field(default=[])

    @model_validator(mode="after")
    def _version_knows_its_fields(self) -> Self:
        needed = needed_version(self.models, self.decisions)
        if self.schema_version < needed:
            raise ValueError(
                f"schema_version is {self.schema_version}, but the file uses fields of version {needed}"
            )
        return self


def needed_version(models: list[ModelRecord], decisions: list[Decision]) -> Literal[1, 2, 3]:
    """Return the oldest schema version that can hold these records."""
    gaze = any(m.task == "gaze" or m.io.temporal_ms for m in models)
    if gaze or any(d.task == "gaze" for d in decisions):
        return 3
    sidecars = any(m.manifest_sha256 or m.parity_sha256 or m.license_sha256 for m in models)
    return 2 if decisions or sidecars else 1


SignerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Https = Annotated[str, StringConstraints(pattern=r"^https://[\x21-\x7e]{4,500}$")]
RootFile = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.json$")]


class TrustedKey(Strict):
    """A public key whose signatures are trusted.

    Attributes:
        name: name of the key in `Requirement.signers` and in messages.
        public_key: elliptic-curve public key in PEM, curve P-256, P-384 or P-521.
    """

    name: SignerName
    public_key: str = Field(min_length=64, max_length=2000)


class SigstoreIdentity(Strict):
    """A Sigstore identity whose signatures are trusted; every field must match the certificate.

    Attributes:
        name: name of the identity in `Requirement.signers` and in messages.
        identity: exact subject of the certificate, such as the URL of a workflow with its ref.
        identity_pattern: alternative to `identity`: a regular expression for the *whole* subject.
        issuer: exact OpenID Connect issuer.
        repository: exact URI of the source repository.
        ref: exact source ref, such as `refs/heads/main`; None allows any ref.
    """

    name: SignerName
    identity: str | None = Field(default=None, min_length=3)
    identity_pattern: str | None = Field(default=None, min_length=3, max_length=500)
    issuer: Https
    repository: Https
    ref: str | None = None

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        if (self.identity is None) == (self.identity_pattern is None):
            raise ValueError("exactly one of identity and identity_pattern must be given")
        if self.identity_pattern is not None:
            try:
                re.compile(self.identity_pattern)
            except re.error as exc:
                raise ValueError(
                    f"identity_pattern {self.identity_pattern!r} is not a regular expression: {exc}"
                ) from exc
        return self

    def admits(self, subject: str) -> bool:
        """Return whether the subject of a certificate matches this identity."""
        if self.identity_pattern is not None:
            return re.fullmatch(self.identity_pattern, subject) is not None
        return subject == self.identity


class TrustedRoot(Strict):
    """A local copy of the keys and certificates of Sigstore, with its digest.

    Attributes:
        file: file name in the registry folder, such as `trusted_root.json`.
        sha256: hex digest of that file.
    """

    file: RootFile
    sha256: Digest


class Requirement(Strict):
    """The signatures that models of one role need.

    Attributes:
        signed: whether a model of this role must be signed.
        signers: names of the keys and identities that may sign models of this role.
    """

    signed: bool = True
    signers: tuple[SignerName, ...] = ()


class TrustPolicy(Strict):
    """The content of `trust.json`.

    Attributes:
        require_signature: whether every load checks the signature; if not, only
            `eyeline model verify` does.
        keys: trusted public keys.
        identities: trusted Sigstore identities.
        trusted_root: keys of Sigstore; required if there are identities.
        roles: requirement per role; models of other roles need a signature by any signer.
        revoked_keys: names or key ids (see `signing.key_id`) that are no longer trusted.
        revoked_models: digests of models that are never loaded, even if they are signed.
        minimum_release: maps a model id to the oldest release that may be loaded.
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
            raise ValueError("two keys or identities have the same name")
        unknown = {n for r in self.roles.values() for n in r.signers} - set(names)
        if unknown:
            raise ValueError(f"a role has the signer {min(unknown)!r}, which is no key or identity")
        if self.identities and self.trusted_root is None:
            raise ValueError("the policy has identities, but no trusted_root")
        return self

    def signers(self) -> tuple[TrustedKey | SigstoreIdentity, ...]:
        """Return all trusted keys and Sigstore identities."""
        return (*self.keys, *self.identities)

    def requirement(self, role: Role) -> Requirement:
        """Return the requirement of a role; if the policy has none, any signer may sign."""
        everybody = Requirement(signers=tuple(s.name for s in self.signers()))
        return self.roles.get(role, everybody)
