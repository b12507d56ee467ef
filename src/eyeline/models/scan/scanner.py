"""The scan itself: its steps in order, each on what the one before let through."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path

from eyeline.errors import ModelError, ScanError
from eyeline.models.scan.child import load_in_child
from eyeline.models.scan.graph import Walk
from eyeline.models.scan.policy import Policy, load_policy
from eyeline.models.scan.report import Finding, Load, ScanReport, WorstCase, printable
from eyeline.models.scan.shapes import Plan, worst_case
from eyeline.models.scan.wire import Reader, WireError
from eyeline.saliency.contract import INPUT_NAME, OUTPUT_NAME

_SMALL = (64, 96)
"""(height, width) of the first run, pixels; multiples of 32, as every net here takes."""

_KINDS = (
    (b"PK\x03\x04", "a zip archive, such as a torch checkpoint"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "an executable"),
    (b"MZ", "an executable"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
    (b"<", "a web page"),
    (b"{", "a JSON file"),
)


def scan(
    data: bytes, policy: Policy | None = None, *, name: str = "model", load: bool = True
) -> ScanReport:
    """Scan a model's bytes.

    Args:
        data: the file, whole.
        policy: what is admitted; the built-in policy when None.
        name: for the report.
        load: whether to load what the static scan admits, in a child process.

    Returns:
        The report: `findings` is empty exactly when the model is admitted.
    """
    policy = policy or load_policy()
    walk = Walk(policy)
    case = None
    plan = _walk(data, policy, walk)
    if plan is not None:
        case, finding = worst_case(plan, policy)
        if finding is not None:
            walk.findings.append(finding)
        walk.notes += _contract_notes(plan)
    outcome = Load("skipped", "the static scan refused it" if walk.findings else "as asked")
    if plan is not None and load and not walk.findings:
        outcome = load_in_child(data, plan.input_shape(_SMALL))
        if outcome.outcome != "loaded":
            walk.find("load", "model", f"first load {outcome.outcome}: {outcome.detail}")
    return _report(name, data, policy, walk, case, outcome)


def admit(data: bytes, policy: Policy | None = None, *, name: str = "model") -> ScanReport:
    """Scan, and refuse: the gate of whoever takes a model in.

    Raises:
        ScanError: with the first finding.
    """
    report = scan(data, policy, name=name)
    if report.findings:
        more = f", and {len(report.findings) - 1} more" if len(report.findings) > 1 else ""
        raise ScanError(f"{name}: {report.findings[0]}{more}", "eyeline model scan tells all")
    return report


def _report(
    name: str,
    data: bytes | None,
    policy: Policy,
    walk: Walk,
    case: WorstCase | None,
    outcome: Load,
) -> ScanReport:
    return ScanReport(
        name=name,
        sha256=hashlib.sha256(data).hexdigest() if data is not None else "",
        size=len(data) if data is not None else 0,
        findings=tuple(walk.findings),
        notes=tuple(walk.notes),
        ops=dict(walk.ops.most_common()),
        opset=walk.opset,
        worst_case=case,
        load=outcome,
        policy={"name": policy.name, "version": policy.version, "sha256": policy.sha256},
    )


def _walk(data: bytes, policy: Policy, walk: Walk) -> Plan | None:
    limits = policy.limits
    if not data:
        walk.find("file-kind", "file", "the file is empty")
        return None
    if len(data) > limits.max_file_bytes:
        walk.find("file-size", "file", f"{len(data):,} bytes, more than {limits.max_file_bytes:,}")
        return None
    if data[4:8] == b"ORTM":
        walk.find("ort-format", "file", "an ORT-format model, or one that can pass for it")
        return None
    reader = Reader(data, limits.max_fields, limits.max_depth)
    try:
        model = reader.read()
    except WireError as error:
        guess = next(
            (f"it looks like {what}" for magic, what in _KINDS if data.startswith(magic)), ""
        )
        reason = f"{error.reason}; {guess}" if guess else error.reason
        walk.find(error.code, error.path, reason)
        return None
    for path, number in reader.unknown:
        walk.find("unknown-field", path, f"field {number}, which onnx.proto does not know")
    return walk.model(model)


def _contract_notes(plan: Plan) -> list[str]:
    notes = []
    if plan.input != INPUT_NAME or plan.outputs != (OUTPUT_NAME,):
        names = ", ".join(printable(n, 40) for n in plan.outputs[:8])
        notes.append(
            f"not the tensor contract: {printable(plan.input, 40)} to {names}, not {INPUT_NAME} to "
            f"{OUTPUT_NAME}; it can't be registered so"
        )
    if all(d is not None for d in plan.dims[2:]):
        notes.append("one input size only: {}x{}".format(*plan.dims[2:]))
    return notes


def scan_file(path: Path, policy: Policy | None = None, *, load: bool = True) -> ScanReport:
    """Scan a file, read once; a link, FIFO or device is refused unread.

    Args:
        path: the file, or `-` for stdin.
        policy: what is admitted; the built-in policy when None.
        load: see `scan`.

    Raises:
        ModelError: nothing there, a folder, or no permission to read it.
    """
    policy = policy or load_policy()
    limit = policy.limits.max_file_bytes
    if str(path) == "-":
        return scan(sys.stdin.buffer.read(limit + 1), policy, name="stdin", load=load)
    try:
        # O_NOFOLLOW: a link would be followed to whatever it names at that moment.
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        found = _kind(path.lstat())
        if found is None:
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            with os.fdopen(os.open(path, flags), "rb") as f:
                found = _kind(os.fstat(f.fileno()))
                data = f.read(limit + 1) if found is None else b""
    except OSError as exc:
        raise ModelError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    except ValueError as exc:  # a NUL in the name
        raise ModelError(f"{str(path)!r}: no file name", "check the path") from exc
    if found == "a folder":
        raise ModelError(f"{path}: a folder", "name the model file in it")
    if found is None:
        return scan(data, policy, name=str(path), load=load)
    walk = Walk(policy)
    walk.findings.append(Finding("file-kind", "file", f"{found}, not a regular file"))
    return _report(str(path), None, policy, walk, None, Load("skipped", "it was not read"))


def _kind(status: os.stat_result) -> str | None:
    """What a path is when it is no regular file."""
    for test, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(status.st_mode):
            return name
    return None if stat.S_ISREG(status.st_mode) else "a device"
