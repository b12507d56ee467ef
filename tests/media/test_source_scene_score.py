"""The scene score against `scdet`'s formula in float."""

from itertools import pairwise

import numpy as np
import pytest

from eyeline.media.source import SceneScore


def planes(green, size=(8, 6)):
    """uint8 (3, h, w) whose green is given, one value or an array; red and blue are noise."""
    rgb = np.random.default_rng(0).integers(0, 256, (3, size[1], size[0]), np.uint8)
    rgb[1] = green
    return rgb


def test_the_formula():
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (6, 8)).astype(float) for _ in range(6)]
    differences = [np.abs(b - a).mean() * 100 / 255 for a, b in pairwise(pictures)]
    steps = np.abs(np.diff([0, *differences]))
    score = SceneScore()
    found = [score(planes(p)) for p in pictures]
    assert found == pytest.approx([0, *np.minimum(differences, steps)])


def test_steady_motion_scores_low_and_a_jump_high():
    score = SceneScore()
    found = [score(planes(v)) for v in (10, 20, 30, 40, 240, 230)]
    assert found[2:4] == [0, 0]
    assert found[4] == pytest.approx((200 - 10) / 2.55)


def test_black_to_white_is_the_most():
    score = SceneScore()
    assert [score(planes(0)), score(planes(255))] == [0, 100]


def test_another_size_is_a_cut():
    score = SceneScore()
    assert [score(planes(9)), score(planes(9, (6, 8))), score(planes(9, (6, 8)))] == [0, 100, 0]


@pytest.mark.parametrize("side", [4096, 4104])  # at 2^24 samples and behind
def test_large_planes_do_not_overflow(side):
    score = SceneScore()
    flat = np.zeros((3, side, side), np.uint8)
    score(flat)
    assert score(flat + np.uint8(255)) == 100
