"""What a stream's samples mean: YUV matrix, range and transfer, from tags, defaults or options.

No pixels here: `graph` converts them, by the `Colour` that `read_colour` decides.

HDR to SDR at small sizes: PQ and HLG R'G'B' in BT.2020 to R'G'B' in BT.709 with sRGB's curve.

Four steps: linearise to the light of a 1000 cd/m2 display, compress the largest component by the
EETF of ITU-R BT.2390 (the others by the same gain, so hues stay), change primaries, clip, encode.
Diffuse white of HDR production, 203 cd/m2 (ITU-R BT.2408), is SDR's peak: it comes out at about
229 of 255, mid grey (26 cd/m2) at 100. This serves looking and saliency, not mastering.

The only YUV to RGB of the package: FFmpeg's swscale in a filter graph, told matrix and range.

A frame is shrunk and converted to 16-bit planes by swscale, turned upright, then rounded to 8 bits
here. The detour over 16 bits costs nothing (swscale's 8-bit planar output is the slower one) and
avoids three faults of swscale 9.5: its 8-bit output wraps to 0 where YUV lies far outside RGB, it
takes full-range codes of more than 8 bits as n / (255 * 2^(bits - 8)) rather than n / (2^bits - 1),
and it ignores the range of grey. Alpha is left out, as players show a video without a background.
"""

from __future__ import annotations

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
from eyeline.media.types import Colour, Matrix, Range, Transfer, VideoOptions

HD_LINES = 720
"""Untagged video of at least this many upright lines is taken as BT.709, smaller as BT.601."""

