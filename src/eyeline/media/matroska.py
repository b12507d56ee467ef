"""Matroska and WebM, as far as damage needs it: where the file should end, where it is broken.

FFmpeg skips what it can't parse without a word, and a whole cluster of frames may go with it; so
where frames are missing, `broken_at` looks at the headers of all elements.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

EBML = bytes.fromhex("1a45dfa3")  # RFC 8794: every file begins with it
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
# RFC 9559, section 5: what stands in a segment, then in a cluster; Void and CRC-32 may be anywhere.
_ANYWHERE = frozenset({0xEC, 0xBF})
_IN_SEGMENT = _ANYWHERE | {
    *(0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER),  # SeekHead, Info, Tracks
    *(0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367),  # Cues, Attachments, Chapters, Tags
}
_IN_CLUSTER = _ANYWHERE | {
    *(0xE7, 0xA3, 0xA0, 0xA7, 0xAB),  # Timestamp, SimpleBlock, BlockGroup, Position, PrevSize
    *(0x5854, 0xAF),  # SilentTracks, EncryptedBlock
}


class _Element(NamedTuple):
    """A header: its ID, and where the element begins, its content begins, and it ends (or None)."""

    id: int
    start: int
    content: int
    end: int | None


def _number(f: BinaryIO, keep_marker: bool) -> int | None:
    """A number as RFC 8794 section 4 codes it; None at the end of the file or where it is invalid."""
    first = f.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    rest = f.read(width - 1)
    if len(rest) < width - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    return value if keep_marker else value - (1 << 7 * width)


def _element(f: BinaryIO, at: int) -> _Element | None:
    """The header at an offset, or None where there is none."""
    f.seek(at)
    id_ = _number(f, keep_marker=True)
    before = f.tell()
    size = _number(f, keep_marker=False)
    if id_ is None or size is None:
        return None
    content = f.tell()
    unknown = size == (1 << 7 * (content - before)) - 1  # live streams leave lengths open
    return _Element(id_, at, content, None if unknown else content + size)


def _segment(f: BinaryIO) -> _Element | None:
    header = _element(f, 0)
    segment = None if header is None or header.end is None else _element(f, header.end)
    return segment if segment is not None and segment.id == _SEGMENT else None


def segment_end(f: BinaryIO, length: int) -> int:
    """Where the segment, which holds everything, says that it ends; 0 when it doesn't.

    Args:
        f: a file of `length` bytes that begins with `EBML`.
        length: bytes.
    """
    segment = _segment(f)
    if segment is None:
        return 0
    if segment.end is not None:
        return segment.end
    at = segment.content
    while at < length:  # an open segment: its last element with a length
        element = _element(f, at)
        if element is None or element.id not in _IN_SEGMENT or element.end is None:
            return at
        at = element.end
    return at


def broken_at(path: str) -> int | None:
    """Find the first place where a file does not follow Matroska's structure.

    Args:
        path: a regular file.

    Returns:
        Its offset in bytes; None when there is none, or it is no Matroska.

    Raises:
        OSError: the file can't be read.
    """
    with Path(path).open("rb") as f:
        length = f.seek(0, 2)
        f.seek(0)
        segment = _segment(f) if f.read(4) == EBML else None
        if segment is None:
            return None
        at, cluster_end = segment.content, None
        end = length if segment.end is None else min(segment.end, length)
        while at < end:
            element = _element(f, at)
            inside = cluster_end is not None and at < cluster_end
            # A cluster without a length ends where another element of the segment begins.
            allowed = _IN_CLUSTER | _IN_SEGMENT if inside else _IN_SEGMENT
            if element is None or element.id not in allowed:
                return at
            if element.end is None:
                if element.id != _CLUSTER:
                    return at
                at, cluster_end = element.content, end
            elif element.id == _CLUSTER:
                at, cluster_end = element.content, element.end
            else:
                at = element.end
                if inside and cluster_end is not None and at > cluster_end:
                    return element.start
    return None
