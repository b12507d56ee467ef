"""Measure the quality and time of a model by working size, by picture shape, and as INT8.

    python benchmarks/model.py --data ECSSD
    python benchmarks/model.py --data ECSSD --int8 DUTS-TR

The script prints Markdown tables. For the table of shapes it cuts each image to 16:9, 4:3, 1:1, 3:4
and 9:16 around its object, so that the same pictures are judged in every shape. For INT8 it runs
`eyeline model quantize`, calibrated on the images of `--int8`, and times the result beside the
float model. `--int8` and `--data` must be different datasets.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from eyeline.convert.quantize import QuantizeOptions, quantize_model
from eyeline.datasets.pairs import find_pairs, read_image, read_mask
from eyeline.evaluation.benchmark import evaluate
from eyeline.evaluation.gaze import EvaluateOptions
from eyeline.evaluation.results import MaskResult
from eyeline.registry.registry import resolve_model

LINES = (144, 160, 176, 192, 208, 224, 256, 320, 384)
SHAPES = ((16, 9), (4, 3), (1, 1), (3, 4), (9, 16))


def row(name: str, r: MaskResult) -> str:
    e = r.estimates
    size = "x".join(map(str, r.working_size))
    return (
        f"| {name} | {size} | {r.latency_ms:.2f} | {e['max_fmeasure_dataset'].value:.3f} | "
        f"{e['mae'].value:.3f} | {e['iou'].value:.3f} |"
    )


def head(first: str) -> str:
    return f"| {first} | size | ms | max F | MAE | IoU |\n|---|---|---|---|---|---|"


def cut(root: Path, out: Path, shape: tuple[int, int]) -> Path:
    """Cut every pair to a shape: as large as possible, and as near to the object's centre as possible."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--int8", type=Path, help="dataset to calibrate on")
    parser.add_argument("--only", choices=("sizes", "shapes", "int8"), help="print only this table")
    args = parser.parse_args()
    model = resolve_model(args.model)
    sizes = LINES if args.only in (None, "sizes") else ()
    shapes = SHAPES if args.only in (None, "shapes") else ()
    if args.only == "int8" and not args.int8:
        parser.error("--only int8 needs --int8 DATASET")
    if sizes:
        print(head("lines"), flush=True)
    for lines in sizes:
        result = evaluate([model], [args.data], EvaluateOptions(size=lines, draws=10)).results[0]
        print(row(str(lines), result), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if shapes:
            print(f"\n{head('shape')}", flush=True)
        for shape in shapes:
            name = f"{shape[0]}:{shape[1]}"
            data = cut(args.data, Path(folder) / name.replace(":", "x"), shape)
            result = evaluate([model], [data], EvaluateOptions(draws=10)).results[0]
            print(row(name, result), flush=True)
        if args.int8 and args.only in (None, "int8"):
            made, options = Path(folder) / f"{model.id}_int8.onnx", QuantizeOptions()
            done = quantize_model(model, args.int8, made, options, force=True)
            small = replace(model, id=f"{model.id}, INT8", path=made, record=None)
            print(f"\n{head('precision')}", flush=True)
            report = evaluate([model, small], [args.data], EvaluateOptions(draws=10))
            for result in report.results:
                print(row(result.model, result), flush=True)
            speed = done.verdict.speed
            print(
                f"\n{'x'.join(map(str, speed.size))}, CPU time of one thread, {speed.runs} runs in turn: "
                f"{speed.float_ms:.2f} ms, INT8 {speed.quantized_ms:.2f}, {speed.ratio:.2f} times as fast"
            )


if __name__ == "__main__":
    main()
