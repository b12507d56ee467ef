"""Backbones: TensorFlow Lite files made here are read as TensorFlow reads them."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tflite")

from eyeline.digests import sha256_hex  # noqa: E402
from eyeline.errors import TrainingError  # noqa: E402
from eyeline.training._backbone import fetch_backbone, load_backbone  # noqa: E402
from eyeline.training.nets import MobileNetV2  # noqa: E402
from eyeline.training.recipes import Backbone  # noqa: E402
from shared import SHARED  # noqa: E402
from training.samples import ZERO_POINT, layers_of, make_tflite  # noqa: E402


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
    with pytest.raises(
        TrainingError, match="the backbone has 2 convolutions, but the network needs 51"
    ):
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
    with pytest.raises(TrainingError, match="not a complete TensorFlow Lite file"):
        load_backbone(encoder, data)
