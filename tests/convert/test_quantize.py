"""Quantisation: images chosen by content, a gate with known answers, a model that a registry takes."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from eyeline.admission.add import ModelDeclaration, add_model
from eyeline.admission.check import check_registry
from eyeline.convert.quantize import (
    Quantized,
    QuantizeOptions,
    choose_images,
    judge,
    quantize_model,
)
from eyeline.digests import sha256_hex
from eyeline.errors import DatasetError, ModelError, OutputError, RegistryError, UsageError
from eyeline.evaluation.benchmark import count_parameters
from eyeline.inference.session import Session
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model, Registry, resolve_model
from eyeline.scan import scan
from quantisable import make_images, net
from tiny_models import BLUE, GREEN, RED, make_model, plane_model

QUICK = QuantizeOptions(images=3, check=2, method="minmax", runs=3)
BUILT_IN = ("saliency_student_v3", "saliency_student_v4")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module", params=BUILT_IN)
def built_in(
    request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Quantized]:
    """A built-in model and its quantised form; noise is no test of its quality, so it is forced."""
    model = resolve_model(request.param)
    out = tmp_path_factory.mktemp("int8") / f"{request.param}_int8.onnx"
    return model, quantize_model(model, images, out, QUICK, force=True)


def as_model(path: Path, data: bytes, lines: int = 32) -> Model:
    path.write_bytes(data)
    return Model(str(path), path, IoSpec(working_lines=lines, multiple=1))


# --- which images


def names(root: Path, calibrate: int = 3, check: int = 2) -> list[list[str]]:
    return [[p.digest for p in part.pairs] for part in choose_images(root, calibrate, check)]


def test_calibration_and_check_share_no_image(images: Path) -> None:
    calibration, check = names(images)
    assert (len(calibration), len(check)) == (3, 2)
    assert not set(calibration) & set(check)


def test_the_choice_goes_by_content_not_by_name_or_container(images: Path, tmp_path: Path) -> None:
    other = tmp_path / "renamed"
    for folder in ("images", "masks"):
        (other / folder).mkdir(parents=True)
        for i, path in enumerate(sorted((images / folder).iterdir(), reverse=True)):
            shutil.copy(path, other / folder / f"new{i}.png")
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        archive.add(other, "inside")
    assert names(images) == names(other) == names(tmp_path / "packed.tar")


def test_a_copy_of_an_image_counts_once(images: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(images, copied)
    for folder in ("images", "masks"):
        shutil.copy(copied / folder / "00.png", copied / folder / "copy.png")
    assert names(copied, 99, 2) == names(images, 99, 2)


def test_half_of_a_small_dataset_checks_at_most(images: Path) -> None:
    calibration, check = names(images, 200, 100)
    assert (len(calibration), len(check)) == (3, 3)


def test_a_single_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="fewer than two different images"):
        choose_images(make_images(tmp_path / "one", 1), 1, 1)


# --- the gate, on models whose difference is known


def test_the_gate_measures_a_constant_shift(images: Path, tmp_path: Path) -> None:
    pairs = choose_images(images, 1, 3)[1].pairs
    a = as_model(tmp_path / "a.onnx", plane_model(RED, 0.25, 0.3), 64)
    b = as_model(tmp_path / "b.onnx", plane_model(RED, 0.25, 0.35), 64)
    verdict = judge(Session(a), Session(b), pairs, max_shift=0.04, runs=1)
    for loss in verdict.losses:
        assert loss.map_mean == pytest.approx(0.05, abs=1e-6)
        assert loss.map_max == pytest.approx(0.05, abs=1e-6)
        assert loss.shift == pytest.approx(0.05, abs=1e-6)
        assert loss.shift_max == pytest.approx(0.05, abs=1e-6)
        assert loss.bias == pytest.approx(0.05, abs=1e-6)
    assert sum("saliency_mean moves by 0.0500" in r for r in verdict.reasons) == 3
    assert not verdict.passed


def test_the_gate_sees_maps_that_overlap_in_part(images: Path, tmp_path: Path) -> None:
    pairs = choose_images(images, 1, 3)[1].pairs
    low = as_model(tmp_path / "a.onnx", plane_model(GREEN, 0.9, 0.05), 64)
    none = as_model(tmp_path / "b.onnx", plane_model(BLUE, 0.1, 0.0), 64)
    same = judge(Session(low), Session(low), pairs, max_shift=1, runs=1).losses[0]
    apart = judge(Session(low), Session(none), pairs, max_shift=1, runs=1).losses[0]
    assert (same.iou, same.map_max, same.shift) == (1.0, 0.0, 0.0)
    assert apart.iou < 0.5


def test_a_model_that_leaves_the_contract_at_a_size_is_refused(
    images: Path, tmp_path: Path
) -> None:
    pairs = choose_images(images, 1, 1)[1].pairs
    good = as_model(tmp_path / "a.onnx", plane_model(RED, 0.9, 0.05), 64)
    bad = as_model(tmp_path / "b.onnx", plane_model(RED, 2.0, 0.0), 64)
    with pytest.raises(ModelError, match="the map has values"):
        judge(Session(good), Session(bad), pairs, max_shift=1, runs=1)


# --- what is made


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_tiny_net_stays_near_its_float_form(images: Path, tmp_path: Path, method: str) -> None:
    model = as_model(tmp_path / "net.onnx", net())
    options = QuantizeOptions(images=4, check=2, method=method, runs=1)  # type: ignore[arg-type]
    done = quantize_model(model, images, tmp_path / "q.onnx", options, force=True)
    assert done.path is not None
    assert done.verdict.losses[0].map_mean < 0.02
    assert done.verdict.losses[0].iou > 0.8


def test_a_net_of_one_size_is_quantised_for_that_size(images: Path, tmp_path: Path) -> None:
    fixed = onnx.load_from_string(net())
    for tensor in (fixed.graph.input[0], fixed.graph.output[0]):
        for side, length in ((2, 40), (3, 48)):
            tensor.type.tensor_type.shape.dim[side].dim_value = length
    (tmp_path / "net.onnx").write_bytes(fixed.SerializeToString())
    model = Model("fixed", tmp_path / "net.onnx", IoSpec(squash=(48, 40), multiple=1))
    done = quantize_model(model, images, tmp_path / "q.onnx", QUICK, force=True)
    assert [loss.lines for loss in done.verdict.losses] == [None]
    assert done.verdict.speed.size == (48, 40)


def test_the_contract_is_kept(built_in: tuple[Model, Quantized]) -> None:
    model, done = built_in
    assert done.path is not None
    before = onnx.load_from_string(model.data)
    after = onnx.load(done.path)
    assert [(o.domain, o.version) for o in after.opset_import] == [("", 17)]
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output
    ops = {n.op_type for n in after.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= ops
    assert "Relu" not in ops  # a rounding that starts at 0 does its work


@pytest.mark.parametrize(("height", "width"), [(160, 256), (384, 224), (144, 256), (32, 64)])
def test_it_runs_at_other_sizes(built_in: tuple[Model, Quantized], height: int, width: int) -> None:
    model, done = built_in
    assert done.path is not None
    x = np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)
    got = Session(Model("q", done.path, model.io)).run(x)
    assert np.abs(got - Session(model).run(x)).mean() < 0.05


def test_the_file_is_a_third_of_the_float_model(built_in: tuple[Model, Quantized]) -> None:
    model, done = built_in
    assert done.path is not None
    assert done.path.stat().st_size < len(model.data) / 3


def test_parameters_are_those_of_the_float_model(built_in: tuple[Model, Quantized]) -> None:
    model, done = built_in
    assert done.path is not None
    plain = Model("float", model.path, model.io)
    assert count_parameters(Model("q", done.path, model.io)) == count_parameters(plain)


def test_the_scanner_admits_it(built_in: tuple[Model, Quantized]) -> None:
    _, done = built_in
    assert done.path is not None
    assert scan(done.path.read_bytes()).findings == ()


def test_nothing_of_this_machine_is_in_it(built_in: tuple[Model, Quantized]) -> None:
    _, done = built_in
    assert done.path is not None
    for path in done.path.parent.iterdir():
        data = path.read_bytes()
        for word in (
            str(done.path.parent),
            "/tmp",
            "/home",
            socket.gethostname(),
            getpass.getuser(),
        ):
            if len(word) > 3:  # a short one may stand there by chance
                assert word.encode() not in data, f"{word} in {path.name}"


def test_the_metadata_names_source_and_images(
    built_in: tuple[Model, Quantized], images: Path
) -> None:
    model, done = built_in
    props = {p.key: p.value for p in onnx.load(done.path).metadata_props}
    assert props["quantised_from_sha256"] == model.sha256
    assert props["calibration_images_sha256"] == choose_images(images, 3, 2)[0].digest
    own = {p.key: p.value for p in onnx.load_from_string(model.data).metadata_props}
    assert own.items() <= props.items()


SCRIPT = """
import sys
from pathlib import Path
from eyeline.convert.quantize import QuantizeOptions, quantize_model
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
model = Model("net", Path(sys.argv[1]), IoSpec(working_lines=32, multiple=1))
options = QuantizeOptions(images=4, check=1, runs=1)
quantize_model(model, Path(sys.argv[2]), Path(sys.argv[3]), options, force=True)
"""


def test_the_same_twice_is_the_same_file(images: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(net())
    made = []
    for seed in ("1", "2"):  # of str hashes, which order the sets of whatever is called
        folder = tmp_path / seed
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-c", SCRIPT, tmp_path / "net.onnx", images, folder / "q.onnx"],
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        made.append([(folder / f"q{s}").read_bytes() for s in (".onnx", ".intoto.json", ".json")])
    assert made[0] == made[1]


def test_a_node_kept_in_float_stays_float(images: Path, tmp_path: Path) -> None:
    model = as_model(tmp_path / "net.onnx", net())
    options = QuantizeOptions(images=3, check=1, method="minmax", runs=1, keep_float=("Conv:-1",))
    done = quantize_model(model, images, tmp_path / "q.onnx", options, force=True)
    graph = onnx.load(done.path).graph
    floats = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    convs = [n for n in graph.node if n.op_type == "Conv"]
    assert [n.input[1] in floats for n in convs] == [False, True]
    assert done.report["how"]["keep_float"] == ["Conv:-1"]


@pytest.mark.parametrize("full", [False, True])
def test_weights_use_seven_bits_unless_asked(images: Path, tmp_path: Path, full: bool) -> None:
    model = as_model(tmp_path / "net.onnx", net())
    options = QuantizeOptions(images=3, check=1, method="minmax", runs=1, full_range=full)
    done = quantize_model(model, images, tmp_path / "q.onnx", options, force=True)
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in onnx.load(done.path).graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4
    ]
    assert max(int(np.abs(w).max()) for w in weights) == (127 if full else 64)


# --- no


def test_above_the_limit_nothing_is_left(images: Path, tmp_path: Path) -> None:
    model = as_model(tmp_path / "net.onnx", net())
    (tmp_path / "out").mkdir()
    options = QuantizeOptions(images=3, check=1, method="minmax", runs=1, max_shift=0)
    done = quantize_model(model, images, tmp_path / "out/q.onnx", options)
    assert done.path is None
    assert done.report["passed"] is False
    assert "saliency_mean moves" in done.verdict.reasons[0]
    assert not list((tmp_path / "out").iterdir())


def test_a_quantised_model_is_not_quantised_again(images: Path, tmp_path: Path) -> None:
    model = as_model(tmp_path / "net.onnx", net())
    done = quantize_model(model, images, tmp_path / "q.onnx", QUICK, force=True)
    assert done.path is not None
    again = Model("q", done.path, model.io)
    with pytest.raises(ModelError, match="quantised already"):
        quantize_model(again, images, tmp_path / "qq.onnx", QUICK)


def test_a_model_without_convolutions_is_refused(images: Path, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["m"], axes=[1]),
        helper.make_node("Sigmoid", ["m"], ["saliency_map"]),
    ]
    model = as_model(tmp_path / "flat.onnx", make_model(nodes))
    with pytest.raises(ModelError, match="no convolution"):
        quantize_model(model, images, tmp_path / "q.onnx", QUICK)


@pytest.mark.parametrize("node", ["Conv:2", "Conv", "Conv:x", "Resize:0", ":"])
def test_an_unknown_node_is_named(images: Path, tmp_path: Path, node: str) -> None:
    model = as_model(tmp_path / "net.onnx", net())
    options = QuantizeOptions(images=1, check=1, keep_float=(node,))
    with pytest.raises(UsageError, match="no such node"):
        quantize_model(model, images, tmp_path / "q.onnx", options)


def test_a_place_that_can_not_be_written_is_said_before_the_work(
    images: Path, tmp_path: Path
) -> None:
    model = as_model(tmp_path / "net.onnx", net())
    with pytest.raises(OutputError):
        quantize_model(model, images, tmp_path / "absent/q.onnx", QUICK)


def test_an_unreadable_image_is_named(images: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(images, broken)
    for path in (broken / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    model = as_model(tmp_path / "net.onnx", net())
    with pytest.raises(DatasetError, match="unreadable image"):
        quantize_model(model, broken, tmp_path / "q.onnx", QUICK)


# --- into a registry


def told(model_id: str) -> ModelDeclaration:
    return ModelDeclaration(model_id, "Apache-2.0", "A test's model.", "quantised in a test")


def test_it_is_registered_with_its_sidecars(
    built_in: tuple[Model, Quantized], tmp_path: Path
) -> None:
    pytest.importorskip("license_expression", reason="extra `audit` is not installed")
    model, done = built_in
    assert done.path is not None
    sidecars = done.path.parent / f"{done.path.stem}.parity.json"
    passed = json.loads(sidecars.read_text()) | {"passed": True}  # noise made it, so it may say no
    sidecars.write_text(json.dumps(passed))
    record = add_model(tmp_path / "r", done.path, told(done.path.stem))
    assert record.parameters == model.record.parameters  # type: ignore[union-attr]
    assert record.io == model.io
    assert not check_registry(tmp_path / "r").faults
    assert Registry(tmp_path / "r").get(record.id).sha256 == done.sha256
    manifest = json.loads((tmp_path / f"r/{record.id}.intoto.json").read_text())
    materials = manifest["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert materials[0]["digest"] == {"sha256": model.sha256}


def test_what_the_gate_refused_is_not_registered(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("license_expression", reason="extra `audit` is not installed")
    model = resolve_model("saliency_student_v3")
    options = QuantizeOptions(images=1, check=1, method="minmax", runs=1, max_shift=0)
    done = quantize_model(model, images, tmp_path / "no.onnx", options, force=True)
    assert done.path is not None
    with pytest.raises(ModelError, match="failed, or its report is missing"):
        add_model(tmp_path / "r", done.path, told("no"))


@pytest.mark.parametrize("source", [None, {}, {"parameters": "many"}])
def test_a_report_that_names_no_float_model_is_refused(
    built_in: tuple[Model, Quantized], tmp_path: Path, source: object
) -> None:
    pytest.importorskip("license_expression", reason="extra `audit` is not installed")
    _, done = built_in
    assert done.path is not None
    folder = tmp_path / "copy"
    shutil.copytree(done.path.parent, folder)
    report = {"kind": "quantisation", "passed": True, "source": source}
    (folder / f"{done.path.stem}.parity.json").write_text(json.dumps(report))
    with pytest.raises(ModelError, match="names no float model"):
        add_model(tmp_path / "r", folder / done.path.name, told(done.path.stem))
    assert not (tmp_path / "r").exists()


def test_a_licence_that_is_nowhere_is_asked_for(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("license_expression", reason="extra `audit` is not installed")
    from eyeline.convert.sidecars import apache_text

    model = as_model(tmp_path / "net.onnx", net())
    options = QuantizeOptions(images=3, check=1, method="minmax", runs=1)
    done = quantize_model(model, images, tmp_path / "q.onnx", options, force=True)
    assert done.path is not None
    with pytest.raises((RegistryError, ModelError)):
        add_model(tmp_path / "r", done.path, told("q"))
    (tmp_path / "LICENSE").write_text(apache_text())
    again = quantize_model(
        model, images, tmp_path / "q.onnx", options,
        license_file=tmp_path / "LICENSE", force=True,
    )  # fmt: skip
    assert (tmp_path / "q.license.txt").read_text() == apache_text()
    assert again.sha256 == sha256_hex((tmp_path / "q.onnx").read_bytes())
