"""Pictures of the page: WebP in memory, maps as small grey pictures, and the error map.

WebP since every browser of the last years shows it, and it is smaller than JPEG at the same look.
A map travels grey and the page colours it, with the colours of `saliency.overlay`: painted with
its transparency it would take 54 kB in place of 2.
"""

from __future__ import annotations

import base64
from functools import lru_cache

import av
import av.error
import numpy as np
import numpy.typing as npt

from eyeline.errors import OutputError
from eyeline.media.graph import Scaler, kind_of
from eyeline.media.types import Colour, Frame
from eyeline.media.write import TIME_BASE
from eyeline.saliency.maps import quantise
from eyeline.saliency.overlay import CONTOUR, CONTOUR_LEVEL, ramp

Pixels = npt.NDArray[np.uint8]

QUALITY = 78
"""libwebp's quality of the pictures: a 640x360 frame of a film takes 15 to 40 kB."""
MAP_QUALITY = 90
"""Of grey maps: off by two levels of 255 at most places, and soft anyway."""
ERROR_QUALITY = 70

MAP_SIDE = 320
"""Long side of a map, pixels, at most: the models answer at 192 lines."""

ERROR_TOP = 64.0
"""RMS luma error at the end of the error map's scale, in levels of 255."""
ERROR_MARKS = (0, 4, 16, 64)
"""Where the scale is labelled."""

ERROR_RAMP: tuple[tuple[float, int, int, int], ...] = (
    # place on the scale, red, green, blue
    (0.00, 4, 8, 16),
    (0.25, 10, 44, 92),
    (0.50, 0, 122, 163),
    (0.75, 74, 206, 201),
    (1.00, 250, 255, 236),
)
"""Dark where the two agree, through blue and cyan to white: unlike the heat's, and light is more."""


class PictureMaker:
    """Decoded frames to upright RGB of one size; keeps the filter graph from frame to frame.

    Args:
        colour: how the samples of the video become RGB.
    """

    def __init__(self, colour: Colour) -> None:
        self._colour = colour
        self._scalers: dict[tuple[int, int], tuple[tuple[object, ...], Scaler]] = {}

    def __call__(self, frame: Frame, width: int, height: int) -> Pixels:
        """One frame.

        Args:
            frame: with its `source`.
            width: of the result, pixels.
            height: of the result, pixels.

        Returns:
            uint8 (height, width, 3), full-range RGB.

        Raises:
            MediaError: the pixel format can't be converted.
            ValueError: the frame was decoded without its source.
        """
        source = frame.source
        if source is None:
            raise ValueError("a picture needs frames with their source")
        kind = (kind_of(source), frame.rotation)
        made = self._scalers.get((width, height))
        if made is None or made[0] != kind:
            made = kind, Scaler(source, (width, height), self._colour, frame.rotation)
            self._scalers[(width, height)] = made
        return np.ascontiguousarray(np.moveaxis(made[1](source), 0, 2))


def webp(pixels: Pixels, quality: int = QUALITY) -> bytes:
    """Encode a picture.

    Args:
        pixels: uint8 (h, w, 3) RGB, or (h, w, 4) RGBA with straight alpha.
        quality: 0..100, libwebp's.

    Returns:
        A WebP file.

    Raises:
        OutputError: the encoder fails.
    """
    height, width, channels = pixels.shape
    # libwebp is given RGB and converts by itself, as its format prescribes.
    bgra = np.full((height, width, 4), 255, np.uint8)
    bgra[..., :channels] = pixels
    bgra[..., :3] = bgra[..., 2::-1]
    try:
        codec = av.VideoCodecContext.create("libwebp", "w")
        codec.width, codec.height = width, height
        codec.pix_fmt = "bgra"
        codec.time_base = TIME_BASE
        codec.options = {"quality": str(quality), "compression_level": "3"}
        frame = av.VideoFrame.from_ndarray(bgra, format="bgra")
        packets = [*codec.encode(frame), *codec.encode(None)]
    except av.error.FFmpegError as exc:
        raise OutputError(f"a picture of {width}x{height} can't be written as WebP: {exc}") from exc
    return b"".join(map(bytes, packets))


