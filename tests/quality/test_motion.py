"""Motion: known answers, and what weights do."""

import numpy as np
import pytest

from eyeline.quality._vmaf_features import motion


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
