"""All formats: what is written reads back, what is not a log is refused, no half file stays."""

import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyeline.errors import LogError, OutputError
from eyeline.logs import Log, read_log, write_log
from sample_logs import make_log

DATA = Path(__file__).parent / "data"
SUFFIXES = ("json", "csv", "parquet")


def same(a: list[float], b: list[float]) -> bool:
    return [struct.pack("d", x) for x in a] == [struct.pack("d", x) for x in b]


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.:/=% -]{0,12}[A-Za-z0-9_]", fullmatch=True).filter(
    lambda name: name not in ("Frame", "pts_time", "frameNum") and not name.startswith("eyeline=")
)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | st.text(max_size=8)
provenances = st.dictionaries(st.text(max_size=6), plain | st.lists(plain, max_size=3), max_size=4)


@st.composite
def logs(draw):
    columns = draw(st.lists(names, unique=True, max_size=4))
    provenance = draw(provenances.filter(lambda p: "merged_log" not in p))
    log = Log(columns, provenance, draw(st.none() | st.floats(1, 240)))
    for number in sorted(draw(st.sets(st.integers(0, 10**9), max_size=6))):
        log.append(number, draw(numbers), {name: draw(numbers) for name in columns})
    return log


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60)
@given(log=logs())
def test_what_is_written_reads_back_bit_for_bit(tmp_path, suffix, log):
    path = tmp_path / f"log.{suffix}"
    write_log(log, path)
    back = read_log(path)
    if suffix == "json" and not len(log):
        log.columns, log.values = [], {}  # JSON names metrics in its frames only
    assert back.columns == log.columns
    assert back.provenance == log.provenance
    assert back.fps == log.fps
    assert back.frame_num == log.frame_num
    assert same(back.pts_time, log.pts_time)
    assert all(same(back.values[name], log.values[name]) for name in log.columns)


@pytest.mark.parametrize(("suffix", "kept"), [("csv", True), ("parquet", True), ("json", False)])
def test_numbers_that_are_not_finite(tmp_path, suffix, kept):
    log = Log(["x"], {})
    for i, value in enumerate([math.inf, -math.inf, math.nan, 1.0]):
        log.append(i, i / 25, {"x": value})
    write_log(log, tmp_path / f"log.{suffix}")
    x = read_log(tmp_path / f"log.{suffix}").values["x"]
    assert list(x[:2]) == [math.inf, -math.inf] if kept else all(map(math.isnan, x[:2]))
    assert math.isnan(x[2])
    assert x[3] == 1.0


def test_libvmaf_json_and_csv_read_the_same():
    from_json, from_csv = read_log(DATA / "vmaf.json"), read_log(DATA / "vmaf.csv")
    assert from_json.columns == from_csv.columns
    assert from_json.values == from_csv.values
    assert from_json.values["vmaf"][2] == 81.196591
    assert list(from_json.frame_num) == [0, 1, 2]
    assert all(map(math.isnan, from_json.pts_time))
    assert from_json.fps is None  # libvmaf's fps is how fast it ran
    assert from_json.provenance == {"libvmaf_version": "86da14d"}


def test_a_log_is_known_by_its_content(tmp_path):
    (tmp_path / "vmaf.log").write_bytes((DATA / "vmaf.csv").read_bytes())
    assert read_log(tmp_path / "vmaf.log").values["vmaf"][0] == 83.856284


def test_stdout_is_json_unless_told(capfdbinary):
    write_log(make_log(), "-")
    assert json.loads(capfdbinary.readouterr().out)["frames"][2]["frameNum"] == 2
    write_log(make_log(), "-", format="csv")
    assert capfdbinary.readouterr().out.startswith(b"Frame,pts_time,")


def test_format_wins_over_the_suffix(tmp_path):
    write_log(make_log(), tmp_path / "log.txt", format="json")
    assert json.loads((tmp_path / "log.txt").read_text())["fps"] == 23.976


