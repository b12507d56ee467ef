"""Where a video's frames are, from its packets alone: what splitting it at keyframes needs.

`index_frames` reads packets and decodes nothing. It answers only where they tell frames for sure,
and a `Video` that is given the answer holds every frame to it (`SeekError`), so that a file that
fooled it here is found out there.

H.264, as far as splitting a stream needs it: where decoding may begin, and that no picture is missing.

A decoder conceals a reference picture that is missing with what it has, which after a seek is
something else; it says nothing of it. The numbers in the slices' headers do.

At which packets a decoder may begin: where the codec itself says that nothing before is needed.

H.264 is a matter of its own: `h264`.

A container's mark of a keyframe is not enough. It may stand at any picture, and even one without
references of its own may be followed by others that look back beyond it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np

from eyeline.media._raw import RawReader
from eyeline.media._truncation import broken_at
from eyeline.media.container import ContainerReader
from eyeline.media.source import ImagesReader, VideoPath, reader_of
from eyeline.media.types import DecodeReport, FrameIndex, VideoOptions

_START_CODE = b"\0\0\1"

_SLICE, _IDR, _SEI, _SPS = 1, 5, 6, 7  # nal_unit_type, ITU-T H.264, table 7-1
_RECOVERY_POINT = 6  # SEI payload type, D.1.8

_HEADER = 64  # bytes of a unit that hold the fields of a slice's header that are read here

_WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles whose parameter sets say the chroma format, 7.3.2.1.1."""


class Pictures:
    """Follows `frame_num` through a stream.

    Args:
        extradata: the stream's, from the container.

    Attributes:
        gap: whether a reference picture is missing somewhere, or a header can't be read.
    """

    def __init__(self, extradata: bytes) -> None:
        self.gap = False
        self._length_size = length_size(extradata, 4)
        self._layout: tuple[bool, int] | None = None  # of slices' headers, see `_slice_layout`
        self._last: int | None = None  # frame_num of the last reference picture
        for unit in _stored_sets(extradata) if self._length_size else units(extradata, None):
            self._read_set(unit)

    def see(self, data: bytes) -> bool:
        """Take the next packet, in decoding order.

        Returns:
            Whether decoding may begin at it: an IDR picture, or a recovery point of zero frames that
            promises an exact match.
        """
        begins = False
        for unit in units(data, self._length_size):
            kind = unit[0] & 31
            if kind == _SPS:
                self._read_set(unit)
            elif kind == _SEI:
                begins = begins or _recovers_at_once(unit)
            elif kind in (_SLICE, _IDR):
                self._follow(unit)
                return begins or kind == _IDR
        return begins

    def _read_set(self, unit: bytes) -> None:
        if unit[0] & 31 == _SPS:
            layout = _slice_layout(unit)
            # Of several sets that differ, a slice would have to say which it means.
            self.gap |= layout is None or self._layout not in (None, layout)
            self._layout = layout

    def _follow(self, unit: bytes) -> None:
        """Hold the `frame_num` of a picture to those before (7.4.3)."""
        if self._layout is None:
            self.gap = True
            return
        planes, bits = self._layout
        fields = _Fields(unit[1:_HEADER])
        for _ in ("first_mb_in_slice", "slice_type", "pic_parameter_set_id"):
            fields.exp_golomb()
        fields.read(2 if planes else 0)
        number = fields.read(bits)
        if unit[0] & 31 == _IDR or self._last is None:
            self._last = number
            return
        self.gap |= (number - self._last) % (1 << bits) > 1
        if unit[0] >> 5 & 3:  # nal_ref_idc: a reference picture
            self._last = number


def length_size(extradata: bytes, at: int) -> int | None:
    """Bytes of a unit's length in MP4 and Matroska (ISO/IEC 14496-15); None for start codes.

    Args:
        extradata: a decoder configuration record, or units behind start codes.
        at: where the record says it: 4 in H.264's, 21 in HEVC's.
    """
    return (extradata[at] & 3) + 1 if extradata[:1] == b"\1" and len(extradata) > at else None


def units(data: bytes, size: int | None) -> Iterator[bytes]:
    """The network abstraction layer units of a packet, none of them empty; HEVC's too.

    Args:
        data: the packet.
        size: see `length_size`.
    """
    at = 0
    while size is not None and at + size < len(data):
        start = at + size
        at = start + int.from_bytes(data[at:start], "big")
        if at > start:
            yield data[start:at]
    if size is None:
        found = data.find(_START_CODE)
        while found >= 0:
            start = found + len(_START_CODE)
            found = data.find(_START_CODE, start)
            unit = data[start : found if found >= 0 else len(data)]
            if unit:
                yield unit


def _stored_sets(extradata: bytes) -> Iterator[bytes]:
    """Sequence parameter sets of a decoder configuration record (ISO/IEC 14496-15, 5.3.3.1.2)."""
    at = 6
    for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
        start = at + 2
        at = start + int.from_bytes(extradata[at:start], "big")
        if at > start:
            yield extradata[start:at]


