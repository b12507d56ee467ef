"""Add a model to a registry as a candidate, remove a model, or download and add a mirrored model.

A model must pass the scanner, the licence policy and a parity check, and needs a manifest. Its sidecars are
written first, then the ONNX file, and last the record in `registry.json`, so a killed process leaves the
registry unchanged. A lock allows one writing process at a time. The files are named by the id of the model:

    ID.onnx         ID.json          the model and its I/O spec
    ID.license.txt  ID.receipt.txt   the licence text, or the receipt of a mirror, which contains it
    ID.intoto.json  ID.parity.json   manifest and parity report
    ID.cdx.json     ID.md            ML-BOM and model card, both optional

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
"""Suffixes of all files that belong to a model of a registry."""

RESERVED = frozenset({"registry", "trust", "trusted_root", "promotion", "promotion_gaze"})
"""Ids that are not allowed, because `ID.json` or `ID.toml` is a file of the registry itself."""


@dataclass(frozen=True)
class ModelDeclaration:
    """The facts about a model that a person must state, because they can't be computed.

    Attributes:
        id: unique name in the registry.
        license: SPDX id of the weights' licence.
        description: one plain sentence.
        provenance: origin of the weights.
        io: the I/O spec; None uses the I/O spec beside the file, or the defaults.
        task: what the model's map shows, see `eyeline.registry.records.Task`.
    """

    id: str
    license: str
    description: str
    provenance: str
    io: IoSpec | None = None
    task: Task = "objects"


# --- the registry's file


def registry_lock(folder: Path) -> AbstractContextManager[None]:
    """Lock a registry for writing while the block runs, or raise `RegistryError`."""
    return file_lock(
        folder / LOCK_FILE,
        lambda _: RegistryError(
            f"{folder}: another process is writing the registry", "run the command again later"
        ),
    )


def read_own(folder: Path) -> RegistryFile:
    """Read the registry of a folder; return an empty registry if the folder has none yet."""
    if not os.path.lexists(folder / REGISTRY_FILE):
        return RegistryFile(models=[])
    return read_registry(folder)


def write_own(folder: Path, models: list[ModelRecord], decisions: list[Decision]) -> None:
    """Write the registry of a folder; the caller must hold `registry_lock`."""
    version = needed_version(models, decisions)
    content = RegistryFile(schema_version=version, models=models, decisions=decisions)
    fields = content.model_dump(mode="json")
    fields["models"] = [m.model_dump(mode="json", exclude_none=True) for m in models]
    if not decisions:
        del fields["decisions"]
    for record in (*fields["models"], *fields.get("decisions", ())):
        if (
            record["task"] == "objects"
        ):  # the default task; schema versions 1 and 2 have no field `task`
            del record["task"]
    write_bytes(folder / REGISTRY_FILE, json.dumps(fields, indent=1).encode() + b"\n")


def put_record(folder: Path, record: ModelRecord) -> None:
    """Add the record of an existing file, or replace the record with the same id and role."""
    path = folder / record.file
    record.check_digest(read_regular_file(path), path)
    with registry_lock(folder):
        own = read_own(folder)
        for known in own.models:
            if known.id == record.id and known.role != record.role:
                raise RegistryError(
                    f"{folder}: {record.id} is already registered with the role {known.role}, "
                    f"so it can't be added with the role {record.role}",
                    "remove it first with eyeline model remove",
                )
        kept = [m for m in own.models if m.id != record.id]
        write_own(folder, [*kept, record], own.decisions)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{folder}: the folder can't be made: {exc.strerror}",
            "name a folder that you can write to",
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
    """Add a model to a registry as a candidate (needs the extra `audit`).

    The sidecars of `eyeline model export` beside the file (manifest, parity report, receipt) are checked
    and copied. Without them, `source` and `license_file` are needed.

    Args:
        folder: folder of the registry; it is made if it does not exist.
        file: the ONNX file.
        declaration: id, licence and origin of the model.
        license_file: file with the licence text, which must be exactly that of the declared licence.
        source: the ONNX file from which the model was made, for the parity check.
        head: index of the output of `source` that is the saliency map.
        on_step: progress callback, see `OnStep`.

    Returns:
        The new record.

    Raises:
        ScanError: the scanner rejects the model or its source.
        LicenceError: the policy does not allow the licence, or the text is that of another licence.
        ModelError: the parity check fails.
        VerificationError: the sidecars belong to another file.
        RegistryError: the id is used, reserved or invalid; sidecars are missing; or another process
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
            f"{model_id}: the model can't be registered: {first_line(exc)}", "correct this value"
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
        raise RegistryError(
            f"{model_id!r} can't be a model id: the registry has a file of this name",
            "choose another id",
        )


def _licence(
    stated: str, license_file: Path | None, sidecars: Mapping[str, bytes]
) -> tuple[str, bytes]:
    """Check licence id and licence text; return the file suffix and the bytes of the text."""
    codes = load_policy().judge(stated)
    if codes:
        raise LicenceError(
            f"the licence {stated} is not allowed ({', '.join(codes)})",
            "run eyeline model audit to see why",
        )
    data = read_regular_file(license_file, limit=MAX_SIDECAR) if license_file else None
    data = data or sidecars.get(LICENSE)
    if data is not None:
        match = match_text(data.decode("utf-8", "replace"))
        if match.id != stated:
            found = match.id or (f"like {match.nearest}, changed" if match.nearest else "unknown")
            raise LicenceError(
                f"{license_file or 'the licence file beside the model'}: this is not the text of {stated} "
                f"({found})",
                "give the licence of this text, or another file with --license-file",
            )
        return LICENSE, data
    receipt = sidecars.get(RECEIPT, b"")
    if stated == "Apache-2.0" and apache_text().strip().encode() in receipt:
        return RECEIPT, receipt
    raise LicenceError(f"the text of {stated} is missing", "give the file with --license-file")


