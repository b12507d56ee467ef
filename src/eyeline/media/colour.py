"""Colour: what the samples of a frame mean, and their conversion to RGB or to planes.

- `read_colour` decides matrix, range and transfer from tags, options and defaults.
- `Scaler` makes upright 8-bit RGB of a chosen size; it maps HDR to SDR by `to_sdr`.
- `PlaneReader` returns luma and chroma as coded, so that videos can be compared.

No other code of the package converts between YUV and RGB. FFmpeg's swscale does the work in a
filter graph that names the matrix and the range, because swscale guesses them for untagged frames.

`Scaler` lets swscale write 16-bit planes and rounds them to 8 bits itself. This costs nothing
(swscale's 8-bit planar output is slower) and avoids three faults of swscale 9.5: its 8-bit output
wraps to 0 where YUV lies far outside RGB, it scales full-range codes of more than 8 bits by
1 / (255 * 2^(bits - 8)) instead of 1 / (2^bits - 1), and it ignores the range of grey.
Alpha is ignored, because players show a video without a background.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from types import MappingProxyType

import av
import av.error
import av.filter
import numpy as np
import numpy.typing as npt

from eyeline.errors import MediaError, UsageError
from eyeline.media.types import Colour, ColourTags, Matrix, Range, Transfer, VideoOptions

HD_LINES = 720
"""An untagged video of at least this many upright lines counts as BT.709, a smaller one as BT.601."""

# Code points of ITU-T H.273, which FFmpeg's tags follow. On a YUV stream the matrices 0 (RGB),
# 2 (unspecified) and 3 (reserved) count as no tag.
_NO_TAG = (0, 2, 3)
_MATRICES: dict[int, Matrix] = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020"}
_UNSUPPORTED_MATRICES = {
    **{4: "FCC", 7: "SMPTE 240M", 8: "YCgCo", 10: "BT.2020 constant luminance", 11: "SMPTE 2085"},
    **{12: "chromaticity-derived non-constant luminance"},
    **{13: "chromaticity-derived constant luminance", 14: "ICtCp", 15: "IPT-C2"},
    **{16: "YCgCo-Re", 17: "YCgCo-Ro"},
}
_TRANSFERS: dict[int, Transfer] = {16: "pq", 18: "hlg"}
_RANGES: dict[int, Range] = {1: "limited", 2: "full"}


def is_rgb(format_: av.VideoFormat) -> bool:
    """Return whether a pixel format holds RGB rather than YUV or grey."""
    return bool(format_.is_rgb) or format_.name.startswith(("pal8", "gbr"))


def is_grey(format_: av.VideoFormat) -> bool:
    """Return whether a pixel format holds luma alone, with or without alpha."""
    return format_.name.startswith(("gray", "ya8", "ya16", "mono"))


def read_colour(
    frame: av.VideoFrame,
    options: VideoOptions,
    path: str,
    container: ColourTags | None = None,
    lines: int | None = None,
) -> Colour:
    """Decide how the samples of a frame become RGB.

    An option comes first, then the frame's tag, then the container's, then a default that
    `Colour.assumed` names: BT.601 under 720 upright `lines`, else BT.709; limited range. RGB, `yuvj` and
    1-bit formats are full range by definition.

    Raises:
        MediaError: the matrix or the pixel format is not supported, or the video is HDR and
            `options.hdr` is `refuse`.
        UsageError: `options.matrix` is set and the frame is RGB.
    """
    outer = container or ColourTags()
    name, rgb, grey = frame.format.name, is_rgb(frame.format), is_grey(frame.format)
    if name.startswith("xyz") or "f16" in name or "f32" in name:
        raise MediaError(
            f"{path}: pixel format {name} holds linear light or CIE XYZ, which is not supported",
            "convert the video to SDR, PQ or HLG first",
        )
    assumed: list[str] = []

    tag = int(frame.colorspace)
    tag = outer.matrix if tag in _NO_TAG else tag
    matrix = options.matrix
    if matrix is not None and rgb:
        raise UsageError(
            f"{path}: the video is RGB ({name}), which has no YUV matrix", "leave out --matrix"
        )
    if matrix is None and not (rgb or grey) and tag in _UNSUPPORTED_MATRICES:
        raise MediaError(
            f"{path}: the YUV matrix is {_UNSUPPORTED_MATRICES[tag]}, which is not supported",
            "convert the video, or override the tag with --matrix",
        )
    matrix = matrix or _MATRICES.get(tag)
    if matrix is None:
        matrix = "bt709" if (lines or frame.height) >= HD_LINES else "bt601"
        if not (rgb or grey):
            assumed.append("matrix")

    color_range = options.color_range
    if color_range is None and (rgb or name.startswith(("yuvj", "mono"))):
        color_range = "full"
    color_range = color_range or _RANGES.get(int(frame.color_range) or outer.color_range)
    if color_range is None:
        color_range = "limited"
        assumed.append("color_range")

    tag = int(frame.color_trc)
    transfer = _TRANSFERS.get(outer.transfer if tag in _NO_TAG else tag, "sdr")
    if transfer != "sdr" and options.hdr == "refuse":
        raise MediaError(
            f"{path}: HDR video ({transfer.upper()}), which --hdr refuse does not allow",
            "leave out --hdr refuse to map it to SDR",
        )
    return Colour(matrix, color_range, transfer, tuple(assumed))


# HDR to SDR, for viewing and for saliency, not for mastering. Four steps: linearise to the light of
# a 1000 cd/m2 display, compress the largest component by the EETF of ITU-R BT.2390 (the other two
# by the same gain, so that hues stay), change primaries, clip and encode. Diffuse white of HDR
# production comes out at about 229 of 255, mid grey (26 cd/m2) at 100.

Floats = npt.NDArray[np.float64]

SDR_PEAK = 203.0  # cd/m2: reference white of HDR production (ITU-R BT.2408-7)
HDR_PEAK = 1000.0  # cd/m2: nominal peak of HLG and of most PQ masters (ITU-R BT.2100-2)

BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Linear BT.2020 to BT.709 primaries (ITU-R BT.2087-0)."""

LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
"""Luminance of linear BT.2020 R, G, B (ITU-R BT.2100-2)."""

_CODES = 1 << 16
_BLOCK = 1 << 13  # pixels mapped at once: the intermediate planes then stay in the cache

# SMPTE ST 2084 / ITU-R BT.2100-2, table 4.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_to_linear(signal: Floats) -> Floats:
    """Apply the EOTF of SMPTE ST 2084: signal 0..1 to cd/m2, 0..10000."""
    p = np.power(signal, 1 / _M2)
    linear: Floats = 10000 * np.power(np.maximum(p - _C1, 0) / (_C2 - _C3 * p), 1 / _M1)
    return linear


def linear_to_pq(light: Floats) -> Floats:
    """Invert `pq_to_linear`: cd/m2 to signal 0..1."""
    y = np.power(light / 10000, _M1)
    return np.power((_C1 + _C2 * y) / (1 + _C3 * y), _M2)


def hlg_to_scene(signal: Floats) -> Floats:
    """Apply HLG's inverse OETF (ITU-R BT.2100-2, table 5): signal 0..1 to scene light 0..1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal * signal / 3, (np.exp((signal - c) / a) + b) / 12)


def compress(light: Floats) -> Floats:
    """Apply the tone curve: cd/m2 to SDR light 0..1; light above `HDR_PEAK` is clipped.

    The EETF of ITU-R BT.2390-8, section 5.4.1, from 0..`HDR_PEAK` to 0..`SDR_PEAK`: in PQ, linear up
    to a knee, then a Hermite spline that reaches the target's peak at the source's peak.
    """
    top, target = linear_to_pq(np.array([HDR_PEAK, SDR_PEAK]))
    e1 = np.minimum(linear_to_pq(light) / top, 1.0)
    peak = target / top
    knee = 1.5 * peak - 0.5
    t = (np.maximum(e1, knee) - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * peak
    )
    return pq_to_linear(np.where(e1 < knee, e1, spline) * top) / SDR_PEAK


@cache
def _linear_table(transfer: Transfer) -> npt.NDArray[np.float32]:
    """Map the 16-bit signal to display light (PQ, up to `HDR_PEAK`) or scene light (HLG, 0..1)."""
    signal = np.linspace(0, 1, _CODES)
    light = np.minimum(pq_to_linear(signal), HDR_PEAK) if transfer == "pq" else hlg_to_scene(signal)
    return light.astype(np.float32)


@cache
def _tone_table() -> npt.NDArray[np.float32]:
    """Table of sqrt(light / `HDR_PEAK`): the square root gives dark tones more of the steps."""
    return compress(HDR_PEAK * np.linspace(0, 1, _CODES) ** 2).astype(np.float32)


@cache
def _code_table() -> npt.NDArray[np.uint8]:
    """Lookup table from linear light, 0..1, to sRGB codes (IEC 61966-2-1)."""
    x = np.linspace(0, 1, _CODES)
    srgb = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.power(x, 1 / 2.4) - 0.055)
    return np.floor(255 * srgb + 0.5).astype(np.uint8)


def _mix(
    weights: npt.NDArray[np.float32], planes: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    # BLAS would wait for its own threads: 8 ms instead of 0.1 ms on a busy machine.
    mixed: npt.NDArray[np.float32] = weights[0] * planes[0]
    mixed += weights[1] * planes[1]
    mixed += weights[2] * planes[2]
    return mixed


def to_sdr(planes: npt.NDArray[np.uint16], transfer: Transfer) -> npt.NDArray[np.uint8]:
    """Map HDR to SDR.

    From uint16 (3, h, w), full-range R'G'B' in BT.2020 primaries, to uint8 (3, h, w), R'G'B' in BT.709
    primaries with the sRGB curve.
    """
    _, h, w = planes.shape
    rgb = np.empty(planes.shape, np.uint8)
    rows = max(1, _BLOCK // w)
    for top in range(0, h, rows):
        block = slice(top, top + rows)
        rgb[:, block] = _block_to_sdr(planes[:, block], transfer)
    return rgb


def _block_to_sdr(planes: npt.NDArray[np.uint16], transfer: Transfer) -> npt.NDArray[np.uint8]:
    light = np.take(_linear_table(transfer), planes)
    if transfer == "hlg":
        # The OOTF of a 1000 cd/m2 display has gamma 1.2, on luminance (BT.2100-2, table 5).
        light *= HDR_PEAK * np.power(_mix(LUMINANCE, light), np.float32(0.2))
    brightest = np.maximum(light.max(axis=0), np.float32(1e-6))
    steps = np.sqrt(brightest / np.float32(HDR_PEAK)) * (_CODES - 1) + 0.5
    light *= np.take(_tone_table(), np.minimum(steps, _CODES - 1).astype(np.uint16)) / brightest
    mixed = np.stack([_mix(row, light) for row in BT2020_TO_BT709])
    np.clip(mixed, 0, 1, out=mixed)
    return np.take(_code_table(), (mixed * (_CODES - 1) + 0.5).astype(np.uint16))


def kind_of(frame: av.VideoFrame) -> tuple[int, int, str]:
    """Return width, height and pixel format; all frames of a filter graph must agree in all three."""
    return frame.width, frame.height, frame.format.name


class _Graph:
    """A chain of FFmpeg filters, given by name and arguments, for frames of one kind."""

    def __init__(self, frame: av.VideoFrame, filters: list[tuple[str, str]], goal: str) -> None:
        self._failure = f"pixel format {frame.format.name} cannot be converted to {goal}"
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        chain = [source, *(self._graph.add(name, text) for name, text in filters)]
        for left, right in pairwise([*chain, self._graph.add("buffersink")]):
            left.link_to(right)
        try:
            self._graph.configure()
        except (av.error.FFmpegError, ValueError) as exc:
            raise self._error(exc) from exc

    def _error(self, exc: Exception) -> MediaError:
        return MediaError(
            f"{self._failure}: {exc}", "convert the video to yuv420p, yuv422p or yuv444p first"
        )

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        try:
            self._graph.push(frame)
            out = self._graph.pull()
        except av.error.FFmpegError as exc:
            raise self._error(exc) from exc
        assert isinstance(out, av.VideoFrame)  # noqa: S101 - a video graph gives video
        return out


TURNS: Mapping[int, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        0: (),
        90: (("transpose", "dir=clock"),),
        180: (("hflip", ""), ("vflip", "")),
        270: (("transpose", "dir=cclock"),),
    }
)
"""FFmpeg's filters that rotate a picture clockwise by each number of degrees."""

