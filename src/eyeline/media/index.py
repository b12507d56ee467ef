"""Index the frames of a video from its packets, so that a part of it can be decoded.

`index_frames` reads packets and decodes nothing. It returns an index only if the packets show with
certainty where the frames are and where decoding may begin. A `Video` that is given the index checks
every frame against it (`SeekError`), so that a misleading file cannot change a result.

A container's mark of a keyframe is not enough: it may stand at any picture, and pictures after an
intra picture may refer to pictures before it. So the codec's own headers decide (`_RULES`).

H.264 needs one more check. When a reference picture is missing, a decoder silently substitutes another
one, and a different one after a seek. `H264References` finds such gaps by the numbers in the slice
headers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from eyeline.media._raw import RawReader
from eyeline.media._truncation import broken_at
from eyeline.media.container import ContainerReader
from eyeline.media.source import ImagesReader, VideoPath, reader_of
from eyeline.media.types import DecodeReport, FrameIndex, VideoOptions

MAX_REORDER = 16
"""Largest number of frames by which decoding and presentation order may differ: the size of the picture
buffer of H.264 (ITU-T H.264, A.3.1) and HEVC (ITU-T H.265, A.4.2), the largest of all codecs."""


def index_frames(path: VideoPath, options: VideoOptions | None = None) -> FrameIndex | None:
    """Find every frame of a video and where decoding may begin, without decoding.

    Args:
        path: see `eyeline.media.open_video`.
        options: how the video will be read.

    Returns:
        The index, or None where there is nothing to seek or the packets do not show the frames with
        certainty: stdin, pipes and Y4M; streams without presentation times, such as elementary streams;
        files that are cut short or damaged; edit lists that hide frames; times out of order; codecs
        without a rule in `_RULES`; a single keyframe.

    Raises:
        MediaError, UsageError: the video cannot be read; see `eyeline.media.open_video`.
    """
    if isinstance(path, str | os.PathLike) and (path == "-" or Path(path).is_fifo()):
        return None  # stdin and pipes can be read only once
    report = DecodeReport()
    reader = reader_of(path, options or VideoOptions(), report)
    try:
        if isinstance(reader, ContainerReader):
            found = _index_packets(reader)
            if found is None or report.corrupt or reader.ended_early():
                return None
            if "matroska" in reader.format and broken_at(reader.path) is not None:
                return None
            return found
        if isinstance(reader, RawReader | ImagesReader):
            numbers = np.arange(reader.frames or 0)
            return FrameIndex(numbers, numbers) if len(numbers) > 1 else None
        return None
    finally:
        reader.close()


def _index_packets(reader: ContainerReader) -> FrameIndex | None:
    times: list[int] = []  # times of the frames, in decoding order
    starts: list[int] = []  # times of the keyframes
    last: int | None = None
    codec = reader.stream.codec_context
    extradata = codec.extradata or b""
    references = H264References(extradata) if codec.name == "h264" else None
    rule = _RULES.get(codec.name)
    for packet in reader.packets():
        dts, pts, data = packet.dts, packet.pts, bytes(packet)
        if not data and dts is None:
            continue  # the demuxer's end mark
        if not data or packet.is_corrupt or packet.is_discard or pts is None:
            return None
        if dts is not None and last is not None and dts <= last:
            return None  # joined or damaged: a part decoded on its own may differ
        last = last if dts is None else dts
        if codec.name == "vp8" and not data[0] & 0x10:
            continue  # never shown: only later packets refer to it (RFC 6386, 9.1)
        begins = references.add(data) if references else rule is not None and rule(data, extradata)
        if begins and packet.is_keyframe:
            starts.append(pts)
        times.append(pts)
    if not times or (references and references.gap):
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


def units(data: bytes, size: int | None) -> Iterator[bytes]:
    """Yield the non-empty network abstraction layer units of an H.264 or HEVC packet.

    `size` is the bytes of a unit's length field, or None for start codes (see `_length_size`).
    """
    at = 0
    while size is not None and at + size < len(data):
        start = at + size
        at = start + int.from_bytes(data[at:start], "big")
        if at > start:
            yield data[start:at]
    if size is None:
        yield from filter(None, data.split(b"\0\0\1")[1:])


def _length_size(extradata: bytes, at: int) -> int | None:
    """Return the size of a unit's length field in MP4 and Matroska (ISO/IEC 14496-15), else None.

    The decoder configuration record states it at byte 4 for H.264, at byte 21 for HEVC.
    """
    return (extradata[at] & 3) + 1 if extradata[:1] == b"\1" and len(extradata) > at else None


# Rules: whether decoding from a packet gives its frame, and all frames shown after it, exactly.


def _mpeg12(data: bytes, extradata: bytes) -> bool:
    """Detect an I picture: pictures shown after it use only it and later ones (ISO/IEC 13818-2, 6.3.9)."""
    at = data.find(b"\0\0\1\0")
    return 0 <= at < len(data) - 5 and data[at + 5] >> 3 & 7 == 1


def _mpeg4(data: bytes, extradata: bytes) -> bool:
    """Detect an I-VOP by its `vop_coding_type` (ISO/IEC 14496-2, 6.3.5); references as in MPEG-2."""
    at = data.find(b"\0\0\1\xb6")
    return 0 <= at < len(data) - 4 and data[at + 4] >> 6 == 0


def _hevc(data: bytes, extradata: bytes) -> bool:
    """Detect an intra random access point: pictures after it in both orders refer to none before it."""
    kinds = (unit[0] >> 1 & 63 for unit in units(data, _length_size(extradata, 21)))
    return 16 <= next((kind for kind in kinds if kind < 32), 0) <= 23  # ITU-T H.265, table 7-1


def _ffv1(data: bytes, extradata: bytes) -> bool:
    """Detect a key frame that resets all state: the first range-coded bit (RFC 9043, 3.8, 4.4)."""
    return int.from_bytes(data[:2], "big") >= 0x7F80


def _vp8(data: bytes, extradata: bytes) -> bool:
    """Detect a shown key frame, which replaces all references (RFC 6386, 9.1 and 9.7)."""
    return data[0] & 0x11 == 0x10


def _vp9(data: bytes, extradata: bytes) -> bool:
    """Detect a key frame, which replaces all references (VP9 specification 0.6, 6.2 and 8.10)."""
    profile = data[0] >> 5 & 1 | data[0] >> 3 & 2
    # After the profile: show_existing_frame, then frame_type, 0 for a key frame.
    return data[0] >> 6 == 2 and data[0] >> (1 if profile == 3 else 2) & 3 == 0


def _av1(data: bytes, extradata: bytes) -> bool:
    """Detect a shown key frame, which replaces all references (AV1 specification, 5.9.2 and 7.20)."""
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


_INTRA = (
    *("mjpeg", "prores", "dnxhd", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "cfhd"),
    *("rawvideo", "v210", "jpeg2000", "png"),
)
"""Codecs that code every picture on its own."""

_RULES: Mapping[str, Callable[[bytes, bytes], bool]] = MappingProxyType(
    {
        **dict.fromkeys(_INTRA, lambda data, extradata: True),
        "ffv1": _ffv1,
        **dict.fromkeys(("mpeg1video", "mpeg2video"), _mpeg12),
        "mpeg4": _mpeg4,
        "hevc": _hevc,
        "vp8": _vp8,
        "vp9": _vp9,
        **dict.fromkeys(("av1", "libdav1d", "libaom-av1"), _av1),
    }
)
"""The rule for each of FFmpeg's decoders, from a packet and the extradata. H.264 has its own class."""

