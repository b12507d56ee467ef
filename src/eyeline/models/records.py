"""Registry records: what crosses a trust boundary is checked here, field by field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ModelId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.onnx$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=16, le=4320)]

Role = Literal["production", "candidate", "reference", "smoke"]
"""The default; what may become it; what is compared with; what only proves the path."""


class Strict(BaseModel):
    """A record that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    """

    channels: Literal["rgb", "luma_tiled"] = "rgb"
    scale: Literal["255", "max"] = "255"
    output: Literal["none", "minmax"] = "none"
    working_lines: int = Field(default=192, ge=16, le=4320)
    squash: tuple[Side, Side] | None = None
    multiple: int = Field(default=32, ge=1, le=256)


class ModelRecord(Strict):
    """One model of a registry.

    Attributes:
        id: unique name, lower case.
        file: name of the ONNX file, in the registry's folder.
        sha256: hex digest of that file, checked at every load.
        role: see `Role`.
        smoke: True for a model whose numbers mean nothing.
        opset: version of the default ONNX operator set.
        license: SPDX id of the weights' licence.
        description: one plain sentence.
        provenance: where the weights come from: run record, upstream commit, terms of the data.
        parameters: learnable parameters of the exported function.
        io: see `IoSpec`.
    """

    id: ModelId
    file: FileName
    sha256: Digest
    role: Role
    smoke: bool = False
    opset: int = Field(ge=11, le=30)
    license: str = Field(min_length=1)
    description: str = Field(min_length=1)
    provenance: str = Field(min_length=1)
    parameters: int = Field(ge=0)
    io: IoSpec = IoSpec()


class RegistryFile(Strict):
    """The content of `registry.json`."""

    schema_version: Literal[1] = 1
    models: list[ModelRecord]
