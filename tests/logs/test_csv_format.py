"""CSV logs: libvmaf's layout, which other readers keep understanding."""

import csv
import io

import pytest

from eyeline.errors import LogError
from eyeline.logs import write_log
from sample_logs import make_log


def test_csv_has_the_layout_of_libvmaf(tmp_path):
    write_log(make_log(), tmp_path / "log.csv")
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert header.startswith("Frame,pts_time,saliency_mean,saliency_std,")
    assert rows[1] == "1,0.04,0.6666666666666666,0.5,"


def test_csv_provenance_disturbs_no_reader(tmp_path):
    write_log(make_log(), tmp_path / "log.csv")
    text = (tmp_path / "log.csv").read_text()
    lines = text.splitlines()
    assert len(lines) == 4
    assert {line.count(",") for line in lines} == {4}
    assert '"' not in text
    assert [float(row["saliency_std"]) for row in csv.DictReader(io.StringIO(text))] == [
        0.25,
        0.5,
        0.75,
    ]


def test_csv_refuses_a_name_that_libvmaf_could_not_write(tmp_path):
    log = make_log(columns=("a,b",))
    with pytest.raises(LogError, match="a,b"):
        write_log(log, tmp_path / "log.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_old_log_survives_a_failed_write(tmp_path):
    path = tmp_path / "log.csv"
    write_log(make_log(), path)
    before = path.read_bytes()
    with pytest.raises(LogError):
        write_log(make_log(columns=("a\nb",)), path)
    assert path.read_bytes() == before
