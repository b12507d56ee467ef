"""An image to its row: how it shrinks, what a video's frames add, and pictures at the edge of sense."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("py_sod_metrics")

from eyeline.errors import DatasetError
from eyeline.evaluation.benchmark import count_parameters, evaluate, load_dataset
from eyeline.evaluation.gaze import EvaluateOptions
from eyeline.evaluation.rows import Resample, predict
from eyeline.inference.session import Session
from eyeline.registry.registry import Model


def write_pairs(root: Path, pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """Red channel and mask by name, uint8 (H, W)."""
    for name, (level, mask) in pairs.items():
        for folder, picture in (
            ("images", np.stack([level, 0 * level, 0 * level], -1)),
            ("masks", mask),
        ):
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return root


@pytest.mark.parametrize(("resample", "expected"), [("area", 1 / 3), ("bilinear", 1.0)])
def test_each_way_to_shrink(red: Model, resample: Resample, expected: float) -> None:
    """Every third column is red. A third of the width: the area is a third red, and plain bilinear
    interpolation takes the middle column of three.
    """
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, 1::3, 0] = 255
    answer = predict(Session(red, "cpu"), Image.fromarray(stripes), 32, resample)
    assert answer == pytest.approx(expected, abs=0.01)


def test_the_report_says_how_images_were_scaled(red: Model, tmp_path: Path) -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[20:40, 20:40] = 255
    root = write_pairs(tmp_path / "set", {"a": (mask, mask)})
    fields = evaluate([red], [root], EvaluateOptions(resample="bilinear", draws=10)).to_json()
    assert fields["about"]["resample"] == "bilinear"
    assert any("plain bilinear" in note for note in fields["notes"])


@pytest.fixture
def blinking(tmp_path: Path) -> Path:
    """A video whose picture goes 0, 255, 255, 0 while its mask moves once by a quarter of the frame;
    another of a single frame follows it.
    """
    left, middle = np.zeros((60, 60), np.uint8), np.zeros((60, 60), np.uint8)
    left[:, :30] = 255
    middle[:, 15:45] = 255
    level = [np.full((60, 60), v, np.uint8) for v in (0, 255, 255, 0)]
    frames = [(level[0], left), (level[1], left), (level[2], middle), (level[3], middle)]
    pairs = {f"one/{i}": f for i, f in enumerate(frames)} | {"two/0": (level[1], left)}
    return write_pairs(tmp_path / "blinking", pairs)


def test_flicker_of_a_video(red: Model, blinking: Path) -> None:
    one, two = evaluate([red], [blinking], EvaluateOptions(draws=10)).results[0].videos
    assert one.flicker == pytest.approx((0.998 + 0 + 0.998) / 3, abs=1e-5)
    assert one.truth_flicker == pytest.approx((0 + 0.5 + 0) / 3)
    assert one.iou_std == pytest.approx(0.25)  # IoU 0, .5, .5, 0
    assert one.iou_change == pytest.approx(1 / 3)
    assert (two.flicker, two.truth_flicker, two.iou_change) == (None, None, None)


def test_flicker_is_the_same_from_processes_and_kept_rows(
    red: Model, blinking: Path, tmp_path: Path
) -> None:
    plain = evaluate([red], [blinking], EvaluateOptions(draws=10)).results[0].videos
    spread = EvaluateOptions(draws=10, workers=2, resume=tmp_path / "rows")
    assert evaluate([red], [blinking], spread).results[0].videos == plain
    [path] = (tmp_path / "rows").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))  # two rows are left: the next needs the frame before it
    assert evaluate([red], [blinking], spread).results[0].videos == plain


def test_parameters_of_an_unregistered_file_are_counted(red: Model) -> None:
    assert count_parameters(red) == 4


def test_single_pixels_are_refused(tmp_path: Path) -> None:
    """E-measure divides by the number of pixels less one."""
    one = np.full((1, 1), 255, np.uint8)
    root = write_pairs(tmp_path / "set", {"a": (one, one), "b": (one, one)})
    with pytest.raises(DatasetError, match="2 images have a single pixel, the first is a"):
        load_dataset(root)


def test_a_dataset_of_one_class_is_refused(tmp_path: Path) -> None:
    full = np.full((8, 8), 255, np.uint8)
    root = write_pairs(tmp_path / "set", {"a": (full, full)})
    with pytest.raises(DatasetError, match="every mask is all foreground"):
        load_dataset(root)
