"""Take a model into a registry as a candidate, and out of it again.

In: scan, licence, parity, manifest; then its papers, its bytes and last the record are written, so that a
killed process leaves the old registry. A model's files are named by its id:

    ID.onnx         ID.json          the model, its I/O spec
    ID.license.txt  ID.receipt.txt   the licence's text, or the receipt of a mirror that holds it
    ID.intoto.json  ID.parity.json   manifest and parity report
    ID.cdx.json     ID.md            ML-BOM and card, where there are any

The one writer of a registry: one at a time, whole or not at all.

A mirror recipe run to its end: get the pinned asset, mirror it, register it as a reference.

The wheel carries no third-party weights, only the recipe: `eyeline model fetch u2netp_mirror_v1`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from eyeline._version import __version__
from eyeline.convert.graph import OPSET
from eyeline.convert.mirror import Mirrored, mirror_onnx
from eyeline.convert.parity import OnStep
from eyeline.convert.sidecars import (
    QUANTISATION,
    ResourceDescriptor,
    canonical_json,
    check_subjects,
    make_manifest,
)
from eyeline.convert.upstream import MirrorRecipe
from eyeline.digests import sha256_hex
from eyeline.errors import (
    LicenceError,
    ModelError,
    OutputError,
    RegistryError,
    UsageError,
    VerificationError,
)
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
from eyeline.registry.registry import read_registry
from eyeline.registry.signing import BUNDLE_SUFFIX, RELEASE_SUFFIX, SIGNATURE_SUFFIX

LOCK_FILE = ".registry.lock"


@contextlib.contextmanager
def registry_lock(folder: Path) -> Iterator[None]:
    """Hold a registry for writing; the lock goes with the process that holds it.

    Raises:
        RegistryError: somebody else is writing.
        OutputError: the folder can't be written.
    """
    refusal = RegistryError(f"{folder}: another process is writing the registry", "wait for it")
    with file_lock(folder / LOCK_FILE, lambda note: refusal):
        yield


def read_own(folder: Path) -> RegistryFile:
    """The records of a folder; none where there is no registry yet.

    Raises:
        RegistryError: a registry that does not parse.
    """
    path = folder / REGISTRY_FILE
    if not path.exists() and not path.is_symlink():
        return RegistryFile(models=[])
    return read_registry(folder)


def write_own(folder: Path, models: list[ModelRecord], decisions: list[Decision]) -> None:
    """Write a registry, whole or not at all; the caller holds `registry_lock`.

    Raises:
        OutputError: the folder can't be written.
    """
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
    """Add a record, or replace the one of its id and role; the registry is made when absent.

    Args:
        folder: the registry's folder, with the record's file in it.
        record: what to register.

    Raises:
        VerificationError: the file's bytes are not the record's.
        RegistryError: the role is production, the id has another role here, the registry does not
            parse, or somebody else is writing it.
        OutputError: the folder can't be written.
    """
    if sha256_hex(read_regular_file(folder / record.file)) != record.sha256:
        raise VerificationError(
            f"{folder / record.file}: not the bytes to register", "export it again"
        )
    if record.role == "production":
        raise RegistryError(
            f"{record.id}: the default is not registered, it is promoted", "eyeline model promote"
        )
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


MANIFEST, PARITY, LICENSE, RECEIPT = ".intoto.json", ".parity.json", ".license.txt", ".receipt.txt"
PAPERS = (".json", LICENSE, RECEIPT, ".cdx.json", MANIFEST, PARITY)
SUFFIXES = (".onnx", *PAPERS, ".md", RELEASE_SUFFIX, SIGNATURE_SUFFIX, BUNDLE_SUFFIX)
"""Of every file that belongs to a model of a registry."""

MAX_PAPER = 16 * 1024 * 1024

RESERVED = frozenset({"registry", "trust", "trusted_root", "promotion", "promotion_gaze"})
"""Ids whose I/O spec would overwrite a file of the registry itself."""


@dataclass(frozen=True)
class Told:
    """What a person says of a model, and nothing can compute.

    Attributes:
        id: unique name in the registry.
        license: SPDX id of the weights' licence.
        description: one plain sentence.
        provenance: where the weights come from.
        io: how frames become its input; None: the I/O spec beside the file, then the defaults.
        task: what its map shows.
    """

    id: str
    license: str
    description: str
    provenance: str
    io: IoSpec | None = None
    task: Task = "objects"


def add_model(
    folder: Path,
    file: Path,
    told: Told,
    *,
    license_file: Path | None = None,
    source: Path | None = None,
    head: int = 0,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ModelRecord:
    """Admit a model to a registry as a candidate (extra `audit`).

    What `eyeline model export` left beside the file (manifest, parity report, receipt) is held against it
    and taken along. Without that, `source` and `license_file` are needed.

    Args:
        folder: the registry's; made when absent.
        file: the ONNX file.
        told: see `Told`.
        license_file: the licence's text, which must be exactly the stated licence.
        source: the ONNX file that the model was made from, to measure parity with.
        head: which output of the source is the map.
        on_step: called with what is being done, how much is done, and how much there is.

    Returns:
        The record, as registered.

    Raises:
        ScanError: the scanner does not admit the model, or its source.
        LicenceError: the policy does not admit the licence, or the text is another.
        ModelError: no parity.
        VerificationError: papers of another file.
        RegistryError: an id that is taken, reserved or malformed; papers that are missing; another
            process is writing.
        OutputError: the folder can't be written.
    """
    from eyeline.scan import admit

    model_id = _checked_id(told.id)
    data = read_regular_file(file)
    report = admit(data, name=file.name)
    papers = _papers_beside(file)
    io = told.io or _spec_beside(papers, file)
    text_suffix, text = _licence(told.license, license_file, papers)
    if MANIFEST in papers and source is None:
        made = _exported(file, model_id, data, papers)
    elif source is not None:
        made = {
            LICENSE: text,
            ".json": canonical_json(io.model_dump(mode="json")),
            PARITY: _measure_parity(source, head, data, file.name, on_step),
        }
        made[MANIFEST] = _manifest(model_id, data, made, told, source, head)
        text_suffix = LICENSE
    else:
        raise RegistryError(
            f"{file}: no manifest ({file.stem}{MANIFEST}) beside it, and nothing to hold it to",
            "name what it was made from with --source, or export it with eyeline model export",
        )
    try:
        record = ModelRecord(
            id=model_id,
            file=f"{model_id}.onnx",
            sha256=sha256_hex(data),
            role="candidate",
            task=told.task,
            opset=report.opset or 0,
            license=told.license,
            description=told.description,
            provenance=told.provenance,
            parameters=_parameters(file, io, made[PARITY]),
            io=io,
            manifest_sha256=sha256_hex(made[MANIFEST]),
            parity_sha256=sha256_hex(made[PARITY]),
            license_sha256=sha256_hex(made[text_suffix]),
        )
    except ValidationError as exc:
        first = " ".join(str(exc).split())[:200]
        raise RegistryError(
            f"{model_id}: can't be registered: {first}", "say it otherwise"
        ) from exc
    _store(folder, record, {**made, ".onnx": data})
    return record


def _checked_id(model_id: str) -> str:
    try:
        checked: str = TypeAdapter(ModelId).validate_python(model_id)
    except ValidationError as exc:
        raise RegistryError(
            f"{model_id!r} is no id", "lower-case letters, digits, _ . and -; 64 at most"
        ) from exc
    if checked in RESERVED:
        raise RegistryError(f"{checked!r} is the registry's own", "take another id")
    return checked


def _papers_beside(file: Path) -> dict[str, bytes]:
    stem, found = file.name.removesuffix(".onnx"), {}
    for suffix in PAPERS:
        path = file.parent / (stem + suffix)
        if path.exists() or path.is_symlink():
            found[suffix] = read_regular_file(path, limit=MAX_PAPER)
    return found


def _spec_beside(papers: Mapping[str, bytes], file: Path) -> IoSpec:
    if ".json" not in papers:
        return IoSpec()
    try:
        return IoSpec.model_validate_json(papers[".json"])
    except ValidationError as exc:
        first = " ".join(str(exc).split())[:200]
        raise RegistryError(f"{file.stem}.json: not an I/O spec: {first}", "fix it") from exc


def _licence(
    stated: str, license_file: Path | None, papers: Mapping[str, bytes]
) -> tuple[str, bytes]:
    """Suffix and bytes of the licence's text, after both the id and the text were judged."""
    from eyeline.audit.licence_text import match_text
    from eyeline.audit.records import load_policy

    codes = load_policy().judge(stated)
    if codes:
        raise LicenceError(
            f"licence {stated}: not admitted ({', '.join(codes)})", "eyeline model audit says why"
        )
    if license_file is not None or LICENSE in papers:
        data = read_regular_file(license_file, limit=MAX_PAPER) if license_file else papers[LICENSE]
        match = match_text(data.decode("utf-8", "replace"))
        if match.id != stated:
            found = match.id or (f"like {match.nearest}, changed" if match.nearest else "unknown")
            raise LicenceError(
                f"{license_file or 'its licence'}: is not the text of {stated} ({found})",
                "state what it is",
            )
        return LICENSE, data
    if RECEIPT in papers and stated == "Apache-2.0":
        from eyeline.convert.sidecars import apache_text

        if apache_text().strip().encode() in papers[RECEIPT]:
            return RECEIPT, papers[RECEIPT]
    raise LicenceError(f"no text of {stated} at hand", "name the file with --license-file")


