"""A registry's check finds everything that was changed without registering it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eyeline.admission.check import check_registry
from eyeline.registry.records import RegistryFile
from eyeline.registry.registry import BUILTIN
from tiny_models import PLACEHOLDER, write_registry

pytest.importorskip("cyclonedx", reason="extra `audit` is not installed")

from eyeline.admission.add import ModelDeclaration, add_model
from eyeline.convert.sidecars import apache_text

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "LICENSE").write_text(apache_text())
    (tmp_path / "mine.onnx").write_bytes(PLACEHOLDER)
    add_model(
        tmp_path / "r",
        tmp_path / "mine.onnx",
        ModelDeclaration("mine", "Apache-2.0", "A model.", "a test"),
        source=tmp_path / "mine.onnx",
        license_file=tmp_path / "LICENSE",
    )
    return tmp_path / "r"


def faults(folder: Path) -> set[str]:
    return {f.check for f in check_registry(folder).faults}


def test_a_fresh_registry_is_sound(folder: Path) -> None:
    assert faults(folder) == set()


@pytest.mark.parametrize(
    ("suffix", "rooms"),
    [
        (".onnx", {"digest"}),
        (".json", {"io spec", "manifest"}),
        (".license.txt", {"licence", "manifest"}),
        (".intoto.json", {"manifest"}),
        (".parity.json", {"parity"}),
    ],
)
@pytest.mark.parametrize("gone", [False, True])
def test_every_changed_or_missing_file_is_named(
    folder: Path, suffix: str, rooms: set[str], gone: bool
) -> None:
    path = folder / f"mine{suffix}"
    if gone:
        path.unlink()
        rooms = rooms - {"io spec"}  # the record has it too
    else:
        path.write_bytes(path.read_bytes() + b"x")
    assert faults(folder) == rooms


def edit(folder: Path, **fields: object) -> None:
    content = json.loads((folder / "registry.json").read_text())
    content["models"][0] |= fields
    (folder / "registry.json").write_text(json.dumps(content))


def test_a_record_of_another_opset_or_io_spec(folder: Path) -> None:
    edit(folder, opset=13, io={"working_lines": 64})
    assert faults(folder) == {"scan", "io spec"}


def test_two_defaults_are_a_fault(tmp_path: Path) -> None:
    data = PLACEHOLDER
    assert faults(write_registry(tmp_path / "r", {"a": data, "b": data}, role="production")) == {
        "default"
    }


def test_a_default_for_each_task_is_no_fault(tmp_path: Path) -> None:
    data = PLACEHOLDER
    folder = write_registry(
        tmp_path / "r", {"a": data, "b": data}, schema_version=3, role="production"
    )
    edit(folder, task="gaze")
    assert faults(folder) == set()


def test_a_signature_that_is_needed_and_missing(folder: Path) -> None:
    pytest.importorskip("model_signing", reason="extra `sign` is not installed")
    (folder / "trust.json").write_text('{"schema_version": 1, "require_signature": true}')
    assert faults(folder) == {"signature"}


def test_cards_are_needed_where_their_folder_is_named(folder: Path, tmp_path: Path) -> None:
    found = {f.check for f in check_registry(folder, tmp_path).faults}
    assert found == {"card"}


def test_the_builtin_registry_is_sound_and_its_cards_hold() -> None:
    assert check_registry(BUILTIN, ROOT / "docs/models").faults == ()


SCHEMA = json.loads((ROOT / "docs/registry.schema.json").read_text())


def test_the_published_schema_is_the_records() -> None:
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Registry of eyeline",
    }
    assert RegistryFile.model_json_schema() | head == SCHEMA


def test_the_schema_takes_registries_and_refuses_others(folder: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="extra `audit` is not installed")
    check = jsonschema.Draft202012Validator(SCHEMA)
    for place in (BUILTIN, folder):
        check.validate(json.loads((place / "registry.json").read_text()))
    content = json.loads((folder / "registry.json").read_text())
    for field, value in (("id", "../x"), ("file", "a/b.onnx"), ("sha256", "0"), ("role", "best")):
        wrong = {**content, "models": [content["models"][0] | {field: value}]}
        assert not check.is_valid(wrong), field
