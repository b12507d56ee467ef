"""What a stream's samples mean: YUV matrix, range and transfer, from tags, defaults or options.

No pixels here: `graph` converts them, by the `Colour` that `read_colour` decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import av

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
