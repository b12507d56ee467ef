"""Clips to steer, and what a decoder says of them."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from clips import moving, write_clip
from eyeline.roi.encode._debug_video import decoded_qps
from eyeline.roi.steering import SteerOptions

SIZE = (200, 136)
"""Neither side is a multiple of 16 or 64."""


def noise_clip(path: Path, count: int = 6, pix_fmt: str = "yuv420p", **more: object) -> Path:
    """Noise that moves, lossless unless `codec` says otherwise."""
    return write_clip(path, moving(count, SIZE), more.pop("codec", "ffv1"), pix_fmt=pix_fmt, **more)  # type: ignore[arg-type]


def exact(strength: float) -> SteerOptions:
    """Offsets that are those of the map, without memory."""
    return SteerOptions(strength=strength, law="symmetric", smoothing=0, hysteresis=0)


def square(shift: int = 0) -> np.ndarray:
    """A map that is 1 in a square of 64 pixels, else 0; float32 (136, 200)."""
    m = np.zeros((SIZE[1], SIZE[0]), np.float32)
    m[32:96, 16 + shift : 80 + shift] = 1
    return m


def qps(path: Path) -> list[np.ndarray]:
    """The QPs of every macroblock of every frame, from FFmpeg's decoder."""
    return [q for q in decoded_qps(path) if q is not None]


def packets(path: Path) -> dict[int, bytes]:
    """Presentation time to the bytes of the picture's packet."""
    with av.open(str(path)) as container:
        return {p.pts: bytes(p) for p in container.demux(video=0) if p.size}


def frames(path: Path) -> Iterator[np.ndarray]:
    """Luma of every frame."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="gray")
