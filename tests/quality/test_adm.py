"""ADM: known answers, and what weights do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.errors import QualityError
from eyeline.quality._vmaf_features import LOW, adm, halve_blocks, inner, sensitivity, wavelet

RNG = np.random.default_rng(6)


def noise(size: int = 96) -> np.ndarray:
    return RNG.integers(0, 256, (size, size)).astype(np.float32)


def test_taps_are_libvmafs_15_bit_daubechies():
    assert [tap * 2**15 for tap in LOW] == [15826, 27411, 7345, -4240]


def test_sensitivity_is_libvmafs_fixed_point_constant():
    # libvmaf: 36453 / 2^21 and 49417 / 2^23 at the finest scale
    assert sensitivity(0) == pytest.approx((36453 / 2**21, 49417 / 2**23), rel=1e-4)


@given(st.integers(33, 60), st.integers(33, 60), st.integers(0, 3))
def test_a_flat_plane_has_no_details(height, width, scale):
    bands = wavelet(np.full((height, width), 77, np.float32), scale)
    assert bands.shape == (4, (height + 1) // 2, (width + 1) // 2)
    assert not bands[1:].any()
    assert bands[0] == pytest.approx(2 * 77, abs=0.05)


def test_edges_land_in_their_band():
    columns = np.tile(np.float32([0, 100]), (64, 32))
    vertical, horizontal, diagonal = (np.abs(band).mean() for band in wavelet(columns, 0)[1:])
    assert vertical > 50
    assert horizontal == diagonal == 0


def test_the_wavelet_keeps_energy():
    frame = noise(128) - 128
    assert (wavelet(frame, 0) ** 2).sum() == pytest.approx((frame**2).sum(), rel=0.02)


def test_an_identical_frame_keeps_everything():
    frame = noise()
    score = adm(frame, frame).whole
    assert score.adm2 == pytest.approx(1, abs=1e-6)
    assert score.scales == pytest.approx([1] * 4, abs=1e-6)


def test_flat_against_noise_loses_nearly_everything():
    frame = noise()
    assert adm(frame, np.full_like(frame, 128)).whole.adm2 < 0.2


def test_a_raised_contrast_counts_up_to_the_limit():
    frame = 100 + noise() / 8
    raised = 100 + (frame - 100) * 2
    assert adm(frame, raised, gain_limit=100).whole.adm2 > 1.4
    assert adm(frame, raised, gain_limit=1).whole.adm2 <= 1


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((240, 427), (23, 217), (42, 385)), ((9, 11), (0, 9), (0, 11)), ((18, 22), (1, 17), (1, 21))],
)
def test_the_border_is_rounded_as_in_libvmaf(shape, rows, columns):
    assert inner(shape) == (slice(*rows), slice(*columns))


@given(st.floats(1e-3, 1e3), st.integers(40, 65))
def test_uniform_weights_change_nothing(level, size):
    frame, damaged = noise(size), noise(size)
    score = adm(frame, damaged, np.full((size, size), level, np.float32))
    assert score.weighted is not None
    assert score.weighted.adm2 == pytest.approx(score.whole.adm2, rel=1e-5)
    assert score.weighted.scales == pytest.approx(score.whole.scales, rel=1e-5)


def test_damage_outside_the_weights_is_not_seen():
    frame = noise(160)
    damaged = frame.copy()
    damaged[:, 110:] = 128
    weight = np.zeros((160, 160), np.float32)
    weight[:, :60] = 1
    score = adm(frame, damaged, weight)
    assert score.whole.adm2 < 0.95
    assert score.weighted is not None
    assert score.weighted.adm2 == pytest.approx(1, abs=1e-3)


def test_weights_in_the_left_out_border_alone_are_an_error():
    frame = noise(160)
    weight = np.zeros((160, 160), np.float32)
    weight[:4] = 1
    with pytest.raises(QualityError, match="border of a tenth"):
        adm(frame, frame, weight)


def test_block_means_keep_the_total_and_the_last_odd_row():
    weight = np.arange(15, dtype=np.float32).reshape(3, 5)
    half = halve_blocks(weight)
    assert half.tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]
