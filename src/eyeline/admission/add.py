"""Take a model into a registry as a candidate, remove it again, or fetch a mirror recipe's model.

A model must pass the scanner, the licence policy and a parity check, and needs a manifest. Then its
sidecars, its bytes and last its record are written, so that a killed process leaves the old registry. One
process writes at a time. A model's files are named by its id:

    ID.onnx         ID.json          the model, its I/O spec
    ID.license.txt  ID.receipt.txt   the licence's text, or the receipt of a mirror that holds it
    ID.intoto.json  ID.parity.json   manifest and parity report
    ID.cdx.json     ID.md            ML-BOM and card, where there are any

The package contains no third-party weights, only the recipe for `eyeline model fetch u2netp_mirror_v1`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from eyeline._version import __version__
from eyeline.audit.licence_text import match_text
from eyeline.audit.records import load_policy
from eyeline.convert.graph import OPSET
from eyeline.convert.mirror import Mirrored, mirror_onnx
from eyeline.convert.parity import OnStep, against_asset
from eyeline.convert.sidecars import (
    IO_SPEC,
    LICENSE,
    MANIFEST,
    MAX_SIDECAR,
    PARITY,
    QUANTISATION,
    RECEIPT,
    SIDECARS,
    ResourceDescriptor,
    apache_text,
    canonical_json,
    check_subjects,
    make_manifest,
)
from eyeline.convert.upstream import MirrorRecipe
from eyeline.digests import sha256_hex
from eyeline.errors import LicenceError, ModelError, OutputError, RegistryError, first_line
from eyeline.files import Asset, download, read_regular_file, write_bytes
from eyeline.locks import file_lock
from eyeline.registry.records import (
    REGISTRY_FILE,
    Decision,
    IoSpec,
    ModelId,
    ModelRecord,
    RegistryFile,
    Task,
    needed_version,
)
from eyeline.registry.registry import Model, read_io_spec, read_registry
from eyeline.registry.signing import (
    BUNDLE_SUFFIX,
    RELEASE_SUFFIX,
    SIGNATURE_SUFFIX,
    read_if_present,
)
from eyeline.scan import admit

LOCK_FILE = ".registry.lock"
DOWNLOADS = ".fetch"

SUFFIXES = (".onnx", *SIDECARS, ".md", RELEASE_SUFFIX, SIGNATURE_SUFFIX, BUNDLE_SUFFIX)
"""Of every file that belongs to a model of a registry."""

RESERVED = frozenset({"registry", "trust", "trusted_root", "promotion", "promotion_gaze"})
"""Ids whose I/O spec would overwrite a file of the registry itself."""


@dataclass(frozen=True)
class ModelDeclaration:
    """What a person declares about a model, because nothing can compute it.

    Attributes:
        id: unique name in the registry.
        license: SPDX id of the weights' licence.
        description: one plain sentence.
        provenance: where the weights come from.
        io: how frames become its input; None for the I/O spec beside the file, or the defaults.
        task: what its map shows.
    """

    id: str
    license: str
    description: str
    provenance: str
    io: IoSpec | None = None
    task: Task = "objects"


# --- the registry's file


def registry_lock(folder: Path) -> AbstractContextManager[None]:
    """Hold a registry for writing while the block runs, or raise `RegistryError`."""
    return file_lock(
        folder / LOCK_FILE,
        lambda _: RegistryError(
            f"{folder}: another process is writing the registry", "run the command again later"
        ),
    )


def read_own(folder: Path) -> RegistryFile:
    """Read a folder's registry; an empty one where there is none yet."""
    if not os.path.lexists(folder / REGISTRY_FILE):
        return RegistryFile(models=[])
    return read_registry(folder)


