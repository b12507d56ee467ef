"""Where data lies that tests use where it is: a module of its own, since several are named conftest."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