def _exported(
    file: Path, model_id: str, data: bytes, papers: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The papers of an export, after they were held against the model."""
    import json

    stem = file.name.removesuffix(".onnx")
    if stem != model_id:
        raise RegistryError(
            f"{file}: its manifest calls it {stem}, not {model_id}", f"register it as {stem}"
        )
    check_subjects(papers[MANIFEST], {stem + s: b for s, b in papers.items()} | {file.name: data})
    subjects = {s["name"] for s in json.loads(papers[MANIFEST])["subject"]}
    if file.name not in subjects or not subjects & {stem + LICENSE, stem + RECEIPT}:
        raise RegistryError(
            f"{file}: its manifest leaves out the model or its licence", "export it"
        )
    try:
        passed = json.loads(papers.get(PARITY, b"{}")).get("passed")
    except (ValueError, AttributeError) as exc:
        raise RegistryError(f"{stem}{PARITY}: not a parity report", "export it again") from exc
    if passed is not True:
        raise ModelError(
            f"{stem}{PARITY}: the parity check of {file} did not pass, or there is no report of it",
            "export the model again, or give the file that it was exported from with --source",
        )
    return dict(papers)


def _measure_parity(
    source: Path,
    head: int,
    data: bytes,
    name: str,
    on_step: Callable[[str, int, int], None],
) -> bytes:
    """The parity report of a model and the ONNX file that it was made from, which is scanned first."""
    from eyeline.convert.parity import against_asset
    from eyeline.scan import admit

    theirs = read_regular_file(source)
    admit(theirs, name=source.name)
    return canonical_json(against_asset(theirs, head, data, name, on_step).to_json())


def _manifest(
    model_id: str, data: bytes, made: Mapping[str, bytes], told: Told, source: Path, head: int
) -> bytes:
    subjects = {f"{model_id}{s}": b for s, b in made.items() if s != PARITY}
    material = ResourceDescriptor(source.name, {"sha256": sha256_hex(read_regular_file(source))})
    return make_manifest(
        {f"{model_id}.onnx": data, **subjects},
        external={"id": model_id, "from": "registered", "license": told.license, "head": head},
        internal={},
        materials=[material],
        versions={"eyeline": __version__},
    )


def _parameters(file: Path, io: IoSpec, parity: bytes) -> int:
    """Parameters of the file; of a quantised one those of the float model, as its report has them."""
    import json

    from eyeline.evaluation.benchmark import count_parameters
    from eyeline.registry.registry import Model

    report = json.loads(parity)
    if report.get("kind") == QUANTISATION:
        try:
            return int(report["source"]["parameters"])
        except (KeyError, TypeError, ValueError) as exc:
            raise ModelError(
                f"{file.stem}{PARITY}: names no float model", "quantise it again"
            ) from exc
    return count_parameters(Model(str(file), file, io))


def _files_of(record: ModelRecord) -> set[str]:
    return {record.file} | {record.file.removesuffix(".onnx") + s for s in SUFFIXES}


def _store(folder: Path, record: ModelRecord, files: Mapping[str, bytes]) -> None:
    """Write files and record under the lock, the record last."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{folder}: can't be made: {exc.strerror}", "name a folder of yours"
        ) from exc
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
        if place.is_symlink() or (
            place.exists() and sha256_hex(read_regular_file(place)) != record.sha256
        ):
            raise RegistryError(f"{place}: another file is there", "move it away")
        for suffix in sorted(files, key=lambda s: s == ".onnx"):  # the model after its papers
            path = folder / f"{record.id}{suffix}"
            if path.is_symlink():  # a link would be followed out of the folder
                raise RegistryError(f"{path}: is a symbolic link", "move it away")
            write_bytes(path, files[suffix])
        write_own(folder, [*own.models, record], own.decisions)


