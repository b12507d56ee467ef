"""H.264, as far as splitting a stream needs it: where decoding may begin, and that no picture is missing.

A decoder conceals a reference picture that is missing with what it has, which after a seek is
something else; it says nothing of it. The numbers in the slices' headers do.
"""

from __future__ import annotations

from collections.abc import Iterator

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
