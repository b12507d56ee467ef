"""Data, backbones and recipes that the tests of training share."""

import json
from pathlib import Path

import flatbuffers
import numpy as np
import tflite
from PIL import Image

from eyeline.digests import sha256_hex
from eyeline.training.nets import MobileNetV2
from eyeline.training.recipes import Backbone, GazeRecipe, Recipe


def make_discs(root: Path, count: int = 40, size: tuple[int, int] = (80, 60)) -> Path:
    """A bright disc on a dark noisy ground, and its mask, as PNG pairs."""
    rng = np.random.default_rng(7)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    width, height = size
    y, x = np.mgrid[:height, :width]
    for i in range(count):
        cx, cy, r = rng.uniform(15, width - 15), rng.uniform(15, height - 15), rng.uniform(8, 14)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r
        picture = rng.integers(0, 60, (height, width, 3)) + inside[..., None] * 160
        Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{i:03}.png")
        Image.fromarray((inside * 255).astype(np.uint8)).save(root / "masks" / f"{i:03}.png")
    return root


def make_gaze_set(root: Path) -> Path:
    """Bright discs on dark noise; three viewers look at the disc of each picture."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:48, :64]
    rows = ["image,viewer,x,y,duration_ms"]
    for i in range(40):
        cx, cy = rng.uniform(10, 54), rng.uniform(10, 38)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < 36
        picture = rng.integers(0, 60, (48, 64, 3)) + inside[..., None] * 160
        Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{i:03}.png")
        for viewer in range(3):
            fx, fy = (cx + rng.normal(0, 2)) / 64, (cy + rng.normal(0, 2)) / 48
            rows.append(f"{i:03},{viewer},{fx:.4f},{fy:.4f},200")
    (root / "fixations.csv").write_text("\n".join(rows) + "\n")
    return root


def deeper(recipe: Recipe, kind: str = "separable") -> Recipe:
    """The recipe with a block more in its last stage."""
    net = json.loads(json.dumps(recipe.net))
    last = net["stages"][-1]
    last["block"] = kind
    last["dilations"] = [*last["dilations"], 2]
    return recipe.model_copy(update={"net": net})


def record_of(backbone: Path) -> Backbone:
    data = backbone.read_bytes()
    return Backbone(
        url="https://example.com/quarter.tflite",
        sha256=sha256_hex(data),
        size=len(data),
        license="Apache-2.0",
        trained_on=["noise"],
    )


def pyramid_recipe(backbone: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "net": {"arch": "pyramid", "width": 0.25, "channels": 8, "deep": 16, "dilations": [2]},
            "backbone": record_of(backbone),
            "epochs": 6,
            "batch": 4,
            "lr": 3e-3,
            "encoder_lr": 0.5,
            "ema": 0.8,
            "store": 64,
            "selection_share": 0.2,
            "selection_lines": 64,
            "phases": [{"until": 6, "crops": [[64, 64]]}],
        }
    )


def gaze_recipe(backbone: Path, **changes: object) -> GazeRecipe:
    values: dict[str, object] = {
        "name": "tiny",
        "task": "gaze",
        "net": {"arch": "gaze", "width": 0.25, "channels": 8},
        "epochs": 4,
        "batch": 4,
        "lr": 3e-3,
        "encoder_lr": 1.0,
        "ema": 0.9,
        "height": 48,
        "width": 64,
        "store": 64,
        "backbone": record_of(backbone),
    }
    return GazeRecipe.model_validate(values | changes)


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


def sensible_backbone() -> bytes:
    """A backbone of width 0.25 whose weights keep features in a sensible range."""
    encoder = MobileNetV2(0.25)
    layers = []
    for layer, (weight, bias, _, depthwise) in zip(
        encoder.convolutions, layers_of(encoder), strict=True
    ):
        inputs = layer.weight[0].numel()
        layers.append((weight, bias * 0, 1.7 / 74 / inputs**0.5, depthwise))
    return make_tflite(layers)
