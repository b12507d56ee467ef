"""VIF, ADM, motion and the sums under them: known answers, and what weights do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.errors import QualityError
from eyeline.quality._vmaf_features import (
    LOW,
    WINDOWS,
    adm,
    halve_blocks,
    halve_centred,
    inner,
    motion,
    sensitivity,
    sum_of,
    vif,
    wavelet,
)
from eyeline.quality.sw_vmaf import FramePart, LumaPair, SwVmaf, load_model

LINE = 64  # bytes of a cache line, the widest that vector instructions align to


def placed(a: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins `offset` bytes behind a cache line's start."""
    memory = np.empty(a.nbytes + 2 * LINE, np.uint8)
    first = -memory.ctypes.data % LINE + offset
    copy = memory[first : first + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def wide(shape: tuple[int, int], kind: type = np.float32) -> np.ndarray:
    """Values of many magnitudes, whose sum depends on the order."""
    return np.exp(np.random.default_rng(0).normal(0, 4, shape)).astype(kind)


@pytest.mark.parametrize("shape", [(144, 176), (1, 500), (33, 1), (37, 481)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_sum_is_that_of_float64(shape: tuple[int, int], kind: type) -> None:
    plane = wide(shape, kind)
    assert sum_of(plane) == pytest.approx(math.fsum(plane.ravel().tolist()), rel=1e-13)
    assert sum_of(plane[:, shape[1] // 3 :]) == pytest.approx(
        math.fsum(plane[:, shape[1] // 3 :].ravel().tolist()), rel=1e-13
    )


def test_a_sum_does_not_depend_on_where_a_plane_lies() -> None:
    plane = wide((272, 640))
    assert len({sum_of(placed(plane, offset)) for offset in range(0, LINE, 4)}) == 1


def test_features_do_not_depend_on_what_memory_is_free() -> None:
    rng = np.random.default_rng(1)
    r, d = (rng.integers(0, 255, (144, 177)).astype(np.uint8) for _ in range(2))
    weight = wide(r.shape)
    engine = SwVmaf(load_model("vmaf_v0.6.1"))
    found: set[FramePart] = set()
    held = []
    for i in range(12):
        held.append(np.empty(16 * i * i + 8, np.uint8))  # what is allocated next moves on
        planes = [placed(p, i) for p in (r, d)]
        pair = LumaPair(*planes, 8, placed(weight, 4 * i))
        found.add(engine.part(pair, pair._replace(reference=d)))
    assert len(found) == 1


def noise(size: int = 96, seed: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size)).astype(np.float32)


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
    frame, damaged = noise(size), noise(size, 7)
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
    with pytest.raises(QualityError, match="outer 10 % on each side"):
        adm(frame, frame, weight)


def test_block_means_keep_the_total_and_the_last_odd_row():
    weight = np.arange(15, dtype=np.float32).reshape(3, 5)
    half = halve_blocks(weight)
    assert half.tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]


def test_windows_are_libvmafs_16_bit_gaussians():
    assert (WINDOWS[1] * 65536).tolist() == [
        1244, 3663, 7925, 12590, 14692, 12590, 7925, 3663, 1244,
    ]  # fmt: skip
    assert [len(w) for w in WINDOWS] == [17, 9, 5, 3]
    assert [float(w.astype(np.float64).sum()) for w in WINDOWS] == [1, 1, 1, 1]


def test_an_identical_frame_keeps_all_information():
    frame = noise()
    assert vif(frame, frame).whole == pytest.approx([1] * 4, abs=2e-4)


def test_flat_against_noise_loses_all_information():
    frame = noise()
    assert max(vif(frame, np.full_like(frame, 128)).whole) < 1e-3


def test_halved_contrast_in_the_formula():
    # g = 1/2 and no noise: log(1 + s/8) over log(1 + s/2), s the variance of strong noise.
    frame = noise(256)
    variance = 256**2 / 12
    got = vif(frame, 128 + (frame - 128) / 2).whole[0]
    assert got == pytest.approx(np.log1p(variance / 8) / np.log1p(variance / 2), abs=0.01)


def test_a_raised_contrast_is_information_up_to_the_limit():
    frame = 100 + noise() / 8
    raised = 100 + (frame - 100) * 2
    assert vif(frame, raised, gain_limit=100).whole[0] > 1.1
    assert 0.98 < vif(frame, raised, gain_limit=1).whole[0] < 1.0001


@given(st.floats(1e-3, 1e3))
def test_uniform_weights_change_no_information(level):
    frame, damaged = noise(48), noise(48, 7)
    score = vif(frame, damaged, np.full((48, 48), level, np.float32))
    assert score.weighted == pytest.approx(score.whole, rel=1e-4, abs=1e-6)


def test_damage_outside_the_weights_costs_no_information():
    frame = noise(128)
    damaged = frame.copy()
    damaged[:, 96:] = 128
    weight = np.zeros((128, 128), np.float32)
    weight[:, :40] = 1
    score = vif(frame, damaged, weight)
    assert score.whole[0] < 0.8
    assert score.weighted is not None
    assert min(score.weighted) > 0.99


@given(st.integers(33, 70), st.integers(33, 70))
def test_halved_weights_lie_on_the_kept_pixels(height, width):
    ramp = np.tile(np.arange(width, dtype=np.float32), (height, 1))
    half = halve_centred(ramp)
    assert half.shape == (height // 2, width // 2)
    assert half[0, 1:-1] == pytest.approx(np.arange(width // 2)[1:-1] * 2)
    level = halve_centred(np.full((height, width), 0.3, np.float32))
    assert level == pytest.approx(np.full_like(level, 0.3), rel=1e-6)


def test_a_still_picture_does_not_move():
    frame = np.random.default_rng(6).integers(0, 256, (48, 64)).astype(np.float32)
    assert motion(frame, frame).whole == 0


def test_a_change_of_level_is_its_size():
    frame = np.full((48, 64), 50, np.float32)
    assert motion(frame + 7, frame) == (pytest.approx(7), None, None)


def test_weights_look_where_it_moves():
    still = np.full((40, 80), 50, np.float32)
    moved = still.copy()
    moved[:, 40:] += 10
    left, right = np.zeros_like(still), np.zeros_like(still)
    left[:, :30], right[:, 50:] = 1, 1
    change = motion(moved, still, weight=right, previous_weight=left)
    assert change.whole == pytest.approx(5)
    assert change.weighted == pytest.approx(10)
    assert change.weighted_by_previous == 0


def test_the_scale_of_weights_is_of_no_matter():
    rng = np.random.default_rng(6)
    a, b, w = (rng.random((40, 40)).astype(np.float32) for _ in range(3))
    assert motion(a, b, w * 200).weighted == pytest.approx(motion(a, b, w).weighted, rel=1e-5)
