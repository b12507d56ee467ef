"""Clips to steer, and what a decoder says of them."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from clips import moving, write_clip
from eyeline.roi.compare import CompareOptions
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


W, H, COUNT = 192, 128, 6
"""Size and frames of the clips that are compared."""

COMPARE = CompareOptions(
    preset="veryfast", steer=SteerOptions(strength=8, smoothing=0), vmaf=False, jobs=2
)


def subject(shift: int = 0) -> np.ndarray:
    m = np.zeros((H, W), np.float32)
    m[32:96, 48 + shift : 112 + shift] = 1
    return m


def textured(count: int = COUNT) -> list[np.ndarray]:
    """Smooth noise that moves, so that quality falls gently with the rate; uint8 (H, W, 3)."""
    noise = np.random.default_rng(3).normal(0, 1, (H, W))
    spectrum = np.fft.fft2(noise)
    fy, fx = np.fft.fftfreq(H)[:, None], np.fft.fftfreq(W)[None]
    picture = np.fft.ifft2(spectrum / (0.03 + np.hypot(fy, fx))).real
    codes = np.clip(128 + 40 * picture / picture.std(), 0, 255).astype(np.uint8)
    return [np.repeat(np.roll(codes, 2 * i, 1)[..., None], 3, 2) for i in range(count)]
