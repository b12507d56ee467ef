"""Is a registry sound? Everything that can be checked without a network, model by model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from eyeline.admission.add import LICENSE, MANIFEST, MAX_PAPER, PARITY, RECEIPT
from eyeline.convert.sidecars import check_subjects
from eyeline.digests import sha256_hex
from eyeline.errors import EyelineError, RegistryError, VerificationError
from eyeline.files import read_regular_file
from eyeline.registry.records import IoSpec, ModelRecord, Task, TrustPolicy
from eyeline.registry.registry import Model, read_registry, read_trust
from eyeline.registry.signing import BUNDLE_SUFFIX, SIGNATURE_SUFFIX

Room = Literal[
    "digest", "scan", "io spec", "licence", "manifest", "parity", "card", "signature", "default"
]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        model: id; empty for the registry itself.
        room: what was looked at.
        state: `ok`; `absent`, which is no fault; or `fault`.
        detail: one line.
    """

    model: str
    room: Room
    state: Literal["ok", "absent", "fault"]
    detail: str


@dataclass(frozen=True)
class Health:
    """What the doctor found.

    Attributes:
        folder: the registry's.
        findings: in the order in which things were looked at.
    """

    folder: Path
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What must be mended."""
        return tuple(f for f in self.findings if f.state == "fault")

    def to_json(self) -> dict[str, object]:
        """JSON values, `sound` first."""
        return {"sound": not self.faults, "findings": [asdict(f) for f in self.findings]}


def check_registry(folder: Path, cards: Path | None = None) -> Health:
    """Check a registry's folder.

    Args:
        folder: the registry's.
        cards: folder of the models' cards and their sources; every model must have one there. None:
            a card beside the model is looked for and may be absent.

    Raises:
        RegistryError: no registry there, or a registry or trust policy that does not parse.
    """
    records = read_registry(folder).models
    trust = read_trust(folder)
    found: list[Finding] = []
    for record in records:
        found += _model(folder, record, trust, cards)
    for task in get_args(Task):
        defaults = [m.id for m in records if m.role == "production" and m.task == task]
        if len(defaults) > 1:
            detail = f"{len(defaults)} models are production for {task}: {', '.join(defaults)}"
            found.append(Finding("", "default", "fault", detail))
    return Health(folder, tuple(found))


def _model(
    folder: Path, record: ModelRecord, trust: TrustPolicy | None, cards: Path | None
) -> Iterator[Finding]:
    def say(room: Room, state: Literal["ok", "absent", "fault"], detail: str) -> Finding:
        return Finding(record.id, room, state, detail)

    stem = record.file.removesuffix(".onnx")
    try:
        data = read_regular_file(folder / record.file)
    except RegistryError as exc:
        yield say("digest", "fault", exc.message)
        return
    if sha256_hex(data) != record.sha256:
        yield say("digest", "fault", f"{record.file}: not the registered bytes")
        return
    yield say("digest", "ok", record.sha256[:16])
    yield _scan(record, data)
    yield _io(folder / f"{stem}.json", record)
    papers = {
        s: _read(folder / (stem + s)) for s in (LICENSE, RECEIPT, ".cdx.json", ".json", PARITY)
    }
    text = papers[LICENSE] if papers[LICENSE] is not None else papers[RECEIPT]
    yield _paper(record, "licence", text, record.license_sha256)
    parity = papers[PARITY]
    yield _paper(record, "parity", parity, record.parity_sha256)
    yield _manifest(folder, record, data, papers)
    yield _card(folder, record, cards)
    yield _signature(folder, record, data, trust)


def _read(path: Path) -> bytes | None:
    if not path.exists() and not path.is_symlink():
        return None
    return read_regular_file(path, limit=MAX_PAPER)


def _scan(record: ModelRecord, data: bytes) -> Finding:
    from eyeline.scan import scan

    report = scan(data, name=record.file)
    if not report.admitted:
        return Finding(record.id, "scan", "fault", str(report.findings[0]))
    if report.opset != record.opset:
        detail = f"opset {report.opset}, the record says {record.opset}"
        return Finding(record.id, "scan", "fault", detail)
    return Finding(record.id, "scan", "ok", f"admitted, opset {report.opset}")


def _io(path: Path, record: ModelRecord) -> Finding:
    data = _read(path)
    if data is None:
        return Finding(record.id, "io spec", "absent", "the record alone has it")
    try:
        same = IoSpec.model_validate_json(data) == record.io
    except ValueError:  # pydantic's error is one
        return Finding(record.id, "io spec", "fault", f"{path.name}: not an I/O spec")
    detail = "the sidecar is the record's" if same else f"{path.name} is not the record's"
    return Finding(record.id, "io spec", "ok" if same else "fault", detail)


def _paper(record: ModelRecord, room: Room, data: bytes | None, wanted: str | None) -> Finding:
    if wanted is None:
        return Finding(record.id, room, "absent", "none registered")
    if data is None:
        return Finding(record.id, room, "fault", "registered, and not there")
    if sha256_hex(data) != wanted:
        return Finding(record.id, room, "fault", "not the registered bytes")
    return Finding(record.id, room, "ok", wanted[:16])


def _manifest(
    folder: Path, record: ModelRecord, data: bytes, papers: dict[str, bytes | None]
) -> Finding:
    stem = record.file.removesuffix(".onnx")
    manifest = _read(folder / f"{stem}{MANIFEST}")
    finding = _paper(record, "manifest", manifest, record.manifest_sha256)
    if manifest is None or finding.state == "fault":
        return finding
    files = {stem + s: b for s, b in papers.items() if b is not None} | {record.file: data}
    try:
        check_subjects(manifest, files)
        covered = {s["name"] for s in json.loads(manifest)["subject"]}
    except VerificationError as exc:
        return Finding(record.id, "manifest", "fault", exc.message)
    if record.file not in covered:
        return Finding(record.id, "manifest", "fault", "it does not cover the model")
    return Finding(record.id, "manifest", "ok", f"covers {len(covered)} files")


def _card(folder: Path, record: ModelRecord, cards: Path | None) -> Finding:
    path = (cards or folder) / f"{record.id}.md"
    if not path.is_file():
        return Finding(record.id, "card", "fault" if cards else "absent", f"no {path.name}")
    if cards is None:
        return Finding(record.id, "card", "ok", path.name)
    from eyeline.admission.card import check_card

    try:
        moved = check_card(
            path.read_text(), Model(record.id, folder / record.file, record.io, record), cards
        )
    except EyelineError as exc:
        return Finding(record.id, "card", "fault", exc.message)
    if moved:
        return Finding(record.id, "card", "fault", f"{path.name} differs from its sources")
    return Finding(record.id, "card", "ok", f"{path.name} holds")


def _signature(
    folder: Path, record: ModelRecord, data: bytes, trust: TrustPolicy | None
) -> Finding:
    stem = record.file.removesuffix(".onnx")
    signed = any((folder / (stem + s)).exists() for s in (SIGNATURE_SUFFIX, BUNDLE_SUFFIX))
    if trust is None:
        detail = "a signature, and no trust policy to hold it to" if signed else "no trust policy"
        return Finding(record.id, "signature", "absent", detail)
    needed = trust.require_signature and trust.requirement(record.role).signed
    if not needed and not signed and record.sha256 not in trust.revoked_models:
        return Finding(record.id, "signature", "absent", f"none needed for role {record.role}")
    from eyeline.registry.signing import verify_model

    try:
        who = verify_model(record, data, trust, folder)
    except EyelineError as exc:
        return Finding(record.id, "signature", "fault", exc.message)
    return Finding(record.id, "signature", "ok", f"by {who.signer}")
