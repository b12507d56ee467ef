"""Working size, padding and upscaling, against independent computations."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from eyeline.inference import pad_to_multiple, upscale, working_size
from eyeline.inference.session import MAX_ASPECT
from tiny_models import make_model

UNIT = st.floats(0, 1, width=32)
MAPS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=UNIT)
SIDES = st.integers(1, 40)


def test_known_working_sizes() -> None:
    assert working_size(1920, 1080, 192) == (341, 192)
    assert working_size(1080, 1920, 192) == (192, 341)
    assert working_size(640, 480, 240) == (320, 240)
    assert working_size(500, 500, 64) == (64, 64)


def test_native_is_the_frames_own_size() -> None:
    assert working_size(1919, 1079, None) == (1919, 1079)


def test_a_banner_is_squeezed_to_the_largest_aspect() -> None:
    assert working_size(7000, 100, 100) == (MAX_ASPECT * 100, 100)
    assert working_size(100, 7000, 100) == (100, MAX_ASPECT * 100)


@given(st.integers(1, 8192), st.integers(1, 8192), st.integers(16, 2160))
def test_the_short_side_is_exact_and_the_aspect_is_kept(
    width: int, height: int, lines: int
) -> None:
    w, h = working_size(width, height, lines)
    assert min(w, h) == lines
    assert (w >= h) == (width >= height) or w == h
    aspect = min(Fraction(max(width, height), min(width, height)), Fraction(MAX_ASPECT))
    assert abs(max(w, h) - lines * aspect) <= Fraction(1, 2) + Fraction(1, 10**6)


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=9), elements=UNIT),
    st.integers(1, 12),
)
def test_padding_is_edge_replication_to_the_next_multiple(x: np.ndarray, multiple: int) -> None:
    h, w = x.shape[-2:]
    padded = pad_to_multiple(x, multiple)
    below, right = padded.shape[-2] - h, padded.shape[-1] - w
    assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
    assert 0 <= below < multiple
    assert 0 <= right < multiple
    widths = [(0, 0)] * (x.ndim - 2) + [(0, below), (0, right)]
    np.testing.assert_array_equal(padded, np.pad(x, widths, mode="edge"))
    assert padded.dtype == np.float32


@given(UNIT, SIDES, SIDES, SIDES, SIDES)
def test_a_constant_map_stays_that_constant(
    c: float, h: int, w: int, out_h: int, out_w: int
) -> None:
    m = upscale(np.full((h, w), c, np.float32), out_w, out_h)
    assert m.shape == (out_h, out_w)
    assert (m == np.float32(c)).all()
    assert m.mean(dtype=np.float64) == pytest.approx(float(np.float32(c)), rel=1e-15)


@given(MAPS, SIDES, SIDES)
@settings(max_examples=300)
def test_no_value_leaves_the_range_of_the_map(m: np.ndarray, width: int, height: int) -> None:
    big = upscale(m, width, height)
    assert big.min() >= m.min()
    assert big.max() <= m.max()


@pytest.mark.parametrize("ends", [(0.037679367, 0.22580962), (0.11291606, 3.220816e-08)])
def test_round_off_does_not_leave_the_range(ends: tuple[float, float]) -> None:
    # From 2 to 98 columns, column 73 lies 2e-16 before the right sample: a + (b - a) * 1 in
    # float32 is above 0.22580962, and below 3.220816e-08.
    m = np.array([ends], np.float32)
    big = upscale(m, 98, 1)
    assert big.min() >= m.min()
    assert big.max() <= m.max()


def half_pixel(m: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear with half-pixel centres, written pixel by pixel in Python's floats."""
    h, w = m.shape
    out = np.empty((height, width))
    for y in range(height):
        v = min(max((y + 0.5) * h / height - 0.5, 0.0), h - 1.0)
        top, below = int(v), min(int(v) + 1, h - 1)
        for x in range(width):
            u = min(max((x + 0.5) * w / width - 0.5, 0.0), w - 1.0)
            left, right = int(u), min(int(u) + 1, w - 1)
            upper = (1 - u + left) * float(m[top, left]) + (u - left) * float(m[top, right])
            lower = (1 - u + left) * float(m[below, left]) + (u - left) * float(m[below, right])
            out[y, x] = (1 - v + top) * upper + (v - top) * lower
    return out


@given(MAPS, st.integers(1, 17), st.integers(1, 17))
def test_upscale_equals_an_independent_computation(m: np.ndarray, width: int, height: int) -> None:
    np.testing.assert_allclose(
        upscale(m, width, height), half_pixel(m, width, height), rtol=0, atol=5e-7
    )


def test_upscale_is_the_half_pixel_mode_of_onnx_resize() -> None:
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="linear",
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    data = make_model(
        [node],
        {"sizes": np.array([1, 1, 97, 150], np.int64)},
        inputs={"x": (TensorProto.FLOAT, [1, 1, 12, 21])},
        outputs={"y": (TensorProto.FLOAT, [1, 1, 97, 150])},
    )
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    m = np.random.default_rng(0).random((12, 21), np.float32)
    expected = session.run(None, {"x": m[None, None]})[0][0, 0]
    np.testing.assert_allclose(upscale(m, 150, 97), expected, rtol=0, atol=2e-6)


def test_two_samples_doubled_are_known() -> None:
    np.testing.assert_allclose(
        upscale(np.array([[0, 1]], np.float32), 4, 1), [[0, 0.25, 0.75, 1]], rtol=0, atol=2e-7
    )


def test_a_mirrored_map_gives_the_mirrored_result() -> None:
    m = np.random.default_rng(1).random((9, 16), np.float32)
    np.testing.assert_allclose(
        upscale(np.ascontiguousarray(m[::-1, ::-1]), 101, 57),
        upscale(m, 101, 57)[::-1, ::-1],
        rtol=0,
        atol=1e-6,
    )
