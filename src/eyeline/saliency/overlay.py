"""Write a copy of a video with the saliency map drawn over it as a heat map.

Regions of low saliency are dimmed and regions of high saliency are coloured. A thin line marks the
level 0.5, which is the threshold of `saliency_coverage`. The heat map is painted at a small size; FFmpeg
enlarges and blends it. Most of the time per 1080p frame is thus spent on encoding.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import av.error
import av.filter
import numpy as np
import numpy.typing as npt

from eyeline.errors import MediaError
from eyeline.files import Sink
from eyeline.inference import upscale
from eyeline.media.colour import TURNS, Scaler, is_rgb, kind_of
from eyeline.media.types import Colour, Frame
from eyeline.media.write import H264, TIME_BASE, VideoWriter, encodable_size

Rgba = npt.NDArray[np.uint8]

RAMP: tuple[tuple[float, int, int, int, float], ...] = (
    # level, red, green, blue, opacity
    (0.00, 6, 8, 20, 0.42),
    (0.20, 30, 12, 80, 0.36),
    (0.40, 120, 20, 120, 0.32),
    (0.50, 200, 40, 70, 0.34),
    (0.75, 255, 85, 15, 0.46),
    (1.00, 255, 205, 45, 0.52),
)
"""Colours from dark over violet and red to yellow; their brightness rises, so they work in grey, too."""

CONTOUR_LEVEL = 128  # 128 of 255 is a map value of 0.5
CONTOUR = np.array([255, 255, 255, 215], np.uint8)

HEAT_SIZE = 640
"""Long side of the painted heat map, pixels; enough for a smooth line at 1080p."""

_DIGITS = {
    "0": ("111", "101", "101", "101", "111"),
    "1": ("010", "110", "010", "010", "111"),
    ".": ("0", "0", "0", "0", "1"),
    "5": ("111", "100", "111", "001", "111"),
}
"""Glyphs of the legend, at most 3 by 5 pixels."""


@lru_cache(maxsize=1)
def ramp() -> npt.NDArray[np.uint32]:
    """Return `RAMP` interpolated at 256 levels, one packed integer per level.

    Returns:
        uint32 (256,). Viewed as uint8 (256, 4), each row is R, G, B and A with straight alpha.
    """
    points = np.array(RAMP)
    levels = np.arange(256) / 255
    scale = (1, 1, 1, 255)
    channels = [np.interp(levels, points[:, 0], points[:, i + 1]) * scale[i] for i in range(4)]
    rgba = np.floor(np.stack(channels, 1) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(rgba).view(np.uint32)[:, 0]


def paint(saliency: npt.NDArray[np.float32], width: int, height: int) -> Rgba:
    """Colour a map, and draw the line at 0.5 and the legend.

    Args:
        saliency: float32 (h, w) in [0, 1].
        width: width of the result, pixels.
        height: height of the result, pixels.

    Returns:
        uint8 (height, width, 4), RGBA with straight alpha.
    """
    level = np.clip(upscale(saliency, width, height) * 255 + 0.5, 0, 255).astype(np.uint8)
    rgba = ramp()[level].view(np.uint8).reshape(height, width, 4)
    inside = level >= CONTOUR_LEVEL
    # Pixels with all four neighbours inside; no line is drawn along the border of the frame.
    core = inside.copy()
    core[1:] &= inside[:-1]
    core[:-1] &= inside[1:]
    core[:, 1:] &= inside[:, :-1]
    core[:, :-1] &= inside[:, 1:]
    rgba[inside & ~core] = CONTOUR
    legend = _legend(width, height)
    if legend is not None:
        h, w = legend.shape[:2]
        margin = max(4, height // 40)
        rgba[height - margin - h : height - margin, margin : margin + w] = legend
    return rgba


@lru_cache(maxsize=4)
def _legend(width: int, height: int) -> Rgba | None:
    """Draw a colour bar from 0 to 1 with a mark at 0.5; return None if the picture is too small for it."""
    length, thick = max(90, width // 6), 6
    if width < 2 * length or height < 60:
        return None
    colours = ramp().view(np.uint8).reshape(256, 4).copy()
    colours[:, 3] = 255
    box = np.zeros((thick + 12, length + 8, 4), np.uint8)
    box[:] = (0, 0, 0, 150)
    box[3 : 3 + thick, 4 : 4 + length] = colours[np.linspace(0, 255, length).astype(int)]
    middle = 4 + length // 2
    box[3 : 3 + thick, middle] = CONTOUR
    for text, at in (("0", 4), (".5", middle - 2), ("1", length + 1)):
        x = at
        for character in text:
            glyph = np.array([[int(bit) for bit in row] for row in _DIGITS[character]], bool)
            box[5 + thick : 10 + thick, x : x + glyph.shape[1]][glyph] = (255, 255, 255, 230)
            x += glyph.shape[1] + 1
    box.setflags(write=False)
    return box


def _fit(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Return the largest even size inside `box` with the aspect ratio of `size`."""
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(2, int(size[0] * scale) & ~1), max(2, int(size[1] * scale) & ~1)