def write_own(folder: Path, models: list[ModelRecord], decisions: list[Decision]) -> None:
    """Write a folder's registry; the caller holds `registry_lock`."""
    version = needed_version(models, decisions)
    content = RegistryFile(schema_version=version, models=models, decisions=decisions)
    fields = content.model_dump(mode="json")
    fields["models"] = [m.model_dump(mode="json", exclude_none=True) for m in models]
    if not decisions:
        del fields["decisions"]
    for record in (*fields["models"], *fields.get("decisions", ())):
        if record["task"] == "objects":  # the default, which schema versions 1 and 2 do not know
            del record["task"]
    write_bytes(folder / REGISTRY_FILE, json.dumps(fields, indent=1).encode() + b"\n")


def put_record(folder: Path, record: ModelRecord) -> None:
    """Add a record whose file is there, or replace the one of the same id and role."""
    path = folder / record.file
    record.check_digest(read_regular_file(path), path)
    with registry_lock(folder):
        own = read_own(folder)
        for known in own.models:
            if known.id == record.id and known.role != record.role:
                raise RegistryError(
                    f"{folder}: {record.id} is registered as {known.role}, not {record.role}",
                    "remove it first",
                )
        kept = [m for m in own.models if m.id != record.id]
        write_own(folder, [*kept, record], own.decisions)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{folder}: can't be made: {exc.strerror}", "name a folder of yours"
        ) from exc


def _files_of(record: ModelRecord) -> set[str]:
    return {record.file} | {record.file.removesuffix(".onnx") + s for s in SUFFIXES}


# --- add


def add_model(
    folder: Path,
    file: Path,
    declaration: ModelDeclaration,
    *,
    license_file: Path | None = None,
    source: Path | None = None,
    head: int = 0,
    on_step: OnStep = lambda what, done, total: None,
) -> ModelRecord:
    """Admit a model to a registry as a candidate (extra `audit`).

    The sidecars of `eyeline model export` beside the file (manifest, parity report, receipt) are checked
    and taken along. Without them, `source` and `license_file` are needed.

    Args:
        folder: the registry's; made when absent.
        file: the ONNX file.
        declaration: what nothing can compute.
        license_file: the licence's text, which must be exactly the declared licence.
        source: the ONNX file that the model was made from, to measure parity with.
        head: number of the source's output that is the map.
        on_step: see `OnStep`.

    Returns:
        The record, as registered.

    Raises:
        ScanError: the scanner refuses the model, or its source.
        LicenceError: the policy does not admit the licence, or the text is another.
        ModelError: no parity.
        VerificationError: sidecars of another file.
        RegistryError: the id is taken, reserved or malformed; sidecars are missing; another process
            is writing.
        OutputError: the folder cannot be written.
    """
    model_id = declaration.id
    _check_id(model_id)
    data = read_regular_file(file)
    report = admit(data, name=file.name)
    read = {s: read_if_present(file.with_suffix(s), MAX_SIDECAR) for s in SIDECARS}
    sidecars = {s: b for s, b in read.items() if b is not None}
    io = declaration.io or IoSpec()
    if declaration.io is None and IO_SPEC in sidecars:
        io = read_io_spec(file.with_suffix(IO_SPEC))
    text_suffix, text = _licence(declaration.license, license_file, sidecars)
    if source is not None:
        text_suffix = LICENSE
        theirs = read_regular_file(source)
        admit(theirs, name=source.name)
        parity = against_asset(theirs, head, data, file.name, on_step)
        made = {LICENSE: text, IO_SPEC: canonical_json(io.model_dump(mode="json"))}
        made[MANIFEST] = make_manifest(
            {f"{model_id}.onnx": data, **{f"{model_id}{s}": b for s, b in made.items()}},
            external={
                "id": model_id, "from": "registered", "license": declaration.license, "head": head,
            },
            internal={},
            materials=[ResourceDescriptor(source.name, {"sha256": sha256_hex(theirs)})],
            versions={"eyeline": __version__},
        )  # fmt: skip
        made[PARITY] = canonical_json(parity.to_json())
    else:
        made = sidecars
        _check_export(file, model_id, data, made)
    try:
        record = ModelRecord(
            id=model_id,
            file=f"{model_id}.onnx",
            sha256=sha256_hex(data),
            role="candidate",
            task=declaration.task,
            opset=report.opset or 0,
            license=declaration.license,
            description=declaration.description,
            provenance=declaration.provenance,
            parameters=_parameters(file, io, made[PARITY]),
            io=io,
            manifest_sha256=sha256_hex(made[MANIFEST]),
            parity_sha256=sha256_hex(made[PARITY]),
            license_sha256=sha256_hex(made[text_suffix]),
        )
    except ValidationError as exc:
        raise RegistryError(
            f"{model_id}: can't be registered: {first_line(exc)}", "correct that value"
        ) from exc
    _store(folder, record, {**made, ".onnx": data})
    return record


