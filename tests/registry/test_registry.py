"""Finding a model, and bytes that are the registered ones or none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import commands
from eyeline.admission.add import write_own
from eyeline.digests import sha256_hex
from eyeline.errors import EyelineError, RegistryError, VerificationError
from eyeline.files import read_regular_file
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import (
    BUILTIN,
    DEFAULT_TASKS,
    Registry,
    Use,
    read_registry,
    resolve_model,
)
from tiny_models import BLUE, GREEN, RED, plane_model, write_registry

TINY = plane_model()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EYELINE_MODEL", raising=False)
    monkeypatch.delenv("EYELINE_REGISTRY", raising=False)


def one_line(exc: BaseException) -> str:
    assert isinstance(exc, EyelineError)
    assert "\n" not in str(exc)
    assert exc.exit_code == 2
    return str(exc)


def test_sha256_of_the_empty_string() -> None:
    # FIPS 180-4, the example of the empty message.
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_hex(b"") == digest


# --- the built-in registry


def test_every_builtin_model_holds_the_registered_bytes() -> None:
    for model in Registry():
        assert model.record is not None
        assert sha256_hex(model.path.read_bytes()) == model.record.sha256 == model.sha256


def test_the_builtin_folder_holds_nothing_that_is_not_registered() -> None:
    ids = {m.id for m in Registry()}
    models = {p.name for p in BUILTIN.glob("*.onnx")}
    assert models == {m.path.name for m in Registry()}
    sidecars = {p.name for p in BUILTIN.iterdir()} - models - {"registry.json"}
    assert {name.split(".")[0] for name in sidecars} <= ids


def test_the_builtin_files_are_what_their_records_say() -> None:
    onnx = pytest.importorskip("onnx")
    for model in Registry():
        assert model.record is not None
        graph = onnx.load_from_string(model.data)
        assert [o.version for o in graph.opset_import if not o.domain] == [model.record.opset]
        onnx.checker.check_model(graph, full_check=True)


def test_the_default_is_a_real_model_that_is_small_enough() -> None:
    default = resolve_model()
    assert default.record is not None
    assert default.record.role == "production"
    assert not default.smoke
    assert default.record.parameters <= 300_000
    assert len(default.data) < 1_200_000


def test_the_placeholder_says_that_it_is_one() -> None:
    placeholder = resolve_model("placeholder")
    assert placeholder.smoke
    assert placeholder.record is not None
    assert placeholder.record.role == "smoke"


# --- a user's own registry


def test_a_users_folder_stands_beside_the_builtin_models(tmp_path: Path) -> None:
    write_registry(tmp_path, {"mine": TINY})
    registry = Registry(tmp_path)
    assert {"mine", "placeholder"} <= {m.id for m in registry}
    assert registry.get("mine").data == TINY
    assert registry.get("mine").io == IoSpec(working_lines=16, multiple=1)


def test_a_users_id_wins_over_a_builtin_one(tmp_path: Path) -> None:
    write_registry(tmp_path, {"placeholder": TINY})
    assert resolve_model("placeholder", tmp_path).data == TINY


@pytest.mark.parametrize("model_id", ["mine", "placeholder"])
def test_a_users_production_model_is_the_default(tmp_path: Path, model_id: str) -> None:
    write_registry(tmp_path, {model_id: TINY}, role="production")
    assert resolve_model(registry=tmp_path).id == model_id


def test_a_users_candidate_is_not_the_default(tmp_path: Path) -> None:
    write_registry(tmp_path, {"mine": TINY})
    assert resolve_model(registry=tmp_path).id == resolve_model().id


def two_tasks(folder: Path, **fields: object) -> Path:
    """A registry with a production model of each task and a candidate for gaze."""
    write_registry(folder, {"things": TINY, "eyes": TINY, "newer": TINY}, schema_version=3)
    content = json.loads((folder / "registry.json").read_text())
    for record, task, role in zip(
        content["models"],
        ("objects", "gaze", "gaze"),
        ("production", "production", "candidate"),
        strict=True,
    ):
        record |= {"task": task, "role": role}
    content |= fields
    (folder / "registry.json").write_text(json.dumps(content))
    return folder


def test_each_task_has_its_own_default(tmp_path: Path) -> None:
    two_tasks(tmp_path)
    registry = Registry(tmp_path)
    assert (registry.default().id, registry.default("gaze").id) == ("things", "eyes")
    assert resolve_model(registry=tmp_path).id == "things"
    found = resolve_model(registry=tmp_path, task="gaze")
    assert (found.id, found.task, found.label) == ("eyes", "gaze", "eyes (map: gaze)")


@pytest.mark.parametrize("use", list(DEFAULT_TASKS))
def test_a_use_takes_the_task_of_its_row(
    tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_tasks(tmp_path)
    assert resolve_model(registry=tmp_path, use=use).task == DEFAULT_TASKS[use]
    monkeypatch.setitem(DEFAULT_TASKS, use, "gaze")
    assert resolve_model(registry=tmp_path, use=use).id == "eyes"
    assert resolve_model(registry=tmp_path, use=use, task="objects").id == "things"


def test_a_named_model_must_have_the_task_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_tasks(tmp_path)
    assert resolve_model("newer", tmp_path, task="gaze").id == "newer"
    for name in ("things", Registry(tmp_path).get("things")):
        with pytest.raises(RegistryError, match="things makes objects maps") as caught:
            resolve_model(name, tmp_path, task="gaze")
        assert "--map or --model" in one_line(caught.value)
    monkeypatch.setenv("EYELINE_MODEL", "things")
    with pytest.raises(RegistryError, match="but gaze maps were requested"):
        resolve_model(registry=tmp_path, task="gaze")


def test_an_unregistered_file_is_what_the_caller_says(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(TINY)
    path = str(tmp_path / "a.onnx")
    assert (resolve_model(path).task, resolve_model(path).label) == (None, "a")
    assert resolve_model(path, task="gaze").label == "a (map: gaze)"


@pytest.mark.usefixtures("no_builtin_models")
def test_a_task_without_a_production_model_says_what_to_do(tmp_path: Path) -> None:
    registry = Registry(write_registry(tmp_path, {"mine": TINY}, schema_version=3, task="gaze"))
    with pytest.raises(RegistryError, match="no production model for gaze") as caught:
        registry.default("gaze")
    assert "mine" in caught.value.hint
    assert "eyeline model promote" in caught.value.hint


def test_a_registry_that_was_written_again_reads_the_same(tmp_path: Path) -> None:
    two_tasks(tmp_path)
    before = read_registry(tmp_path)
    write_own(tmp_path, before.models, before.decisions)
    assert read_registry(tmp_path) == before
    objects = [m for m in before.models if m.task == "objects"]
    write_own(tmp_path, objects, [])
    assert '"task"' not in (tmp_path / "registry.json").read_text()  # as older versions wrote it
    assert read_registry(tmp_path).schema_version == 1


def test_the_folder_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_registry(tmp_path / "env", {"from-env": TINY})
    write_registry(tmp_path / "given", {"given": TINY})
    monkeypatch.setenv("EYELINE_REGISTRY", str(tmp_path / "env"))
    assert "from-env" in Registry()
    assert "from-env" not in Registry(tmp_path / "given")


def test_the_model_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EYELINE_MODEL", "placeholder")
    assert resolve_model().id == "placeholder"
    (tmp_path / "a.onnx").write_bytes(TINY)
    assert resolve_model(str(tmp_path / "a.onnx")).data == TINY


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    default = resolve_model().id
    monkeypatch.setenv("EYELINE_MODEL", "")
    monkeypatch.setenv("EYELINE_REGISTRY", "")
    assert resolve_model().id == default


def test_an_unknown_id_names_the_known_ones() -> None:
    with pytest.raises(RegistryError) as caught:
        resolve_model("nothing")
    assert "no model 'nothing'" in one_line(caught.value)
    assert "placeholder" in caught.value.hint


def test_an_id_twice_is_refused(tmp_path: Path) -> None:
    write_registry(tmp_path, {"mine": TINY})
    content = json.loads((tmp_path / "registry.json").read_text())
    content["models"] *= 2
    (tmp_path / "registry.json").write_text(json.dumps(content))
    with pytest.raises(RegistryError, match="two models have the id mine") as caught:
        Registry(tmp_path)
    one_line(caught.value)


def test_a_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.onnx").write_bytes(TINY)
    write_registry(tmp_path / "own", {"mine": TINY}, file="../outside.onnx")
    with pytest.raises(RegistryError, match="file") as caught:
        Registry(tmp_path / "own")
    one_line(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"schema_version": 4, "models": []}',
        '{"schema_version": 1, "models": [], "signed": true}',
        '{"schema_version": 1, "models": [{"id": "x"}]}',
        "[" * 100_000,
        "\udcff",
    ],
    ids=["empty", "text", "list", "no models", "version", "field", "record", "deep", "bytes"],
)
def test_a_registry_that_does_not_parse_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "registry.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(RegistryError) as caught:
        Registry(tmp_path)
    assert str(tmp_path / "registry.json") in one_line(caught.value)


def test_a_folder_without_a_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"registry\.json: can't be read") as caught:
        Registry(tmp_path)
    one_line(caught.value)


# --- verified bytes


@settings(max_examples=40)
@given(position=st.integers(0, len(TINY) - 1), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(tmp_path: Path, position: int, bit: int) -> None:
    folder = write_registry(tmp_path, {"mine": TINY})
    changed = bytearray(TINY)
    changed[position] ^= 1 << bit
    (folder / "mine.onnx").write_bytes(changed)
    with pytest.raises(VerificationError, match="but the registry has") as caught:
        _ = resolve_model("mine", folder).data
    one_line(caught.value)


@pytest.mark.parametrize("data", [TINY[:-1], TINY + b"\0", plane_model(GREEN)])
def test_other_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    folder = write_registry(tmp_path, {"mine": TINY})
    (folder / "mine.onnx").write_bytes(data)
    with pytest.raises(VerificationError):
        _ = resolve_model("mine", folder).sha256


def test_bytes_are_read_once(tmp_path: Path) -> None:
    folder = write_registry(tmp_path, {"mine": TINY})
    model = resolve_model("mine", folder)
    assert model.data == TINY
    (folder / "mine.onnx").write_bytes(plane_model(BLUE))
    assert model.data == TINY
    assert model.sha256 == sha256_hex(TINY)


# --- a path


def test_a_path_needs_no_registration(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(TINY)
    model = resolve_model(str(path))
    assert (model.id, model.record, model.io) == (str(path), None, IoSpec())
    assert model.sha256 == sha256_hex(TINY)


def test_a_sidecar_holds_the_io_spec(tmp_path: Path) -> None:
    (tmp_path / "own.v2.onnx").write_bytes(TINY)
    (tmp_path / "own.v2.json").write_text('{"scale": "max", "multiple": 8}')
    assert resolve_model(str(tmp_path / "own.v2.onnx")).io == IoSpec(scale="max", multiple=8)


@pytest.mark.parametrize("content", ["{", '{"scale": "1"}', '{"mean": 0}', "", "[" * 10_000])
def test_a_bad_sidecar_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "own.onnx").write_bytes(TINY)
    (tmp_path / "own.json").write_text(content)
    with pytest.raises(RegistryError) as caught:
        resolve_model(str(tmp_path / "own.onnx"))
    assert "own.json" in one_line(caught.value)


def test_what_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.onnx")
    (tmp_path / "folder.onnx").mkdir()
    for path in (tmp_path / "fifo.onnx", tmp_path / "folder.onnx", Path("/dev/null"), Path()):
        with pytest.raises(RegistryError, match="not a regular file") as caught:
            _ = resolve_model(str(path)).data
        one_line(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(RegistryError, match="empty") as caught:
        _ = resolve_model(str(tmp_path / "empty.onnx")).data
    one_line(caught.value)


@pytest.mark.parametrize("name", ["missing.onnx", "no/folder/model", "n" * 300 + ".onnx"])
def test_a_missing_file_is_refused(name: str) -> None:
    with pytest.raises(RegistryError, match="can't be read") as caught:
        _ = resolve_model(name).data
    one_line(caught.value)


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as f:
        f.truncate(1 << 40)  # sparse: a terabyte that takes no space
    with pytest.raises(RegistryError, match="at most") as caught:
        read_regular_file(tmp_path / "big")
    one_line(caught.value)


def test_no_handle_stays_open_after_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in (tmp_path, tmp_path / "empty"):
        with pytest.raises(RegistryError):
            read_regular_file(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- the command


def test_list_shows_both_registries(tmp_path: Path) -> None:
    write_registry(tmp_path, {"mine": TINY, "other": plane_model(RED, 0.5)})
    done = commands.run("model", "list", "--json", "--registry", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {"mine", "other", "placeholder"} <= {r["id"] for r in json.loads(done.stdout)}


def test_show_refuses_a_tampered_model(tmp_path: Path) -> None:
    folder = write_registry(tmp_path, {"mine": TINY})
    assert commands.run("model", "show", "mine", "--registry", str(folder)).returncode == 0
    (folder / "mine.onnx").write_bytes(TINY[:-1] + b"?")
    done = commands.run("model", "show", "mine", "--registry", str(folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: mine: the sha256 of {folder / 'mine.onnx'} is ")
    assert "Traceback" not in done.stderr
