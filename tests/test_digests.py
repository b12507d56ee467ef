"""Digests: the published value of a known input, of bytes and of a file alike."""

from pathlib import Path

import pytest

from eyeline.digests import file_sha256, sha256_hex
from eyeline.errors import EyelineError

# FIPS 180-2, appendix B.1: SHA-256 of "abc".
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_bytes_and_file_have_the_published_digest(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert (sha256_hex(b"abc"), file_sha256(tmp_path / "f")) == (ABC, ABC)


def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(EyelineError, match="absent"):
        file_sha256(tmp_path / "absent")
