"""Records: what crosses a trust boundary is checked field by field."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from eyeline.registry.records import IoSpec, ModelRecord, RegistryFile, needed_version
from tiny_models import record_fields

GOOD = record_fields("tiny", b"bytes")


def test_a_record_survives_json() -> None:
    record = ModelRecord.model_validate(GOOD)
    assert ModelRecord.model_validate_json(record.model_dump_json()) == record


def test_a_record_without_a_task_finds_objects() -> None:
    assert ModelRecord.model_validate(GOOD).task == "objects"


def test_an_io_spec_without_a_filter_is_written_as_it_was_before_filters() -> None:
    assert "temporal_ms" not in IoSpec().model_dump()
    assert IoSpec.model_validate_json('{"multiple": 8}') == IoSpec(multiple=8, temporal_ms=0)
    spec = IoSpec(temporal_ms=150)
    assert IoSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({}, 1),
        ({"license_sha256": "0" * 64}, 2),
        ({"task": "gaze"}, 3),
        ({"io": {"temporal_ms": 150}}, 3),
    ],
)
def test_a_registry_has_the_oldest_version_that_can_hold_it(
    fields: dict[str, object], version: int
) -> None:
    record = ModelRecord.model_validate(GOOD | fields)
    assert needed_version([record], []) == version
    RegistryFile(schema_version=version, models=[record])  # type: ignore[arg-type]
    if version > 1:
        with pytest.raises(ValidationError, match=f"uses fields of version {version}"):
            RegistryFile(schema_version=version - 1, models=[record])  # type: ignore[arg-type]


def test_a_record_can_not_be_changed() -> None:
    record = ModelRecord.model_validate(GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        record.role = "production"  # type: ignore[misc]


@pytest.mark.parametrize("field", ["id", "file", "sha256", "role", "opset", "license"])
def test_a_field_that_is_missing_is_named(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        ModelRecord.model_validate({k: v for k, v in GOOD.items() if k != field})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", "../tiny.onnx"),
        ("file", "/etc/tiny.onnx"),
        ("file", "sub/tiny.onnx"),
        ("file", "..\\tiny.onnx"),
        ("file", "..onnx"),
        ("file", ".onnx"),
        ("file", "tiny.onnx\n"),
        ("file", "tiny.onnx\0"),
        ("file", "tiny.pkl"),
        ("id", ""),
        ("id", "Tiny"),
        ("id", "../tiny"),
        ("id", "tiny\n"),
        ("id", "t" * 65),
        ("sha256", "0" * 63),
        ("sha256", "0" * 65),
        ("sha256", "F" * 64),
        ("role", "default"),
        ("opset", 10),
        ("opset", 31),
        ("license", ""),
        ("description", ""),
        ("provenance", ""),
        ("parameters", -1),
        ("task", "faces"),
        ("url", "https://example.org"),
    ],
)
def test_a_bad_value_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        ModelRecord.model_validate(GOOD | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", "bgr"),
        ("scale", "1"),
        ("output", "softmax"),
        ("working_lines", 15),
        ("working_lines", 4321),
        ("multiple", 0),
        ("multiple", 257),
        ("squash", [320]),
        ("squash", [320, 15]),
        ("squash", [4321, 320]),
        ("mean", [0, 0, 0]),
        ("temporal_ms", -1),
        ("temporal_ms", 2001),
        ("temporal_ms", float("nan")),
    ],
)
def test_a_bad_io_spec_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        IoSpec.model_validate({field: value})
