"""Models that a scan must admit, made here: the nets people bring, small."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tiny_models import make_model


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32) / 8


def unet(*, transpose: bool = True) -> bytes:
    """v1 in small: two halvings, a ConvTranspose or a Resize decoder, skips, a sigmoid."""
    node = helper.make_node
    up: list[Any] = []
    weights = {
        "w0": _weights(4, 3, 3, 3),
        "w1": _weights(8, 4, 3, 3),
        "w2": _weights(4, 8, 3, 3),
        "t1": _weights(8, 8, 2, 2),
        "t0": _weights(4, 4, 2, 2),
        "d1": _weights(4, 8, 1, 1),
        "head": _weights(1, 4, 1, 1),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }

    def upsample(source: str, target: str, weight: str) -> Any:
        if transpose:
            return node("ConvTranspose", [source, weight], [target], strides=[2, 2])
        return node("Resize", [source, "", "scales"], [target], mode="linear")

    if transpose:
        del weights["scales"]
    else:
        del weights["t0"], weights["t1"]
    up = [
        node("Conv", ["input", "w0"], ["c0"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Relu", ["c0"], ["r0"]),
        node("MaxPool", ["r0"], ["p0"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p0", "w1"], ["c1"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        upsample("p1", "u1", "t1"),
        node("Conv", ["u1", "d1"], ["e1"], kernel_shape=[1, 1]),
        upsample("e1", "u0", "t0"),
        node("Concat", ["u0", "r0"], ["k"], axis=1),
        node("Conv", ["k", "w2"], ["c2"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Conv", ["c2", "head"], ["logit"], kernel_shape=[1, 1]),
        node("Sigmoid", ["logit"], ["saliency_map"]),
    ]
    return make_model(up, weights)


def quantised(folder: Path, *, kind: str = "uint8", per_channel: bool = True) -> bytes:
    """The small U-Net as a QDQ net, by ONNX Runtime's own static quantisation."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(2)
            self.batches = iter([rng.standard_normal((1, 3, 32, 32)).astype(np.float32)] * 2)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    source, target = folder / "float.onnx", folder / f"{kind}.onnx"
    source.write_bytes(unet())
    types = {"uint8": q.QuantType.QUInt8, "int8": q.QuantType.QInt8}
    q.quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=q.QuantFormat.QDQ,
        activation_type=types[kind],
        weight_type=q.QuantType.QInt8,
        per_channel=per_channel,
    )
    return target.read_bytes()


def torch_net() -> Any:
    """A net with what exporters make much of: dynamic sizes, pooling, attention, normalisation."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), nn.Conv2d(8, 8, 1)
            )
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
            self.deep = nn.Sequential(
                nn.MaxPool2d(2, ceil_mode=True),
                nn.Conv2d(8, 8, 3, padding=2, dilation=2),
                nn.GELU(),
            )
            self.shuffle = nn.PixelShuffle(2)
            self.head = nn.Conv2d(12, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.stem(x)
            a = a * self.gate(a)
            b = F.interpolate(self.deep(a), size=a.shape[-2:], mode="bilinear", align_corners=False)
            c = torch.cat([a, F.relu6(b[:, :4])], 1)
            y = F.interpolate(self.head(c), size=x.shape[-2:], mode="bilinear", align_corners=False)
            edge = F.interpolate(self.shuffle(a), size=x.shape[-2:], mode="nearest")
            return torch.sigmoid(y + edge.mean(1, keepdim=True))

    torch.manual_seed(0)
    return Net().eval()


def padding_net() -> Any:
    """A U-Net step that pads its decoder to the skip's size, worked out from shapes at run time."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.norm = nn.Conv2d(3, 8, 3, 1, 1), nn.GroupNorm(2, 8)
            self.up, self.head = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = F.silu(self.norm(self.down(x)))
            b = self.up(F.max_pool2d(a, 2))
            dy, dx = a.shape[2] - b.shape[2], a.shape[3] - b.shape[3]
            b = F.pad(b, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            return torch.sigmoid(self.head(torch.cat([a, b], 1)))

    torch.manual_seed(0)
    return Net().eval()


def torch_export(net: Any, *, dynamo: bool, opset: int, side: int = 64) -> bytes:
    """A torch net to ONNX with a dynamic input, by the old or by the new exporter."""
    import torch

    axes = {0: "N", 2: "H", 3: "W"}
    image = torch.zeros(1 if not dynamo else 2, 3, side, side + 32)
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            dims = {0: torch.export.Dim("N", max=8)}
            dims |= {i: torch.export.Dim(n, min=32, max=2048) for i, n in ((2, "H"), (3, "W"))}
            program = torch.onnx.export(
                net,
                (image,),
                opset_version=opset,
                input_names=["input"],
                output_names=["saliency_map"],
                dynamic_shapes=(dims,),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            program.save(target)
        else:
            torch.onnx.export(
                net,
                (image,),
                target,
                opset_version=opset,
                input_names=["input"],
                output_names=["saliency_map"],
                dynamic_axes={"input": axes, "saliency_map": axes},
                dynamo=False,
            )
    return target.getvalue()


@cache
def exported(*, dynamo: bool, opset: int) -> bytes:
    """The torch net by an exporter; exported once for all tests."""
    return torch_export(torch_net(), dynamo=dynamo, opset=opset)


def half_weights() -> bytes:
    """A convolution whose weights are float16, cast before use."""
    nodes = [
        helper.make_node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["input", "w32"], ["y"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["y"], ["saliency_map"]),
    ]
    return make_model(nodes, {"w": np.full((1, 3, 1, 1), 0.25, np.float16)})


def dynamic_input(data: bytes) -> bytes:
    """The same model with any height and width, where its graph allows."""
    model = onnx.load_from_string(data)
    for i, name in ((0, "N"), (2, "H"), (3, "W")):
        model.graph.input[0].type.tensor_type.shape.dim[i].dim_param = name
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    result: bytes = model.SerializeToString()
    return result


MADE: dict[str, Callable[[], bytes]] = {
    "v1-like": unet,
    "v2-like": lambda: unet(transpose=False),
    "float16 weights": half_weights,
}
