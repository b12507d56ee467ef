"""A model by working size, by shape of the picture, and as INT8: quality and milliseconds.

    python benchmarks/model.py --data ECSSD
    python benchmarks/model.py --data ECSSD --int8 DUTS-TR

Prints Markdown tables. Shapes: each image is cut to 16:9, 4:3, 1:1, 3:4 and 9:16 around its object,
so that the same pictures are judged in every shape. INT8 is static QDQ by ONNX Runtime, calibrated
on images of the folder named, which must not be the one that is judged.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from eyeline.datasets.pairs import find_pairs, read_image, read_mask
from eyeline.evaluation.benchmark import EvaluateOptions, evaluate
from eyeline.evaluation.report import Result
from eyeline.models.registry import Model, resolve_model
from eyeline.saliency.contract import INPUT_NAME
from eyeline.saliency.preprocess import input_size, prepare

LINES = (144, 160, 176, 192, 208, 224, 256, 320, 384)
SHAPES = ((16, 9), (4, 3), (1, 1), (3, 4), (9, 16))
CALIBRATION = 128  # images


def row(name: str, r: Result) -> str:
    e = r.estimates
    size = "x".join(map(str, r.working_size))
    return (
        f"| {name} | {size} | {r.latency_ms:.2f} | {e['max_fmeasure_dataset'].value:.3f} | "
        f"{e['mae'].value:.3f} | {e['iou'].value:.3f} |"
    )


def head(first: str) -> str:
    return f"| {first} | size | ms | max F | MAE | IoU |\n|---|---|---|---|---|---|"


def cut(root: Path, out: Path, shape: tuple[int, int]) -> Path:
    """Every pair cut to a shape, as large as fits, centred on the object as far as the edge lets it."""
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True)
    for pair in find_pairs(root):
        image, mask = read_image(pair.image), read_mask(pair.mask)
        inside = np.argwhere(np.asarray(mask) > 0)
        cy, cx = inside.mean(0) if len(inside) else (image.height / 2, image.width / 2)
        scale = min(image.width / shape[0], image.height / shape[1])
        w, h = int(scale * shape[0]), int(scale * shape[1])
        x = int(np.clip(cx - w / 2, 0, image.width - w))
        y = int(np.clip(cy - h / 2, 0, image.height - h))
        name = pair.name.replace("/", "_")
        image.crop((x, y, x + w, y + h)).save(out / "images" / f"{name}.png", compress_level=1)
        mask.crop((x, y, x + w, y + h)).save(out / "masks" / f"{name}.png", compress_level=1)
    return out


def inputs(model: Model, root: Path) -> Iterator[dict[str, np.ndarray]]:
    """Tensors of images spread over a dataset, as extract would feed them."""
    pairs = find_pairs(root)
    for pair in pairs[:: max(1, len(pairs) // CALIBRATION)][:CALIBRATION]:
        image = read_image(pair.image)
        size = input_size(image.width, image.height, model.io, None)
        small = np.asarray(image.resize(size, Image.Resampling.BOX)).transpose(2, 0, 1)
        yield {INPUT_NAME: prepare(np.ascontiguousarray(small), model.io)}


def quantise(model: Model, calibration: Path, out: Path) -> Model:
    """Static QDQ, per channel, the head and the output left in float."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.items = inputs(model, calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.items, None)

    source = out.with_suffix(".float.onnx")
    source.write_bytes(model.data)
    quant_pre_process(str(source), str(source))
    quantize_static(
        str(source), str(out), Reader(), per_channel=True, op_types_to_quantize=["Conv", "Add"],
        weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
    )  # fmt: skip
    return replace(model, id=f"{model.id}, INT8", path=out, record=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--int8", type=Path, help="dataset to calibrate on")
    parser.add_argument("--only-int8", action="store_true", help="leave out sizes and shapes")
    args = parser.parse_args()
    model = resolve_model(args.model)
    sizes, shapes = ((), ()) if args.only_int8 else (LINES, SHAPES)
    print(head("lines"), flush=True)
    for lines in sizes:
        result = evaluate([model], [args.data], EvaluateOptions(size=lines, draws=10)).results[0]
        print(row(str(lines), result), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(f"\n{head('shape')}", flush=True)
        for shape in shapes:
            name = f"{shape[0]}:{shape[1]}"
            data = cut(args.data, Path(folder) / name.replace(":", "x"), shape)
            result = evaluate([model], [data], EvaluateOptions(draws=10)).results[0]
            print(row(name, result), flush=True)
        if args.int8:
            small = quantise(model, args.int8, Path(folder) / "int8.onnx")
            print(f"\n{head('precision')}", flush=True)
            report = evaluate([model, small], [args.data], EvaluateOptions(draws=10))
            for result in report.results:
                print(row(result.model, result), flush=True)


if __name__ == "__main__":
    main()
