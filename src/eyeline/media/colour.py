"""What a stream's samples mean: YUV matrix, range and transfer, from tags, defaults or options.

No pixels here: `graph` converts them, by the `Colour` that `read_colour` decides.
"""

from __future__ import annotations

import av

from eyeline.errors import MediaError
from eyeline.media.types import Colour, Matrix, Range, Transfer, VideoOptions

LUMA_COEFFICIENTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
"""K_R and K_B of each matrix: ITU-R BT.601-7, BT.709-6, BT.2020-2 (non-constant luminance)."""

# Code points of ITU-T H.273, which FFmpeg's tags follow.
_UNSPECIFIED = {0, 2, 3}  # matrix 0 is RGB; on a YUV stream it is as good as no tag
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

HD_LINES = 720
"""Untagged video of at least this many lines is taken as BT.709, smaller as BT.601."""


def is_rgb(format_: av.VideoFormat) -> bool:
    """Whether a pixel format holds RGB rather than YUV or grey."""
    return bool(format_.is_rgb) or format_.name.startswith(("pal8", "gbr"))


def read_colour(frame: av.VideoFrame, options: VideoOptions, path: str) -> Colour:
    """Decide the colour of a stream from its first frame.

    Args:
        frame: a decoded frame; a decoder hands the stream's tags on with it.
        options: `matrix` and `color_range` override tags, `hdr` may refuse PQ and HLG.
        path: named in errors.

    Raises:
        MediaError: a matrix that is not supported, or HDR that is to be refused.
    """
    assumed: list[str] = []
    name = frame.format.name
    rgb = is_rgb(frame.format)
    tag = int(frame.colorspace)
    matrix = options.matrix
    if matrix is None and not rgb and tag in _UNSUPPORTED_MATRICES:
        raise MediaError(
            f"{path}: the YUV matrix is {_UNSUPPORTED_MATRICES[tag]}, which is not supported",
            "convert the video, or override with --matrix",
        )
    if matrix is None and tag in _MATRICES:
        matrix = _MATRICES[tag]
    if matrix is None:
        matrix = "bt709" if frame.height >= HD_LINES else "bt601"
        if not rgb and not name.startswith("gray"):
            assumed.append("matrix")
    color_range = options.color_range
    if color_range is None:
        if rgb or name.startswith("yuvj"):
            color_range = "full"
        elif int(frame.color_range) in _RANGES:
            color_range = _RANGES[int(frame.color_range)]
        else:
            # A grey picture comes from a still image or a mask, whose samples are full range.
            color_range = "full" if name.startswith(("gray", "ya8", "ya16", "mono")) else "limited"
            assumed.append("color_range")
    transfer = _TRANSFERS.get(int(frame.color_trc), "sdr")
    if transfer != "sdr" and options.hdr == "refuse":
        raise MediaError(
            f"{path}: HDR video ({transfer.upper()})",
            "leave out --hdr refuse to have it mapped to SDR",
        )
    return Colour(matrix, color_range, transfer, tuple(assumed))
