"""The only YUV to RGB of the package: FFmpeg's swscale in a filter graph, told matrix and range."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import av.filter
import numpy as np
import numpy.typing as npt

from eyeline.errors import MediaError
from eyeline.media.hdr import to_sdr
from eyeline.media.types import Colour

TURNS = {
    0: (),
    90: (("transpose", "dir=clock"),),
    180: (("hflip", ""), ("vflip", "")),
    270: (("transpose", "dir=cclock"),),
}
"""Clockwise degrees to the filters that turn a picture."""

# Area averaging when shrinking; exact rounding and chroma at every sample, since colours are data here.
_FLAGS = "area+accurate_rnd+full_chroma_int+full_chroma_inp"


class Scaler:
    """Turns decoded frames into upright planar RGB of one size; made for one kind of frame.

    Args:
        frame: a frame of that kind.
        size: (width, height) of the result.
        colour: how samples become RGB; HDR is mapped to SDR.
        rotation: clockwise degrees that make the picture upright.

    Raises:
        MediaError: swscale can't read the pixel format.
    """

    def __init__(
        self, frame: av.VideoFrame, size: tuple[int, int], colour: Colour, rotation: int
    ) -> None:
        self.kind = kind_of(frame)
        self.size = size
        self._colour = colour
        self._hdr = colour.transfer != "sdr"
        width, height = size if rotation in (0, 180) else (size[1], size[0])
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=Fraction(1, 1000),
        )
        scale = (
            f"w={width}:h={height}:flags={_FLAGS}:in_color_matrix={colour.matrix}"
            f":in_range={colour.color_range}:out_range=full"
        )
        chain = [source, graph.add("scale", scale)]
        chain.append(graph.add("format", "gbrp16le" if self._hdr else "gbrp"))
        # Turned after scaling: fewer pixels to move.
        chain += [graph.add(name, arguments) for name, arguments in TURNS[rotation]]
        chain.append(graph.add("buffersink"))
        for left, right in pairwise(chain):
            left.link_to(right)
        try:
            graph.configure()
        except (av.error.FFmpegError, ValueError) as exc:
            raise MediaError(
                f"pixel format {frame.format.name} can't be converted to RGB: {exc}",
                "convert the video to a YUV or RGB format",
            ) from exc
        self._graph = graph

    def __call__(self, frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
        """Convert a frame of the kind this was made for.

        Returns:
            uint8 (3, h, w), R, G, B.

        Raises:
            MediaError: the conversion fails.
        """
        try:
            self._graph.push(frame)
            out = self._graph.pull()
        except av.error.FFmpegError as exc:
            raise MediaError(f"{frame.format.name} can't be converted to RGB: {exc}") from exc
        assert isinstance(out, av.VideoFrame)  # noqa: S101 - a video graph gives video
        w, h = self.size
        kind = np.dtype("<u2") if self._hdr else np.dtype("u1")
        planes = np.empty((3, h, w), kind)
        for i, plane in zip((1, 2, 0), out.planes, strict=True):  # gbrp: G, B, R
            rows = np.frombuffer(memoryview(plane), kind)[: h * (plane.line_size // kind.itemsize)]
            planes[i] = rows.reshape(h, -1)[:, :w]
        return to_sdr(planes, self._colour.transfer) if self._hdr else planes


def kind_of(frame: av.VideoFrame) -> tuple[int, int, str]:
    """What a filter graph is made for: width, height, pixel format."""
    return frame.width, frame.height, frame.format.name


def upright_rgb(
    frame: av.VideoFrame, colour: Colour, rotation: int, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """One frame as RGB of any size.

    Args:
        frame: as decoded.
        colour: see `eyeline.media.colour.read_colour`.
        rotation: clockwise degrees that make it upright.
        size: (width, height) of the result.

    Returns:
        uint8 (3, height, width), R, G, B.

    Raises:
        MediaError: the pixel format can't be converted.
    """
    return Scaler(frame, size, colour, rotation)(frame)
