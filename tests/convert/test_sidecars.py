"""The files beside a model: a manifest that any changed or missing file contradicts, and their order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.convert.sidecars import (
    ResourceDescriptor,
    check_subjects,
    make_manifest,
    write_model,
)
from eyeline.errors import OutputError, VerificationError

CONTENTS = {"out.onnx": bytes(range(256)), "out.json": b"{}\n", "out.receipt.txt": b"Apache-2.0\n"}
MANIFEST = make_manifest(
    CONTENTS,
    external={"recipe": "tiny"},
    internal={"opset": 17},
    materials=[
        ResourceDescriptor("w.pth", {"sha256": "0" * 64}, "https://example.org/w", "weights")
    ],
    versions={"eyeline": "1"},
)


def test_files_match_their_manifest() -> None:
    assert check_subjects(MANIFEST, CONTENTS) == set(CONTENTS)


@settings(max_examples=30)
@given(st.sampled_from(sorted(CONTENTS)), st.integers(0, 10**6))
def test_one_flipped_byte_is_found(name: str, at: int) -> None:
    data = bytearray(CONTENTS[name])
    data[at % len(data)] ^= 1
    with pytest.raises(VerificationError, match=f"{name}: its sha256 differs"):
        check_subjects(MANIFEST, CONTENTS | {name: bytes(data)})


def test_a_missing_file_is_found() -> None:
    files = {k: v for k, v in CONTENTS.items() if k != "out.receipt.txt"}
    with pytest.raises(VerificationError, match=r"lists out\.receipt\.txt, but this file is miss"):
        check_subjects(MANIFEST, files)


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"subject": []}', b"\xff"])
def test_invalid_manifests_are_rejected(manifest: bytes) -> None:
    with pytest.raises(VerificationError, match="not a valid in-toto statement"):
        check_subjects(manifest, {})


def test_another_predicate_is_rejected() -> None:
    other = json.loads(MANIFEST) | {"predicateType": "https://spdx.dev/Document"}
    with pytest.raises(VerificationError, match=r"spdx\.dev"):
        check_subjects(json.dumps(other).encode(), CONTENTS)


def test_the_library_of_in_toto_accepts_the_statement() -> None:
    statement = pytest.importorskip("in_toto_attestation.v1.statement")
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement_pb2 import Statement

    parsed = json_format.Parse(MANIFEST.decode(), Statement())
    statement.Statement.copy_from_pb(parsed).validate()


def test_a_sidecar_that_cant_be_written_leaves_no_model(tmp_path: Path) -> None:
    (tmp_path / "out.receipt.txt").mkdir()
    with pytest.raises(OutputError):
        write_model(tmp_path / "out.onnx", b"model", {".json": b"{}", ".receipt.txt": b"text"})
    assert not (tmp_path / "out.onnx").exists()
