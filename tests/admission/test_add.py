"""Into a registry and out of it: the gates, the papers, two writers, and a kill at the worst moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from eyeline.digests import sha256_hex
from eyeline.errors import LicenceError, ModelError, RegistryError, ScanError
from eyeline.registry.registry import Registry, read_registry
from tiny_models import PLACEHOLDER, make_model, plane_model, write_registry

pytest.importorskip("cyclonedx", reason="extra `audit` is not installed")

from test_mirror import asset_bytes, recipe

from eyeline.admission.add import ModelDeclaration, add_model, remove_model
from eyeline.admission.check import check_registry
from eyeline.convert.mirror import mirror_onnx
from eyeline.convert.sidecars import apache_text


def told(model_id: str = "mine", spdx: str = "Apache-2.0") -> ModelDeclaration:
    return ModelDeclaration(model_id, spdx, "A test's model.", "made in a test")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "LICENSE").write_text(apache_text())
    place = tmp_path / "mine.onnx"
    place.write_bytes(PLACEHOLDER)
    return place


def add(file: Path, model_id: str = "mine", **fields: object) -> None:
    options = {"source": file, "license_file": file.parent / "LICENSE"} | fields
    add_model(file.parent / "r", file, told(model_id), **options)  # type: ignore[arg-type]


def test_added_is_a_candidate_with_its_papers(file: Path) -> None:
    add(file)
    model = Registry(file.parent / "r").get("mine")
    record = model.record
    assert record is not None
    assert (record.role, record.parameters, record.opset) == ("candidate", 4, 17)
    assert model.sha256 == sha256_hex(file.read_bytes())
    papers = {
        s: (file.parent / f"r/mine{s}").read_bytes() for s in (".intoto.json", ".parity.json")
    }
    assert record.manifest_sha256 == sha256_hex(papers[".intoto.json"])
    assert json.loads(papers[".parity.json"])["passed"] is True
    assert not check_registry(file.parent / "r").faults


def test_the_manifest_is_the_same_twice(file: Path) -> None:
    add(file)
    first = (file.parent / "r/mine.intoto.json").read_bytes()
    remove_model(file.parent / "r", "mine")
    add(file)
    assert (file.parent / "r/mine.intoto.json").read_bytes() == first


def test_what_the_scanner_refuses_stays_out(file: Path) -> None:
    from onnx import helper

    file.write_bytes(make_model([helper.make_node("Det", ["input"], ["saliency_map"])]))
    with pytest.raises(ScanError):
        add(file)
    assert not (file.parent / "r").exists()


@pytest.mark.parametrize(
    ("spdx", "text", "why"),
    [
        ("CC-BY-NC-SA-4.0", None, "NC"),
        ("MIT", None, "not the text of MIT"),
        ("Apache-2.0", "\nYou may not use this commercially.\n", "not the text of Apache-2.0"),
    ],
)
def test_licences_that_stay_out(file: Path, spdx: str, text: str | None, why: str) -> None:
    if text:
        (file.parent / "LICENSE").write_text(apache_text() + text)
    with pytest.raises(LicenceError, match=why):
        add_model(
            file.parent / "r", file, told(spdx=spdx),
            source=file, license_file=file.parent / "LICENSE",
        )  # fmt: skip


def test_another_function_is_refused(file: Path) -> None:
    theirs = file.parent / "theirs.onnx"
    theirs.write_bytes(plane_model(gain=0.5))
    with pytest.raises(ModelError, match="differs"):
        add(file, source=theirs)
    assert not (file.parent / "r").exists()


def test_without_papers_or_source_there_is_nothing_to_hold_it_to(file: Path) -> None:
    with pytest.raises(RegistryError, match="no manifest"):
        add(file, source=None)


def exported(folder: Path) -> Path:
    (folder / "theirs.onnx").write_bytes(asset_bytes())
    out = folder / "tinynet_mirror.onnx"
    return mirror_onnx(folder / "theirs.onnx", out, recipe(asset_bytes())).model


def test_an_export_brings_its_papers(tmp_path: Path) -> None:
    add_model(tmp_path / "r", exported(tmp_path), told("tinynet_mirror"))
    health = check_registry(tmp_path / "r")
    assert not health.faults
    states = {f.room: f.state for f in health.findings}
    assert states["manifest"] == states["licence"] == states["parity"] == "ok"


def test_papers_of_other_bytes_are_refused(tmp_path: Path) -> None:
    model = exported(tmp_path)
    model.write_bytes(PLACEHOLDER)
    with pytest.raises(ModelError, match="not the manifest's"):
        add_model(tmp_path / "r", model, told("tinynet_mirror"))


def test_an_export_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="calls it tinynet_mirror"):
        add_model(tmp_path / "r", exported(tmp_path), told("other"))


@pytest.mark.parametrize(
    "model_id", ["../out", "a/b", "", ".hidden", "UPPER", "x" * 65, "registry", "trust", "a\n"]
)
def test_ids_that_could_escape_or_overwrite(file: Path, model_id: str) -> None:
    with pytest.raises(RegistryError):
        add(file, model_id)
    assert not (file.parent / "r").exists()


def test_no_file_of_another_model_is_taken(file: Path) -> None:
    add(file, "a")
    with pytest.raises(RegistryError, match="registered already"):
        add(file, "a")
    (file.parent / "r/b.onnx").write_bytes(b"something else")
    with pytest.raises(RegistryError, match="another file"):
        add(file, "b")


def test_a_link_in_the_folder_is_not_followed_out(file: Path) -> None:
    outside = file.parent / "precious.json"
    outside.write_text("precious")
    (file.parent / "r").mkdir()
    (file.parent / "r/mine.json").symlink_to(outside)
    with pytest.raises(RegistryError, match="symbolic link"):
        add(file)
    assert outside.read_text() == "precious"


def test_removed_with_its_files_only(file: Path) -> None:
    add(file, "a")
    add(file, "b")
    gone = remove_model(file.parent / "r", "a")
    left = {p.name for p in (file.parent / "r").iterdir()}
    assert "a.onnx" in gone
    assert not any(name.startswith("a.") for name in left)
    assert [m.id for m in read_registry(file.parent / "r").models] == ["b"]
    assert not check_registry(file.parent / "r").faults


def test_the_default_is_not_removed(tmp_path: Path) -> None:
    folder = write_registry(tmp_path / "r", {"mine": plane_model()}, role="production")
    with pytest.raises(RegistryError, match="is the default"):
        remove_model(folder, "mine")
    with pytest.raises(RegistryError, match="no model"):
        remove_model(folder, "saliency_student_v3")


def _add_one(folder: str, model_id: str, start: object) -> None:
    start.wait(60)  # type: ignore[attr-defined]
    file = Path(folder) / "mine.onnx"
    while True:  # until the test's patience ends
        try:
            return add(file, model_id)
        except RegistryError as exc:
            if "another process" not in exc.message:
                raise
            time.sleep(0.01)


def test_two_writers_both_get_in(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    writers = [
        context.Process(target=_add_one, args=(str(file.parent), i, start)) for i in ("a", "b")
    ]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join(120)
    assert [w.exitcode for w in writers] == [0, 0]
    assert {m.id for m in read_registry(file.parent / "r").models} == {"a", "b"}
    assert not check_registry(file.parent / "r").faults


def _die_before_the_rename(folder: str) -> None:
    from eyeline.admission import add as registering

    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    registering.write_own = killed  # type: ignore[assignment]
    add(Path(folder) / "mine.onnx", "second")


def test_a_kill_leaves_the_old_registry_and_the_way_free(file: Path) -> None:
    add(file, "first")
    before = (file.parent / "r/registry.json").read_bytes()
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=_die_before_the_rename, args=(str(file.parent),))
    writer.start()
    writer.join(120)
    assert writer.exitcode == -signal.SIGKILL
    assert (file.parent / "r/second.onnx").exists()  # it died after the files, before the record
    assert (file.parent / "r/registry.json").read_bytes() == before
    add(file, "second")
    assert {m.id for m in read_registry(file.parent / "r").models} == {"first", "second"}
