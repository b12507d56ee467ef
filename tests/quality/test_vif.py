"""VIF: known answers, and what weights do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.quality._vmaf_features import WINDOWS, halve_centred, vif

RNG = np.random.default_rng(6)


def noise(size: int = 96) -> np.ndarray:
    return RNG.integers(0, 256, (size, size)).astype(np.float32)


def test_windows_are_libvmafs_16_bit_gaussians():
    assert (WINDOWS[1] * 65536).tolist() == [
        1244, 3663, 7925, 12590, 14692, 12590, 7925, 3663, 1244,
    ]  # fmt: skip
    assert [len(w) for w in WINDOWS] == [17, 9, 5, 3]
    assert [float(w.astype(np.float64).sum()) for w in WINDOWS] == [1, 1, 1, 1]


def test_an_identical_frame_keeps_everything():
    frame = noise()
    assert vif(frame, frame).whole == pytest.approx([1] * 4, abs=2e-4)


def test_flat_against_noise_loses_everything():
    frame = noise()
    assert max(vif(frame, np.full_like(frame, 128)).whole) < 1e-3


def test_halved_contrast_in_the_formula():
    # g = 1/2 and no noise: log(1 + s/8) over log(1 + s/2), s the variance of strong noise.
    frame = noise(256)
    variance = 256**2 / 12
    got = vif(frame, 128 + (frame - 128) / 2).whole[0]
    assert got == pytest.approx(np.log1p(variance / 8) / np.log1p(variance / 2), abs=0.01)


def test_a_raised_contrast_counts_up_to_the_limit():
    frame = 100 + noise() / 8
    raised = 100 + (frame - 100) * 2
    assert vif(frame, raised, gain_limit=100).whole[0] > 1.1
    assert 0.98 < vif(frame, raised, gain_limit=1).whole[0] < 1.0001


@given(st.floats(1e-3, 1e3))
def test_uniform_weights_change_nothing(level):
    frame, damaged = noise(48), noise(48)
    score = vif(frame, damaged, np.full((48, 48), level, np.float32))
    assert score.weighted == pytest.approx(score.whole, rel=1e-4, abs=1e-6)


def test_damage_outside_the_weights_is_not_seen():
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
