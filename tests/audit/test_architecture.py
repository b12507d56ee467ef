"""Architecture by reading: nothing of a checkout runs, and a depth input is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyeline.audit.architecture import (
    audit_architecture,
    audit_ops,
    find_nets,
    forecast,
    parse_source,
)
from eyeline.audit.records import load_policy
from eyeline.audit.tree import open_tree
from fake_upstream import FILES, NET, README, write_files


def judge(folder: Path, code: str, net: str | None = None, **files: str):  # type: ignore[no-untyped-def]
    write_files(folder, {"README.md": README, "model/tinynet.py": code, **files})
    return audit_architecture(open_tree(folder), load_policy(), net)


def forward(arguments: str, body: str = "return torch.sigmoid(x)") -> str:
    return (
        "import torch\nimport torch.nn as nn\n\n"
        f"class TinyNet(nn.Module):\n    def forward(self, {arguments}):\n        {body}\n"
    )


def test_an_rgb_net(tmp_path: Path) -> None:
    report, net = judge(tmp_path, NET)
    assert net.name == "TinyNet"
    assert net.signature == "forward(self, x)"
    assert net.outputs == 2
    assert net.sigmoid
    assert net.parts == ("Block",)
    assert net.imports == ("torch",)
    assert report.blockers == ()
    assert report.summary.startswith("RGB: ")


@pytest.mark.parametrize(
    "arguments",
    [
        "x, depth",
        "x, x_depth",
        "input, depth=None, test=True",
        "rgb, d",
        "x, *, depths",
        "img, thermal",
    ],
)
def test_a_depth_argument_blocks(tmp_path: Path, arguments: str) -> None:
    report, _ = judge(tmp_path, forward(arguments, "return torch.sigmoid(self.net(depth))"))
    assert [f.code for f in report.blockers] == ["RGB-D"]
    assert report.summary.startswith("RGB-D: ")


@pytest.mark.parametrize(
    "arguments", ["x", "x, shape=None", "x, mode", "x, training=False", "depth"]
)
def test_other_arguments_do_not(tmp_path: Path, arguments: str) -> None:
    assert judge(tmp_path, forward(arguments))[0].blockers == ()


def test_a_mapping_with_depth_blocks(tmp_path: Path) -> None:
    report, net = judge(
        tmp_path, forward("sample", "return self.f(sample['image'], sample['depth'])")
    )
    assert net.keys == ("image", "depth")
    assert [f.code for f in report.blockers] == ["RGB-D"]


def test_a_policy_can_take_other_inputs(tmp_path: Path) -> None:
    write_files(tmp_path, {"model/tinynet.py": forward("x, depth")})
    policy = load_policy().model_copy(update={"inputs": "any"})
    assert audit_architecture(open_tree(tmp_path), policy)[0].blockers == ()


def test_forward_that_is_assigned(tmp_path: Path) -> None:
    code = (
        "import torch.nn as nn\nclass TinyNet(nn.Module):\n"
        "    def __init__(self):\n        self.forward = self.forward_inference\n"
        "    def train(self, mode=True):\n        self.forward = self.forward_train\n"
        "    def forward_train(self, x, gt):\n        return x\n"
        "    def forward_inference(self, x):\n        return x.sigmoid()\n"
    )
    assert judge(tmp_path, code)[1].signature == "forward_inference(self, x)"


def test_an_inherited_forward(tmp_path: Path) -> None:
    code = (
        NET
        + "\n\nclass TinyNetLarge(TinyNet):\n    def __init__(self):\n        super().__init__(3)\n"
    )
    _, net = judge(tmp_path, code, "TinyNetLarge")
    assert net.signature == "forward(self, x)"
    assert net.outputs == 2


def test_classes_that_inherit_in_a_circle_are_no_net(tmp_path: Path) -> None:
    code = "import torch.nn as nn\nclass A(B):\n    pass\nclass B(A, nn.Module):\n    pass\n"
    report, net = judge(tmp_path, code)
    assert net is None
    assert [f.code for f in report.blockers] == ["NO-NET"]


def test_losses_backbones_and_parts_are_not_the_net(tmp_path: Path) -> None:
    files = {
        "loss.py": forward("pred, target").replace("TinyNet", "Fancy"),
        "backbones/resnet.py": forward("x").replace("TinyNet", "ResNet"),
    }
    write_files(tmp_path, {**FILES, **files})
    nets = find_nets(parse_source(open_tree(tmp_path)), README)
    assert nets[0].name == "TinyNet"
    assert "Fancy" not in [n.name for n in nets]
    assert "Block" not in [n.name for n in nets]


def test_the_files_that_a_net_is_made_of(tmp_path: Path) -> None:
    code = "from .parts import Part\nfrom lib.extra import *\nimport torchvision\n" + forward("x")
    _, net = judge(
        tmp_path, code,
        **{"model/__init__.py": "", "model/parts.py": "import einops\n", "lib/extra.py": "",
           "train.py": "import cv2\n"},
    )  # fmt: skip
    assert net.closure == ("lib/extra.py", "model/parts.py", "model/tinynet.py")
    assert net.imports == ("einops", "torch", "torchvision")


def test_nothing_is_imported_or_run(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    harm = f"open({str(mark)!r}, 'w').close()\n"
    folder = tmp_path / "up"
    write_files(folder, {"setup.py": harm, "conftest.py": harm, "model/__init__.py": harm})
    report, net = judge(folder, harm + NET)
    assert net.name == "TinyNet"
    assert not mark.exists()
    assert report.blockers == ()


@pytest.mark.parametrize(
    "text", ["def broken(:", "x = 1\0", "(" * 5000], ids=["syntax", "NUL", "deep"]
)
def test_a_file_that_does_not_parse_is_a_finding(tmp_path: Path, text: str) -> None:
    report, net = judge(tmp_path, NET, **{"other.py": text})
    assert net is not None
    assert [f.where for f in report.findings if f.code == "SYNTAX"] == ["other.py"]


def test_no_net_blocks(tmp_path: Path) -> None:
    assert [f.code for f in judge(tmp_path, "x = 1\n")[0].blockers] == ["NO-NET"]
    assert [f.code for f in judge(tmp_path, NET, "Other")[0].blockers] == ["NO-NET"]


def test_calls_that_do_more_than_compute_are_named(tmp_path: Path) -> None:
    code = forward("x", "self.eval(); return eval(self.kind)(x).sigmoid()")
    report, _ = judge(tmp_path, "import os\nos.system('ls')\n" + code)
    risks = {f.message.split("()")[0] for f in report.findings if f.code == "RISK"}
    assert risks == {"eval", "system"}


def test_ops_are_forecast_from_the_source(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    tree = open_tree(tmp_path)
    _, net = audit_architecture(tree, load_policy())
    assert net is not None
    assert set(forecast(tree, net)) == {"Conv", "Relu", "MaxPool", "Resize", "Concat", "Sigmoid"}
    report = audit_ops(tree, net)
    assert report.blockers == ()
    assert report.facts["scanned"] is None


def test_an_op_that_the_scanner_does_not_admit_is_forecast(tmp_path: Path) -> None:
    code = (
        NET
        + "\nfrom torchvision.ops import deform_conv2d\n\ndef f(x):\n    return deform_conv2d(x, x, x)\n"
    )
    write_files(tmp_path, {"model/tinynet.py": code})
    tree = open_tree(tmp_path)
    _, net = audit_architecture(tree, load_policy())
    assert [f.message for f in audit_ops(tree, net).findings if f.code == "OP"] == [
        "the source leads to DeformConv, which the scanner does not admit"
    ]
