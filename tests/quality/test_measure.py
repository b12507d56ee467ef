"""The columns of a measured pair, and the window of the older method `crop`."""

from __future__ import annotations

import numpy as np
import pytest

from eyeline.media.colour import Planes
from eyeline.quality._measure import MeasuredPair, columns, crop, crop_size, measure
from eyeline.quality.weights import Weights


def pair(saliency: np.ndarray, size: tuple[int, int] = (48, 64)) -> MeasuredPair:
    """A pair of 4:2:0 pictures that differ by 2 codes in luma; the reference holds its columns."""
    h, w = size
    luma = np.tile(np.arange(w, dtype=np.uint8), (h, 1))
    grey = np.full((h // 2, w // 2), 128, np.uint8)
    return MeasuredPair(
        Planes((luma, grey, grey), 8), Planes((luma + 2, grey, grey), 8), Weights(saliency)
    )


def test_a_measured_pair_fills_its_columns() -> None:
    metrics = ("psnr", "ssim")
    found, part = measure(pair(np.ones((3, 4), np.float32)), None, metrics, None)
    assert list(found) == columns(metrics, grey=False)
    for name in ("psnr_y", "sw_psnr_y"):
        assert found[name] == pytest.approx(10 * np.log10(255**2 / 4))
    assert part is None


def test_grey_has_luma_alone() -> None:
    assert columns(("psnr",), grey=True) == ["psnr_y", "sw_psnr_y"]


def test_the_crop_is_half_of_each_side_and_even() -> None:
    assert crop_size(64, 48) == (32, 24)
    assert crop_size(70, 50) == (34, 24)
    assert crop_size(3, 3) == (2, 2)


def test_the_crop_follows_the_map_and_stays_inside() -> None:
    right = np.zeros((48, 64), np.float32)
    right[:, 60:] = 1
    reference, distorted = crop(pair(right))
    assert reference.luma.shape == distorted.luma.shape == (24, 32)
    assert reference.luma[0, 0] == 32  # the last 32 columns
    middle, _ = crop(pair(np.ones((48, 64), np.float32)))
    assert middle.luma[0, 0] == 16