# Area averaging when shrinking; exact rounding and chroma at every sample, for exact colours.
_FLAGS = "area+accurate_rnd+full_chroma_int+full_chroma_inp"

_PLANES = (1, 2, 0)  # gbrp stores its planes in the order G, B, R


class Scaler:
    """Convert decoded frames of one kind to upright planar RGB of one size.

    Args:
        frame: any frame of the kind to convert (see `kind_of`).
        size: (width, height) of the result.
        colour: how samples become RGB; HDR is mapped to SDR.
        rotation: clockwise degrees that make the picture upright.

    Raises:
        MediaError: swscale cannot read the pixel format.
    """

    def __init__(
        self, frame: av.VideoFrame, size: tuple[int, int], colour: Colour, rotation: int
    ) -> None:
        self.size = size
        self._transfer = colour.transfer
        self._gain, self._offset = _levels(frame.format, colour)
        self._codes = np.empty((size[1], size[0]), np.float32)
        width, height = size if rotation in (0, 180) else (size[1], size[0])
        # PyAV does not say where subsampled chroma lies. In JPEG it lies between two luma samples,
        # elsewhere beside the left one (type 0 of ITU-T H.273, figure 1).
        siting = "center" if frame.format.name.startswith("yuvj") else "left"
        scale = (
            f"w={width}:h={height}:flags={_FLAGS}:in_color_matrix={colour.matrix}"
            f":in_range={colour.color_range}:out_range=full:in_chroma_loc={siting}"
        )
        # Rotate after scaling, when the picture has fewer pixels.
        filters = [("scale", scale), ("format", "gbrp16le"), *TURNS[rotation]]
        self._graph = _Graph(frame, filters, "RGB")

    def __call__(self, frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
        """Convert a frame to uint8 (3, h, w), R, G, B."""
        out = self._graph(frame)
        shape = 3, self.size[1], self.size[0]
        if self._transfer == "sdr":
            rgb = np.empty(shape, np.uint8)
            for i, plane in zip(_PLANES, out.planes, strict=True):
                self._round(plane, rgb[i], 1)
            return rgb
        signal = np.empty(shape, np.uint16)
        for i, plane in zip(_PLANES, out.planes, strict=True):
            self._round(plane, signal[i], 257)  # 16-bit codes: 255 * 257 = 65535
        return to_sdr(signal, self._transfer)

    def _round(
        self,
        plane: av.video.plane.VideoPlane,
        into: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
        steps: int,
    ) -> None:
        """Round swscale's 16-bit plane to codes from 0 to 255 * `steps`."""
        rows = _samples(plane, 16)
        if (self._gain * steps, self._offset) == (1 / 256, 0):
            # The common case in integers takes a third of the time of the general code below.
            halves = np.right_shift(rows, 7)
            halves += 1
            halves >>= 1
            halves -= halves >> 8  # a code of 256 becomes 255
            into[:] = halves
            return
        codes = self._codes
        np.multiply(rows, np.float32(self._gain * steps), out=codes)
        codes += np.float32(self._offset * steps + 0.5)
        np.clip(codes, 0, 255 * steps + 0.5, out=codes)
        into[:] = codes  # truncated, so rounded half up


def _levels(format_: av.VideoFormat, colour: Colour) -> tuple[float, float]:
    """Return gain and offset from swscale's 16-bit planes, which hold 256 n for a code n, to 0..255.

    The gain and the offset correct the faults of swscale that the module's docstring names; the nominal
    ranges are those of ITU-R BT.2100-2, table 9.
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


def upright_rgb(
    frame: av.VideoFrame, colour: Colour, rotation: int, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Convert one decoded frame to RGB of any size.

    Args:
        frame: as decoded.
        colour: how samples become RGB, such as `Video.info.colour`.
        rotation: clockwise degrees that make the frame upright.
        size: (width, height) of the result.

    Returns:
        uint8 (3, height, width), R, G, B.

    Raises:
        MediaError: the pixel format cannot be converted.
    """
    return Scaler(frame, size, colour, rotation)(frame)


Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_PLANAR = re.compile(r"(?:yuv[ja]?(?:444|440|422|420|411|410)p|gray)(?:\d+le)?")
_CHROMA = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}
_DEPTHS = (8, 9, 10, 12, 14, 16)


