"""JSON text for logs: a stream, numbers kept as they were spelt, non-finite ones as null."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eyeline.errors import LogError


class Spelt(float):
    """A float that remembers its spelling, so that a merged log repeats it to the letter."""

    text: str

    def __new__(cls, text: str) -> Spelt:
        """Parse `text` and keep it."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise LogError(f"the name {twice!r} appears twice in one object")
    return out


def parse(text: str) -> Any:
    """Read JSON; floats become `Spelt`, and NaN and Infinity (not JSON, yet seen) become null.

    Raises:
        LogError: an object names a key twice.
        ValueError: the text is not JSON.
    """
    return json.loads(
        text, parse_float=Spelt, parse_constant=lambda _: None, object_pairs_hook=_unique
    )


def _scalar(value: Any) -> str:
    if isinstance(value, Spelt) and math.isfinite(value):
        return value.text
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else "null"
    return json.dumps(value, ensure_ascii=False)


def compact(value: Any) -> str:
    """JSON on one line."""
    return "".join(dump(value, indent=None))


def dump(value: Any, *, indent: int | None = 0, step: int = 2) -> Iterator[str]:
    """Yield JSON text piece by piece.

    Args:
        value: mappings, sequences, iterators (written as arrays as they are consumed), scalars.
        indent: spaces before the closing bracket; None writes one line.
        step: spaces a level.
    """
    if isinstance(value, Mapping):
        opening, closing = "{", "}"
        items: Iterator[tuple[str, Any]] = (
            (json.dumps(str(k), ensure_ascii=False) + ": ", v) for k, v in value.items()
        )
    elif isinstance(value, Sequence | Iterator) and not isinstance(value, str):
        opening, closing = "[", "]"
        items = (("", v) for v in value)
    else:
        yield _scalar(value)
        return
    inner = None if indent is None else indent + step
    first, between = ("", ", ") if inner is None else ("\n" + " " * inner, ",\n" + " " * inner)
    empty = True
    yield opening
    for name, item in items:
        yield (first if empty else between) + name
        yield from dump(item, indent=inner, step=step)
        empty = False
    yield closing if empty or indent is None else "\n" + " " * indent + closing
