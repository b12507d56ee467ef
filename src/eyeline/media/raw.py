"""Raw YUV: what its options must say, and whether the file's length agrees with them."""

from __future__ import annotations

import math
from pathlib import Path

import av

from eyeline.errors import MediaError, UsageError
from eyeline.media.types import VideoOptions

RAW_SUFFIXES = (".yuv", ".raw", ".rgb", ".gray", ".nv12")
DEFAULT_FPS = 25


def is_raw(path: str, options: VideoOptions) -> bool:
    """Whether a path is to be read as raw YUV: by its suffix, or because its layout is given."""
    return Path(path).suffix.lower() in RAW_SUFFIXES or options.pix_fmt is not None


def frame_bytes(pix_fmt: str, width: int, height: int) -> int:
    """Bytes of one frame as FFmpeg stores it: each plane's rows rounded up to whole samples.

    Raises:
        UsageError: an unknown pixel format, or one without planes of samples.
    """
    try:
        format_ = av.VideoFormat(pix_fmt, width, height)
    except ValueError as exc:
        raise UsageError(f"unknown pixel format {pix_fmt!r}", "for example yuv420p10le") from exc
    if format_.is_bit_stream or format_.has_palette or not format_.components:
        raise UsageError(f"pixel format {pix_fmt} is not raw samples", "for example yuv420p")
    total = 0
    for component in format_.components:
        size = 2 if component.bits > 8 else 1
        total += component.width * component.height * size
    packed = format_.bits_per_pixel * width * height
    # Packed formats pad samples within a pixel (rgb0, x2rgb10): FFmpeg's bits per pixel know it.
    return total if format_.is_planar else max(total, math.ceil(packed / 8))


def raw_layout(path: str, options: VideoOptions) -> tuple[dict[str, str], int]:
    """FFmpeg options for a raw file, and its number of frames.

    Raises:
        UsageError: size or format is missing or unknown.
        MediaError: the length is not a whole number of frames, or zero of them.
    """
    missing = [
        name
        for name, value in (
            ("--width", options.width),
            ("--height", options.height),
            ("--pix-fmt", options.pix_fmt),
        )
        if value is None
    ]
    if missing or options.width is None or options.height is None or options.pix_fmt is None:
        raise UsageError(f"{path}: raw video needs {', '.join(missing)}", "raw files don't say it")
    width, height, pix_fmt = options.width, options.height, options.pix_fmt
    size = frame_bytes(pix_fmt, width, height)
    length = Path(path).stat().st_size
    if length == 0 or length % size:
        raise MediaError(
            f"{path}: {length} bytes are {length / size:.3f} frames of {width}x{height} {pix_fmt} "
            f"({size} bytes each)",
            "check --width, --height and --pix-fmt",
        )
    fps = options.fps or DEFAULT_FPS
    layout = {"video_size": f"{width}x{height}", "pixel_format": pix_fmt, "framerate": str(fps)}
    return layout, length // size