_SLICE, _IDR, _SEI, _SPS = 1, 5, 6, 7  # nal_unit_type, ITU-T H.264, table 7-1
_RECOVERY_POINT = 6  # SEI payload type, D.1.8
_HEADER = 64  # bytes of a unit that hold the fields of a slice header that are read here

_WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles whose parameter sets state the chroma format (ITU-T H.264, 7.3.2.1.1)."""


class H264References:
    """Follow `frame_num` through a stream; `gap` says that a reference or a header is missing."""

    def __init__(self, extradata: bytes) -> None:
        self.gap = False
        self._length_size = _length_size(extradata, 4)
        self._layout: tuple[bool, int] | None = None  # layout of slice headers, see `_slice_layout`
        self._last: int | None = None  # frame_num of the last reference picture
        sets = units(extradata, None)
        if self._length_size:  # a decoder configuration record (ISO/IEC 14496-15, 5.3.3.1.2)
            sets = islice(units(extradata[6:], 2), sum(extradata[5:6]) & 31)
        for unit in sets:
            self._read_set(unit)

    def add(self, data: bytes) -> bool:
        """Follow the next packet in decoding order; return whether decoding may begin at it.

        Decoding may begin at an IDR picture, and at a recovery point of zero frames that promises an
        exact match.
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
            # Sets that differ count as a gap, because the slice headers would have to be read for
            # the set that they mean.
            self.gap |= layout is None or self._layout not in (None, layout)
            self._layout = layout

    def _follow(self, unit: bytes) -> None:
        """Compare the `frame_num` of a picture with that of the last reference picture (7.4.3)."""
        if self._layout is None:
            self.gap = True
            return
        planes, bits = self._layout
        fields = _Bits(unit[1:_HEADER])
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


class _Bits:
    """Read the bits of a unit's payload; zeros follow its end."""

    def __init__(self, payload: bytes) -> None:
        plain = payload.replace(b"\0\0\3", b"\0\0")  # emulation prevention, 7.4.1
        self._bits = int.from_bytes(plain, "big")
        self.left = 8 * len(plain)

    def read(self, count: int) -> int:
        self.left -= count
        return (self._bits >> self.left if self.left >= 0 else 0) & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        """Read an unsigned Exp-Golomb number, ue(v) of 9.1; valid ones have under 32 zeros."""
        zeros = 0
        while zeros < 32 and not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def _slice_layout(unit: bytes) -> tuple[bool, int] | None:
    """Read whether planes are separate, and the bits of `frame_num`, from a sequence parameter set.

    Return None where the set (7.3.2.1.1) cannot be read.
    """
    fields = _Bits(unit[1:])
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


def _skip_scaling_list(fields: _Bits, size: int) -> None:
    """Skip differences until a value comes out as 0 (7.3.2.1.1.1)."""
    last = 8
    for _ in range(size):
        code = fields.exp_golomb()
        last = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256  # se(v), 9.1.1
        if last == 0:
            return


def _recovers_at_once(unit: bytes) -> bool:
    """Return whether SEI messages hold a recovery point of zero frames and exact match (D.1.8)."""
    fields = _Bits(unit[1:])

    def number() -> int:  # a run of 255s and a last byte, 7.3.2.3.1
        value = last = fields.read(8)
        while last == 255 and fields.left >= 8:
            last = fields.read(8)
            value += last
        return value

    while fields.left >= 24:  # a message has at least two bytes, and one more follows
        kind, size = number(), number()
        if kind == _RECOVERY_POINT and size:
            return fields.exp_golomb() == 0 and fields.read(1) == 1
        fields.read(8 * size)
    return False