def remove_model(folder: Path, model_id: str, *, keep_files: bool = False) -> Sequence[str]:
    """Take a model out of a registry; its decisions stay, as history does.

    Args:
        folder: the registry's.
        model_id: a model of the folder's own registry, not its default.
        keep_files: leave its files.

    Returns:
        Names of the files that were deleted.

    Raises:
        RegistryError: no such model here, it is the default, or another process is writing.
        OutputError: the folder can't be written.
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
        needed = {m.file for m in rest} | {name for m in rest for name in _files_of(m)}
        gone = [n for n in sorted(_files_of(record) - needed) if (folder / n).is_file()]
        for name in gone:
            (folder / name).unlink()  # a link's own name, never what it points to
        return gone


def parse_told(
    model_id: str,
    license_id: str,
    description: str,
    provenance: str,
    io: Path | None,
    task: Task = "objects",
) -> Told:
    """`Told` from words and an I/O spec's file.

    Raises:
        UsageError: not an I/O spec.
        RegistryError: a file that can't be read.
    """
    spec = None
    if io is not None:
        try:
            spec = IoSpec.model_validate_json(read_regular_file(io, limit=1 << 20))
        except ValidationError as exc:
            first = " ".join(str(exc).split())[:200]
            raise UsageError(f"{io}: not an I/O spec: {first}", "see eyeline model schema") from exc
    return Told(model_id, license_id, description, provenance, spec, task)


PARTS = ".fetch"
"""Folder, in the registry, of what is still arriving."""


@dataclass(frozen=True)
class Fetched:
    """What a fetch left.

    Attributes:
        record: as registered.
        mirrored: see `eyeline.convert.mirror.Mirrored`.
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
        on_step: see `eyeline.convert.parity.OnStep`.

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
