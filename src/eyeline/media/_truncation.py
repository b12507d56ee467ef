"""Find out whether a file is as long as its container states, and whether a Matroska file is damaged.

A file that is too short is the surest sign of an interrupted copy or download, and decoders often
say nothing about it. `cut_short` reads the lengths in boxes of MP4 and MOV, EBML elements of
Matroska and WebM, RIFF chunks of AVI and WebP, tags of FLV and packets of MPEG-TS, and looks for the
end marks of GIF and JPEG. It does not check other containers.

FFmpeg skips a Matroska cluster that it cannot parse without an error, so that many frames may be
lost. `broken_at` reads the headers of all elements to find such a cluster.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

EBML = bytes.fromhex("1a45dfa3")  # RFC 8794: every Matroska file begins with this ID
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
# Elements of a segment and of a cluster (RFC 9559, section 5); Void and CRC-32 may stand anywhere.
_ANYWHERE = frozenset({0xEC, 0xBF})
_IN_SEGMENT = _ANYWHERE | {
    *(0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER),  # SeekHead, Info, Tracks
    *(0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367),  # Cues, Attachments, Chapters, Tags
}
_IN_CLUSTER = _ANYWHERE | {
    *(0xE7, 0xA3, 0xA0, 0xA7, 0xAB),  # Timestamp, SimpleBlock, BlockGroup, Position, PrevSize
    *(0x5854, 0xAF),  # SilentTracks, EncryptedBlock
}

_BOXES = frozenset(
    {
        *(b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx"),
        *(b"ssix", b"mfra", b"uuid", b"meta", b"udta", b"emsg", b"prft", b"pnot", b"PICT"),
    }
)
"""Top-level boxes of ISO/IEC 14496-12 and QuickTime; the check stops at any other name."""

# The coded samples of a JPEG end at a marker other than a stuffed zero or a restart (T.81, B.1.1).
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


def cut_short(path: str) -> str | None:
    """Say by how much a file is shorter than its container states.

    Return a clause such as "the file ends 1,234 bytes before its mdat box does", an empty string for a
    file that is whole, and None for other containers and for a pipe.
    """
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as f:
        length = f.seek(0, 2)
        f.seek(0)
        head = f.read(400)
        f.seek(0)
        if head.startswith(b"GIF8"):
            return _judge_gif(f)
        # The suffix decides, because a motion JPEG stream begins like a JPEG picture.
        if head.startswith(b"\xff\xd8") and Path(path).suffix.lower() in (".jpg", ".jpeg"):
            return _judge_jpeg(f.read())
        if head[4:8] in _BOXES:
            what, end = _last_box(f, length)
        elif head[:4] == EBML:
            what, end = "segment", _segment_end(f, length)
        elif head[:4] == b"RIFF":
            what, end = "RIFF chunk", _last_chunk_end(f, length)
        elif head[:3] == b"FLV":
            what, end = "last tag", _last_tag_end(f, length)
        elif head[0:189:188] == b"GG":  # sync bytes of ISO/IEC 13818-1
            what, end = "last transport packet", -(-length // 188) * 188
        elif head[4:197:192] == b"GG":  # sync bytes after a time code (Blu-ray, cameras)
            what, end = "last transport packet", -(-length // 192) * 192
        else:
            return None
    return f"the file ends {end - length:,} bytes before its {what} does" if end > length else ""


def _last_box(f: BinaryIO, length: int) -> tuple[str, int]:
    name, end = "first box", 0
    while end + 8 <= length:
        f.seek(end)
        size, kind = struct.unpack(">I4s", f.read(8))
        header = 8
        if size == 1:
            wide = f.read(8)
            if len(wide) < 8:
                break
            (size,), header = struct.unpack(">Q", wide), 16
        if kind not in _BOXES or size < header:  # a size of 0 reaches to the end of the file
            break
        name, end = f"{kind.decode()} box", end + size
    return name, end


def _last_chunk_end(f: BinaryIO, length: int) -> int:
    end = 0
    while end + 8 <= length:  # OpenDML writes several chunks one after the other
        f.seek(end)
        kind, size = struct.unpack("<4sI", f.read(8))
        if kind != b"RIFF" or size in (0, 0xFFFFFFFF):  # the recorder did not fill in the size
            break
        end += 8 + size
    return end


def _last_tag_end(f: BinaryIO, length: int) -> int:
    """Return the end of the last tag (Adobe's FLV specification 10.1, annex E)."""
    header = f.read(9)
    at = end = int.from_bytes(header[5:], "big") + 4  # 4: the length of the previous tag
    while len(header) == 9 and at < length:
        f.seek(at)
        tag = f.read(11)
        if tag[0] & 0x1F not in (8, 9, 18):  # neither audio, video nor data
            break
        end = at + 11 + int.from_bytes(tag[1:4], "big")
        at = end + 4
    return end


def _judge_gif(f: BinaryIO) -> str | None:
    """Walk the blocks of a GIF89a up to its trailer."""

    def skip_colours(flags: bytes) -> None:
        if flags and flags[0] & 0x80:
            f.seek(3 << (flags[0] & 7) + 1, 1)

    skip_colours(f.read(13)[10:11])
    while kind := f.read(1):
        if kind == b";":
            return ""
        if kind == b",":  # a picture: its descriptor, colours, code size, then blocks
            skip_colours(f.read(9)[8:9])
        elif kind != b"!":  # an extension: its label, then blocks
            return None
        f.seek(1, 1)
        while size := f.read(1).strip(b"\0"):
            f.seek(size[0], 1)
    return "its last block is missing"


def _judge_jpeg(data: bytes) -> str:
    """Walk the segments of a JPEG (ITU-T T.81, annex B) up to the end of its picture."""
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == 0xD9:
            return ""
        at += int.from_bytes(data[at : at + 2], "big")
    return "the end of its picture is missing"


class _Element(NamedTuple):
    """An element's ID, and the offsets of its start, its content and its end."""

    id: int
    start: int
    content: int
    end: int | None  # None: the length is unknown, as in live streams


def _number(f: BinaryIO) -> tuple[int, int] | None:
    """Read a variable-size number (RFC 8794, section 4); return it with its marker, and its width."""
    first = f.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    rest = f.read(width - 1)
    return (int.from_bytes(first + rest, "big"), width) if len(rest) == width - 1 else None


def _element(f: BinaryIO, at: int) -> _Element | None:
    f.seek(at)
    id_, size = _number(f), _number(f)
    if id_ is None or size is None:
        return None
    content, marker = f.tell(), 1 << 7 * size[1]
    unknown = size[0] == 2 * marker - 1
    return _Element(id_[0], at, content, None if unknown else content + size[0] - marker)


def _segment(f: BinaryIO) -> _Element | None:
    header = _element(f, 0)
    segment = None if header is None or header.end is None else _element(f, header.end)
    return segment if segment is not None and segment.id == _SEGMENT else None


def _segment_end(f: BinaryIO, length: int) -> int:
    """Return the end of the segment, or of its last element of known length if its own is unknown."""
    segment = _segment(f)
    if segment is None:
        return 0
    if segment.end is not None:
        return segment.end
    at = segment.content
    while at < length:
        element = _element(f, at)
        if element is None or element.id not in _IN_SEGMENT or element.end is None:
            break
        at = element.end
    return at


def broken_at(path: str) -> int | None:
    """Return the first byte where a Matroska file breaks its structure; None for all other files."""
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as f:
        length = f.seek(0, 2)
        f.seek(0)
        segment = _segment(f) if f.read(4) == EBML else None
        if segment is None:
            return None
        at, cluster_end = segment.content, 0
        end = length if segment.end is None else min(segment.end, length)
        while at < end:
            element = _element(f, at)
            inside = at < cluster_end
            # A cluster without a length ends where another element of the segment begins.
            allowed = _IN_CLUSTER | _IN_SEGMENT if inside else _IN_SEGMENT
            if element is None or element.id not in allowed:
                return at
            if element.id == _CLUSTER:
                at, cluster_end = element.content, element.end or end
            elif element.end is None:
                return at
            else:
                at = element.end
                if inside and at > cluster_end:
                    return element.start
    return None
