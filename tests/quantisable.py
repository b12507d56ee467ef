"""What quantisation is tried on: images that differ, and a net that has something to round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper
from PIL import Image

from tiny_models import make_model


def make_images(root: Path, count: int = 6, width: int = 96, height: int = 64) -> Path:
    """Noise under a bright disc, each image another."""
    y, x = np.mgrid[:height, :width]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        picture = rng.integers(0, 120, (height, width, 3), np.uint8)
        inside = (x - 30 - 5 * i) ** 2 + (y - height / 2) ** 2 < 200
        picture[inside] = rng.integers(150, 255, 3)
        Image.fromarray(picture).save(root / "images" / f"{i:02}.png")
        Image.fromarray(inside.astype(np.uint8) * 255).save(root / "masks" / f"{i:02}.png")
    return root


def net() -> bytes:
    """Two convolutions with an activation between: enough to be quantised."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "b0": rng.normal(0, 0.1, 8).astype(np.float32),
        "w1": rng.normal(0, 0.3, (1, 8, 3, 3)).astype(np.float32),
        "b1": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w0", "b0"], ["c"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w1", "b1"], ["y"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Sigmoid", ["y"], ["saliency_map"]),
    ]
    return make_model(nodes, weights)