@pytest.mark.parametrize(("path", "form"), [("log.yaml", None), ("log", None), ("log.csv", "yaml")])
def test_an_unknown_format_is_refused_by_name(tmp_path, path, form):
    with pytest.raises(OutputError, match=form or path):
        write_log(make_log(), tmp_path / path, format=form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a log"),
        ("hello", "is not a log"),
        ("<VMAF>", "not XML"),
        ("{", "not JSON"),
        ('{"a": 1}', "no list of frames"),
        ('{"frames": [{"metrics": {}}]}', "entry 0"),
        ('{"frames": [{"frameNum": true, "metrics": {}}]}', "entry 0"),
        ('{"frames": [{"frameNum": 4}]}', "frame 4 has no metrics"),
        ('{"frames": [{"frameNum": 4, "metrics": {"a": "1"}}]}', "frame 4: a is not a number"),
        ('{"frames": [{"frameNum": 4, "metrics": {"a": 1, "a": 2}}]}', "'a' appears twice"),
        ('{"frames": [], "provenance": 3}', "provenance is not an object"),
        ("[" * 100_000, "is not a log"),
        ('{"frames": ' + "[" * 100_000, "JSON|deep"),
        ("Frame,a,\n0,1,2,\n", "line 2 has 3 cells, but the header has 2"),
        ("Frame,a,\n0,x,\n", "line 2.*'x'"),
        ("Frame,a,\n0.5,1,\n", "line 2"),
        ("Frame,a,a,\n0,1,1,\n", "'a' appears twice"),
        ("Frame,a,eyeline=nonsense\n", "provenance in the header"),
        ("PAR1 and no more", "not Parquet"),
    ],
)
def test_what_is_no_log_is_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "log").write_text(text)
    with pytest.raises(LogError, match=words) as caught:
        read_log(tmp_path / "log")
    assert str(tmp_path / "log") in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_frame_that_appears_twice_is_refused(tmp_path, suffix):
    log = make_log()
    log.append(1, 9.0, dict.fromkeys(log.columns, 0.0))
    write_log(log, tmp_path / f"log.{suffix}")
    with pytest.raises(LogError, match=r"frame 1 appears 2 times \(4 rows, 3 different"):
        read_log(tmp_path / f"log.{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_log_is_refused(tmp_path, suffix):
    write_log(make_log(), tmp_path / f"log.{suffix}")
    whole = (tmp_path / f"log.{suffix}").read_bytes()
    # A CSV that ends between two lines can't be told from a shorter one.
    (tmp_path / "cut").write_bytes(whole[: -4 if suffix == "csv" else len(whole) // 2])
    if suffix == "csv":
        (tmp_path / "cut").write_bytes(whole[:-3].rsplit(b",", 1)[0])
    with pytest.raises(LogError):
        read_log(tmp_path / "cut")


def test_a_missing_log_is_one_line(tmp_path):
    with pytest.raises(LogError, match="No such file"):
        read_log(tmp_path / "none.json")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_stdout_is_one_line_and_silent_at_exit():
    script = (
        "from eyeline.errors import OutputError\n"
        "from eyeline.logs import Log, write_log\n"
        "import sys\n"
        "try: write_log(Log(['x'], {}), '-')\n"
        "except OutputError as exc: print(exc, file=sys.stderr); sys.exit(7)\n"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 7
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_nothing(tmp_path, suffix):
    script = (
        "import resource, signal, sys\n"
        "from eyeline.errors import OutputError\n"
        "from eyeline.logs import Log, write_log\n"
        "import pyarrow.parquet\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "log = Log(['x'], {})\n"
        "for i in range(9000): log.append(i, i / 25, {'x': (i * 0.6180339887) % 1})\n"
        "try: write_log(log, sys.argv[1])\n"
        "except OutputError as exc: print(exc); sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / f"log.{suffix}")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert f"log.{suffix}: can't be written" in done.stdout
    assert list(tmp_path.iterdir()) == []