class _Blend:
    """A filter graph that rotates frames upright, converts them to BT.709 and blends the heat map in.

    Args:
        source: a sample frame; later frames have the same size and pixel format.
        colour: colour description of the source.
        rotation: degrees clockwise by which the source is rotated to be upright.
        display: upright size in square pixels.
        box: size of the output video; both sides are even.
        heat: size of the painted heat map.
    """

    def __init__(
        self,
        source: av.VideoFrame,
        colour: Colour,
        rotation: int,
        display: tuple[int, int],
        box: tuple[int, int],
        heat: tuple[int, int],
    ) -> None:
        whole = encodable_size(*display, H264) == box
        width, height = display if whole else _fit(display, box)
        size = f"{width}:{height}"
        # swscale guesses the matrix and the range of untagged frames, so give them always.
        tags = "out_color_matrix=bt709:out_range=limited"
        given = f"in_color_matrix={colour.matrix}:in_range={colour.color_range}"
        rgb = is_rgb(source.format)
        shape = kind_of(source)
        self._to_sdr = None
        if colour.transfer != "sdr":
            # `Scaler` tone-maps HDR to SDR and returns upright full-range RGB.
            self._to_sdr = Scaler(source, display, colour, rotation)
            rgb, shape, rotation = True, (*display, "rgb24"), 0
        into = tags if rgb else f"{given}:{tags}"
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        self._picture = self._buffer(*shape)
        self._heat = self._buffer(*heat, "rgba")
        crop = (("crop", f"{width & ~1}:{height & ~1}:0:0"),) if whole else ()
        # setpts numbers the frames of the two inputs, so that `overlay` pairs them in order.
        picture = self._chain(
            self._picture,
            ("setpts", "N"),
            *TURNS[rotation],
            ("scale", f"{size}:{into}"),
            ("format", "yuv420p"),
            *crop,
        )
        glow = self._chain(
            self._heat,
            ("setpts", "N"),
            ("scale", f"{size}:flags=bilinear:{tags}"),
            ("format", "yuva420p"),
            *crop,
        )
        overlay = self._graph.add("overlay", "0:0:format=yuv420:alpha=straight")
        picture.link_to(overlay, 0, 0)
        glow.link_to(overlay, 0, 1)
        # A picture of another size is centred on black.
        x, y = (box[0] - width) // 4 * 2, (box[1] - height) // 4 * 2
        bars = () if whole else (("pad", f"{box[0]}:{box[1]}:{x}:{y}"),)
        self._out = self._chain(overlay, *bars, ("format", "yuv420p"), ("buffersink", ""))
        self._graph.configure()

    def _buffer(self, width: int, height: int, pix_fmt: str) -> av.filter.context.FilterContext:
        return self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat(pix_fmt), time_base=TIME_BASE
        )

    def _chain(
        self, start: av.filter.context.FilterContext, *filters: tuple[str, str]
    ) -> av.filter.context.FilterContext:
        last = start
        for name, arguments in filters:
            following = self._graph.add(name, arguments or None)
            last.link_to(following)
            last = following
        return last

    def __call__(self, source: av.VideoFrame, heat: Rgba) -> av.VideoFrame:
        if self._to_sdr is not None:
            rgb = np.ascontiguousarray(np.moveaxis(self._to_sdr(source), 0, 2))  # (H, W, 3)
            source = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        self._picture.push(source)
        self._heat.push(av.VideoFrame.from_ndarray(heat, format="rgba"))
        frame = self._out.pull()
        if not isinstance(frame, av.VideoFrame):
            raise TypeError("the filter graph returned no frame")
        return frame


class OverlayWriter(Sink):
    """Writes an H.264 video of the source with the heat map, upright and with square pixels.

    If the width or height is odd, the last column or row is cropped. Timestamps begin at 0. A later
    frame of another size is scaled to fit into the size of the first frame.

    Args:
        path: the output, ending in `.mp4` or `.mkv`.
        width, height: display size of the first frame, pixels.
        fps: average frame rate; None = not known.
        threads: encoder threads; 0 = one per core.

    Raises:
        OutputError: the suffix is unknown, the picture is smaller than 2x2, or the file can't be
            written.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: Fraction | float | None = None,
        *,
        threads: int = 0,
    ) -> None:
        self._writer = VideoWriter(path, width, height, fps=fps, encoding=H264, threads=threads)
        self._box = self._writer.width, self._writer.height
        self._blend: tuple[tuple[object, ...], _Blend] | None = None
        self._start: float | None = None

    def write(self, frame: Frame, colour: Colour, saliency: npt.NDArray[np.float32]) -> None:
        """Add a frame.

        Args:
            frame: a frame that was decoded with `keep_source`.
            colour: colour description of the source.
            saliency: float32 (h, w) in [0, 1] of the whole upright picture; any size.

        Raises:
            OutputError: the encoder failed, or the disk is full.
            MediaError: FFmpeg can't convert the pixel format of the source.
            ValueError: the frame has no `source`.
        """
        source = frame.source
        if source is None:
            raise ValueError("an overlay needs frames decoded with keep_source")
        scale = min(1.0, HEAT_SIZE / max(frame.display_size))
        wide, high = (max(1, round(side * scale)) for side in frame.display_size)
        kind = (kind_of(source), colour, frame.rotation, frame.display_size)
        try:
            if self._blend is None or self._blend[0] != kind:
                blend = _Blend(
                    source, colour, frame.rotation, frame.display_size, self._box, (wide, high)
                )
                self._blend = kind, blend
            picture = self._blend[1](source, paint(saliency, wide, high))
        except av.error.FFmpegError as exc:
            raise MediaError(
                f"frame {frame.index}: the pixel format {source.format.name} can't be converted: "
                f"{exc.strerror}",
                "convert the video to yuv420p, or leave the overlay out",
            ) from exc
        if self._start is None:
            self._start = frame.pts_time
        self._writer.write(picture, frame.pts_time - self._start)

    def commit(self) -> None:
        """Finish the file; without a frame, write none."""
        self._writer.commit()

    def discard(self) -> None:
        """Remove the file."""
        self._writer.discard()