class _Fields:
    """Bits of a unit's payload, read one field after the other; zeros behind the end."""

    def __init__(self, payload: bytes) -> None:
        plain = payload.replace(b"\0\0\3", b"\0\0")  # emulation prevention, 7.4.1
        self._bits = int.from_bytes(plain, "big")
        self.left = 8 * len(plain)

    def read(self, count: int) -> int:
        """An unsigned number of so many bits, u(n)."""
        self.left -= count
        return (self._bits >> self.left if self.left >= 0 else 0) & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        """An unsigned Exp-Golomb number, ue(v) of 9.1; ends at 32 zeros, which none has."""
        zeros = 0
        while zeros < 32 and not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def _slice_layout(unit: bytes) -> tuple[bool, int] | None:
    """From a sequence parameter set (7.3.2.1.1): are planes separate, and the bits of `frame_num`.

    None where it can't be read.
    """
    fields = _Fields(unit[1:])
    profile = fields.read(8)
    fields.read(16)  # constraints, level
    fields.exp_golomb()  # seq_parameter_set_id
    planes = False
    if profile in _WITH_CHROMA_FORMAT:
        chroma_format = fields.exp_golomb()
        planes = chroma_format == 3 and fields.read(1) == 1
        for _ in ("bit_depth_luma_minus8", "bit_depth_chroma_minus8"):
            fields.exp_golomb()
        fields.read(1)  # qpprime_y_zero_transform_bypass_flag
        if fields.read(1):  # seq_scaling_matrix_present_flag
            for i in range(12 if chroma_format == 3 else 8):
                if fields.read(1):
                    _skip_scaling_list(fields, 16 if i < 6 else 64)
    bits = fields.exp_golomb() + 4
    return (planes, bits) if bits <= 16 and fields.left >= 0 else None


def _skip_scaling_list(fields: _Fields, size: int) -> None:
    """7.3.2.1.1.1: differences, until a value comes out as 0."""
    last = 8
    for _ in range(size):
        code = fields.exp_golomb()
        last = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256  # se(v), 9.1.1
        if last == 0:
            return


def _recovers_at_once(unit: bytes) -> bool:
    """Whether SEI messages hold a recovery point of zero frames with an exact match (D.1.8)."""
    fields = _Fields(unit[1:])

    def number() -> int:  # a run of 255s and a last byte, 7.3.2.3.1
        value = last = fields.read(8)
        while last == 255 and fields.left >= 8:
            last = fields.read(8)
            value += last
        return value

    while fields.left >= 24:  # a message has two bytes at least, and one more follows
        kind, size = number(), number()
        if kind == _RECOVERY_POINT and size:
            return fields.exp_golomb() == 0 and fields.read(1) == 1
        fields.read(8 * size)
    return False


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


__all__ = ["FrameIndex", "index_frames"]

MAX_REORDER = 16
"""Frames by which decoding and presentation order may differ: the size of the picture buffer of
H.264 (ITU-T H.264, A.3.1) and HEVC (ITU-T H.265, A.4.2), the largest of all codecs."""


def index_frames(path: VideoPath, options: VideoOptions | None = None) -> FrameIndex | None:
    """Find every frame of a video and where decoding may begin, without decoding.

    Args:
        path: see `eyeline.media.open_video`.
        options: how it will be read.

    Returns:
        The index. None where packets don't tell frames for sure, or there is nothing to seek:
        stdin, pipes and Y4M; elementary streams and others without presentation times; files that
        are cut short or damaged; edit lists that hide frames; times out of order; codecs whose
        keyframes are not known to be independent; a single keyframe.

    Raises:
        MediaError, UsageError: it can't be read; see `eyeline.media.open_video`.
    """
    if isinstance(path, str | os.PathLike) and (path == "-" or Path(path).is_fifo()):
        return None  # read once
    report = DecodeReport()
    reader = reader_of(path, options or VideoOptions(), report)
    try:
        if isinstance(reader, ContainerReader):
            found = _index_packets(reader)
            whole = found is not None and not report.corrupt and not reader.ended_early()
            return found if whole and not _broken(reader) else None
        if isinstance(reader, RawReader | ImagesReader):
            numbers = np.arange(reader.frames or 0)
            return FrameIndex(numbers, numbers) if len(numbers) > 1 else None
        return None
    finally:
        reader.close()


def _broken(reader: ContainerReader) -> bool:
    return "matroska" in reader.format and broken_at(reader.path) is not None


def _index_packets(reader: ContainerReader) -> FrameIndex | None:
    times: list[int] = []  # of frames, in decoding order
    starts: list[int] = []  # of keyframes
    last: int | None = None
    codec = reader.stream.codec_context
    pictures = Pictures(codec.extradata or b"") if codec.name == "h264" else None
    for packet in reader.packets():
        if packet.size == 0 and packet.dts is None:
            continue  # the demuxer's last word
        dts, pts = packet.dts, packet.pts
        if packet.size == 0 or packet.is_corrupt or packet.is_discard or pts is None:
            return None
        if dts is not None and last is not None and dts <= last:
            return None  # joined or damaged: decoded on its own, a part may come out otherwise
        last = last if dts is None else dts
        if not shows(codec.name, packet):
            continue
        begins = pictures.see(bytes(packet)) if pictures else may_begin(codec, packet)
        if begins and packet.is_keyframe:
            starts.append(pts)
        times.append(pts)
    if not times or (pictures and pictures.gap):
        return None
    order = np.array(times, np.int64)
    pts_in_order = np.sort(order)
    ranks = np.searchsorted(pts_in_order, order)
    keyframes = np.searchsorted(pts_in_order, np.sort(np.array(starts, np.int64)))
    if len(order) > 1 and np.diff(pts_in_order).min() <= 0:
        return None
    if np.abs(ranks - np.arange(len(ranks))).max() > MAX_REORDER:
        return None
    if len(keyframes) < 2 or keyframes[0] != 0:
        return None
    return FrameIndex(pts_in_order, keyframes)
