"""Parquet logs."""

import sys

import pytest

from eyeline.errors import MissingExtraError
from eyeline.logs import write_log
from sample_logs import make_log


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"eyeline\[parquet\]"):
        write_log(make_log(), tmp_path / "log.parquet")
    assert list(tmp_path.iterdir()) == []