@dataclass(frozen=True)
class PlaneLayout:
    """Subsampling and depth of planes.

    `chroma` is `420`, `422`, `444`, `440`, `411`, `410` or `grey`; `depth` is in bits per sample. `rgb`
    says that the stream holds RGB, which is converted to YUV 4:4:4 (or to the layout of the video that
    it is compared with).
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
        """Return the picture with more bits per sample: codes shift left, as in FFmpeg's limited range."""
        if depth == self.depth:
            return self
        by = depth - self.depth
        return Planes(tuple(np.left_shift(p, by, dtype=np.uint16) for p in self.planes), depth)

    def cropped(self, width: int, height: int, x: int, y: int) -> Planes:
        """Return a rectangle, given in luma samples; x and y must lie on a chroma sample."""
        rows, columns = self.luma.shape
        cut = []
        for p in self.planes:
            v, h = -(-rows // p.shape[0]), -(-columns // p.shape[1])
            cut.append(p[y // v : -(-(y + height) // v), x // h : -(-(x + width) // h)])
        return Planes(tuple(cut), self.depth)


def layout_of(format_: av.VideoFormat) -> PlaneLayout:
    """Return the layout that holds a pixel format without loss; raise MediaError if there is none."""
    depth = 8 if format_.name == "pal8" else max(c.bits for c in format_.components)
    depth = next((d for d in _DEPTHS if d >= depth), depth)
    if is_grey(format_):
        return PlaneLayout("grey", depth)
    if is_rgb(format_):
        return PlaneLayout("444", depth, rgb=True)
    ratio = 16 // max(1, format_.chroma_width(16)), 16 // max(1, format_.chroma_height(16))
    if ratio not in _CHROMA or depth not in _DEPTHS:
        raise MediaError(
            f"pixel format {format_.name} cannot be compared plane by plane",
            "convert the video to yuv420p, yuv422p or yuv444p first",
        )
    return PlaneLayout(_CHROMA[ratio], depth)


class PlaneReader:
    """Convert frames to planes of one layout and size.

    Frames that are planar YUV or grey and have this size are returned without a copy. All other frames
    go through swscale.

    Args:
        layout: layout of the planes.
        size: (width, height) of the planes; swscale's bicubic filter scales other frames.
        colour: colour of the frames.
        target: colour of the planes; it differs from `colour` only if the frames are RGB.
    """

    def __init__(
        self, layout: PlaneLayout, size: tuple[int, int], colour: Colour, target: Colour
    ) -> None:
        self._layout, self._size = layout, size
        self._colour, self._target = colour, target
        self._kind: tuple[int, int, str] | None = None
        self._graph: _Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> Planes:
        """Return the planes of a frame; raise MediaError if swscale cannot read its pixel format."""
        if self._kind != kind_of(frame):
            self._kind, self._graph = kind_of(frame), self._graph_for(frame)
        if self._graph is not None:
            frame = self._graph(frame)
        planes = frame.planes[: 1 if self._layout.chroma == "grey" else 3]
        depth = self._layout.depth
        return Planes(tuple(_samples(p, depth) for p in planes), depth)

    def _graph_for(self, frame: av.VideoFrame) -> _Graph | None:
        same = layout_of(frame.format) == self._layout and _PLANAR.fullmatch(frame.format.name)
        if same and (frame.width, frame.height) == self._size:
            return None
        c, t = self._colour, self._target
        scale = (
            f"w={self._size[0]}:h={self._size[1]}:flags=bicubic+accurate_rnd+full_chroma_int"
            f":in_color_matrix={c.matrix}:out_color_matrix={t.matrix}"
            f":in_range={c.color_range}:out_range={t.color_range}"
        )
        pix_fmt = self._layout.pix_fmt
        return _Graph(frame, [("scale", scale), ("format", pix_fmt)], pix_fmt)


def _samples(plane: av.video.plane.VideoPlane, depth: int) -> Samples:
    """View a plane's memory, which the array keeps alive, as (rows, columns) without padding."""
    kind = np.dtype("u1" if depth == 8 else "<u2")
    rows = np.frombuffer(memoryview(plane), kind)
    rows = rows[: plane.height * (plane.line_size // kind.itemsize)]
    return rows.reshape(plane.height, -1)[:, : plane.width]