# Code points of ITU-T H.273, which FFmpeg's tags follow. Matrix 0 says RGB, 2 unspecified, 3 is
# reserved: on a YUV stream all three are as good as no tag.
_MATRICES: dict[int, Matrix] = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020"}
_UNSUPPORTED_MATRICES = {
    4: "FCC",
    7: "SMPTE 240M",
    8: "YCgCo",
    10: "BT.2020 constant luminance",
    11: "SMPTE 2085",
    12: "chromaticity-derived non-constant luminance",
    13: "chromaticity-derived constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_TRANSFERS: dict[int, Transfer] = {16: "pq", 18: "hlg"}
_RANGES: dict[int, Range] = {1: "limited", 2: "full"}


@dataclass(frozen=True)
class Tags:
    """What a container says about colour: H.273 code points, FFmpeg's code for the range.

    Attributes:
        matrix: `matrix_coefficients`; 2 = unspecified.
        transfer: `transfer_characteristics`; 2 = unspecified.
        color_range: 0 = unspecified, 1 = limited, 2 = full.
    """

    matrix: int = 2
    transfer: int = 2
    color_range: int = 0


def is_rgb(format_: av.VideoFormat) -> bool:
    """Whether a pixel format holds RGB rather than YUV or grey."""
    return bool(format_.is_rgb) or format_.name.startswith(("pal8", "gbr"))


def is_grey(format_: av.VideoFormat) -> bool:
    """Whether a pixel format holds luma alone, with or without alpha."""
    return format_.name.startswith(("gray", "ya8", "ya16", "mono"))


def read_colour(
    frame: av.VideoFrame,
    options: VideoOptions,
    path: str,
    container: Tags | None = None,
    lines: int | None = None,
) -> Colour:
    """Decide how the samples of a frame become RGB.

    An option comes first, then the frame's tag (the codec's), then the container's, then a
    default that `Colour.assumed` names: BT.601 under 720 lines, else BT.709; limited range. RGB
    and `yuvj` formats and 1-bit pictures are full range by definition.

    Args:
        frame: a decoded frame.
        options: `matrix` and `color_range` override tags, `hdr` may refuse PQ and HLG.
        path: named in errors.
        container: the container's tags, for codecs that carry none.
        lines: upright height that decides an untagged matrix; the frame's height when None.

    Raises:
        MediaError: a matrix or pixel format that is not supported, or HDR that is to be refused.
        UsageError: a matrix given for RGB.
    """
    box = container or Tags()
    name, rgb, grey = frame.format.name, is_rgb(frame.format), is_grey(frame.format)
    if name.startswith("xyz") or "f16" in name or "f32" in name:
        raise MediaError(
            f"{path}: pixel format {name} holds scene light or CIE XYZ, not a picture to look at",
            "grade it to SDR, PQ or HLG first",
        )
    assumed: list[str] = []

    tag = int(frame.colorspace)
    tag = box.matrix if tag in {0, 2, 3} else tag
    matrix = options.matrix
    if matrix is not None and rgb:
        raise UsageError(f"{path}: is RGB ({name}), which has no YUV matrix", "leave out --matrix")
    if matrix is None and not (rgb or grey) and tag in _UNSUPPORTED_MATRICES:
        raise MediaError(
            f"{path}: the YUV matrix is {_UNSUPPORTED_MATRICES[tag]}, which is not supported",
            "convert the video, or override with --matrix",
        )
    if matrix is None:
        matrix = _MATRICES.get(tag)
    if matrix is None:
        matrix = "bt709" if (lines or frame.height) >= HD_LINES else "bt601"
        if not (rgb or grey):
            assumed.append("matrix")

    tag = int(frame.color_range) or box.color_range
    color_range = options.color_range
    if color_range is None and (rgb or name.startswith(("yuvj", "mono"))):
        color_range = "full"
    if color_range is None:
        color_range = _RANGES.get(tag)
    if color_range is None:
        color_range = "limited"
        assumed.append("color_range")

    tag = int(frame.color_trc)
    transfer = _TRANSFERS.get(box.transfer if tag in {0, 2, 3} else tag, "sdr")
    if transfer != "sdr" and options.hdr == "refuse":
        raise MediaError(
            f"{path}: HDR video ({transfer.upper()})",
            "leave out --hdr refuse to have it mapped to SDR",
        )
    return Colour(matrix, color_range, transfer, tuple(assumed))


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
# Pixels mapped at once: intermediate planes stay in the cache, which takes a third of the time.
_BLOCK = 1 << 13

# SMPTE ST 2084 / ITU-R BT.2100-2, table 4.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_to_linear(signal: Floats) -> Floats:
    """SMPTE ST 2084 EOTF: signal 0..1 to cd/m2, 0..10000."""
    p = np.power(signal, 1 / _M2)
    linear: Floats = 10000 * np.power(np.maximum(p - _C1, 0) / (_C2 - _C3 * p), 1 / _M1)
    return linear


def linear_to_pq(light: Floats) -> Floats:
    """Inverse of `pq_to_linear`: cd/m2 to signal 0..1."""
    y = np.power(light / 10000, _M1)
    return np.power((_C1 + _C2 * y) / (1 + _C3 * y), _M2)


def hlg_to_scene(signal: Floats) -> Floats:
    """HLG inverse OETF (ITU-R BT.2100-2, table 5): signal 0..1 to scene light 0..1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal * signal / 3, (np.exp((signal - c) / a) + b) / 12)


def compress(light: Floats) -> Floats:
    """Tone curve: cd/m2 to SDR light 0..1.

    The EETF of ITU-R BT.2390-8, section 5.4.1, from 0..`HDR_PEAK` to 0..`SDR_PEAK`: in PQ, linear up
    to a knee, then a Hermite spline that reaches the target's peak at the source's. Brighter light
    than `HDR_PEAK` is clipped.
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


def _srgb(linear: Floats) -> Floats:
    """IEC 61966-2-1 encoding, linear 0..1 to signal 0..1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055)


@cache
def _linear_table(transfer: Transfer) -> npt.NDArray[np.float32]:
    """16-bit signal to display light 0..`HDR_PEAK` (PQ, clipped) or scene light 0..1 (HLG)."""
    signal = np.linspace(0, 1, _CODES)
    light = np.minimum(pq_to_linear(signal), HDR_PEAK) if transfer == "pq" else hlg_to_scene(signal)
    return light.astype(np.float32)


@cache
def _tone_table() -> npt.NDArray[np.float32]:
    """Square root of light / `HDR_PEAK` in 65535 steps to the tone curve's SDR light.

    The square root spends steps where eyes need them, in the dark.
    """
    return compress(HDR_PEAK * np.linspace(0, 1, _CODES) ** 2).astype(np.float32)


@cache
def _code_table() -> npt.NDArray[np.uint8]:
    """Linear light 0..1 in 65535 steps to sRGB codes."""
    return np.floor(255 * _srgb(np.linspace(0, 1, _CODES)) + 0.5).astype(np.uint8)


def _mix(
    weights: npt.NDArray[np.float32], planes: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Weighted sum of three planes.

    Written out, since BLAS waits for threads of its own: on a busy machine 8 ms in place of 0.1.
    """
    mixed: npt.NDArray[np.float32] = weights[0] * planes[0]
    mixed += weights[1] * planes[1]
    mixed += weights[2] * planes[2]
    return mixed


def to_sdr(planes: npt.NDArray[np.uint16], transfer: Transfer) -> npt.NDArray[np.uint8]:
    """Map HDR to SDR.

    Args:
        planes: uint16 (3, h, w), full-range R'G'B' in BT.2020 primaries, 0..65535.
        transfer: `pq` or `hlg`.

    Returns:
        uint8 (3, h, w), R'G'B' in BT.709 primaries, sRGB curve.
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
