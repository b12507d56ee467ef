"""Export: the same weights give the same bytes, within the parity gate, or nothing at all."""

from __future__ import annotations

import getpass
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyeline.digests import sha256_hex
from eyeline.errors import ModelError
from eyeline.inference.session import Session
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model

torch = pytest.importorskip("torch", reason="extra `train` is not installed")
onnx = pytest.importorskip("onnx")

from eyeline.convert.export import export_net  # noqa: E402
from eyeline.convert.graph import OPSET  # noqa: E402
from eyeline.training.nets import Contract, build_net, count_parameters  # noqa: E402
from eyeline.training.recipes import load_recipe  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads that wait for each other take ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TINY: dict[str, Any] = {
    "arch": "fpn",
    "stem": 4,
    "lateral": 4,
    "fuse": 1,
    "stages": [{"channels": 4, "dilations": [1]}, {"channels": 6, "dilations": [1, 2]}],
}
UNET: dict[str, Any] = {
    "arch": "unet",
    "encoder": [2, 3, 4],
    "bottleneck": 4,
    "decoder": [4, 3, 2],
}


def save_weights(path: Path, config: dict[str, Any], seed: int = 0) -> Path:
    """Random weights, with batch statistics that are not the identity."""
    torch.manual_seed(seed)
    net = build_net(config)
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    torch.save(net.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights of the tiny net, and their export."""
    folder = tmp_path_factory.mktemp("export")
    weights = save_weights(folder / "weights.pt", TINY)
    export_net(TINY, weights, folder / "net.onnx", metadata={"recipe": "tiny"})
    return weights, folder / "net.onnx"


def test_two_exports_are_the_same_bytes(exported: tuple[Path, Path], tmp_path: Path) -> None:
    weights, first = exported
    again = export_net(TINY, weights, tmp_path / "again.onnx", metadata={"recipe": "tiny"})
    assert again.path.read_bytes() == first.read_bytes()
    assert again.sha256 == sha256_hex(first.read_bytes())
    assert list(again.parity.reports) == ["float32"]
    report = again.parity.reports["float32"]
    assert report.max_abs < 1e-5
    assert (report.cases, report.images) == (48, 8)


def test_no_trace_of_this_machine_is_in_the_file(exported: tuple[Path, Path]) -> None:
    data = exported[1].read_bytes()
    traces = {str(Path.home()), str(Path.cwd()), str(exported[1].parent), "site-packages", ".py"}
    for trace in traces | {socket.gethostname(), f"/{getpass.getuser()}/"}:
        assert trace.encode() not in data, trace


def test_the_export_answers_what_the_net_answers(exported: tuple[Path, Path]) -> None:
    net = build_net(TINY)
    net.load_state_dict(torch.load(exported[0], weights_only=True))
    contract = Contract(net).eval()
    session = Session(Model("tiny", exported[1], IoSpec()), "cpu")
    rng = np.random.default_rng(5)
    for h, w in ((31, 45), (64, 96), (50, 18)):
        x = rng.standard_normal((1, 3, h, w)).astype(np.float32)
        with torch.no_grad():
            expected = contract(torch.from_numpy(x))[0, 0].numpy()
        np.testing.assert_allclose(session.run(x), expected, rtol=0, atol=1e-5)


def test_opset_metadata_and_dynamic_axes(exported: tuple[Path, Path]) -> None:
    model = onnx.load(exported[1])
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert {p.key: p.value for p in model.metadata_props} == {"recipe": "tiny"}
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["N", 3, "H", "W"]


@pytest.mark.parametrize("upsample", ["deconv", "resize"])
def test_a_unet_is_exported_at_its_multiple(tmp_path: Path, upsample: str) -> None:
    config = UNET | {"upsample": upsample}
    weights = save_weights(tmp_path / "w.pt", config)
    done = export_net(config, weights, tmp_path / "net.onnx", metadata={}, multiple=8)
    assert done.parity.passed


def test_a_net_of_the_default_models_size_stays_under_its_limit(tmp_path: Path) -> None:
    config = load_recipe("student_v3").net
    weights = save_weights(tmp_path / "w.pt", config)
    done = export_net(config, weights, tmp_path / "net.onnx", metadata={"note": "x" * 2000})
    assert count_parameters(build_net(config)) <= 300_000
    assert done.path.stat().st_size < 1_200_000


def test_weights_of_another_net_are_refused(exported: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="do not fit the network") as caught:
        export_net(TINY | {"lateral": 5}, exported[0], tmp_path / "net.onnx", metadata={})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Harm:
    """Unpickles into a call, as a hostile checkpoint would."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm-was-done"),))


@pytest.mark.parametrize(
    "data",
    [b"", b"no weights", pickle.dumps(Harm(), 2), pickle.dumps([1, 2], 2)],
    ids=["empty", "text", "hostile", "list"],
)
def test_a_file_that_is_no_state_dict_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(ModelError, match="do not fit the network") as caught:
        export_net(TINY, tmp_path / "w.pt", tmp_path / "net.onnx", metadata={})
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pt"]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file") as caught:
        export_net(TINY, tmp_path / "w.pt", tmp_path / "net.onnx", metadata={})
    assert "\n" not in str(caught.value)


STEEP = 150  # times a net's logits, and their round-off with them: a long training does so, too


def test_where_round_off_exceeds_the_gate_float64_decides(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = build_net(TINY).eval()
    with torch.no_grad():
        middle = net(torch.randn(1, 3, 96, 96))[0].median()
        net.heads[0].bias.copy_((net.heads[0].bias - middle) * STEEP)
        net.heads[0].weight.mul_(STEEP)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    done = export_net(TINY, tmp_path / "w.pt", tmp_path / "net.onnx", metadata={})
    assert done.parity.by_float64
    reports = done.parity.reports
    assert reports["float32"].max_abs >= 1e-5
    assert reports["candidate to float64"].max_abs <= 2 * reports["source to float64"].max_abs


def test_what_fails_the_gate_leaves_the_old_file(
    exported: tuple[Path, Path], tmp_path: Path
) -> None:
    state = torch.load(exported[0], weights_only=True)
    state["stem.0.weight"] *= 1e12  # round-off grows with it: no export can pass the gate
    state["heads.0.bias"] += float("nan")
    torch.save(state, tmp_path / "w.pt")
    (tmp_path / "net.onnx").write_bytes(b"old")
    with pytest.raises(ModelError):
        export_net(TINY, tmp_path / "w.pt", tmp_path / "net.onnx", metadata={})
    assert (tmp_path / "net.onnx").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
