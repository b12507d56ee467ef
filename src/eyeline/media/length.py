"""Whether a file is as long as its container says: the surest sign of a cut-off copy or download.

Four families of containers tell: MP4 and MOV (boxes), Matroska and WebM (EBML elements), AVI (RIFF
chunks) and MPEG-TS (packets of one length). Anything else is not judged.
"""

from __future__ import annotations

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
        if head[4:8] in _BOXES:
            what, end = _last_box(f, length)
        elif head[:4] == EBML:
            what, end = "segment", segment_end(f, length)
        elif head[:4] == b"RIFF":
            what, end = _last_chunk(f, length)
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