def working_size(width: int, height: int, side: int) -> tuple[int, int]:
    """A display size scaled down so that its long side has at most `side` pixels; never enlarged."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def luma(rgb: Pixels) -> npt.NDArray[np.float32]:
    """Luma of full-range RGB by ITU-R BT.709-6, item 3.2: uint8 (h, w, 3) to float32 (h, w)."""
    # Without BLAS, whose threads stall a machine that decodes at the same time.
    out: npt.NDArray[np.float32] = np.multiply(rgb[..., 0], np.float32(0.2126), dtype=np.float32)
    out += np.multiply(rgb[..., 1], np.float32(0.7152), dtype=np.float32)
    out += np.multiply(rgb[..., 2], np.float32(0.0722), dtype=np.float32)
    return out


def error_map(reference: Pixels, distorted: Pixels, factor: int) -> npt.NDArray[np.float32]:
    """Root mean square luma error of each square of `factor` pixels.

    Taken at full size and then averaged: pictures scaled down first would hide noise and ringing.

    Args:
        reference: uint8 (H, W, 3) RGB.
        distorted: the same size.
        factor: side of a square, pixels; columns and rows that fill none are left out.

    Returns:
        float32 (H // factor, W // factor), levels of 255.
    """
    squared = np.square(luma(reference) - luma(distorted))
    h, w = squared.shape[0] // factor, squared.shape[1] // factor
    blocks = squared[: h * factor, : w * factor].reshape(h, factor, w, factor)
    out: npt.NDArray[np.float32] = np.sqrt(blocks.mean(axis=(1, 3)))
    return out


@lru_cache(maxsize=1)
def _error_colours() -> Pixels:
    points = np.array(ERROR_RAMP)
    levels = np.arange(256) / 255
    channels = [np.interp(levels, points[:, 0], points[:, i]) for i in (1, 2, 3)]
    return np.stack(channels, 1).round().astype(np.uint8)


def paint_error(errors: npt.NDArray[np.float32]) -> Pixels:
    """Colour an error map on a square-root scale, so that what is just visible is not black.

    Args:
        errors: float32 (h, w), levels of 255; beyond `ERROR_TOP` all look alike.

    Returns:
        uint8 (h, w, 3) RGB.
    """
    place = np.sqrt(np.clip(errors / ERROR_TOP, 0, 1)) * 255 + 0.5
    return _error_colours()[place.astype(np.uint8)]


def grey(saliency: npt.NDArray[np.float32]) -> Pixels:
    """A map as grey RGB of at most `MAP_SIDE`: float32 (h, w) in [0, 1] to uint8 (h', w', 3)."""
    width, height = working_size(saliency.shape[1], saliency.shape[0], MAP_SIDE)
    levels = quantise(resize_map(saliency, width, height), 8)
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


def resize_map(
    saliency: npt.NDArray[np.float32], width: int, height: int
) -> npt.NDArray[np.float32]:
    """A map made smaller by the mean of each cell; one that is small enough stays as it is."""
    h, w = saliency.shape
    if (width, height) == (w, h):
        return saliency
    rows = np.linspace(0, h, height, endpoint=False).astype(int)
    columns = np.linspace(0, w, width, endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(saliency, rows, 0, dtype=np.float64), columns, 1)
    counts = np.outer(np.diff([*rows, h]), np.diff([*columns, w]))
    return (sums / counts).astype(np.float32)


def heat_colours() -> dict[str, object]:
    """What the page needs to colour a map as `eyeline.saliency.overlay.paint` does."""
    levels = ramp().view(np.uint8).reshape(256, 4)
    some = [levels[round(i * 255 / 15)].tolist() for i in range(16)]
    return {
        "ramp": base64.b64encode(levels.tobytes()).decode(),
        "level": CONTOUR_LEVEL,
        "contour": CONTOUR.tolist(),
        "stops": [[i / 15, f"rgb({r},{g},{b})"] for i, (r, g, b, _) in enumerate(some)],
        "marks": [[0, "0"], [0.5, ".5"], [1, "1"]],
    }


def error_legend() -> dict[str, object]:
    """What the page needs to draw the error map's scale."""
    return {
        "stops": [[place, f"rgb({r},{g},{b})"] for place, r, g, b in ERROR_RAMP],
        "marks": [[float(np.sqrt(mark / ERROR_TOP)), str(mark)] for mark in ERROR_MARKS],
    }
