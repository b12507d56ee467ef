"""The records of a registry: `registry.json`, and `trust.json` with the keys that may sign.

Every field is checked, and an unknown field is an error. Signers are exact names, or regular expressions
that must match the whole name.
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
"""The default of its task; may become the default; for comparison only; a test that means nothing."""

Task = Literal["objects", "gaze"]
"""What a model's map shows: the salient objects of a frame, or the density of its viewers' gaze."""


class IoSpec(Strict):
    """How a frame becomes a model's input, and the model's output a map.

    Attributes:
        channels: `rgb`, or `luma_tiled` (luma three times).
        scale: samples are divided by 255, or by the largest sample of the frame.
        output: the map is used unchanged, or min-max-normalised per frame.
        working_lines: short side that frames are scaled to, pixels; the aspect is kept.
        squash: (width, height) that frames are scaled to instead, without keeping the aspect: for
            models that were trained this way, such as U-2-Net.
        multiple: both sides are padded to a multiple of this by repeating the edge.
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
        # Earlier versions do not know the field: without a filter they can read the rest.
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
        smoke: True for a model whose numbers mean nothing.
        opset: version of the default ONNX operator set.
        license: SPDX id of the weights' licence.
        description: one plain sentence.
        provenance: where the weights come from: run record, upstream commit, terms of the data.
        parameters: learnable parameters of the exported function.
        io: see `IoSpec`.
        manifest_sha256: hex digest of its manifest, `ID.intoto.json`.
        parity_sha256: hex digest of its parity report, `ID.parity.json`.
        license_sha256: hex digest of its licence text, `ID.license.txt`, or receipt, `ID.receipt.txt`.
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
        """Raise `VerificationError` unless the `data` of the file `path` are the registered bytes."""
        if (digest := sha256_hex(data)) != self.sha256:
            raise VerificationError(
                f"{self.id}: the sha256 of {path} is {digest[:16]}..., "
                f"the registry says {self.sha256[:16]}...",
                "the file was changed: restore it, or register the new one",
            )


class Ground(Strict):
    """One condition of a promotion.

    Attributes:
        name: what was asked, such as `iou on ECSSD`.
        passed: the answer.
        detail: its numbers, in one line.
    """

    name: str = Field(min_length=1)
    passed: bool
    detail: str


class Decision(Strict):
    """The answer to one request to promote a model.

    Attributes:
        model: id of the challenger.
        sha256: hex digest of its bytes.
        task: the task whose default was to change.
        promoted: whether the model became the default; every ground must have passed.
        default: id of the default that the model was compared with, None when there was none.
        default_sha256: hex digest of the default's bytes.
        report_sha256: hex digest of the evaluation's file, None when there was none.
        policy_sha256: hex digest of the promotion policy.
        decided: when, UTC, `2026-01-31T12:00:00Z`.
        grounds: see `Ground`.
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
            raise ValueError("promoted must be true if all grounds passed, and false otherwise")
        return self


class RegistryFile(Strict):
    """The content of `registry.json`.

    Attributes:
        schema_version: 3 with a model or decision of the task `gaze` or a temporal filter, 2 with
            decisions or digests of sidecars, else 1: versions that do not know a field refuse it.
        models: in the order in which they were registered.
        decisions: every promotion that was asked for, the first one first.
    """

    schema_version: Literal[1, 2, 3] = 1
    models: list[ModelRecord]
    decisions: list[Decision] = Field(default=[])

    @model_validator(mode="after")
    def _version_knows_its_fields(self) -> Self:
        needed = needed_version(self.models, self.decisions)
        if self.schema_version < needed:
            raise ValueError(
                f"schema_version is {self.schema_version}, and its fields need version {needed}"
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
    """An elliptic-curve key that may sign.

    Attributes:
        name: for requirements and messages.
        public_key: PEM, curve P-256, P-384 or P-521.
    """

    name: SignerName
    public_key: str = Field(min_length=64, max_length=2000)


class SigstoreIdentity(Strict):
    """A Sigstore identity that may sign: every field must match the certificate.

    Attributes:
        name: for requirements and messages.
        identity: the certificate's subject, exactly, such as a workflow's URL with its ref.
        identity_pattern: or a regular expression that must match the *whole* subject.
        issuer: OpenID Connect issuer, exactly.
        repository: source repository URI, exactly.
        ref: source ref, exactly, such as `refs/heads/main`; None admits any.
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
            raise ValueError("give either identity or identity_pattern")
        if self.identity_pattern is not None:
            try:
                re.compile(self.identity_pattern)
            except re.error as exc:
                raise ValueError(
                    f"identity_pattern {self.identity_pattern!r} is not a regular expression: {exc}"
                ) from exc
        return self

    def admits(self, subject: str) -> bool:
        """Return whether a certificate's subject is this identity."""
        if self.identity_pattern is not None:
            return re.fullmatch(self.identity_pattern, subject) is not None
        return subject == self.identity


class TrustedRoot(Strict):
    """Sigstore's keys and certificates, pinned.

    Attributes:
        file: `trusted_root.json` in the registry's folder.
        sha256: hex digest of that file.
    """

    file: RootFile
    sha256: Digest


class Requirement(Strict):
    """Who must have signed the models of a role.

    Attributes:
        signed: whether a model of this role must be signed at all.
        signers: names of keys and identities that may sign for it.
    """

    signed: bool = True
    signers: tuple[SignerName, ...] = ()


class TrustPolicy(Strict):
    """The content of `trust.json`.

    Attributes:
        require_signature: whether signatures are required at load; if not, only `verify` looks.
        keys: see `TrustedKey`.
        identities: see `SigstoreIdentity`.
        trusted_root: see `TrustedRoot`; needed when there are identities.
        roles: role to its requirement; the models of other roles need a signature of any signer.
        revoked_keys: names or key ids (see `signing.key_id`) that may no longer sign.
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
            raise ValueError("two signers have the same name")
        unknown = {n for r in self.roles.values() for n in r.signers} - set(names)
        if unknown:
            raise ValueError(f"no signer {min(unknown)!r}")
        if self.identities and self.trusted_root is None:
            raise ValueError("identities need a trusted_root")
        return self

    def signers(self) -> tuple[TrustedKey | SigstoreIdentity, ...]:
        """Return every key and identity."""
        return (*self.keys, *self.identities)

    def requirement(self, role: Role) -> Requirement:
        """Return the requirement of a role; every signer may sign when the policy has none."""
        everybody = Requirement(signers=tuple(s.name for s in self.signers()))
        return self.roles.get(role, everybody)
