"""What each encoder can do with regions: `capabilities.toml`, read once, and the refusals it means."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from eyeline.errors import EncoderError, OutputError


class Capability(BaseModel):
    """One encoder's row; see the head of `capabilities.toml` for the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    library: str
    route: Literal["sidedata", "mapfile"]
    block: int
    qp_range: dict[int, int]
    most_levels: int | None = None
    formats: tuple[str, ...]
    rates: tuple[Literal["crf", "bitrate", "qp"], ...]
    passes: int
    containers: tuple[str, ...]
    parameters: str | None = None
    separator: str = ":"
    presets: tuple[str, ...]
    preset_option: str = "preset"
    default_preset: str | None = None
    default_crf: float | None = None
    default_qp: int | None = None
    fixed: dict[str, str] = {}
    fixed_parameters: dict[str, str] = {}
    refused: dict[str, tuple[str, ...]] = {}
    reason: dict[str, str] = {}


@lru_cache(maxsize=1)
def _table() -> tuple[dict[str, Capability], dict[str, str]]:
    data = tomllib.loads(
        files("eyeline.roi.encode").joinpath("capabilities.toml").read_text("utf-8")
    )
    rows = {name: Capability.model_validate(row) for name, row in data["encoder"].items()}
    return rows, data["ignores"]


def encoders() -> Mapping[str, Capability]:
    """Encoders that obey regions, by the name that `--codec` takes."""
    return _table()[0]


def capability(codec: str) -> Capability:
    """The row of an encoder.

    Raises:
        EncoderError: one that ignores regions, with the reason, or one that is not known.
    """
    rows, ignores = _table()
    if codec in rows:
        return rows[codec]
    known = {row.library: name for name, row in rows.items()}
    if codec in known:
        return rows[known[codec]]
    if codec in ignores:
        raise EncoderError(
            f"{codec}: ignores regions: {ignores[codec]}", f"use one of {', '.join(rows)}"
        )
    raise EncoderError(f"{codec}: not an encoder known here", f"use one of {', '.join(rows)}")


def parse_parameters(text: str, separator: str = ":") -> dict[str, str]:
    """`a=1:b=2` as encoders take it, to a mapping; a name alone means 1."""
    pairs = (part.partition("=") for part in text.split(separator) if part)
    return {name.strip(): value if equals else "1" for name, equals, value in pairs}


def check_options(row: Capability, options: Mapping[str, str]) -> None:
    """Refuse options with which the encoder would drop the regions, or that undo what it needs.

    Args:
        row: of the encoder.
        options: FFmpeg's names to values; the string of parameters is looked into.

    Raises:
        EncoderError: such an option, by name.
    """
    given = dict(options)
    if row.parameters and row.parameters in given:
        given |= parse_parameters(given.pop(row.parameters), row.separator)
    for name, value in given.items():
        values = row.refused.get(name, ())
        if value in values or "*" in values:
            raise EncoderError(
                f"{row.library}: {name}={value} makes it ignore regions: {row.reason[name]}",
                "leave it out",
            )
        needed = row.fixed.get(name) or (row.fixed_parameters.get(name) if name == "gop" else None)
        if needed is not None and value != needed:
            raise EncoderError(
                f"{row.library}: {name}={value} makes it ignore regions", f"it needs {needed}"
            )
    preset = given.get(row.preset_option)
    if preset is not None and preset not in row.presets:
        raise EncoderError(
            f"{row.library}: {row.preset_option} {preset} is not one",
            f"use one of {', '.join(row.presets)}",
        )


def check_container(row: Capability, path: str | Path) -> None:
    """Refuse a suffix that can't hold the encoder's stream.

    Raises:
        OutputError: such a suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in row.containers:
        raise OutputError(
            f"{path}: {row.library} is not written as {suffix or 'a file without a suffix'}",
            f"use {' or '.join(row.containers)}",
        )
