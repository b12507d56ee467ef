"""Read what each encoder does with regions from `capabilities.toml`, and refuse what undoes regions."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field

from eyeline.errors import EncoderError, OutputError
from eyeline.validation import Strict


class Capability(Strict):
    """One encoder's row; the head of `capabilities.toml` describes the fields."""

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
    fixed: dict[str, str] = Field(default={})
    fixed_parameters: dict[str, str] = Field(default={})
    refused: dict[str, tuple[str, ...]] = Field(default={})
    reason: dict[str, str] = Field(default={})


@lru_cache(maxsize=1)
def _table() -> tuple[dict[str, Capability], dict[str, str]]:
    data = tomllib.loads(files(__package__).joinpath("capabilities.toml").read_text("utf-8"))
    rows = {name: Capability.model_validate(row) for name, row in data["encoder"].items()}
    return rows, data["ignores"]


def encoders() -> Mapping[str, Capability]:
    """Return the rows by the name that `--codec` takes."""
    return _table()[0]


def capability(codec: str) -> Capability:
    """Return an encoder's row by the name that `--codec` takes, or by FFmpeg's name.

    Raises:
        EncoderError: the encoder ignores regions, or it is not in the table.
    """
    rows, ignores = _table()
    for name, row in rows.items():
        if codec in (name, row.library):
            return row
    hint = f"use one of {', '.join(rows)}"
    if codec in ignores:
        raise EncoderError(f"{codec}: ignores regions: {ignores[codec]}", hint)
    raise EncoderError(f"{codec}: not an encoder of `roi encode`", hint)


def parse_parameters(text: str, separator: str = ":") -> dict[str, str]:
    """Parse `a=1:b=2`, an encoder's own options; a name alone means 1."""
    pairs = (part.partition("=") for part in text.split(separator) if part)
    return {name.strip(): value if equals else "1" for name, equals, value in pairs}


def check_options(row: Capability, options: Mapping[str, str]) -> None:
    """Refuse options with which the encoder would ignore regions.

    Raises:
        EncoderError: there is such an option, or an unknown preset.
    """
    given = dict(options)
    if row.parameters and row.parameters in given:
        given |= parse_parameters(given.pop(row.parameters), row.separator)
    for name, value in given.items():
        values = row.refused.get(name, ())
        ignored = f"{row.library}: {name}={value} makes it ignore regions"
        if value in values or "*" in values:
            raise EncoderError(f"{ignored}: {row.reason[name]}", f"leave out {name}")
        needed = row.fixed.get(name) or (row.fixed_parameters.get(name) if name == "gop" else None)
        if needed is not None and value != needed:
            raise EncoderError(ignored, f"regions need {name}={needed}")
    preset = given.get(row.preset_option)
    if preset is not None and preset not in row.presets:
        raise EncoderError(
            f"{row.library}: {row.preset_option} {preset} is not supported",
            f"use one of {', '.join(row.presets)}",
        )


def check_container(row: Capability, path: Path) -> None:
    """Raise an OutputError for a suffix whose container is not used for the encoder's stream."""
    suffix = path.suffix.lower()
    if suffix not in row.containers:
        raise OutputError(
            f"{path}: {row.library} is not written to {suffix or 'a file without a suffix'}",
            f"use {' or '.join(row.containers)}",
        )
