"""Pairs of videos with known samples, lossless, so that what is scored is what was written."""

from pathlib import Path

import av
import numpy as np

from clips import put_planes, write_clip


def textured(
    frames: int, size: tuple[int, int], seed: int = 0, top: int = 235
) -> list[list[np.ndarray]]:
    """4:2:0 planes of a texture that moves two samples a frame."""
    rng = np.random.default_rng(seed)
    w, h = size
    luma = np.kron(rng.integers(16, top, (h // 4 + 1, w // 4 + 1)), np.ones((4, 4)))[:h, :w]
    chroma = np.full((-(-h // 2), -(-w // 2)), (top + 21) // 2)
    return [[np.roll(luma, 2 * i, 1), chroma, chroma] for i in range(frames)]


def noisy(
    frames: list[list[np.ndarray]], strength: int = 9, seed: int = 1
) -> list[list[np.ndarray]]:
    """The same with noise on every plane."""
    rng = np.random.default_rng(seed)
    return [[p + rng.integers(-strength, strength + 1, p.shape) for p in f] for f in frames]


def write_ffv1(
    path: Path, frames: list[list[np.ndarray]], pix_fmt: str = "yuv420p", **options
) -> Path:
    """Planes to a lossless file."""
    h, w = frames[0][0].shape
    made: list[av.VideoFrame] = [put_planes(pix_fmt, (w, h), f) for f in frames]
    return write_clip(path, made, "ffv1", pix_fmt=pix_fmt, **options)
