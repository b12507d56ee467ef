"""Download the pretrained weights of an encoder, and read them from a TensorFlow Lite file.

The package `tflite` contains the schema of the file format, so TensorFlow is not needed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from eyeline.digests import sha256_hex
from eyeline.errors import MissingExtraError, TrainingError
from eyeline.files import Asset, download
from eyeline.training.nets import MobileNetV2
from eyeline.training.recipes import Backbone

Floats = npt.NDArray[np.float32]


def fetch_backbone(
    backbone: Backbone,
    cache: Path,
    file: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> bytes:
    """Return the bytes of a recipe's backbone, from the local copy `file` or downloaded to `cache`.

    Raises:
        TrainingError: the local copy cannot be read, or its SHA-256 is not the one in the recipe.
        DownloadError: the URL cannot be reached, or the SHA-256 of its file is not the one in the recipe.
    """
    if file is None:
        cache.mkdir(parents=True, exist_ok=True)
        asset = Asset(backbone.url, backbone.sha256, backbone.size)
        file = download(asset, cache / f"{backbone.sha256[:16]}.tflite", on_progress)
    try:
        data = file.read_bytes()
    except OSError as exc:
        raise TrainingError(
            f"{file}: can't be read: {exc.strerror}", "check the path given by --backbone"
        ) from exc
    if (found := sha256_hex(data)) != backbone.sha256:
        raise TrainingError(
            f"{file}: its sha256 is {found[:16]}..., but the recipe needs {backbone.sha256[:16]}...",
            f"download {backbone.url}",
        )
    return data


def load_backbone(encoder: MobileNetV2, data: bytes) -> None:
    """Load the weights of a TensorFlow Lite file, uint8-quantised or float32, into an encoder.

    The convolutions in the file must have the same order as those of the encoder. Further convolutions
    belong to the head of the pretrained network and are skipped. Batch normalisation is already folded
    into the weights.

    Raises:
        TrainingError: the file is damaged, or holds another architecture.
        MissingExtraError: the package `tflite` is not installed.
    """
    try:
        found = _convolutions(data)
    except (struct.error, ValueError, TypeError, AttributeError, IndexError) as exc:
        raise TrainingError(
            f"the backbone is not a complete TensorFlow Lite file: {exc}",
            "download the backbone again",
        ) from exc
    own = encoder.convolutions
    if len(found) < len(own):
        raise TrainingError(
            f"the backbone has {len(found)} convolutions, but the network needs {len(own)}",
            "use the backbone that the recipe names",
        )
    for number, (layer, (weight, bias)) in enumerate(zip(own, found, strict=False)):
        if tuple(layer.weight.shape) != weight.shape:
            raise TrainingError(
                f"convolution {number} of the backbone is {weight.shape}, "
                f"but the network needs {tuple(layer.weight.shape)}",
                "set `width` in the recipe to the width of the backbone",
            )
        assert layer.bias is not None  # noqa: S101 - all convolutions of `MobileNetV2` have one
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))


def _convolutions(data: bytes) -> list[tuple[Floats, Floats]]:
    """Return the weights, shaped (out, in, h, w), and biases of the convolutions in the file, in order."""
    try:
        import tflite
    except ModuleNotFoundError as exc:
        raise MissingExtraError("tflite", "train") from exc
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    order = {
        tflite.BuiltinOperator.CONV_2D: (0, 3, 1, 2),  # from (out, h, w, in)
        tflite.BuiltinOperator.DEPTHWISE_CONV_2D: (3, 0, 1, 2),  # from (1, h, w, channels)
    }
    found = []
    for i in range(graph.OperatorsLength()):
        op = graph.Operators(i)
        kind = model.OperatorCodes(op.OpcodeIndex()).BuiltinCode()
        if kind in order:
            weight = _tensor(tflite, model, graph, op.Inputs(1)).transpose(order[kind])
            found.append(
                (np.ascontiguousarray(weight), _tensor(tflite, model, graph, op.Inputs(2)))
            )
    return found


def _tensor(tflite: Any, model: Any, graph: Any, index: int) -> Floats:
    """Return a constant tensor as float32; a quantised value q becomes (q - zero point) * scale."""
    tensor = graph.Tensors(index)
    kinds = {
        tflite.TensorType.FLOAT32: np.float32,
        tflite.TensorType.UINT8: np.uint8,
        tflite.TensorType.INT32: np.int32,
    }
    if tensor.Type() not in kinds:
        raise TrainingError(
            f"tensor {index} of the backbone has the unsupported type {tensor.Type()}",
            "use a backbone whose tensors are float32, uint8 or int32",
        )
    raw = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
    values = np.frombuffer(raw, kinds[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
    if tensor.Type() == tflite.TensorType.FLOAT32:
        return values.astype(np.float32)
    q = tensor.Quantization()
    exact: npt.NDArray[np.float64] = (values - float(q.ZeroPoint(0))) * float(q.Scale(0))
    return exact.astype(np.float32)
