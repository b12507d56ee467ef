"""Shrinking and turning: where things come to lie, what is averaged. Colour has its own tests."""

import numpy as np
import pytest

from clips import fill_planes, picture, put_planes
from eyeline.media import upright_rgb
from eyeline.media.colour import Scaler
from eyeline.media.types import Colour

FULL = Colour("bt709", "full", "sdr")


def disc(width, height, centre, radius, fine=4):
    """float (height, width) 0..1: how much of each pixel a disc covers."""
    y, x = (np.mgrid[0 : height * fine, 0 : width * fine] + 0.5) / fine
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    return inside.reshape(height, fine, width, fine).mean((1, 3))


def centroid(plane, background):
    """(x, y) of what is brighter than the background, pixels from the left and upper edge."""
    weight = plane.astype(float) - background
    height, width = plane.shape
    x = (weight.sum(0) * (np.arange(width) + 0.5)).sum() / weight.sum()
    y = (weight.sum(1) * (np.arange(height) + 0.5)).sum() / weight.sum()
    return np.array([x, y])


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p", "gray", "gbrp"])
@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((480, 270), (85, 48)),
        ((481, 271), (97, 53)),
        ((480, 270), (300, 170)),
        ((64, 48), (128, 96)),
    ],
)
def test_a_disc_stays_where_it_is(pix_fmt, size, target):
    (w, h), ratio = size, np.array(target) / size
    centre = np.array([w * 0.371, h * 0.583])
    unit = 4 if "10" in pix_fmt else 1
    luma = (40 + 120 * disc(w, h, centre, h * 0.2)) * unit
    planes = {"gray": [luma], "gbrp": [luma] * 3}.get(pix_fmt, [luma, 128 * unit, 128 * unit])
    rgb = upright_rgb(put_planes(pix_fmt, size, planes), FULL, 0, target)
    assert np.abs(centroid(rgb[1], 40) - centre * ratio).max() < 0.03


@pytest.mark.parametrize(
    ("pix_fmt", "shift"),
    # Beside the left luma sample of two (ITU-T H.273, type 0); in JPEG between them (type 1).
    [("yuv420p", 0.5), ("yuv422p", 0.5), ("yuv420p10le", 0.5), ("yuvj420p", 0), ("yuv444p", 0)],
)
@pytest.mark.parametrize("target", [(480, 270), (85, 48)])
def test_chroma_lies_where_its_format_has_it(pix_fmt, shift, target):
    size, unit = (480, 270), 4 if "10" in pix_fmt else 1
    centre = np.array([180.3, 157.6])
    red = disc(*size, centre, 54.0)
    down, across = 2 if "420" in pix_fmt else 1, 1 if "444" in pix_fmt else 2
    chroma = red.reshape(270 // down, down, 480 // across, across).mean((1, 3))  # between samples
    planes = [128 * unit, 128 * unit, (128 + 60 * chroma) * unit]
    rgb = upright_rgb(put_planes(pix_fmt, size, planes), FULL, 0, target)
    expected = (centre - [shift, 0]) * target / np.array(size)
    assert np.abs(centroid(rgb[0], 128) - expected).max() < 0.03


def coverage(count, target):
    """float (target, count): the share that each source sample has in each target sample."""
    step = count / target
    edges = np.arange(target + 1) * step
    low, high = np.maximum.outer(edges[:-1], np.arange(count)), np.arange(1, count + 1)
    return np.clip(np.minimum(edges[1:, None], high) - low, 0, None) / step


PATTERNS = {
    "noise": np.random.default_rng(2).integers(0, 256, (270, 480)).astype(float),
    "chequers": np.indices((270, 480)).sum(0) % 2 * 200.0,  # sampling would show false patterns
    "lines": np.indices((270, 480))[0] % 2 * 200.0,
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p10le", "gray", "gbrp"])
@pytest.mark.parametrize("target", [(341, 192), (97, 55), (160, 90), (7, 5), (1, 1), (480, 270)])
def test_shrinking_averages_areas(pix_fmt, target, pattern):
    """Down to single pixels of detail; also where the sizes have no whole ratio."""
    luma, unit = PATTERNS[pattern], 4 if "10" in pix_fmt else 1
    planes = {"gray": [luma], "gbrp": [luma] * 3}.get(pix_fmt, [luma * unit] + [128 * unit] * 2)
    rgb = upright_rgb(put_planes(pix_fmt, (480, 270), planes), FULL, 0, target)
    expected = coverage(270, target[1]) @ luma @ coverage(480, target[0]).T
    if unit == 4:
        expected = np.minimum(expected * 4 * 255 / 1023, 255)
    assert np.abs(rgb - expected).max() <= 0.8


@pytest.mark.parametrize("target", [(120, 90), (67, 41), (13, 200), (1, 1), (480, 1)])
def test_the_mean_of_a_picture_survives(target):
    rgb = np.random.default_rng(3).integers(0, 256, (270, 480, 3), np.uint8)
    out = upright_rgb(picture(rgb), FULL, 0, target)
    assert np.abs(out.mean((1, 2)) - rgb.mean((0, 1))).max() < 1.5


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 7), (33, 17), (17, 33)])
@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p", "yuv444p12le", "gray16le", "rgb24", "nv12"]
)
@pytest.mark.parametrize("target", [(1, 1), (8, 6), (33, 17)])
def test_any_size_to_any_size(pix_fmt, size, target):
    """Down to one pixel: a flat picture stays flat, without a border."""
    if pix_fmt == "rgb24":
        frame = picture(np.full((size[1], size[0], 3), 90, np.uint8))
    elif pix_fmt == "nv12":
        frame = picture(np.full((size[1] * 2, size[0] * 2, 3), 90, np.uint8))
        frame = frame.reformat(*size, format="nv12", dst_color_range="JPEG")
    else:
        frame = put_planes(pix_fmt, size, [90, 128, 128][: 1 if "gray" in pix_fmt else 3])
        bits = max(c.bits for c in frame.format.components)
        fill_planes(frame, [c << (bits - 8) for c in (90, 128, 128)][: len(frame.planes)])
    rgb = upright_rgb(frame, FULL, 0, target)
    assert rgb.shape == (3, target[1], target[0])
    assert np.ptp(rgb, axis=(1, 2)).max() == 0
    assert np.abs(rgb.astype(int) - 90).max() <= 1


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_turning_is_exact(rotation):
    rgb = np.random.default_rng(1).integers(0, 256, (31, 47, 3), np.uint8)
    target = (47, 31) if rotation % 180 == 0 else (31, 47)
    out = upright_rgb(picture(rgb), FULL, rotation, target)
    assert np.array_equal(out, np.rot90(rgb, -rotation // 90).transpose(2, 0, 1))


def test_a_scaler_serves_many_frames():
    frames = [picture(np.full((48, 64, 3), v, np.uint8)) for v in (10, 200, 90)]
    scaler = Scaler(frames[0], (16, 12), FULL, 0)
    planes = [scaler(f) for f in frames]
    assert [int(p[0, 0, 0]) for p in planes] == [10, 200, 90]  # none overwrites another
