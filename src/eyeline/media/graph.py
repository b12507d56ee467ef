"""The only YUV to RGB of the package: FFmpeg's swscale in a filter graph, told matrix and range.

A frame is shrunk and converted to 16-bit planes by swscale, turned upright, then rounded to 8 bits
here. The detour over 16 bits costs nothing (swscale's 8-bit planar output is the slower one) and
avoids three faults of swscale 9.5: its 8-bit output wraps to 0 where YUV lies far outside RGB, it
takes full-range codes of more than 8 bits as n / (255 * 2^(bits - 8)) rather than n / (2^bits - 1),
and it ignores the range of grey. Alpha is left out, as players show a video without a background.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from types import MappingProxyType

import av
import av.error
import av.filter
import numpy as np
import numpy.typing as npt

from eyeline.errors import MediaError
from eyeline.media.colour import is_grey, is_rgb
from eyeline.media.hdr import to_sdr
from eyeline.media.types import Colour

TURNS: Mapping[int, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        0: (),
        90: (("transpose", "dir=clock"),),
        180: (("hflip", ""), ("vflip", "")),
        270: (("transpose", "dir=cclock"),),
    }
)
"""Clockwise degrees to the filters that turn a picture."""

# Area averaging when shrinking; exact rounding and chroma at every sample, as colours are data here.
_FLAGS = "area+accurate_rnd+full_chroma_int+full_chroma_inp"

_PLANES = (1, 2, 0)  # gbrp's planes are G, B, R: where each goes in R, G, B


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
        self._gain, self._offset = _levels(frame.format, colour)
        w, h = size
        self._codes = np.empty((h, w), np.float32)
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=Fraction(1, 1000),
        )
        width, height = size if rotation in (0, 180) else (h, w)
        scale = (
            f"w={width}:h={height}:flags={_FLAGS}:in_color_matrix={colour.matrix}"
            f":in_range={colour.color_range}:out_range=full:in_chroma_loc={_siting(frame.format)}"
        )
        chain = [source, graph.add("scale", scale), graph.add("format", "gbrp16le")]
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
        if self._colour.transfer != "sdr":
            signal = np.empty((3, h, w), np.uint16)
            for i, plane in zip(_PLANES, out.planes, strict=True):
                self._rounded(plane, signal[i], 257)  # 255 * 257 = 65535
            return to_sdr(signal, self._colour.transfer)
        rgb = np.empty((3, h, w), np.uint8)
        for i, plane in zip(_PLANES, out.planes, strict=True):
            self._rounded(plane, rgb[i], 1)
        return rgb

    def _rounded(
        self,
        plane: av.video.plane.VideoPlane,
        into: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
        steps: int,
    ) -> None:
        """One 16-bit plane to codes of 1 / (255 * steps) of full scale."""
        w, h = self.size
        rows = np.frombuffer(memoryview(plane), "<u2").reshape(h, -1)[:, :w]  # rows are padded
        if (self._gain * steps, self._offset) == (1 / 256, 0):
            # The same as below in integers, at a third of the time: most video comes here.
            halves = np.right_shift(rows, 7)
            halves += 1
            halves >>= 1
            halves -= halves >> 8  # 256 to 255
            into[:] = halves
            return
        codes = self._codes
        np.multiply(rows, np.float32(self._gain * steps), out=codes)
        codes += np.float32(self._offset * steps + 0.5)
        np.clip(codes, 0, 255 * steps + 0.5, out=codes)
        into[:] = codes  # cut off, so rounded half up


def _levels(format_: av.VideoFormat, colour: Colour) -> tuple[float, float]:
    """Gain and offset from swscale's 16-bit planes to codes 0..255.

    Its planes hold an 8-bit code n as 256 n. What it does not know about is mended here: see the
    module's docstring; the nominal ranges are those of ITU-R BT.2100-2, table 9.
    """
    gain, offset = 1 / 256, 0.0
    if colour.color_range == "limited":
        if is_grey(format_) or is_rgb(format_):
            gain, offset = gain * 255 / 219, -16 * 255 / 219
    else:
        bits = max(component.bits for component in format_.components)
        if bits > 8:
            gain *= 255 * 2 ** (bits - 8) / (2**bits - 1)
    return gain, offset


def _siting(format_: av.VideoFormat) -> str:
    """Where subsampled chroma lies: PyAV does not tell, so what the formats' standards presume.

    Beside the left one of two luma samples (type 0 of ITU-T H.273, figure 1); in JPEG between them.
    """
    return "center" if format_.name.startswith("yuvj") else "left"


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
