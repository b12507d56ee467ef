"""Parse the protobuf encoding of an ONNX file within limits.

The reader knows only the fields of onnx.proto and limits their number and nesting. An ONNX parser runs
only on files that passed this reader. The reader rejects everything that two parsers could read
differently: unknown fields, a second value of a field that is not repeated, integers that are too long,
and text that is not UTF-8. The encoding is described at protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from eyeline.scan.records import RefusedError


class Field(NamedTuple):
    """A field of a message type, as listed in `onnx_fields.txt`."""

    name: str
    kind: str
    repeated: bool


def _read_fields() -> dict[str, dict[int, Field]]:
    messages: dict[str, dict[int, Field]] = {}
    for line in Path(__file__).with_name("onnx_fields.txt").read_text().splitlines():
        if line.startswith("["):
            fields = messages.setdefault(line.strip("[]"), {})
        elif not line.startswith("#"):
            number, name, kind = line.split()
            fields[int(number)] = Field(name.rstrip("*"), kind, name.endswith("*"))
    return messages


MESSAGES = _read_fields()
"""Maps the name of a message type to its fields by field number."""

_VARINT, _FIXED64, _BLOCK, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {
    "i32": 0,
    "i64": 0,
    "u64": 0,
    "f64": 1,
    "f32": 5,
}  # all other kinds are length-delimited
_FLOATS = {"f32": struct.Struct("<f"), "f64": struct.Struct("<d")}
_CONTINUED = bytes(range(128, 256))  # all bytes of a varint except its last have bit 7 set
_MAX_PACKED_INTS = 4096  # bytes; longer lists of integers stay packed


@dataclass(frozen=True, slots=True)
class Packed:
    """A long list of numbers that stays in its packed encoding."""

    data: memoryview
    kind: str

    def __len__(self) -> int:
        if self.kind in _FLOATS:
            return len(self.data) // _FLOATS[self.kind].size
        return len(
            bytes(self.data).translate(None, _CONTINUED)
        )  # counts the last byte of each varint


class Message(dict[str, Any]):
    """The fields of a message by name.

    A repeated field is a list, or a `Packed` for packed floats and long lists of packed integers.
    """

    __slots__ = ()

    def text(self, name: str) -> str:
        """Return a string field; "" if it is missing."""
        return str(self.get(name, ""))

    def number(self, name: str) -> int:
        """Return an integer field; 0 if it is missing."""
        return int(self.get(name, 0))

    def message(self, name: str) -> Message | None:
        """Return a field that is a message; None if it is missing."""
        return self.get(name)

    def repeated(self, name: str) -> Any:
        """Return a repeated field as a list or a `Packed`; an empty list if it is missing."""
        return self.get(name, [])

    def messages(self, name: str) -> Iterator[Message]:
        """Iterate over a repeated field of messages."""
        yield from self.get(name, ())


class WireReader:
    """A parser of one file with at most `max_fields` fields; packed numbers are not counted.

    `unknown` collects (path, field number) of the fields that onnx.proto does not have.
    """

    def __init__(self, data: bytes, max_fields: int, max_depth: int) -> None:
        self.data, self.max_fields, self.max_depth = data, max_fields, max_depth
        self.view = memoryview(data)
        self.fields = 0
        self.unknown: list[tuple[str, int]] = []

    def read(self) -> Message:
        """Parse the whole model; raise a `RefusedError` if the encoding is invalid."""
        return self._message("Model", 0, len(self.data), ())

    def _message(self, kind: str, at: int, end: int, path: tuple[str, ...]) -> Message:
        if len(path) > self.max_depth:
            raise _error(path, "depth", f"messages are nested more than {self.max_depth} deep")
        table, fields, data = MESSAGES[kind], Message(), self.data
        while at < end:
            self.fields += 1
            if self.fields > self.max_fields:
                raise _error(path, "elements", f"the file has more than {self.max_fields} fields")
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = self._varint(at - 1, end, path)
            number, wire_type = tag >> 3, tag & 7
            if not 1 <= number < 1 << 29:
                raise _error(path, "malformed", f"field number {number} is invalid")
            field = table.get(number)
            # Find the end of the value first, as unknown fields are skipped.
            value, size = 0, 0
            if wire_type == _VARINT:
                value, at = self._varint(at, end, path)
            elif wire_type == _BLOCK:
                size, at = self._varint(at, end, path)
            elif wire_type in (_FIXED64, _FIXED32):
                size = 8 if wire_type == _FIXED64 else 4
            else:
                raise _error(path, "malformed", f"wire type {wire_type} in {kind} is invalid")
            start, at = at, at + size
            if at > end:
                raise _error(path, "malformed", f"field {number} of {kind} is cut off")
            if field is None:
                if len(self.unknown) < 32:  # further fields are not reported
                    self.unknown.append((_join(path), number))
                continue
            if field.repeated:
                found = fields.setdefault(field.name, [])
                if isinstance(found, Packed):
                    raise _error(path, "ambiguous", f"{field.name} continues after a packed list")
                index = len(found)
            elif field.name in fields:
                raise _error(path, "ambiguous", f"{field.name} is given twice")
            else:
                found, index = None, None
            parsed: Any
            if field.kind in _WIRE_TYPES:
                if wire_type == _BLOCK and found is not None:
                    self._packed(fields, field, start, at, path)
                    continue
                if wire_type != _WIRE_TYPES[field.kind]:
                    raise _error(path, "malformed", f"{field.name} has the wrong wire type")
                if field.kind in _FLOATS:
                    parsed = _FLOATS[field.kind].unpack_from(data, start)[0]
                else:
                    parsed = _integer(field, value, path)
            elif wire_type != _BLOCK:
                raise _error(path, "malformed", f"{field.name} has the wrong wire type")
            elif field.kind == "bytes":
                parsed = self.view[start:at]
            elif field.kind == "str":
                try:
                    parsed = str(self.view[start:at], "utf-8")
                except UnicodeDecodeError:
                    raise _error(path, "malformed", f"{field.name} is not UTF-8") from None
            else:
                name = field.name if index is None else f"{field.name}[{index}]"
                parsed = self._message(field.kind, start, at, (*path, name))
            if found is None:
                fields[field.name] = parsed
            else:
                found.append(parsed)
        return fields

    def _packed(
        self, fields: Message, field: Field, start: int, end: int, path: tuple[str, ...]
    ) -> None:
        found = fields[field.name]
        if field.kind in _FLOATS or end - start > _MAX_PACKED_INTS:
            if found:
                raise _error(path, "ambiguous", f"{field.name} is partly packed")
            if (
                (end - start) % _FLOATS[field.kind].size
                if field.kind in _FLOATS
                else self.data[end - 1] > 127
            ):
                raise _error(path, "malformed", f"{field.name} is cut off")
            fields[field.name] = Packed(self.view[start:end], field.kind)
            return
        while start < end:
            value, start = self._varint(start, end, path)
            found.append(_integer(field, value, path))

    def _varint(self, at: int, end: int, path: tuple[str, ...]) -> tuple[int, int]:
        value = shift = 0
        data = self.data
        while at < end and shift < 70:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 64:
                    break
                return value, at
            shift += 7
        raise _error(path, "malformed", "an integer is cut off or is longer than 64 bits")


def _integer(field: Field, value: int, path: tuple[str, ...]) -> int:
    if field.kind == "u64":
        return value
    signed = value - (1 << 64) if value >> 63 else value
    if field.kind == "i32" and not -(1 << 31) <= signed < 1 << 31:
        raise _error(path, "ambiguous", f"{field.name} does not fit in 32 bits")
    return signed


def _error(path: tuple[str, ...], code: str, reason: str) -> RefusedError:
    return RefusedError(code, reason, _join(path))


def _join(path: tuple[str, ...]) -> str:
    return "/".join(path) or "model"
