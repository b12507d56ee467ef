"""Registry records: what crosses a trust boundary is checked here, field by field."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from eyeline.validation import Strict

ModelId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.onnx$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=16, le=4320)]

Role = Literal["production", "candidate", "reference", "smoke"]
"""The default of its task; what may become it; what is compared with; what only proves the path."""

Task = Literal["objects", "gaze"]
"""What a model's map shows: the salient objects of a frame, or the density of its viewers' gaze."""


class IoSpec(Strict):
    """How a frame becomes a model's input, and its output a map: travels with the model.

    Attributes:
        channels: `rgb`, or `luma_tiled` (luma three times).
        scale: samples divided by 255, or by the frame's own maximum.
        output: the map as it comes, or min-max-normalised per frame.
        working_lines: short side that frames are scaled to, pixels; the aspect is kept.
        squash: (width, height) that frames are scaled to instead, whatever their aspect: for models
            trained so, such as U-2-Net.
        multiple: both sides are padded to a multiple of this, by edge replication.
        temporal_ms: time constant of the causal exponential average over the maps of a video, in
            milliseconds (see `eyeline.saliency.temporal.ema`); 0: the maps are used as they come.
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
        """Write what earlier versions wrote, and can read, of a model without a temporal filter."""
        fields: dict[str, Any] = handler(self)
        if not self.temporal_ms:
            fields.pop("temporal_ms", None)
        return fields


class ModelRecord(Strict):
    """One model of a registry.

    Attributes:
        id: unique name, lower case.
        file: name of the ONNX file, in the registry's folder.
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


class Ground(Strict):
    """One thing that a promotion was decided by.

    Attributes:
        name: what was asked, such as `iou on ECSSD`.
        passed: the answer.
        detail: its numbers, in one line.
    """

    name: str = Field(min_length=1)
    passed: bool
    detail: str


class Decision(Strict):
    """One promotion asked for, and the answer.

    Attributes:
        model: id of the challenger.
        sha256: hex digest of its bytes.
        task: whose default was to change.
        promoted: whether it became the default; every ground must have passed.
        default: id of the default that it was held against, None when there was none.
        default_sha256: hex digest of that one's bytes.
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
            raise ValueError("promoted is not what the grounds say")
        return self


class RegistryFile(Strict):
    """The content of `registry.json`.

    Attributes:
        schema_version: 3 when it holds a model or decision of the task `gaze` or a temporal filter, 2
            when it holds decisions or digests of papers: earlier versions do not know them.
        models: in the order in which they were registered.
        decisions: every promotion asked for, the first one first.
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
    """The oldest schema version that can hold these, so that older readers read what they can."""
    gaze = any(m.task == "gaze" or m.io.temporal_ms for m in models)
    if gaze or any(d.task == "gaze" for d in decisions):
        return 3
    papers = any(m.manifest_sha256 or m.parity_sha256 or m.license_sha256 for m in models)
    return 2 if decisions or papers else 1
