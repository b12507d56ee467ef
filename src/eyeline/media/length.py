"""Whether a file is as long as its container says: the surest sign of a cut-off copy or download.

What tells: boxes in MP4 and MOV, EBML elements in Matroska and WebM, RIFF chunks in AVI and WebP,
tags in FLV, packets of one length in MPEG-TS, and what ends a GIF or a JPEG. Anything else is not
judged.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

from eyeline.media.matroska import EBML, segment_end

_BOXES = frozenset(
    {
        *(b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx"),
        *(b"ssix", b"mfra", b"uuid", b"meta", b"udta", b"emsg", b"prft", b"pnot", b"PICT"),
    }
)
"""Top-level boxes of ISO/IEC 14496-12 and QuickTime; at another name the walk ends, unjudged."""


# What ends the coded samples of a JPEG: a marker other than a stuffed zero or a restart (T.81, B.1.1).
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


def cut_short(path: str) -> str | None:
    """Say how a file is shorter than its container states.

    Args:
        path: a regular file.

    Returns:
        One clause such as "its mdat box goes on for 1,234 bytes more", an empty string for a file
        that is whole, None for a container that is not judged.

    Raises:
        OSError: the file can't be read.
    """
    with Path(path).open("rb") as f:
        length = f.seek(0, 2)
        f.seek(0)
        head = f.read(400)
        f.seek(0)
        if head.startswith(b"GIF8"):
            return _gif_end(f)
        # By its suffix: a stream of motion JPEG begins like a picture.
        if head.startswith(b"\xff\xd8") and Path(path).suffix.lower() in (".jpg", ".jpeg"):
            return _jpeg_end(f.read())
        if head[4:8] in _BOXES:
            what, end = _last_box(f, length)
        elif head[:4] == EBML:
            what, end = "segment", segment_end(f, length)
        elif head[:4] == b"RIFF":
            what, end = _last_chunk(f, length)
        elif head[:3] == b"FLV":
            what, end = _last_tag(f, length)
        elif head[0:189:188] == b"GG":  # sync bytes of ISO/IEC 13818-1
            what, end = "last transport packet", -(-length // 188) * 188
        elif head[4:197:192] == b"GG":  # the same behind time codes, of Blu-ray and cameras
            what, end = "last transport packet", -(-length // 192) * 192
        else:
            return None
    return f"its {what} goes on for {end - length:,} bytes more" if end > length else ""


def _last_box(f: BinaryIO, length: int) -> tuple[str, int]:
    """Name and end of the last top-level box."""
    name, end = "first box", 0
    while end + 8 <= length:
        f.seek(end)
        size, kind = struct.unpack(">I4s", f.read(8))
        if kind not in _BOXES or size == 0:  # 0: up to the end of the file
            break
        header = 8
        if size == 1:
            wide = f.read(8)
            if len(wide) < 8:
                break
            (size,), header = struct.unpack(">Q", wide), 16
        if size < header:
            break
        name, end = f"{kind.decode()} box", end + size
    return name, end


def _last_chunk(f: BinaryIO, length: int) -> tuple[str, int]:
    """Name and end of the last RIFF chunk (OpenDML strings several of them together)."""
    end = 0
    while end + 8 <= length:
        f.seek(end)
        kind, size = struct.unpack("<4sI", f.read(8))
        if kind != b"RIFF" or size in (0, 0xFFFFFFFF):  # not filled in: a capture, not judged
            break
        end += 8 + size
    return "RIFF chunk", end


def _last_tag(f: BinaryIO, length: int) -> tuple[str, int]:
    """End of the last FLV tag (Adobe's FLV specification 10.1, annex E)."""
    header = f.read(9)
    at = end = int.from_bytes(header[5:], "big") + 4  # behind a length of the tag before, none
    while len(header) == 9 and at < length:
        f.seek(at)
        tag = f.read(11)
        if tag[0] & 0x1F not in (8, 9, 18):  # neither sound, picture nor data: not judged
            break
        end = at + 11 + int.from_bytes(tag[1:4], "big")
        at = end + 4
    return "last tag", end


def _gif_end(f: BinaryIO) -> str | None:
    """Walk the blocks of a GIF89a up to its trailer."""

    def skip_colours(flags: int) -> None:
        if flags & 0x80:
            f.seek(3 << (flags & 7) + 1, 1)

    def skip_blocks() -> None:
        while size := f.read(1):
            if size == b"\0":
                return
            f.seek(size[0], 1)

    screen = f.read(13)
    if len(screen) == 13:
        skip_colours(screen[10])
    while kind := f.read(1):
        if kind == b";":
            return ""
        if kind == b"!":  # an extension: its label, then blocks
            f.seek(1, 1)
        elif kind == b",":  # a picture: its descriptor, colours, code size, then blocks
            descriptor = f.read(9)
            skip_colours(descriptor[8] if len(descriptor) == 9 else 0)
            f.seek(1, 1)
        else:
            return None
        skip_blocks()
    return "its last block is not there"


def _jpeg_end(data: bytes) -> str | None:
    """Walk the segments of a JPEG (ITU-T T.81, annex B) up to the end of its picture."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == 0xD9:
            return ""
        at += int.from_bytes(data[at : at + 2], "big")
    return "its picture has no end"
