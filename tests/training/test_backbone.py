"""Backbones: TensorFlow Lite files made here are read as TensorFlow reads them."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tflite = pytest.importorskip("tflite")
import flatbuffers  # noqa: E402 - comes with tflite

from eyeline.digests import sha256_hex  # noqa: E402
from eyeline.errors import TrainingError  # noqa: E402
from eyeline.training.backbone import fetch_backbone, load_backbone  # noqa: E402
from eyeline.training.nets import MobileNetV2  # noqa: E402
from eyeline.training.recipes import Backbone  # noqa: E402
from shared import SHARED  # noqa: E402

ZERO_POINT = 128


def offsets(builder: "flatbuffers.Builder", items: list[int]) -> int:
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item)
    return builder.EndVector()


def scalars(builder: "flatbuffers.Builder", values: np.ndarray) -> int:
    return builder.CreateNumpyVector(values)


def make_tflite(
    layers: list[tuple[np.ndarray, np.ndarray, float, bool]],
) -> bytes:
    """A model of convolutions alone: uint8 weights, int32 biases, scale, whether depthwise."""
    b = flatbuffers.Builder(1 << 16)
    buffers, tensors, operators = [], [], []

    def tensor(values: np.ndarray, kind: int, scale: float, zero_point: int) -> int:
        data = scalars(b, np.frombuffer(values.tobytes(), np.uint8))
        tflite.BufferStart(b)
        tflite.BufferAddData(b, data)
        buffers.append(tflite.BufferEnd(b))
        scales = scalars(b, np.array([scale], np.float32))
        zeros = scalars(b, np.array([zero_point], np.int64))
        tflite.QuantizationParametersStart(b)
        tflite.QuantizationParametersAddScale(b, scales)
        tflite.QuantizationParametersAddZeroPoint(b, zeros)
        quantisation = tflite.QuantizationParametersEnd(b)
        shape = scalars(b, np.array(values.shape, np.int32))
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, shape)
        tflite.TensorAddType(b, kind)
        tflite.TensorAddBuffer(b, len(buffers) - 1)
        tflite.TensorAddQuantization(b, quantisation)
        tensors.append(tflite.TensorEnd(b))
        return len(tensors) - 1

    for weight, bias, scale, depthwise in layers:
        w = tensor(weight, tflite.TensorType.UINT8, scale, ZERO_POINT)
        c = tensor(bias, tflite.TensorType.INT32, scale, 0)
        inputs = scalars(b, np.array([0, w, c], np.int32))
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, int(depthwise))
        tflite.OperatorAddInputs(b, inputs)
        operators.append(tflite.OperatorEnd(b))
    codes = []
    for kind in (tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.DEPTHWISE_CONV_2D):
        tflite.OperatorCodeStart(b)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(b, kind)
        codes.append(tflite.OperatorCodeEnd(b))
    tensors_at, operators_at = offsets(b, tensors), offsets(b, operators)
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, tensors_at)
    tflite.SubGraphAddOperators(b, operators_at)
    graphs = offsets(b, [tflite.SubGraphEnd(b)])
    buffers_at, codes_at = offsets(b, buffers), offsets(b, codes)
    tflite.ModelStart(b)
    tflite.ModelAddOperatorCodes(b, codes_at)
    tflite.ModelAddSubgraphs(b, graphs)
    tflite.ModelAddBuffers(b, buffers_at)
    b.Finish(tflite.ModelEnd(b), file_identifier=b"TFL3")
    return bytes(b.Output())


def layers_of(encoder: MobileNetV2) -> list[tuple[np.ndarray, np.ndarray, float, bool]]:
    """Random quantised layers of the encoder's shapes, in TensorFlow's layout."""
    rng = np.random.default_rng(3)
    made = []
    for layer in encoder.convolutions:
        out, inside, rows, columns = layer.weight.shape
        depthwise = layer.groups > 1
        shape = (1, rows, columns, out) if depthwise else (out, rows, columns, inside)
        weight = rng.integers(0, 256, shape, np.uint8)
        bias = rng.integers(-1000, 1000, out).astype(np.int32)
        made.append((weight, bias, float(rng.uniform(0.001, 0.02)), depthwise))
    return made


def test_quantised_weights_become_floats_in_the_layout_of_pytorch() -> None:
    encoder = MobileNetV2(0.25)
    layers = layers_of(encoder)
    load_backbone(encoder, make_tflite(layers))
    for layer, (weight, bias, scale, depthwise) in zip(encoder.convolutions, layers, strict=True):
        order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
        wanted = (weight.astype(float).transpose(order) - ZERO_POINT) * np.float32(scale)
        np.testing.assert_allclose(layer.weight.detach().numpy(), wanted, rtol=1e-6)
        np.testing.assert_allclose(layer.bias.detach().numpy(), bias * np.float32(scale), rtol=1e-6)


def test_convolutions_behind_the_encoder_are_left_out() -> None:
    encoder = MobileNetV2(0.25)
    layers = layers_of(encoder)
    load_backbone(encoder, make_tflite([*layers, layers[0]]))


def test_a_backbone_of_another_width_is_refused() -> None:
    data = make_tflite(layers_of(MobileNetV2(0.25)))
    with pytest.raises(TrainingError, match=r"convolution 0 of the backbone is \(8, 3, 3, 3\)"):
        load_backbone(MobileNetV2(0.5), data)


def test_a_backbone_with_too_few_layers_is_refused() -> None:
    encoder = MobileNetV2(0.25)
    with pytest.raises(TrainingError, match="the backbone has 2 convolutions, the net needs 51"):
        load_backbone(encoder, make_tflite(layers_of(encoder)[:2]))


def test_a_local_backbone_is_held_to_the_digest(tmp_path: Path) -> None:
    data = b"weights"
    backbone = Backbone(
        url="https://example.com/x.tflite",
        sha256=sha256_hex(data),
        size=len(data),
        license="Apache-2.0",
        trained_on=["ImageNet"],
    )
    file = tmp_path / "x.tflite"
    file.write_bytes(data)
    assert fetch_backbone(backbone, tmp_path / "cache", file) == data
    file.write_bytes(b"other")
    with pytest.raises(TrainingError, match="the recipe needs"):
        fetch_backbone(backbone, tmp_path / "cache", file)


@pytest.mark.parametrize(("name", "width"), [("dm05_", 0.5), ("", 1.0)])
def test_the_recipes_backbones_load(name: str, width: float) -> None:
    file = SHARED / f"backbones/deeplabv3_mnv2_{name}pascal_quant.tflite"
    if not file.exists():
        pytest.skip("the backbones are not at hand")
    encoder = MobileNetV2(width)
    load_backbone(encoder, file.read_bytes())
    first = encoder.convolutions[0].weight
    assert first.std() > 0.1  # PyTorch's own start has 0.11 at most here


@pytest.mark.parametrize("damage", ["empty", "short", "zeros", "text"])
def test_a_damaged_file_is_refused(damage: str) -> None:
    encoder = MobileNetV2(0.25)
    whole = make_tflite(layers_of(encoder))
    data = {
        "empty": b"",
        "short": whole[: len(whole) // 2],
        "zeros": bytes(1000),
        "text": b"<html>not found</html>" * 9,
    }[damage]
    with pytest.raises(TrainingError, match="not a whole TensorFlow Lite file"):
        load_backbone(encoder, data)
