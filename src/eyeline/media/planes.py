"""Samples as they are coded: luma and chroma planes of a frame at its own depth, for comparing.

Planar YUV and grey are handed out without a copy. Other layouts (semi-planar, packed, RGB) and other
sizes go through swscale, which is told matrix and range. Alpha is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import av.error
import av.filter
import numpy as np
import numpy.typing as npt

from eyeline.errors import MediaError
from eyeline.media.colour import is_grey, is_rgb
from eyeline.media.types import Colour

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_PLANAR = re.compile(r"(?:yuv[ja]?(?:444|440|422|420|411|410)p|gray)(?:\d+le)?")
_SUBSAMPLING = {
    (1, 1): "444",
    (2, 1): "422",
    (2, 2): "420",
    (1, 2): "440",
    (4, 1): "411",
    (4, 4): "410",
}
_DEPTHS = (8, 9, 10, 12, 14, 16)


@dataclass(frozen=True)
class Layout:
    """How samples are laid out.

    Attributes:
        chroma: `420`, `422`, `444`, `440`, `411`, `410`, or `grey`.
        depth: bits a sample.
        rgb: whether the stream holds RGB, which becomes YUV 4:4:4 (or what it is compared to).
    """

    chroma: str
    depth: int
    rgb: bool = False

    @property
    def pix_fmt(self) -> str:
        """FFmpeg's planar format of this layout."""
        base = "gray" if self.chroma == "grey" else f"yuv{self.chroma}p"
        return base if self.depth == 8 else f"{base}{self.depth}le"


@dataclass(frozen=True)
class Planes:
    """Luma, then Cb and Cr unless grey: uint8 or uint16 (rows, columns), codes of `depth` bits."""

    planes: tuple[Samples, ...]
    depth: int

    @property
    def luma(self) -> Samples:
        """uint8 or uint16 (H, W)."""
        return self.planes[0]

    def deepened(self, depth: int) -> Planes:
        """The same picture in more bits: codes shifted left, as FFmpeg does in limited range."""
        if depth == self.depth:
            return self
        by = depth - self.depth
        return Planes(tuple(np.left_shift(p, by, dtype=np.uint16) for p in self.planes), depth)

    def cropped(self, width: int, height: int, x: int, y: int) -> Planes:
        """A rectangle in luma samples; x and y on a chroma sample."""
        rows, columns = self.luma.shape
        cut = []
        for p in self.planes:
            v, h = -(-rows // p.shape[0]), -(-columns // p.shape[1])
            cut.append(p[y // v : -(-(y + height) // v), x // h : -(-(x + width) // h)])
        return Planes(tuple(cut), self.depth)


def layout_of(format_: av.VideoFormat) -> Layout:
    """The planar layout that holds a pixel format's samples without loss (RGB: by its matrix).

    Raises:
        MediaError: a format of another depth or subsampling.
    """
    depth = max(c.bits for c in format_.components)
    if format_.name == "pal8":
        depth = 8
    depth = next((d for d in _DEPTHS if d >= depth), depth)
    if is_grey(format_):
        return Layout("grey", depth)
    if is_rgb(format_):
        return Layout("444", depth, rgb=True)
    ratio = 16 // max(1, format_.chroma_width(16)), 16 // max(1, format_.chroma_height(16))
    if ratio not in _SUBSAMPLING or depth not in _DEPTHS:
        raise MediaError(
            f"pixel format {format_.name} can't be compared plane by plane",
            "convert the video to planar YUV",
        )
    return Layout(_SUBSAMPLING[ratio], depth)


class PlaneReader:
    """Turns frames of one kind into planes; a new graph when the kind changes.

    Args:
        layout: wanted.
        size: (width, height) wanted; the frame is scaled by swscale's bicubic filter.
        colour: of the frames.
        target: colour of the planes, which differs for RGB alone.
    """

    def __init__(
        self, layout: Layout, size: tuple[int, int], colour: Colour, target: Colour
    ) -> None:
        self._layout, self._size = layout, size
        self._colour, self._target = colour, target
        self._kind: tuple[int, int, str] | None = None
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> Planes:
        """The planes of a frame.

        Raises:
            MediaError: swscale can't convert it.
        """
        kind = frame.width, frame.height, frame.format.name
        if kind != self._kind:
            self._kind, self._graph = kind, self._graph_for(frame)
        if self._graph is not None:
            try:
                self._graph.push(frame)
                out = self._graph.pull()
            except av.error.FFmpegError as exc:
                raise MediaError(
                    f"the pixel format {kind[2]} cannot be converted for measuring: {exc}",
                    "convert the video to yuv420p, yuv422p or yuv444p first",
                ) from exc
            assert isinstance(out, av.VideoFrame)  # noqa: S101 - a video graph gives video
            frame = out
        count = 1 if self._layout.chroma == "grey" else 3
        return Planes(
            tuple(_samples(p, self._layout.depth) for p in frame.planes[:count]), self._layout.depth
        )

    def _graph_for(self, frame: av.VideoFrame) -> av.filter.Graph | None:
        same = layout_of(frame.format) == self._layout and _PLANAR.fullmatch(frame.format.name)
        if same and (frame.width, frame.height) == self._size:
            return None
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        w, h = self._size
        c, t = self._colour, self._target
        arguments = (
            f"w={w}:h={h}:flags=bicubic+accurate_rnd+full_chroma_int"
            f":in_color_matrix={c.matrix}:out_color_matrix={t.matrix}"
            f":in_range={c.color_range}:out_range={t.color_range}"
        )
        chain = [
            source,
            graph.add("scale", arguments),
            graph.add("format", self._layout.pix_fmt),
            graph.add("buffersink"),
        ]
        for left, right in pairwise(chain):
            left.link_to(right)
        try:
            graph.configure()
        except (av.error.FFmpegError, ValueError) as exc:
            raise MediaError(
                f"pixel format {frame.format.name} can't be converted to {self._layout.pix_fmt}: {exc}"
            ) from exc
        return graph


def _samples(plane: av.video.plane.VideoPlane, depth: int) -> Samples:
    """uint8 or uint16 (rows, columns) over the frame's own memory, which the array keeps alive."""
    kind = np.dtype("u1" if depth == 8 else "<u2")
    rows = np.frombuffer(memoryview(plane), kind)
    rows = rows[: plane.height * (plane.line_size // kind.itemsize)]
    return rows.reshape(plane.height, -1)[:, : plane.width]
