"""Augment batches of pictures on their device: random crops, colours and compression defects.

All random numbers come from a generator that the caller seeds, so a resumed run is bit-identical to an
uninterrupted one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from eyeline.runtime import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Augmentation:
    """Ranges and probabilities of the random changes; each image is changed independently.

    Attributes:
        scale: range of the side of the crop, relative to the largest crop that fits; above 1 zooms out.
        aspect: largest change of the aspect ratio, in powers of 2.
        rotation: largest rotation, degrees.
        jitter: largest relative change of brightness, contrast and saturation.
        warmth: largest relative change of red and blue, in opposite directions.
        grey, gamma, blur, noise, blocks: probability of each of these changes.
    """

    scale: tuple[float, float] = (0.55, 1.2)
    aspect: float = 0.25
    rotation: float = 8.0
    jitter: float = 0.3
    warmth: float = 0.1
    grey: float = 0.08
    gamma: float = 0.3
    blur: float = 0.15
    noise: float = 0.15
    blocks: float = 0.2


def _uniform(g: torch.Generator, n: int, low: float, high: float) -> Tensor:
    return torch.rand(n, generator=g) * (high - low) + low


def crop_grid(
    aspect: Tensor, height: int, width: int, a: Augmentation, g: torch.Generator
) -> Tensor:
    """Return the sampling grid of one random crop per image, float32 (N, height, width, 2) in [-1, 1].

    The stored images are resized to squares. So that objects keep their shape, the crop is chosen in the
    geometry of the original image, whose width / height is `aspect`, float32 (N,).
    """
    n = len(aspect)
    target = (width / height) * torch.exp2(_uniform(g, n, -a.aspect, a.aspect))
    scale = _uniform(g, n, *a.scale)
    # Half extents of the crop, in units of the image's half height.
    half_h = scale * torch.minimum(torch.ones(n), aspect / target)
    half_w = half_h * target
    free_x, free_y = aspect - half_w, 1.0 - half_h
    cx = free_x.abs() * _uniform(g, n, -1, 1)
    cy = free_y.abs() * _uniform(g, n, -1, 1)
    angle = _uniform(g, n, -1, 1) * math.radians(a.rotation)
    flip = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([flip * cos * half_w / aspect, -sin * half_h / aspect, cx / aspect], 1),
            torch.stack([flip * sin * half_w, cos * half_h, cy], 1),
        ],
        1,
    )
    return F.affine_grid(theta, [n, 1, height, width], align_corners=False)


def _jpeg_like(x: Tensor, strength: Tensor) -> Tensor:
    """Quantise 8x8 DCT coefficients, coarser at high frequencies, to imitate a low bit rate."""
    n, c, h, w = x.shape
    k = torch.arange(8, dtype=x.dtype, device=x.device)
    dct = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    dct[0] /= math.sqrt(2)
    blocks = x.reshape(n, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    coefficients = dct @ blocks @ dct.T
    step = (1 + k[:, None] + k[None]) * strength.reshape(n, 1, 1, 1, 1, 1)
    coefficients = torch.round(coefficients / step) * step
    out = (dct.T @ coefficients @ dct).permute(0, 1, 2, 4, 3, 5)
    return out.reshape(n, c, h, w).clamp(0, 1)


def _colour_matrix(n: int, a: Augmentation, g: torch.Generator) -> Tensor:
    """Return random brightness, saturation and white balance as one matrix per image, (N, 3, 3)."""
    saturation = _uniform(g, n, 1 - 2 * a.jitter, 1 + 2 * a.jitter)
    saturation = torch.where(torch.rand(n, generator=g) < a.grey, torch.zeros(n), saturation)
    identity, mean = torch.eye(3)[None], torch.full((1, 3, 3), 1 / 3)
    matrix = mean + (identity - mean) * saturation[:, None, None]
    warmth = _uniform(g, n, -a.warmth, a.warmth)
    balance = 1 + torch.stack([warmth, torch.zeros(n), -warmth], 1)
    gain = _uniform(g, n, 1 - a.jitter, 1 + a.jitter)
    return matrix * (balance * gain[:, None])[:, :, None]


def photometric(x: Tensor, a: Augmentation, g: torch.Generator) -> Tensor:
    """Change colour, sharpness and noise of RGB, float32 (N, 3, H, W) in [0, 1]; H, W multiples of 8."""
    n, _, h, w = x.shape

    def rows(probability: float) -> Tensor:
        return torch.nonzero(torch.rand(n, generator=g) < probability).flatten()

    def column(low: float, high: float, count: int) -> Tensor:
        return _uniform(g, count, low, high).to(x)[:, None, None, None]

    matrix = _colour_matrix(n, a, g).to(x)
    contrast = _uniform(g, n, 1 - a.jitter, 1 + a.jitter).to(x)[:, None, None]
    grey_point = torch.einsum("nij,nj->ni", matrix, x.mean((2, 3)))[:, :, None]
    flat = torch.baddbmm(grey_point * (1 - contrast), matrix * contrast, x.flatten(2))
    x = flat.reshape(n, 3, h, w).clamp_(1e-4, 1)
    if len(i := rows(a.gamma)):
        x[i] = x[i] ** torch.exp2(column(-0.7, 0.7, len(i)))
    if len(i := rows(a.blur)):
        half = F.avg_pool2d(x[i], 2)
        x[i] = F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
    if len(i := rows(a.noise)):
        noise = torch.randn((len(i), 3, h, w), generator=g).to(x)
        x[i] = (x[i] + noise * column(0.005, 0.05, len(i))).clamp_(0, 1)
    if len(i := rows(a.blocks)):
        x[i] = _jpeg_like(x[i], _uniform(g, len(i), 0.01, 0.08).to(x))
    return x


def normalise(x: Tensor) -> Tensor:
    """Normalise RGB in [0, 1], float32 (N, 3, H, W), by the ImageNet mean and standard deviation."""
    mean = torch.tensor(IMAGENET_MEAN).to(x)[None, :, None, None]
    std = torch.tensor(IMAGENET_STD).to(x)[None, :, None, None]
    return (x - mean) / std
