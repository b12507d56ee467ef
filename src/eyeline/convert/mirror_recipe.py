"""Mirror recipes: which net of which upstream becomes a model of ours, as data with its evidence."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from eyeline.errors import UsageError
from eyeline.files import read_regular_file
from eyeline.registry.records import Digest, IoSpec, ModelId
from eyeline.validation import Strict

FOLDER = Path(__file__).parent / "mirrors"
DEFAULT = "u2netp_mirror_v1"

Commit = Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{40}|[0-9a-f]{64})?$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
SourcePath = Annotated[
    str, StringConstraints(pattern=r"^(?:[A-Za-z0-9_][\w.-]*/)*[A-Za-z0-9_][\w.-]*\.py$|^$")
]


class PinnedAsset(Strict):
    """Weights as an ONNX file that anybody can name by its digest.

    Attributes:
        name: file name.
        url: where it is served.
        sha256: hex digest of the file.
        size: bytes.
        head: which of its outputs is the map.
        custody: through whose hands it went.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]{0,127}$")]
    url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
    sha256: Digest
    size: int = Field(gt=0)
    head: int = Field(default=0, ge=0)
    custody: str = Field(min_length=1)


class MirrorRecipe(Strict):
    """A recipe.

    Attributes:
        id: of the model that it makes.
        description: one plain sentence.
        license: SPDX id of code and weights: Apache-2.0, whose section 4 the receipt fulfils.
        parameters: learnable parameters of the net as published; 0 when not known.
        upstream: URL of the repository.
        commit: the commit that was reviewed; empty when any may be read.
        module: path of the file that defines the net; empty to look for it.
        module_sha256: hex digest of that file.
        net: class name.
        arguments: of its constructor.
        head: which of its outputs is the map.
        attribution: whom to name.
        notice: text of the upstream's NOTICE file, empty when it has none: for a mirror from the asset
            alone, when no checkout is at hand.
        weights_evidence: why the weights may be used under the licence.
        limits: what the model is not good for.
        asset: the weights as ONNX, where there are any.
        io: how frames become its input.
    """

    schema_version: Literal[1] = 1
    id: ModelId
    description: str = Field(min_length=1)
    license: Literal["Apache-2.0"]
    parameters: int = Field(default=0, ge=0)
    upstream: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
    commit: Commit = ""
    module: SourcePath = ""
    module_sha256: Digest | Literal[""] = ""
    net: Identifier
    arguments: tuple[int | float | bool | str, ...] = ()
    head: int = Field(default=0, ge=0)
    attribution: str = Field(min_length=1)
    notice: str = ""
    weights_evidence: str = Field(min_length=1)
    limits: tuple[str, ...] = ()
    asset: PinnedAsset | None = None
    io: IoSpec = IoSpec()


def load_recipe(name: str | None = None) -> MirrorRecipe:
    """A built-in recipe by its id, or one of a TOML file.

    Args:
        name: id or path; the built-in u2netp recipe when None.

    Raises:
        UsageError: no such recipe, or one that does not parse.
        RegistryError: a file that can't be read.
    """
    name = name or DEFAULT
    builtin = {p.stem: p for p in sorted(FOLDER.glob("*.toml"))}
    path = builtin.get(name) or Path(name)
    if path.suffix != ".toml":
        raise UsageError(
            f"no mirror recipe {name!r}", f"known: {', '.join(builtin)}; or give a .toml file"
        )
    data = read_regular_file(path, limit=1 << 20)
    try:
        return MirrorRecipe.model_validate(tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as exc:
        first = " ".join(str(exc).split())[:200]
        raise UsageError(
            f"{path}: not a mirror recipe: {first}", "start from docs/mirror.md"
        ) from exc