def _check_id(model_id: str) -> None:
    try:
        TypeAdapter(ModelId).validate_python(model_id)
    except ValidationError as exc:
        raise RegistryError(
            f"{model_id!r} is not a model id",
            "use at most 64 lower-case letters, digits, and _ . or -",
        ) from exc
    if model_id in RESERVED:
        raise RegistryError(f"{model_id!r} is a file of the registry itself", "take another id")


def _licence(
    stated: str, license_file: Path | None, sidecars: Mapping[str, bytes]
) -> tuple[str, bytes]:
    """Return suffix and bytes of the licence's text, after judging both the id and the text."""
    codes = load_policy().judge(stated)
    if codes:
        raise LicenceError(
            f"licence {stated}: not admitted ({', '.join(codes)})", "eyeline model audit says why"
        )
    data = read_regular_file(license_file, limit=MAX_SIDECAR) if license_file else None
    data = data or sidecars.get(LICENSE)
    if data is not None:
        match = match_text(data.decode("utf-8", "replace"))
        if match.id != stated:
            found = match.id or (f"like {match.nearest}, changed" if match.nearest else "unknown")
            raise LicenceError(
                f"{license_file or 'its licence'}: is not the text of {stated} ({found})",
                "state the licence that the text is",
            )
        return LICENSE, data
    receipt = sidecars.get(RECEIPT, b"")
    if stated == "Apache-2.0" and apache_text().strip().encode() in receipt:
        return RECEIPT, receipt
    raise LicenceError(f"no text of {stated} at hand", "name the file with --license-file")


def _check_export(file: Path, model_id: str, data: bytes, sidecars: Mapping[str, bytes]) -> None:
    """Check the sidecars of an export, and that its parity check passed."""
    stem = file.name.removesuffix(".onnx")
    if MANIFEST not in sidecars:
        raise RegistryError(
            f"{file}: no manifest ({stem}{MANIFEST}) beside it, and no source to compare it with",
            "name its source with --source, or export it with eyeline model export",
        )
    if stem != model_id:
        raise RegistryError(
            f"{file}: its manifest calls it {stem}, not {model_id}", f"register it as {stem}"
        )
    files = {stem + s: b for s, b in sidecars.items()} | {file.name: data}
    subjects = check_subjects(sidecars[MANIFEST], files)
    if file.name not in subjects or not subjects & {stem + LICENSE, stem + RECEIPT}:
        raise RegistryError(
            f"{file}: its manifest leaves out the model or its licence", "export the model again"
        )
    try:
        passed = json.loads(sidecars.get(PARITY, b"{}")).get("passed")
    except (ValueError, AttributeError) as exc:
        raise RegistryError(
            f"{stem}{PARITY}: not a parity report", "export the model again"
        ) from exc
    if passed is not True:
        raise ModelError(
            f"{stem}{PARITY}: the parity check of {file} did not pass, or there is no report of it",
            "export the model again, or give the file that it was exported from with --source",
        )


