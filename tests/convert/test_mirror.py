"""Mirrors: the same function, the contract's names, and sidecars that anybody can make again."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, load_from_string, numpy_helper
from upstream_nets import weights

from eyeline.convert.mirror import Mirrored, mirror_onnx, mirror_upstream
from eyeline.convert.upstream import MirrorRecipe, load_recipe
from eyeline.digests import sha256_hex
from eyeline.errors import ModelError, ScanError, VerificationError
from eyeline.inference.session import Session
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model, resolve_model
from eyeline.runtime import open_runtime_session
from fake_upstream import FILES, RECIPE_FIELDS, git, make_checkout

pytest.importorskip("cyclonedx", reason="extra `audit` is not installed")

SUFFIXES = {".onnx", ".json", ".receipt.txt", ".cdx.json", ".intoto.json", ".parity.json"}


def asset_bytes(shrink_to_one: bool = False) -> bytes:
    """An ONNX as exporters of opset 11 left them: one size, two outputs, resizes by `Shape`."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((4, 3, 3, 3)) * 0.3, "b1": rng.standard_normal(4),
        "w2": rng.standard_normal((1, 8, 1, 1)), "w3": rng.standard_normal((1, 4, 1, 1)),
    }  # fmt: skip
    empty = helper.make_tensor("e", TensorProto.FLOAT, [0], [])
    resize = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
    nodes = [
        helper.make_node("Conv", ["input.1", "w1", "b1"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("Constant", [], ["roi"], value=empty),
        helper.make_node("Constant", [], ["scales"], value=empty),
        helper.make_node("Shape", ["r"], ["size"]),
    ]
    deep = "p"
    if shrink_to_one:
        one = helper.make_tensor("o", TensorProto.INT64, [4], [1, 4, 1, 1])
        nodes += [
            helper.make_node("Constant", [], ["one"], value=one),
            helper.make_node("Resize", ["p", "roi", "scales", "one"], ["tiny"], **resize),
        ]
        deep = "tiny"
    nodes += [
        helper.make_node("Resize", [deep, "roi", "scales", "size"], ["up"], **resize),
        helper.make_node("Concat", ["r", "up"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "w2"], ["d"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["d"], ["1959"]),
        helper.make_node("Conv", ["r", "w3"], ["s"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["s"], ["1960"]),
    ]
    graph = helper.make_graph(
        nodes, "torch-jit-export",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 32, 32]) for n in ("1959", "1960")],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 6
    data: bytes = model.SerializeToString()
    return data


def recipe(data: bytes, **fields: Any) -> MirrorRecipe:
    asset = {
        "name": "tiny.onnx", "url": "https://example.org/tiny.onnx", "sha256": sha256_hex(data),
        "size": len(data), "custody": "From Jane Example.",
    }  # fmt: skip
    return MirrorRecipe.model_validate(RECIPE_FIELDS | {"asset": asset} | fields)


def mirror(folder: Path, data: bytes | None = None, **fields: Any) -> Mirrored:
    folder.mkdir(parents=True, exist_ok=True)
    data = data or asset_bytes()
    (folder / "theirs.onnx").write_bytes(data)
    return mirror_onnx(folder / "theirs.onnx", folder / "out.onnx", recipe(data, **fields))


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Mirrored:
    return mirror(tmp_path_factory.mktemp("mirror"))


def test_every_file_is_there(mirrored: Mirrored) -> None:
    assert set(mirrored.files) == SUFFIXES
    assert all(p.is_file() for p in mirrored.files.values())
    assert mirrored.sha256 == sha256_hex(mirrored.model.read_bytes())


def test_the_mirror_is_the_asset_bit_by_bit_at_its_size(mirrored: Mirrored) -> None:
    (own, freed) = mirrored.parity.proofs.values()
    assert own.reports["float32"].max_abs == freed.reports["float32"].max_abs == 0
    assert "32x32" in next(iter(mirrored.parity.proofs))
    x = np.random.default_rng(9).standard_normal((1, 3, 32, 32)).astype(np.float32)
    theirs = open_runtime_session(asset_bytes(), "theirs", "cpu").run(["1959"], {"input.1": x})[0]
    ours = Session(Model("ours", mirrored.model, IoSpec(multiple=1)), "cpu").run(x)
    np.testing.assert_array_equal(ours, theirs[0, 0])


def test_the_mirror_keeps_the_contract(mirrored: Mirrored) -> None:
    model = load_from_string(mirrored.model.read_bytes())
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert [t.name for t in (*model.graph.input, *model.graph.output)] == ["input", "saliency_map"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 3, "H", "W"]
    modes = {a.s for n in model.graph.node for a in n.attribute if a.name.startswith("coordinate")}
    assert modes == {b"half_pixel"}
    assert not any("w3" in n.input for n in model.graph.node)


def test_the_mirror_resolves_with_its_io_spec(mirrored: Mirrored) -> None:
    assert resolve_model(str(mirrored.model)).io == IoSpec(working_lines=64, multiple=1)


def test_the_same_inputs_give_the_same_bytes_in_another_process(
    mirrored: Mirrored, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/convert']; from pathlib import Path\n"
        "from test_mirror import mirror; mirror(Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "elsewhere")],
        check=True,
        cwd=Path(__file__).parents[2],
        env=os.environ
        | {"TZ": "Pacific/Auckland", "LANG": "C", "PYTHONHASHSEED": "7", "HOME": "/x"},
    )
    for suffix in SUFFIXES - {".parity.json"}:  # the measured one may differ between CPUs
        assert (tmp_path / f"elsewhere/out{suffix}").read_bytes() == mirrored.files[
            suffix
        ].read_bytes()


def test_no_trace_of_this_machine_is_in_any_file(mirrored: Mirrored) -> None:
    traces = {str(Path.home()), str(Path.cwd()), str(mirrored.model.parent), socket.gethostname()}
    for path in mirrored.files.values():
        data = path.read_bytes()
        for trace in traces | {f"/{getpass.getuser()}/", "theirs.onnx"}:
            assert trace.encode() not in data, (path.name, trace)


# --- manifest, bill of materials, receipt


def test_the_manifest_is_an_in_toto_statement_over_the_files(mirrored: Mirrored) -> None:
    manifest = json.loads(mirrored.files[".intoto.json"].read_text())
    assert manifest["_type"] == "https://in-toto.io/Statement/v1"
    assert manifest["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {s["name"]: s["digest"]["sha256"] for s in manifest["subject"]}
    assert subjects == {
        p.name: sha256_hex(p.read_bytes())
        for s, p in mirrored.files.items() if s not in (".intoto.json", ".parity.json")
    }  # fmt: skip
    build = manifest["predicate"]["buildDefinition"]
    asset = build["resolvedDependencies"][0]
    assert asset["digest"]["sha256"] == sha256_hex(asset_bytes())
    assert asset["annotations"]["note"] == "From Jane Example."
    assert build["internalParameters"]["parity"]["gate"] == 1e-5


def test_the_bill_of_materials_is_cyclonedx_1_6(mirrored: Mirrored) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = mirrored.files[".cdx.json"].read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    component = json.loads(text)["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert component["hashes"] == [{"alg": "SHA-256", "content": mirrored.sha256}]
    assert component["modelCard"]["considerations"]["technicalLimitations"] == ["Made for a test."]
    assert "timestamp" not in text


@pytest.mark.parametrize("notice", ["", "TinyNet\nCopyright 2021 Jane Example\n"])
def test_the_receipt_fulfils_section_4(tmp_path: Path, notice: str) -> None:
    text = mirror(tmp_path, notice=notice).files[".receipt.txt"].read_text()
    assert "4. Redistribution" in text  # (a)
    assert "The files were modified:\n- one output of 2 is kept" in text  # (b)
    assert "Jane Example, TinyNet." in text  # (c)
    said = "Copyright 2021 Jane Example" if notice else "The upstream has no NOTICE file."
    assert said in text.partition("section 4 d")[2].partition("Copy of the licence")[0]


def test_a_checkout_beside_the_asset_gives_licence_and_notice(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "up", FILES | {"NOTICE": "TinyNet notice\n"})
    data = asset_bytes()
    (tmp_path / "theirs.onnx").write_bytes(data)
    done = mirror_onnx(
        tmp_path / "theirs.onnx", tmp_path / "out.onnx", recipe(data), checkout=checkout
    )
    assert "TinyNet notice" in done.files[".receipt.txt"].read_text()
    materials = json.loads(done.files[".intoto.json"].read_text())["predicate"]["buildDefinition"]
    digests = [m["digest"] for m in materials["resolvedDependencies"]]
    assert any("gitCommit" in d for d in digests)


# --- refusals: nothing is left


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("out"))


def test_an_asset_of_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs.onnx").write_bytes(asset_bytes() + b"\0")
    with pytest.raises(VerificationError, match="requires"):
        mirror_onnx(tmp_path / "theirs.onnx", tmp_path / "out.onnx", recipe(asset_bytes()))
    assert left(tmp_path) == []


def test_a_net_that_half_pixel_changes_fails_parity(tmp_path: Path) -> None:
    # The one case where the two modes differ: a side that shrinks to one pixel.
    with pytest.raises(ModelError, match="differs from the asset"):
        mirror(tmp_path, asset_bytes(shrink_to_one=True))
    assert left(tmp_path) == []


def test_an_op_that_the_scanner_does_not_admit(tmp_path: Path) -> None:
    model = load_from_string(asset_bytes())
    model.graph.node[1].op_type = "Sin"
    data = model.SerializeToString()
    with pytest.raises(ScanError, match="Sin"):
        mirror(tmp_path, data)
    assert left(tmp_path) == []


@pytest.mark.parametrize("data", [b"no model", b"\x08"], ids=["text", "cut off"])
def test_bytes_that_are_no_model(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelError) as caught:
        mirror(tmp_path, data)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


def test_a_head_that_is_not_there(tmp_path: Path) -> None:
    data = asset_bytes()
    asset = recipe(data).asset
    assert asset is not None
    with pytest.raises(ModelError, match="has no output 7"):
        mirror(tmp_path, data, asset=asset.model_copy(update={"head": 7}).model_dump())


# --- from a checkout


def test_a_checkout_is_mirrored_twice_alike(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "up")
    (tmp_path / "w.pth").write_bytes(weights(3))
    (tmp_path / "again").mkdir()
    chosen = MirrorRecipe.model_validate(RECIPE_FIELDS)
    one, two = (
        mirror_upstream(checkout, tmp_path / "w.pth", place / "out.onnx", chosen)
        for place in (tmp_path, tmp_path / "again")
    )
    assert all(proof.passed for proof in one.parity.proofs.values())
    for suffix in SUFFIXES:
        assert one.files[suffix].read_bytes() == two.files[suffix].read_bytes(), suffix
    assert "2 batch normalisations are folded" in one.files[".receipt.txt"].read_text()
    ops = {n.op_type for n in load_from_string(one.model.read_bytes()).graph.node}
    assert not ops & {"BatchNormalization", "Identity"}
    manifest = one.files[".intoto.json"].read_text()
    assert git(checkout, "rev-parse", "HEAD") in manifest
    assert "torch" in json.loads(manifest)["predicate"]["runDetails"]["builder"]["version"]


@pytest.mark.slow
def test_u2netp_from_its_pinned_asset_is_bit_equal(shared_data: Path, tmp_path: Path) -> None:
    done = mirror_onnx(
        shared_data / "u2netp/u2netp.onnx", tmp_path / "u2netp_mirror_v1.onnx", load_recipe()
    )
    assert [p.reports["float32"].max_abs for p in done.parity.proofs.values()] == [0, 0]
