"""Compare what the scanner reads from a model with what `onnx` reads."""

from __future__ import annotations

from typing import Any

from eyeline.scan._wire import Message, Packed, WireReader


def read(data: bytes) -> Message:
    reader = WireReader(data, 200_000, 40)
    message = reader.read()
    assert not reader.unknown
    return message


def same(ours: Message, theirs: Any) -> None:
    """Field by field, as the real parser reads them."""
    listed = {f.name: v for f, v in theirs.ListFields()}
    assert set(ours) == set(listed)
    for name, value in listed.items():
        mine = ours[name]
        if isinstance(mine, Packed):
            assert len(mine) == len(value)
        elif isinstance(mine, Message):
            same(mine, value)
        elif isinstance(mine, list) and mine and isinstance(mine[0], Message):
            assert len(mine) == len(value)
            for a, b in zip(mine, value, strict=True):
                same(a, b)
        elif isinstance(mine, memoryview):
            assert bytes(mine) == value
        elif isinstance(mine, list):
            assert [bytes(v) if isinstance(v, memoryview) else v for v in mine] == list(value)
        else:
            assert mine == value
