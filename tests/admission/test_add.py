"""Into a registry and out of it: gates, sidecars, fetches, two writers, and a kill at the worst moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from eyeline.cli import main
from eyeline.digests import sha256_hex
from eyeline.errors import (
    DownloadError,
    LicenceError,
    ModelError,
    RegistryError,
    ScanError,
    VerificationError,
)
from eyeline.inference import Session
from eyeline.registry.records import ModelRecord
from eyeline.registry.registry import Registry, read_registry, resolve_model
from tiny_models import PLACEHOLDER, make_model, plane_model, record_fields, write_registry

pytest.importorskip("cyclonedx", reason="extra `audit` is not installed")

from test_mirror import asset_bytes, recipe

from eyeline.admission.add import (
    ModelDeclaration,
    add_model,
    fetch_mirror,
    put_record,
    registry_lock,
    remove_model,
)
from eyeline.admission.check import check_registry
from eyeline.convert.mirror import mirror_onnx
from eyeline.convert.sidecars import apache_text


def declare(model_id: str = "mine", spdx: str = "Apache-2.0") -> ModelDeclaration:
    return ModelDeclaration(model_id, spdx, "A test's model.", "made in a test")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "LICENSE").write_text(apache_text())
    place = tmp_path / "mine.onnx"
    place.write_bytes(PLACEHOLDER)
    return place


def add(file: Path, model_id: str = "mine", **fields: object) -> None:
    options = {"source": file, "license_file": file.parent / "LICENSE"} | fields
    add_model(file.parent / "r", file, declare(model_id), **options)  # type: ignore[arg-type]


def test_added_is_a_candidate_with_its_sidecars(file: Path) -> None:
    add(file)
    model = Registry(file.parent / "r").get("mine")
    record = model.record
    assert record is not None
    assert (record.role, record.parameters, record.opset) == ("candidate", 4, 17)
    assert model.sha256 == sha256_hex(file.read_bytes())
    sidecars = {
        s: (file.parent / f"r/mine{s}").read_bytes() for s in (".intoto.json", ".parity.json")
    }
    assert record.manifest_sha256 == sha256_hex(sidecars[".intoto.json"])
    assert json.loads(sidecars[".parity.json"])["passed"] is True
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
            file.parent / "r", file, declare(spdx=spdx),
            source=file, license_file=file.parent / "LICENSE",
        )  # fmt: skip


def test_another_function_is_refused(file: Path) -> None:
    theirs = file.parent / "theirs.onnx"
    theirs.write_bytes(plane_model(gain=0.5))
    with pytest.raises(ModelError, match="differs"):
        add(file, source=theirs)
    assert not (file.parent / "r").exists()


def test_without_sidecars_or_source_there_is_nothing_to_hold_it_to(file: Path) -> None:
    with pytest.raises(RegistryError, match=r"mine\.intoto\.json is missing"):
        add(file, source=None)


def exported(folder: Path) -> Path:
    (folder / "theirs.onnx").write_bytes(asset_bytes())
    out = folder / "tinynet_mirror.onnx"
    return mirror_onnx(folder / "theirs.onnx", out, recipe(asset_bytes())).model


def test_an_export_brings_its_sidecars(tmp_path: Path) -> None:
    add_model(tmp_path / "r", exported(tmp_path), declare("tinynet_mirror"))
    health = check_registry(tmp_path / "r")
    assert not health.faults
    states = {f.check: f.state for f in health.findings}
    assert states["manifest"] == states["licence"] == states["parity"] == "ok"


def test_sidecars_of_other_bytes_are_refused(tmp_path: Path) -> None:
    model = exported(tmp_path)
    model.write_bytes(PLACEHOLDER)
    with pytest.raises(ModelError, match="differs from the one in the manifest"):
        add_model(tmp_path / "r", model, declare("tinynet_mirror"))


def test_an_export_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="name in the manifest, tinynet_mirror"):
        add_model(tmp_path / "r", exported(tmp_path), declare("other"))


@pytest.mark.parametrize(
    "model_id", ["../out", "a/b", "", ".hidden", "UPPER", "x" * 65, "registry", "trust", "a\n"]
)
def test_ids_that_could_escape_or_overwrite(file: Path, model_id: str) -> None:
    with pytest.raises(RegistryError):
        add(file, model_id)
    assert not (file.parent / "r").exists()


def test_no_file_of_another_model_is_taken(file: Path) -> None:
    add(file, "a")
    with pytest.raises(RegistryError, match="already registered"):
        add(file, "a")
    (file.parent / "r/b.onnx").write_bytes(b"something else")
    with pytest.raises(RegistryError, match="another file has this name"):
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
    with pytest.raises(RegistryError, match="is the default model"):
        remove_model(folder, "mine")
    with pytest.raises(RegistryError, match="has no model"):
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


# --- fetch: a recipe to a registered reference, over a real connection or from a file


@pytest.fixture
def asset(tmp_path: Path) -> Path:
    (tmp_path / "served").mkdir()
    place = tmp_path / "served/tiny.onnx"
    place.write_bytes(asset_bytes())
    return place


@pytest.fixture
def server(asset: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **fields: object) -> None:
            super().__init__(*args, directory=str(asset.parent), **fields)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/tiny.onnx"
    running.shutdown()
    running.server_close()


def test_from_a_file(asset: Path, tmp_path: Path) -> None:
    done = fetch_mirror(recipe(asset_bytes()), tmp_path / "models", source=asset)
    model = resolve_model("tinynet_mirror", tmp_path / "models")
    assert model.record == done.record
    assert model.record is not None
    assert model.record.role == "reference"
    assert model.sha256 == done.mirrored.sha256
    x = np.zeros((1, 3, 16, 16), np.float32)
    assert Session(model, "cpu").run(x).shape == (16, 16)
    assert asset.exists()


def test_over_the_network_leaves_only_the_model_and_its_sidecars(
    server: str, tmp_path: Path
) -> None:
    fetch_mirror(recipe(asset_bytes()), tmp_path / "models", url=server)
    names = {p.name for p in (tmp_path / "models").iterdir()} - {".registry.lock"}
    assert names == {"registry.json"} | {
        f"tinynet_mirror{s}"
        for s in (".onnx", ".json", ".receipt.txt", ".cdx.json", ".intoto.json", ".parity.json")
    }


def test_a_stopped_download_goes_on(server: str, tmp_path: Path) -> None:
    part = tmp_path / "models/.fetch/tiny.onnx.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(asset_bytes()[:500])
    seen: list[tuple[str, int]] = []
    fetch_mirror(
        recipe(asset_bytes()), tmp_path / "models", url=server,
        on_step=lambda what, done, total: seen.append((what, done)),
    )  # fmt: skip
    assert ("download", len(asset_bytes())) in seen
    assert any(what == "parity" for what, _ in seen)


def test_other_bytes_register_nothing(asset: Path, server: str, tmp_path: Path) -> None:
    asset.write_bytes(b"x" * len(asset_bytes()))
    chosen = recipe(asset_bytes())
    with pytest.raises(DownloadError):
        fetch_mirror(chosen, tmp_path / "models", url=server)
    with pytest.raises(VerificationError):
        fetch_mirror(chosen, tmp_path / "models", source=asset)
    assert not (tmp_path / "models/registry.json").exists()


def test_what_fails_parity_is_not_registered(tmp_path: Path) -> None:
    data = asset_bytes(shrink_to_one=True)
    (tmp_path / "theirs.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="differs"):
        fetch_mirror(recipe(data), tmp_path / "models", source=tmp_path / "theirs.onnx")
    assert not (tmp_path / "models/registry.json").exists()


def test_fetching_twice_is_one_record(asset: Path, tmp_path: Path) -> None:
    for _ in range(2):
        fetch_mirror(recipe(asset_bytes()), tmp_path / "models", source=asset)
    records = json.loads((tmp_path / "models/registry.json").read_text())["models"]
    assert [r["id"] for r in records] == ["tinynet_mirror"]


# --- the writer of registries


def put(folder: Path, model_id: str, **fields: object) -> None:
    data = plane_model(gain=0.5)
    (folder / f"{model_id}.onnx").write_bytes(data)
    put_record(folder, ModelRecord.model_validate(record_fields(model_id, data) | fields))


def test_other_models_of_the_registry_stay(tmp_path: Path) -> None:
    folder = write_registry(tmp_path / "r", {"mine": plane_model()})
    put(folder, "more")
    put(folder, "mine")
    own = [m.id for m in Registry(folder) if m.path.parent == folder]
    assert own == ["more", "mine"]


def test_a_role_is_not_changed_in_passing(tmp_path: Path) -> None:
    folder = write_registry(tmp_path / "r", {"mine": plane_model()}, role="production")
    before = (folder / "registry.json").read_bytes()
    with pytest.raises(RegistryError, match="registered with the role production"):
        put(folder, "mine", role="reference")
    assert (folder / "registry.json").read_bytes() == before


def test_a_file_of_other_bytes_is_not_registered(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"other")
    with pytest.raises(VerificationError):
        put_record(tmp_path, ModelRecord.model_validate(record_fields("x", plane_model())))


def _hold(folder: str, ready: object, release: object) -> None:
    with registry_lock(Path(folder)):
        ready.set()  # type: ignore[attr-defined]
        release.wait(60)  # type: ignore[attr-defined]


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path), ready, release))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(RegistryError, match="another process"):
            put(tmp_path, "x")
    finally:
        release.set()
        other.join()
    put(tmp_path, "x")
    assert "x" in Registry(tmp_path)


# --- the command

Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    monkeypatch.delenv("EYELINE_REGISTRY", raising=False)

    def run_here(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["eyeline", "model", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run_here


def recipe_file(folder: Path) -> Path:
    fields = recipe(asset_bytes()).model_dump(exclude={"asset", "io", "schema_version"})
    lines = [f"{k} = {json.dumps(v)}" for k, v in fields.items() if v not in ("", None)]
    pinned = recipe(asset_bytes()).asset
    assert pinned is not None
    lines += ["[asset]", *(f"{k} = {json.dumps(v)}" for k, v in pinned.model_dump().items())]
    place = folder / "tiny.toml"
    place.write_text("\n".join(lines))
    return place


def test_fetch_and_export_as_commands(here: Here, asset: Path, tmp_path: Path) -> None:
    chosen, models = recipe_file(tmp_path), tmp_path / "models"
    code, out, _ = here("fetch", chosen, "--from", asset, "--registry", models)
    assert code == 0
    assert "registered tinynet_mirror (reference)" in out
    code, out, _ = here("list", "--registry", models)
    assert "tinynet_mirror" in out
    code, out, _ = here(
        "export", "--from-onnx", asset, "--recipe", chosen, "-o", tmp_path / "tinynet_mirror.onnx"
    )
    assert code == 0
    assert "parity with the asset as it is, 32x32, float32: largest difference 0.0e+00" in out
    again = (tmp_path / "tinynet_mirror.onnx").read_bytes()
    assert again == (models / "tinynet_mirror.onnx").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch", "u2netp_mirror_v1"], "no registry"),
        (["fetch", "nothing", "--registry", "r"], "not a known mirror recipe"),
        (["fetch", "u2netp_mirror_v1", "--from", "none.onnx", "--registry", "r"], "none.onnx"),
        (
            ["fetch", "u2netp_mirror_v1", "--from", "a", "--url", "b", "--registry", "r"],
            "are given together",
        ),
        (["export"], "no model to export"),
        (["export", "run", "--from-onnx", "a.onnx"], "given together"),
        (["export", "--checkpoint", "a.pth"], "needs --upstream-dir"),
        (["export", "--upstream-dir", "."], "needs --checkpoint"),
        (
            ["export", "--upstream-dir", ".", "--checkpoint", "a", "--from-onnx", "b"],
            "are given together",
        ),
        (["export", "--from-onnx", "none.onnx"], "none.onnx"),
        (["export", "--from-onnx", "none.onnx", "-o", "x.pth"], "does not end in .onnx"),
        (["export", "--upstream-dir", "none", "--checkpoint", "a.pth"], "is not a folder"),
    ],
)
def test_bad_input_is_exit_2_and_one_line(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] == "export" and "-o" not in words:
        words = [*words, "-o", "out.onnx"]
    code, out, err = here(*words)
    assert code == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] in ([], ["r"])


@pytest.mark.slow
def test_u2netp_from_its_asset_to_every_command(
    here: Here, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    models = tmp_path / "models"
    asset = shared_data / "u2netp/u2netp.onnx"
    code, _, _ = here("fetch", "u2netp_mirror_v1", "--from", asset, "--registry", models, "-q")
    assert code == 0
    record = Registry(models).get("u2netp_mirror_v1").record
    assert record is not None
    assert (record.role, record.parameters) == ("reference", 1_131_181)
    assert here("check", "--registry", models)[0] == 0
    assert here("promote", record.id, "--registry", models)[0] == 2  # a reference is compared with

    data = tmp_path / "few"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(2):  # a bright disc on noise, and where it is
        y, x = np.ogrid[:120, :160]
        inside = (y - 60) ** 2 + (x - 60 - 30 * k) ** 2 < 30**2
        picture = rng.integers(0, 80, (120, 160, 3)).astype(np.uint8)
        picture[inside] = (240, 200, 60)
        Image.fromarray(picture).save(data / f"images/{k}.png")
        Image.fromarray((inside * 255).astype(np.uint8)).save(data / f"masks/{k}.png")
    chosen = ("--model", record.id, "--registry", str(models), "--quiet")
    frames, log, sheet, cells = (
        str(tmp_path / n) for n in ("few/images", "l.json", "e.json", "m.json")
    )
    for words in (
        ["extract", frames, "-o", log],
        ["evaluate", "--data", str(data), "-o", sheet, "--workers", "1"],
        ["roi", "map", frames, "-o", cells, "--format", "json", "--block", "16"],
    ):
        monkeypatch.setattr(sys, "argv", ["eyeline", *words, *chosen])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code, words
    result = json.loads(Path(sheet).read_text())["results"][0]
    assert result["model_sha256"] == record.sha256
    assert result["estimates"]["iou"]["value"] > 0.8
