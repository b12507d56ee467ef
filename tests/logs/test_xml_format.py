"""libvmaf's XML: read, written, merged into, and what a hostile one may not do."""

from pathlib import Path

import pytest

from eyeline.errors import LogError
from eyeline.logs import Log, read_log, write_log

THEIRS = """<VMAF version="3.0.0">
  <params qualityWidth="64" qualityHeight="48" />
  <fyi fps="113.20" />
  <frames>
    <frame frameNum="0" integer_motion2="0.000000" vmaf="97.428043" />
    <frame frameNum="1" integer_motion2="0.000003" vmaf="82.639805" />
  </frames>
  <pooled_metrics>
    <metric name="vmaf" min="82.639805" max="97.428043" mean="90.033924" harmonic_mean="89.437410" />
  </pooled_metrics>
  <aggregate_metrics />
</VMAF>
"""


def ours() -> Log:
    log = Log(["sw_vmaf"], {"model": "a < b & 'c'"}, fps=25.0)
    for i, value in enumerate((90.5, float("nan"))):
        log.append(i, i / 25, {"sw_vmaf": value})
    return log


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "vmaf.xml"
    path.write_text(THEIRS)
    return path


def test_a_log_reads_back(tmp_path: Path) -> None:
    write_log(ours(), tmp_path / "s.xml")
    log = read_log(tmp_path / "s.xml")
    assert (log.columns, log.fps, log.provenance) == (["sw_vmaf"], 25.0, ours().provenance)
    assert list(log.pts_time) == [0, 0.04]
    assert log.values["sw_vmaf"][0] == 90.5
    assert log.values["sw_vmaf"][1] != log.values["sw_vmaf"][1]


def test_libvmafs_log_is_read(theirs: Path) -> None:
    log = read_log(theirs)
    assert list(log.values["vmaf"]) == [97.428043, 82.639805]
    assert log.fps is None  # the speed of libvmaf's run
    assert log.provenance == {"libvmaf_version": "3.0.0", "compared_size": [64, 48]}


def test_merging_keeps_every_attribute_as_it_is_spelt(theirs: Path, tmp_path: Path) -> None:
    write_log(ours(), tmp_path / "both.xml", with_log=theirs)
    text = (tmp_path / "both.xml").read_text()
    for line in THEIRS.splitlines():
        assert line.strip().removesuffix("/>").removesuffix(">").strip() in text
    log = read_log(tmp_path / "both.xml")
    assert log.values["sw_vmaf"][0] == 90.5
    assert log.provenance["merged_log"] == {"libvmaf_version": "3.0.0", "compared_size": [64, 48]}


def test_a_metric_that_is_there_is_refused(theirs: Path, tmp_path: Path) -> None:
    log = Log(["vmaf"], {})
    for i in range(2):
        log.append(i, 0.0, {"vmaf": 1.0})
    with pytest.raises(LogError, match="already holds"):
        write_log(log, tmp_path / "both.xml", with_log=theirs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<VMAF><frames>", "not XML"),
        ("<html></html>", "not libvmaf's log"),
        ('<!DOCTYPE VMAF [<!ENTITY a "b">]><VMAF>&a;</VMAF>', "declares a document type"),
        ('<!DOCTYPE VMAF SYSTEM "file:///etc/hostname"><VMAF/>', "declares a document type"),
        ('<VMAF><frames><frame vmaf="1"/></frames></VMAF>', "no whole frameNum"),
        ('<VMAF><frames><frame frameNum="0" vmaf="x"/></frames></VMAF>', "vmaf is not a number"),
        (
            '<VMAF><frames><frame frameNum="0"/><frame frameNum="0"/></frames></VMAF>',
            "twice|2 times",
        ),
        ("<VMAF><provenance>{</provenance></VMAF>", "provenance can't be read"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.xml"
    path.write_text(text)
    with pytest.raises(LogError, match=words):
        read_log(path)


def test_a_name_that_is_no_attribute_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="can't be the name"):
        write_log(Log(["a b"], {}), tmp_path / "s.xml")
    assert not list(tmp_path.iterdir())
