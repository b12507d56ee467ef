"""A mirror recipe run to its end: get the pinned asset, mirror it, register it as a reference.

The wheel carries no third-party weights, only the recipe: `eyeline model fetch u2netp_mirror_v1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eyeline.digest import sha256_hex
from eyeline.download import Asset, download
from eyeline.errors import ModelError, OutputError
from eyeline.models.mirror import Mirrored, mirror_onnx
from eyeline.models.mirror_parity import OnStep
from eyeline.models.mirror_recipe import MirrorRecipe
from eyeline.models.records import ModelRecord
from eyeline.models.register import put_record
from eyeline.models.registering import MANIFEST, PARITY, RECEIPT
from eyeline.models.rewrite import OPSET

PARTS = ".fetch"
"""Folder, in the registry, of what is still arriving."""


@dataclass(frozen=True)
class Fetched:
    """What a fetch left.

    Attributes:
        record: as registered.
        mirrored: see `eyeline.models.mirror.Mirrored`.
    """

    record: ModelRecord
    mirrored: Mirrored


def fetch_mirror(
    recipe: MirrorRecipe,
    registry: Path,
    *,
    source: Path | None = None,
    url: str | None = None,
    on_step: OnStep = lambda what, done, total: None,
) -> Fetched:
    """Fetch, mirror, scan, prove and register a recipe's model.

    Args:
        recipe: what to make.
        registry: the user's registry folder; made when absent.
        source: the asset as a file at hand: nothing is downloaded.
        url: another address of the same bytes.
        on_step: see `eyeline.models.mirror_parity.OnStep`.

    Raises:
        ModelError: the recipe pins no asset, or parity fails.
        DownloadError: the asset can't be fetched, or the address serves other bytes.
        VerificationError, ScanError, RegistryError, OutputError: see `mirror_onnx`, `put_record`.
    """
    pinned = recipe.asset
    if pinned is None:
        raise ModelError(f"recipe {recipe.id} pins no asset", "export it from a checkout instead")
    try:
        registry.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{registry}: can't be made: {exc.strerror}", "name a folder of yours"
        ) from exc
    asset = source
    if asset is None:
        parts = registry / PARTS
        parts.mkdir(exist_ok=True)
        wanted = Asset(url or pinned.url, pinned.sha256, pinned.size)
        asset = download(
            wanted, parts / pinned.name, lambda done, total: on_step("download", done, total)
        )
    mirrored = mirror_onnx(asset, registry / f"{recipe.id}.onnx", recipe, on_step=on_step)

    def digest(suffix: str) -> str:
        return sha256_hex(mirrored.files[suffix].read_bytes())

    record = ModelRecord(
        id=recipe.id,
        file=mirrored.model.name,
        sha256=mirrored.sha256,
        role="reference",
        opset=OPSET,
        license=recipe.license,
        description=recipe.description,
        provenance=f"{recipe.net} of {recipe.upstream}, from {pinned.name} (sha256 {pinned.sha256}); "
        f"manifest {recipe.id}.intoto.json",
        parameters=recipe.parameters,
        io=recipe.io,
        manifest_sha256=digest(MANIFEST),
        parity_sha256=digest(PARITY),
        license_sha256=digest(RECEIPT),
    )
    put_record(registry, record)
    if source is None:
        asset.unlink(missing_ok=True)
        asset.parent.rmdir()
    return Fetched(record, mirrored)
