"""Augmentation: pictures and masks move alike, shapes stay, and equal seeds give equal pictures."""

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from eyeline.training._augment import Augmentation, crop_grid, photometric  # noqa: E402


def test_geometry_moves_image_and_mask_alike() -> None:
    """A crop's grid applied to a picture equals the same grid applied to its own threshold."""
    g = torch.Generator().manual_seed(3)
    aspect = torch.tensor([1.5, 0.6, 1.0])
    grid = crop_grid(aspect, 48, 96, Augmentation(), g)
    x = torch.linspace(-1, 1, 64)
    disc = ((x[None] ** 2 + x[:, None] ** 2) < 0.2).float().expand(3, 1, 64, 64)
    one = torch.nn.functional.grid_sample(disc, grid, align_corners=False, padding_mode="border")
    two = torch.nn.functional.grid_sample(
        disc * 2, grid, align_corners=False, padding_mode="border"
    )
    assert torch.equal(one * 2, two)
    assert one.mean() > 0.02


def test_objects_keep_their_shape_in_a_crop() -> None:
    """A circle of the original image is a circle in the crop, whatever the squash and the crop's aspect."""
    still = Augmentation(scale=(1.0, 1.0), aspect=0.0, rotation=0.0)
    grid = crop_grid(torch.tensor([2.0]), 64, 128, still, torch.Generator().manual_seed(0))
    # In the squashed square a circle of a 2:1 image is an ellipse half as wide.
    x = torch.linspace(-1, 1, 256)
    ellipse = (((x[None] * 2) ** 2 + x[:, None] ** 2) < 0.25).float()[None, None]
    crop = torch.nn.functional.grid_sample(ellipse, grid, align_corners=False)[0, 0] > 0.5
    rows, columns = crop.any(1).sum(), crop.any(0).sum()
    assert abs(int(rows) - int(columns)) <= 2
    assert int(rows) == pytest.approx(32, abs=2)


def test_colour_changes_stay_in_range_and_are_repeatable() -> None:
    x = torch.rand(16, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    always = Augmentation(grey=0.5, gamma=1.0, blur=0.5, noise=1.0, blocks=1.0)
    a, b = (photometric(x.clone(), always, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.min() >= 0 and a.max() <= 1
    assert not torch.equal(a, x)
