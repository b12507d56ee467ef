"""What FFmpeg may open: the file that was named and nothing else, whatever that file says.

Files come from anywhere. Playlists and scripts are refused before they are parsed, and so are
pictures of absurd size; a file that does not open gets one line that says why.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import av
import av.container
import av.error

from eyeline.errors import MediaError
from eyeline.media.length import cut_short
from eyeline.media.reader import MAX_PIXELS, too_short

_FORBIDDEN = frozenset(
    {
        # What opens files and addresses that the file names.
        *("hls", "concat", "dash", "imf", "sdp", "rtsp", "rtp", "sap", "webm_dash_manifest"),
        *("image2", "mlv", "vobsub"),
        # What runs scripts and graphs.
        *("lavfi", "vapoursynth", "avisynth"),
        # Devices.
        *("fbdev", "kmsgrab", "video4linux2,v4l2", "x11grab", "alsa", "oss", "jack", "pulse"),
        # What shows any text as pictures.
        *("tty", "bin", "xbin", "adf", "idf"),
    }
)
"""Demuxers that an untrusted file must not reach."""

MAX_IMAGE_BYTES = 2**31
"""Largest still image that is read: `MAX_PIXELS` at 8 bytes, uncompressed."""

_PLAYLISTS = (b"#EXTM3U", b"ffconcat version", b"<?xml", b"<MPD", b"v=0")


@cache
def _allowed() -> str:
    return ",".join(sorted(av.formats_available - _FORBIDDEN))


def open_container(path: str, *, image: bool = False) -> av.container.InputContainer:
    """Open a file with FFmpeg, and only that file.

    Args:
        path: a regular file or a named pipe.
        image: a still image, whose name FFmpeg must not see: it takes such names for patterns.

    Raises:
        MediaError: it can't be read, or is no video.
    """
    limits = {
        "protocol_whitelist": "file",
        "format_whitelist": _allowed(),
        "max_pixels": str(MAX_PIXELS),
    }
    try:
        if image:
            data = _read_image(path)
            # FFmpeg doubts a JPEG with something behind it, such as the film of a phone's picture.
            kind = "jpeg_pipe" if data.startswith(b"\xff\xd8") else None
            return av.open(io.BytesIO(data), "r", kind, options=limits)
        # The prefix keeps a name such as `concat:a` a name.
        return av.open(f"file:{path}", options=limits)
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        raise MediaError(*_why_not(path, exc)) from exc


def _read_image(path: str) -> bytes:
    size = Path(path).stat().st_size
    if size > MAX_IMAGE_BYTES:
        raise MediaError(f"{path}: {size:,} bytes are too large for an image", "is it an image?")
    return Path(path).read_bytes()


def _why_not(path: str, exc: Exception) -> tuple[str, str]:
    """Message and mend for a file that FFmpeg did not open."""
    reason = getattr(exc, "strerror", None) or str(exc)
    if isinstance(exc, FileNotFoundError | PermissionError):
        return f"{path}: can't be read: {reason}", "check the path and its permissions"
    if Path(path).is_file():  # a pipe can't be read again
        with Path(path).open("rb") as f:
            head = f.read(64).lstrip(b"\xef\xbb\xbf \r\n")
        if head.startswith(_PLAYLISTS):
            return f"{path}: a playlist or manifest, not a video", "name the video itself"
    if short := shorter_than_stated(path):
        return too_short(path, short)
    if isinstance(exc, OSError):
        return f"{path}: can't be read: {reason}", "is the disk or the network at fault?"
    if isinstance(exc, av.error.EOFError):
        return f"{path}: no frames", "is it a whole video?"
    return f"{path}: not a video that FFmpeg reads: {reason}", "is it a video?"


def shorter_than_stated(path: str) -> str:
    """What shows that a file was cut off (see `length.cut_short`), or an empty string."""
    return (cut_short(path) or "") if Path(path).is_file() else ""
