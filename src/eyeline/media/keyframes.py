"""At which packets a decoder may begin: where the codec itself says that nothing before is needed.

H.264 is a matter of its own: `h264`.

A container's mark of a keyframe is not enough. It may stand at any picture, and even one without
references of its own may be followed by others that look back beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import av

from eyeline.media.h264 import length_size, units

_INTRA = (
    *("mjpeg", "prores", "dnxhd", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "cfhd"),
    *("rawvideo", "v210", "jpeg2000", "png"),
)
"""Codecs that code every picture on its own."""


def may_begin(codec: av.VideoCodecContext, packet: av.Packet[av.VideoStream]) -> bool:
    """Whether decoding from this packet gives its frame, and all that are shown after it, exactly.

    Args:
        codec: the decoder; needs not be open. One that has no rule may not begin anywhere.
        packet: any.
    """
    rule = _RULES.get(codec.name)
    return rule is not None and rule(bytes(packet), codec.extradata or b"")


def shows(codec: str, packet: av.Packet[av.VideoStream]) -> bool:
    """Whether a packet is shown: VP8 has packets that only later ones refer to (RFC 6386, 9.1)."""
    return codec != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _always(data: bytes, extradata: bytes) -> bool:
    return True


def _mpeg12(data: bytes, extradata: bytes) -> bool:
    """An I picture: those shown after it refer to the I or P picture before them and the next.

    Its `picture_coding_type` (ISO/IEC 13818-2, 6.3.9).
    """
    at = data.find(b"\0\0\1\0")
    return 0 <= at < len(data) - 5 and data[at + 5] >> 3 & 7 == 1


def _mpeg4(data: bytes, extradata: bytes) -> bool:
    """An I-VOP, by its `vop_coding_type` (ISO/IEC 14496-2, 6.3.5); references as in MPEG-2."""
    at = data.find(b"\0\0\1\xb6")
    return 0 <= at < len(data) - 4 and data[at + 4] >> 6 == 0


def _hevc(data: bytes, extradata: bytes) -> bool:
    """An intra random access point: what follows it in both orders refers to nothing before it."""
    kinds = (unit[0] >> 1 & 63 for unit in units(data, length_size(extradata, 21)))
    return 16 <= next((kind for kind in kinds if kind < 32), 0) <= 23  # ITU-T H.265, table 7-1


def _ffv1(data: bytes, extradata: bytes) -> bool:
    """A keyframe, which resets all state: the first range-coded bit, of state 128 (RFC 9043, 3.8, 4.4)."""
    return int.from_bytes(data[:2], "big") >= 0x7F80


def _vp8(data: bytes, extradata: bytes) -> bool:
    """A shown key frame, which replaces all references (RFC 6386, 9.1 and 9.7)."""
    return data[0] & 0x11 == 0x10


def _vp9(data: bytes, extradata: bytes) -> bool:
    """A key frame, which replaces all references (VP9 specification 0.6, 6.2 and 8.10)."""
    profile = data[0] >> 5 & 1 | data[0] >> 3 & 2
    # Behind the profile: show_existing_frame, then frame_type, 0 for a key frame.
    return data[0] >> 6 == 2 and data[0] >> (1 if profile == 3 else 2) & 3 == 0


def _av1(data: bytes, extradata: bytes) -> bool:
    """A shown key frame, which replaces all references (AV1 specification, 5.9.2 and 7.20)."""
    at = 0
    while at < len(data):
        header, at = data[at], at + (2 if data[at] & 4 else 1)
        size, shift = 0, 0
        while at < len(data) and header & 2:  # leb128
            size |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        if header >> 3 & 15 in (3, 6):  # a frame's header, alone or with the frame
            # show_existing_frame, frame_type (two bits, 0 for a key frame), show_frame.
            return at < len(data) and data[at] >> 4 == 1
        if not header & 2:
            return False
        at += size
    return False


_Rule = Callable[[bytes, bytes], bool]
_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        **dict.fromkeys(_INTRA, _always),
        "ffv1": _ffv1,
        **dict.fromkeys(("mpeg1video", "mpeg2video"), _mpeg12),
        "mpeg4": _mpeg4,
        "hevc": _hevc,
        "vp8": _vp8,
        "vp9": _vp9,
        **dict.fromkeys(("av1", "libdav1d", "libaom-av1"), _av1),
    }
)
"""FFmpeg's name of a decoder to what proves a keyframe, from a packet and the extradata."""
