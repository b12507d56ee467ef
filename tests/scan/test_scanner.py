"""The scanner: nothing hostile is admitted, nothing benign is refused, and hidden things are named."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import benign
import commands
import hostile
from eyeline.errors import ModelError, ScanError
from eyeline.registry.registry import BUILTIN
from eyeline.scan import ScanReport, admit, scan, scan_file
from tiny_models import conv, make_model, plane_model, plane_weights

node = hostile.node


def codes(report: ScanReport) -> set[str]:
    return {f.code for f in report.findings}


# --- hostile


@pytest.mark.parametrize("name", hostile.CORPUS)
def test_a_hostile_file_is_refused_for_its_reason(name: str) -> None:
    code, make = hostile.CORPUS[name]
    report = scan(make(), name=name, load=code == "load")
    assert not report.admitted
    assert code in codes(report), report.findings
    for finding in report.findings:
        assert finding.path
        assert str(finding).isprintable()
        assert finding.op_type.isprintable()


def test_what_the_corpus_spoils_is_admitted_unspoiled() -> None:
    assert scan(hostile.dump(hostile.base()), load=False).admitted


def test_the_corpus_is_large() -> None:
    assert len(hostile.CORPUS) >= 60


def test_every_code_is_explained() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scan.md").read_text()
    assert not [code for code, _ in hostile.CORPUS.values() if f"`{code}`" not in text]


@pytest.mark.parametrize(
    ("name", "op_type", "path"),
    [
        ("Loop in an If", "Loop", "graph/node[1]:If/then_branch/node[0]:Loop"),
        ("custom op in an If", "Exec", "graph/node[1]:If/then_branch/node[0]:Exec"),
        ("SequenceMap", "NonZero", "graph/node[2]:SequenceMap/body/node[0]:NonZero"),
        ("Scan", "Exec", "graph/node[1]:Scan/body/node[0]:Exec"),
        ("Loop in a function", "Loop", "functions[0]:f/node[0]:Loop"),
        ("training info", "SecretOptimiser", "training_info[0]/algorithm/node[0]:SecretOptimiser"),
        ("a graph on an op that takes none", "Exec", "graph/node[1]:Relu/body/node[0]:Exec"),
    ],
)
def test_what_is_hidden_is_reported_by_its_path(name: str, op_type: str, path: str) -> None:
    findings = scan(hostile.CORPUS[name][1](), load=False).findings
    assert (op_type, path) in {(f.op_type, f.path) for f in findings}


def test_external_data_in_a_branch_is_reported_too() -> None:
    report = scan(hostile.CORPUS["external data in an If"][1](), load=False)
    assert [(f.code, f.path) for f in report.findings] == [
        ("op", "graph/node[1]:If"),
        ("external-data", "graph/node[1]:If/then_branch/node[0]:Constant"),
    ]


def test_the_first_offending_node_comes_first() -> None:
    nodes = [node("Fine", ["input"], ["a"]), node("Evil", ["a"], ["e"]), conv()]
    report = scan(make_model(nodes, plane_weights((1, 0, 0))), load=False)
    assert [f.op_type for f in report.findings] == ["Fine", "Evil"]
    assert report.findings[0].path == "graph/node[0]:Fine"


def test_admit_is_a_gate() -> None:
    assert admit(plane_model(), name="good").admitted
    with pytest.raises(ScanError, match=r"^bad: .*graph/node\[1\]:If.*and 1 more") as caught:
        admit(hostile.CORPUS["Loop in an If"][1](), name="bad")
    assert caught.value.exit_code == 1


def test_findings_are_bounded() -> None:
    nodes = [node("Evil", ["input"], [f"q{i}"]) for i in range(500)]
    report = scan(make_model([*nodes, conv()], plane_weights((1, 0, 0))), load=False)
    assert 10 <= len(report.findings) <= 60


def test_a_scan_of_the_whole_corpus_takes_little_time() -> None:
    slowest = 0.0
    for _, make in hostile.CORPUS.values():
        data = make()
        began = time.process_time()
        scan(data, load=False)
        slowest = max(slowest, time.process_time() - began)
    assert slowest < 20  # against what never ends; benchmarks/scan.py says what a scan costs


# --- benign


@pytest.mark.parametrize("name", benign.MADE)
def test_nets_made_here_are_admitted(name: str) -> None:
    report = scan(benign.MADE[name]())
    assert report.findings == ()
    assert report.load.outcome == "loaded"


@pytest.mark.parametrize("path", sorted(BUILTIN.glob("*.onnx")), ids=lambda p: p.stem)
def test_built_in_models_are_admitted(path: Path) -> None:
    report = scan_file(path)
    assert (report.findings, report.notes, report.load.outcome) == ((), (), "loaded")


@pytest.mark.parametrize("name", ["saliency_student_v1", "saliency_student_v2"])
def test_the_reference_students_are_admitted(shared_data: Path, name: str) -> None:
    assert scan_file(shared_data / "reference" / f"{name}.onnx").findings == ()


def test_u2netp_as_it_is_served_is_admitted_with_notes(shared_data: Path) -> None:
    report = scan_file(shared_data / "u2netp" / "u2netp.onnx")
    assert report.findings == ()
    assert "not those of the tensor contract" in report.notes[0]
    assert report.notes[1] == "the model has the fixed input size (height x width) 320x320"
    assert report.ops["Resize"] == 38


def test_u2netp_with_any_input_size_is_admitted(shared_data: Path) -> None:
    data = benign.dynamic_input((shared_data / "u2netp" / "u2netp.onnx").read_bytes())
    report = scan(data, load=False)
    assert report.findings == ()
    assert report.worst_case is not None
    # 128 channels at full size, float32: the last decoder's skip connection.
    assert report.worst_case.largest_tensor_bytes == 128 * 1088 * 1920 * 4


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_a_quantised_net_is_admitted(tmp_path: Path, kind: str) -> None:
    report = scan(benign.quantised(tmp_path, kind=kind))
    assert report.findings == ()
    assert report.ops["DequantizeLinear"] > 5


@pytest.mark.parametrize("zero", [np.zeros(1, np.uint8), np.full(1, -3, np.int8)])
@pytest.mark.parametrize("attributes", [{}, {"axis": 3}, {"axis": -4}])
def test_what_the_corpus_rounds_is_admitted_unspoiled(
    zero: np.ndarray, attributes: dict[str, int]
) -> None:
    assert scan(hostile.quantised(zero=zero, **attributes)()).findings == ()


def test_a_scale_may_stand_in_a_node(tmp_path: Path) -> None:
    make = hostile.feeding(
        node("Constant", [], ["s"], value_float=0.1),
        node("QuantizeLinear", ["y", "s"], ["q"]),
        node("DequantizeLinear", ["q", "s"], ["saliency_map"]),
    )
    assert scan(make()).findings == ()


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20])
def test_exports_of_the_old_torch_exporter_are_admitted(opset: int) -> None:
    pytest.importorskip("torch", reason="extra `train` is not installed")
    data = benign.exported(dynamo=False, opset=opset)
    report = scan(data, load=opset in (11, 20))
    assert report.findings == ()
    assert report.ops["Resize"] == 3


def test_padding_to_sizes_of_the_run_is_admitted() -> None:
    pytest.importorskip("torch", reason="extra `train` is not installed")
    report = scan(benign.torch_export(benign.padding_net(), dynamo=False, opset=17))
    assert report.findings == ()
    assert {"ConstantOfShape", "Pad", "Div"} <= set(report.ops)


@pytest.mark.parametrize("opset", [18, 20])
def test_exports_of_the_new_torch_exporter_are_admitted(opset: int) -> None:
    pytest.importorskip("onnxscript", reason="extra `train` is not installed")
    data = benign.exported(dynamo=True, opset=opset)
    report = scan(data, load=opset == 20)
    assert report.findings == ()
    assert "metadata" in report.notes[0]


def test_a_scan_imports_no_numpy_onnx_or_pydantic() -> None:
    code = (
        "import sys; from eyeline.scan import scan\n"
        f"scan({plane_model()!r}, load=False)\n"
        "print({'numpy', 'onnx', 'onnxruntime', 'pydantic', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# --- files


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.onnx"
    path.write_bytes(plane_model())
    return path


def test_a_link_is_refused_unread(good: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(good)
    report = scan_file(link)
    assert codes(report) == {"file-kind"}
    assert "symbolic link" in report.findings[0].reason
    assert report.sha256 == ""


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.onnx")
    assert "FIFO" in scan_file(tmp_path / "fifo.onnx").findings[0].reason


def test_a_socket_and_a_device_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("s.onnx")
        assert "socket" in scan_file(Path("s.onnx")).findings[0].reason
    assert "device" in scan_file(Path("/dev/zero")).findings[0].reason


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    assert codes(scan_file(tmp_path / "empty.onnx")) == {"file-kind"}


def test_a_terabyte_is_refused_in_constant_memory(tmp_path: Path) -> None:
    with (tmp_path / "big.onnx").open("wb") as f:
        f.truncate(1 << 40)
    assert codes(scan_file(tmp_path / "big.onnx")) == {"file-size"}


def test_external_data_through_a_hard_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"12345678")
    os.link(tmp_path / "secret", tmp_path / "weights.bin")
    data = hostile.with_tensor(hostile.external("weights.bin"))()
    (tmp_path / "m.onnx").write_bytes(data)
    assert "external-data" in codes(scan_file(tmp_path / "m.onnx"))


@pytest.mark.parametrize("name", ["missing.onnx", ".", "no/such/folder.onnx", "n" * 300])
def test_what_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        scan_file(Path(name))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


# --- the command


eyeline = partial(commands.run, "model", "scan")


def test_the_command_admits(good: Path) -> None:
    done = eyeline(str(good), "--verbose")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"admitted: {good}, 1 nodes of 1 ops")
    assert "first load: loaded" in done.stdout


def test_the_command_refuses_with_the_first_offending_node(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(hostile.CORPUS["Loop in an If"][1]())
    done = eyeline(str(path))
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first == f"rejected: {path}: graph/node[1]:If: the op 'If' is not on the allowlist"
    assert done.stderr == ""


def test_stdin_and_json(good: Path) -> None:
    done = eyeline("-", "--json", "--static", stdin=good.read_bytes())
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert (report["admitted"], report["name"], report["findings"]) == (True, "stdin", [])
    assert report["ops"] == {"Conv": 1}
    done = eyeline("-", "--json", stdin=hostile.CORPUS["function"][1]())
    assert done.returncode == 1
    finding = json.loads(done.stdout)["findings"][0]
    assert set(finding) == {"code", "path", "reason", "op_type"}


def test_nothing_on_stdin_is_refused() -> None:
    assert eyeline("-").returncode == 1


def test_a_missing_file_is_exit_code_2(tmp_path: Path) -> None:
    done = eyeline(str(tmp_path / "none.onnx"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_quiet_says_nothing(good: Path) -> None:
    done = eyeline(str(good), "-q", "--static")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
