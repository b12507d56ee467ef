"""Check a registry: digests, scan, sidecars, cards and signatures, without the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from eyeline.convert.sidecars import (
    BOM,
    IO_SPEC,
    LICENSE,
    MANIFEST,
    MAX_SIDECAR,
    PARITY,
    RECEIPT,
    check_subjects,
)
from eyeline.digests import sha256_hex
from eyeline.errors import EyelineError, RegistryError, VerificationError
from eyeline.files import read_regular_file
from eyeline.registry.records import IoSpec, ModelRecord, Task, TrustPolicy
from eyeline.registry.registry import Model, read_registry, read_trust
from eyeline.registry.signing import BUNDLE_SUFFIX, SIGNATURE_SUFFIX, read_if_present, verify_model
from eyeline.scan import scan

State = Literal["ok", "absent", "fault"]


@dataclass(frozen=True)
class RegistryFinding:
    """The result of one check.

    Attributes:
        model: id of the model; empty for a check of the whole registry.
        check: `digest`, `scan`, `io spec`, `licence`, `manifest`, `parity`, `card`, `signature` or
            `default`.
        state: `ok`; `absent` if an optional file is missing; or `fault`.
        detail: explanation in one line.
    """

    model: str
    check: str
    state: State
    detail: str


class _Answer(NamedTuple):
    state: State
    detail: str


@dataclass(frozen=True)
class RegistryHealth:
    """The findings about a registry.

    Attributes:
        findings: the results, in the order of the checks.
    """

    findings: tuple[RegistryFinding, ...]

    @property
    def faults(self) -> tuple[RegistryFinding, ...]:
        """The findings that must be repaired."""
        return tuple(f for f in self.findings if f.state == "fault")

    def to_json(self) -> dict[str, object]:
        """Return JSON values, `sound` first."""
        findings = [
            {"model": f.model, "room": f.check, "state": f.state, "detail": f.detail}
            for f in self.findings
        ]
        return {"sound": not self.faults, "findings": findings}


def check_registry(folder: Path, cards: Path | None = None) -> RegistryHealth:
    """Check the registry in a folder.

    Args:
        folder: folder of the registry.
        cards: folder with the model cards and their sources; every model needs a card in it. None
            looks for optional cards beside the models.

    Raises:
        RegistryError: the registry is missing or invalid, or the trust policy is invalid.
    """
    records = read_registry(folder).models
    trust = read_trust(folder)
    found = [
        RegistryFinding(record.id, what, *answer)
        for record in records
        for what, answer in _check_model(folder, record, trust, cards)
    ]
    for task in get_args(Task):
        defaults = [m.id for m in records if m.role == "production" and m.task == task]
        if len(defaults) > 1:
            detail = f"{len(defaults)} models are production for {task}: {', '.join(defaults)}"
            found.append(RegistryFinding("", "default", "fault", detail))
    return RegistryHealth(tuple(found))


def _check_model(
    folder: Path, record: ModelRecord, trust: TrustPolicy | None, cards: Path | None
) -> Iterator[tuple[str, _Answer]]:
    path = folder / record.file
    try:
        data = read_regular_file(path)
    except RegistryError as exc:
        yield "digest", _Answer("fault", exc.message)
        return
    if sha256_hex(data) != record.sha256:
        yield "digest", _Answer("fault", f"{record.file}: its sha256 differs from the record")
        return
    yield "digest", _Answer("ok", record.sha256[:16])
    suffixes = (LICENSE, RECEIPT, BOM, IO_SPEC, PARITY, MANIFEST)
    files = {s: read_if_present(path.with_suffix(s), MAX_SIDECAR) for s in suffixes}
    yield "scan", _scan(record, data)
    yield "io spec", _io_spec(files[IO_SPEC], record)
    text = files[LICENSE] if files[LICENSE] is not None else files[RECEIPT]
    yield "licence", _sidecar(text, record.license_sha256)
    yield "parity", _sidecar(files[PARITY], record.parity_sha256)
    yield "manifest", _manifest(record, data, files)
    yield "card", _card(folder, record, cards)
    yield "signature", _signature(folder, record, data, trust)


def _scan(record: ModelRecord, data: bytes) -> _Answer:
    report = scan(data, name=record.file)
    if not report.admitted:
        return _Answer("fault", str(report.findings[0]))
    if report.opset != record.opset:
        return _Answer("fault", f"the model has opset {report.opset}, the record {record.opset}")
    return _Answer("ok", f"accepted, opset {report.opset}")


def _io_spec(data: bytes | None, record: ModelRecord) -> _Answer:
    if data is None:
        return _Answer("absent", "no file; the I/O spec of the record applies")
    name = record.file.removesuffix(".onnx") + IO_SPEC
    try:
        same = IoSpec.model_validate_json(data) == record.io
    except ValueError:  # base class of the errors of pydantic
        return _Answer("fault", f"{name} is not a valid I/O spec")
    if same:
        return _Answer("ok", f"{name} is the same as in the record")
    return _Answer("fault", f"{name} differs from the I/O spec in the record")


def _sidecar(data: bytes | None, wanted: str | None) -> _Answer:
    if wanted is None:
        return _Answer("absent", "the record names no such file")
    if data is None:
        return _Answer("fault", "the record has its digest, but the file is missing")
    if sha256_hex(data) != wanted:
        return _Answer("fault", "its sha256 differs from the record")
    return _Answer("ok", wanted[:16])


def _manifest(record: ModelRecord, data: bytes, files: dict[str, bytes | None]) -> _Answer:
    manifest = files[MANIFEST]
    answer = _sidecar(manifest, record.manifest_sha256)
    if manifest is None or answer.state == "fault":
        return answer
    stem = record.file.removesuffix(".onnx")
    there = {stem + s: b for s, b in files.items() if b is not None} | {record.file: data}
    try:
        covered = check_subjects(manifest, there)
    except VerificationError as exc:
        return _Answer("fault", exc.message)
    if record.file not in covered:
        return _Answer("fault", "the manifest does not list the model")
    return _Answer("ok", f"lists {len(covered)} files")


def _card(folder: Path, record: ModelRecord, cards: Path | None) -> _Answer:
    path = (cards or folder) / f"{record.id}.md"
    if not path.is_file():
        return _Answer("fault" if cards else "absent", f"{path.name} does not exist")
    if cards is None:
        return _Answer("ok", path.name)
    from eyeline.admission.card import check_card

    try:
        moved = check_card(
            path.read_text(), Model(record.id, folder / record.file, record.io, record), cards
        )
    except EyelineError as exc:
        return _Answer("fault", exc.message)
    if moved:
        return _Answer("fault", f"{path.name} differs from its sources")
    return _Answer("ok", f"{path.name} agrees with its sources")


def _signature(
    folder: Path, record: ModelRecord, data: bytes, trust: TrustPolicy | None
) -> _Answer:
    path = folder / record.file
    signed = any(path.with_suffix(s).exists() for s in (SIGNATURE_SUFFIX, BUNDLE_SUFFIX))
    if trust is None:
        but = "signed, but " if signed else ""
        return _Answer("absent", f"{but}the registry has no trust policy")
    needed = trust.require_signature and trust.requirement(record.role).signed
    if not needed and not signed and record.sha256 not in trust.revoked_models:
        return _Answer("absent", f"the role {record.role} needs no signature")
    try:
        who = verify_model(record, data, trust, folder)
    except EyelineError as exc:
        return _Answer("fault", exc.message)
    return _Answer("ok", f"signed by {who.signer}")
