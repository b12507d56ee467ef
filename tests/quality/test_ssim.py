"""SSIM against its formula written out, and the pooling of weights. libvmaf: see test_libvmaf."""

import numpy as np
import pytest

from eyeline.errors import QualityError
from eyeline.quality.ssim import C1, C2, EXPONENTS, WINDOW, ms_ssim, ssim
from eyeline.quality.weights import Weights


def picture(seed: int, size: tuple[int, int] = (64, 80)) -> np.ndarray:
    """Smooth texture: noise averaged over 3x3 blocks."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[0] // 3 + 1, size[1] // 3 + 1))
    return np.kron(noise, np.ones((3, 3)))[: size[0], : size[1]].astype(np.uint8)


def wang(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    """SSIM of 2004 over every window in float64: its mean, and its mean weighted by each window's w."""
    kernel = np.outer(WINDOW, WINDOW).astype(np.float64)
    x, y = x.astype(np.float64), y.astype(np.float64)
    indices, masses = [], []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            at = np.s_[top : top + 11, left : left + 11]
            mx, my = (kernel * x[at]).sum(), (kernel * y[at]).sum()
            vx, vy = (kernel * x[at] ** 2).sum() - mx**2, (kernel * y[at] ** 2).sum() - my**2
            cov = (kernel * x[at] * y[at]).sum() - mx * my
            index = (2 * mx * my + C1) * (2 * cov + C2)
            indices.append(index / ((mx**2 + my**2 + C1) * (vx + vy + C2)))
            masses.append((kernel * w[at]).sum())
    i, m = np.array(indices), np.array(masses)
    return float(i.mean()), float((i * m).sum() / m.sum())


def test_ssim_is_wangs_formula_whole_and_weighted() -> None:
    x = picture(0, (40, 48))
    noise = np.random.default_rng(1).integers(-25, 25, x.shape)
    y = np.clip(x + noise, 0, 255).astype(np.uint8)
    y[:, 24:] = x[:, 24:]
    weights = Weights(np.random.default_rng(2).random((10, 12), np.float32))
    whole, weighted = wang(x, y, weights.at(48, 40))
    got = ssim(x, y, 8, weights)
    assert got.whole == pytest.approx(whole, abs=2e-5)
    assert got.weighted == pytest.approx(weighted, abs=2e-5)
    assert abs(whole - weighted) > 0.001


@pytest.mark.parametrize("index", [ssim, ms_ssim])
def test_identical_pictures_have_one(index) -> None:
    x = picture(3, (180, 192))
    weights = Weights(np.random.default_rng(4).random((6, 8), np.float32))
    assert index(x, x, 8, weights) == pytest.approx((1, 1), abs=1e-6)


@pytest.mark.parametrize("index", [ssim, ms_ssim])
def test_a_flat_picture_is_no_division_by_zero(index) -> None:
    x = np.full((180, 192), 17, np.uint8)
    assert index(x, x, 8, None).whole == pytest.approx(1)


@pytest.mark.parametrize("index", [ssim, ms_ssim])
def test_uniform_weights_give_the_whole(index) -> None:
    x, y = picture(5, (180, 200)), picture(6, (180, 200))
    got = index(x, y, 8, Weights(np.full((3, 4), 0.2, np.float32)))
    assert got.weighted == pytest.approx(got.whole, abs=1e-5)


@pytest.mark.parametrize("index", [ssim, ms_ssim])
def test_depth_is_scaled_to_8_bits(index) -> None:
    x, y = picture(7, (180, 200)), picture(8, (180, 200))
    deep = index(x.astype(np.uint16) << 2, y.astype(np.uint16) << 2, 10, None)
    assert deep.whole == pytest.approx(index(x, y, 8, None).whole, abs=1e-6)


@pytest.mark.parametrize("index", [ssim, ms_ssim])
def test_damage_under_the_map_costs_more_than_beside_it(index) -> None:
    x = picture(9, (192, 256))
    y = x.copy()
    y[60:130, 20:100] = 255 - y[60:130, 20:100]
    on, off = np.zeros((2, 192, 256), np.float32)
    on[60:130, 20:100] = 1
    off[60:130, 150:230] = 1
    whole, hit = index(x, y, 8, Weights(on))
    missed = index(x, y, 8, Weights(off)).weighted
    assert hit < whole < missed


def test_a_map_in_the_corner_alone_has_weight_at_every_scale() -> None:
    x, y = picture(10, (180, 200)), picture(11, (180, 200))
    m = np.zeros((180, 200), np.float32)
    m[0, 0] = 1
    assert np.isfinite(ms_ssim(x, y, 8, Weights(m)).weighted)


def test_exponents_are_those_of_2003() -> None:
    assert sum(EXPONENTS) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize(("index", "size"), [(ssim, (10, 40)), (ms_ssim, (175, 300))])
def test_a_picture_that_is_too_small_is_refused(index, size: tuple[int, int]) -> None:
    x = np.zeros(size, np.uint8)
    with pytest.raises(QualityError, match=f"{size[1]}x{size[0]} is too small"):
        index(x, x, 8, None)
