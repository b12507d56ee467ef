"""Records of other people's files: TOML or JSON by the suffix, and no field that is not known."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from eyeline.errors import LicenceError, RegistryError, UsageError
from eyeline.validation import Strict, parse_record, read_record


class Size(Strict):
    width: int
    height: int = 2


def test_toml_and_json_give_the_same_record(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("width = 3\n")
    (tmp_path / "s.json").write_text('{"width": 3}')
    read = [read_record(Size, tmp_path / n, "a size", hint="") for n in ("s.toml", "s.json")]
    assert read == [Size(width=3)] * 2


def test_a_record_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Size(width=3).width = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("s.toml", b"width = \n"),
        ("s.toml", b"width = 1\ndepth = 1\n"),
        ("s.toml", b"\xff"),
        ("s.json", b"{"),
        ("s.json", b'{"width": "x"}'),
        ("s.json", b"[" * 100_000),
    ],
)
def test_anything_else_is_one_error_of_the_asked_class(name: str, data: bytes) -> None:
    with pytest.raises(LicenceError, match=f"{name}: the file is not a size") as caught:
        parse_record(Size, data, name, "a size", hint="write a width", error=LicenceError)
    assert "\n" not in caught.value.message
    assert caught.value.hint == "write a width"


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"width": 3}')
    with pytest.raises(RegistryError, match="at most 5"):
        read_record(Size, tmp_path / "s.json", "a size", hint="", error=UsageError, limit=5)
