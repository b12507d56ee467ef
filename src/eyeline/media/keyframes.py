"""At which packets a decoder may begin: where the codec itself says that nothing before is needed.

A container's mark of a keyframe is not enough: it may stand at any picture without references of its
own, although later ones look back beyond it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import av

_INDEPENDENT = frozenset(
    {
        # Every picture on its own.
        *("mjpeg", "prores", "dnxhd", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "cfhd"),
        *("rawvideo", "v210", "jpeg2000", "png", "qtrle"),
        # Contexts are reset at a keyframe (RFC 9043, section 4.1).
        "ffv1",
        # An I picture ends all references backwards but those of the B pictures that are shown
        # before it: a P picture refers to the I or P picture before it, and to no other.
        *("mpeg1video", "mpeg2video", "mpeg4", "h263"),
        # A keyframe replaces all reference frames (RFC 6386, 9.7; VP9 specification, 7.2; AV1, 7.20).
        *("vp8", "libvpx", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1"),
    }
)
"""Decoders, by FFmpeg's name, for which the container's mark of a keyframe is enough."""

_START_CODE = re.compile(rb"\x00\x00\x01")

_RECOVERY_POINT = 6  # SEI payload type, ITU-T H.264, D.1.8


def may_begin(codec: av.VideoCodecContext, packet: av.Packet[av.VideoStream]) -> bool:
    """Whether decoding from this keyframe gives it and all that is shown after it exactly.

    H.264: an IDR picture, or a recovery point of zero frames that promises an exact match. HEVC: an
    intra random access point, whose trailing pictures refer to nothing before it. Others by a list of
    codecs; one that is not on it may not.

    Args:
        codec: the decoder; needs not be open.
        packet: marked as a keyframe by the container.
    """
    if codec.name in _INDEPENDENT:
        return True
    if codec.name == "h264":
        size = _length_size(codec.extradata, 4)
        return any(_begins_h264(unit) for unit in _units(bytes(packet), size))
    if codec.name == "hevc":
        size = _length_size(codec.extradata, 21)
        slices = (
            unit[0] >> 1 & 63 for unit in _units(bytes(packet), size) if unit[0] >> 1 & 63 < 32
        )
        return 16 <= next(slices, 0) <= 23  # ITU-T H.265, table 7-1
    return False


def shows(codec: str, packet: av.Packet[av.VideoStream]) -> bool:
    """Whether a packet is shown: VP8 has packets that only later ones refer to (RFC 6386, 9.1)."""
    return codec not in ("vp8", "libvpx") or bool(memoryview(packet)[0] & 0x10)


def _length_size(extradata: bytes | None, at: int) -> int | None:
    """Bytes of a unit's length in MP4 and Matroska (ISO/IEC 14496-15); None for start codes."""
    if not extradata or extradata[0] != 1 or len(extradata) <= at:
        return None
    return (extradata[at] & 3) + 1


def _units(data: bytes, length_size: int | None) -> Iterator[bytes]:
    """The network abstraction layer units of a packet, none of them empty."""
    if length_size is None:
        starts = [match.end() for match in _START_CODE.finditer(data)]
        ends = [start - 3 for start in starts[1:]] + [len(data)]
        yield from (data[a:b] for a, b in zip(starts, ends, strict=True) if b > a)
        return
    at = 0
    while at + length_size < len(data):
        start = at + length_size
        at = start + int.from_bytes(data[at:start], "big")
        if at > start:
            yield data[start:at]


def _begins_h264(unit: bytes) -> bool:
    kind = unit[0] & 31  # ITU-T H.264, table 7-1
    return kind == 5 or (kind == 6 and _recovers_at_once(unit[1:].replace(b"\0\0\3", b"\0\0")))


def _recovers_at_once(sei: bytes) -> bool:
    """Whether SEI messages hold a recovery point of zero frames with an exact match."""
    at = 0
    while at + 1 < len(sei) and sei[at:] != b"\x80":
        values = []
        for _ in ("type", "size"):  # each a run of 255s and a last byte
            value = 0
            while at < len(sei) and sei[at] == 255:
                value, at = value + 255, at + 1
            value, at = value + (sei[at] if at < len(sei) else 0), at + 1
            values.append(value)
        kind, size = values
        if kind == _RECOVERY_POINT and size:
            return sei[at] >> 6 == 3 if at < len(sei) else False  # ue(v) 0, then exact_match_flag
        at += size
    return False