def _check_export(file: Path, model_id: str, data: bytes, sidecars: Mapping[str, bytes]) -> None:
    stem = file.name.removesuffix(".onnx")
    if MANIFEST not in sidecars:
        raise RegistryError(
            f"{file}: the manifest {stem}{MANIFEST} is missing, and no source is given",
            "give the ONNX file from which the model was made with --source, "
            "or export it with eyeline model export",
        )
    if stem != model_id:
        raise RegistryError(
            f"{file}: the id {model_id} differs from the name in the manifest, {stem}",
            f"register it as {stem}",
        )
    files = {stem + s: b for s, b in sidecars.items()} | {file.name: data}
    subjects = check_subjects(sidecars[MANIFEST], files)
    if file.name not in subjects or not subjects & {stem + LICENSE, stem + RECEIPT}:
        raise RegistryError(
            f"{file}: the manifest does not list the model and its licence",
            "export the model again",
        )
    try:
        passed = json.loads(sidecars.get(PARITY, b"{}")).get("passed")
    except (ValueError, AttributeError) as exc:
        raise RegistryError(
            f"{stem}{PARITY}: the file is not a parity report", "export the model again"
        ) from exc
    if passed is not True:
        raise ModelError(
            f"{stem}{PARITY}: the parity check of {file} failed, or its report is missing",
            "export the model again, or give the ONNX file from which it was made with --source",
        )


def _parameters(file: Path, io: IoSpec, parity: bytes) -> int:
    # A quantised file has no float parameters, so take the number of the float model from the report.
    report = json.loads(parity)
    if report.get("kind") != QUANTISATION:
        from eyeline.evaluation.benchmark import count_parameters  # needs Pillow

        return count_parameters(Model(str(file), file, io))
    try:
        return int(report["source"]["parameters"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ModelError(
            f"{file.stem}{PARITY}: the report names no float model", "quantise the model again"
        ) from exc


def _store(folder: Path, record: ModelRecord, files: Mapping[str, bytes]) -> None:
    _make_folder(folder)
    names = {f"{record.id}{suffix}" for suffix in files}
    with registry_lock(folder):
        own = read_own(folder)
        for known in own.models:
            if known.id == record.id:
                raise RegistryError(
                    f"{folder}: {record.id} is already registered with the role {known.role}",
                    "remove it first with eyeline model remove, or choose another id",
                )
            if shared := names & _files_of(known):
                raise RegistryError(
                    f"{record.id}: the file {min(shared)} belongs to the model {known.id}",
                    "choose another id",
                )
        place = folder / record.file
        if place.exists() and sha256_hex(read_regular_file(place)) != record.sha256:
            raise RegistryError(f"{place}: another file has this name", "move or delete it")
        for suffix in sorted(files, key=lambda s: s == ".onnx"):  # the ONNX file is last
            path = folder / f"{record.id}{suffix}"
            if path.is_symlink():  # writing would change the target of the link
                raise RegistryError(f"{path}: a symbolic link has this name", "delete the link")
            write_bytes(path, files[suffix])
        write_own(folder, [*own.models, record], own.decisions)


def remove_model(folder: Path, model_id: str, *, keep_files: bool = False) -> Sequence[str]:
    """Remove a model from a registry; decisions about its promotion are kept.

    Args:
        folder: folder of the registry.
        model_id: id of a model in this folder; it must not be a production model.
        keep_files: whether to keep its files.

    Returns:
        Names of the files that were deleted.

    Raises:
        RegistryError: the model does not exist or is a default, or another process is writing.
        OutputError: the folder cannot be written.
    """
    if not (folder / REGISTRY_FILE).exists():
        raise RegistryError(
            f"{folder}: the folder has no {REGISTRY_FILE}", "give a registry folder"
        )
    with registry_lock(folder):
        own = read_own(folder)
        record = next((m for m in own.models if m.id == model_id), None)
        if record is None:
            raise RegistryError(
                f"{folder}: this registry has no model {model_id!r}",
                "eyeline model list shows the ids of all models",
            )
        if record.role == "production":
            raise RegistryError(
                f"{model_id} is the default model of its task, so it can't be removed",
                "promote another model first with eyeline model promote",
            )
        rest = [m for m in own.models if m.id != model_id]
        write_own(folder, rest, own.decisions)
        if keep_files:
            return []
        needed = {name for m in rest for name in _files_of(m)}
        gone = [n for n in sorted(_files_of(record) - needed) if (folder / n).is_file()]
        for name in gone:
            (folder / name).unlink()  # unlink deletes a link, not its target
        return gone


# --- fetch


@dataclass(frozen=True)
class Fetched:
    """The result of `fetch_mirror`: the new record and the mirrored model."""

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
    """Download the ONNX file of a recipe, mirror it, and register the model as a reference.

    Args:
        recipe: names the ONNX file and describes the model.
        registry: registry folder of the user; it is made if it does not exist.
        source: local copy of the ONNX file, which is used in place of a download.
        url: another download address of the same file.
        on_step: progress callback, see `OnStep`.

    Raises:
        ModelError: the recipe names no ONNX file, or the parity check fails.
        DownloadError: the download fails, or the file has another digest.
        VerificationError, ScanError, RegistryError, OutputError: see `mirror_onnx`, `put_record`.
    """
    pinned = recipe.asset
    if pinned is None:
        raise ModelError(
            f"recipe {recipe.id} names no ONNX file to download",
            "export the model from a git checkout with eyeline model export",
        )
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