def _parameters(file: Path, io: IoSpec, parity: bytes) -> int:
    # A quantised file has no float parameters left: its report has those of the float model.
    report = json.loads(parity)
    if report.get("kind") != QUANTISATION:
        from eyeline.evaluation.benchmark import count_parameters  # needs Pillow

        return count_parameters(Model(str(file), file, io))
    try:
        return int(report["source"]["parameters"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ModelError(
            f"{file.stem}{PARITY}: names no float model", "quantise the model again"
        ) from exc


def _store(folder: Path, record: ModelRecord, files: Mapping[str, bytes]) -> None:
    _make_folder(folder)
    names = {f"{record.id}{suffix}" for suffix in files}
    with registry_lock(folder):
        own = read_own(folder)
        for known in own.models:
            if known.id == record.id:
                raise RegistryError(
                    f"{folder}: {record.id} is registered already ({known.role})",
                    "remove it first, or take another id",
                )
            if shared := names & _files_of(known):
                raise RegistryError(
                    f"{record.id}: {min(shared)} belongs to {known.id}", "take another id"
                )
        place = folder / record.file
        if place.exists() and sha256_hex(read_regular_file(place)) != record.sha256:
            raise RegistryError(f"{place}: another file is there", "move it away")
        for suffix in sorted(files, key=lambda s: s == ".onnx"):  # the model after its sidecars
            path = folder / f"{record.id}{suffix}"
            if path.is_symlink():  # a link would be followed out of the folder
                raise RegistryError(f"{path}: is a symbolic link", "move it away")
            write_bytes(path, files[suffix])
        write_own(folder, [*own.models, record], own.decisions)


def remove_model(folder: Path, model_id: str, *, keep_files: bool = False) -> Sequence[str]:
    """Remove a model from a registry; the decisions about it stay.

    Args:
        folder: the registry's.
        model_id: a model of the folder's own registry, but not a default.
        keep_files: leave its files.

    Returns:
        Names of the files that were deleted.

    Raises:
        RegistryError: no such model here, it is the default, or another process is writing.
        OutputError: the folder cannot be written.
    """
    if not (folder / REGISTRY_FILE).exists():
        raise RegistryError(f"{folder}: no registry there", "name its folder")
    with registry_lock(folder):
        own = read_own(folder)
        record = next((m for m in own.models if m.id == model_id), None)
        if record is None:
            raise RegistryError(f"{folder}: no model {model_id!r} of its own", "see model list")
        if record.role == "production":
            raise RegistryError(
                f"{model_id} is the default", "promote another one first: eyeline model promote"
            )
        rest = [m for m in own.models if m.id != model_id]
        write_own(folder, rest, own.decisions)
        if keep_files:
            return []
        needed = {name for m in rest for name in _files_of(m)}
        gone = [n for n in sorted(_files_of(record) - needed) if (folder / n).is_file()]
        for name in gone:
            (folder / name).unlink()  # deletes a link, never its target
        return gone


# --- fetch


@dataclass(frozen=True)
class Fetched:
    """The result of a fetch: the record, as registered, and the mirror."""

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
    """Fetch a recipe's pinned asset, mirror it, and register the model as a reference.

    Args:
        recipe: what to make.
        registry: the user's registry folder; made when absent.
        source: the asset as a local file: nothing is downloaded.
        url: another address of the same bytes.
        on_step: see `OnStep`.

    Raises:
        ModelError: the recipe pins no asset, or parity fails.
        DownloadError: the asset cannot be fetched, or the address serves other bytes.
        VerificationError, ScanError, RegistryError, OutputError: see `mirror_onnx`, `put_record`.
    """
    pinned = recipe.asset
    if pinned is None:
        raise ModelError(f"recipe {recipe.id} pins no asset", "export it from a checkout instead")
    _make_folder(registry)
    asset = source
    if asset is None:
        _make_folder(registry / DOWNLOADS)
        asset = download(
            Asset(url or pinned.url, pinned.sha256, pinned.size),
            registry / DOWNLOADS / pinned.name,
            lambda done, total: on_step("download", done, total),
        )
    mirrored = mirror_onnx(asset, registry / f"{recipe.id}.onnx", recipe, on_step=on_step)
    digests = {s: sha256_hex(p.read_bytes()) for s, p in mirrored.files.items()}
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
        manifest_sha256=digests[MANIFEST],
        parity_sha256=digests[PARITY],
        license_sha256=digests[RECEIPT],
    )
    put_record(registry, record)
    if source is None:
        asset.unlink(missing_ok=True)
        asset.parent.rmdir()
    return Fetched(record, mirrored)
