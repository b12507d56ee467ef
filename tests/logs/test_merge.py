"""Columns merged into a log of libvmaf: its content stays, its frames must match."""

import difflib
import json
from pathlib import Path

import pytest

from eyeline.errors import LogError, OutputError
from eyeline.logs import Log, read_log, write_log

DATA = Path(__file__).parent / "data"
JSON, CSV = DATA / "vmaf.json", DATA / "vmaf.csv"


def make_log(numbers=(0, 1, 2), column: str = "saliency_mean") -> Log:
    log = Log([column], {"model": "m"}, fps=25.0)
    for number in numbers:
        log.append(number, number / 25, {column: number / 8})
    return log


def test_json_keeps_every_line_of_the_log_and_adds_ours(tmp_path):
    write_log(make_log(), tmp_path / "both.json", with_log=JSON)
    theirs = [line.rstrip(",") for line in JSON.read_text().splitlines()]
    both = [line.rstrip(",") for line in (tmp_path / "both.json").read_text().splitlines()]
    lost = [line for line in difflib.ndiff(theirs, both) if line.startswith("- ")]
    assert lost == ['-   "aggregate_metrics": {']  # empty: {} stands on one line now
    document = json.loads((tmp_path / "both.json").read_text())
    assert document["version"] == "86da14d"
    assert document["frames"][1]["pts_time"] == 0.04
    assert document["frames"][1]["metrics"]["saliency_mean"] == 0.125
    assert document["frames"][1]["metrics"]["vmaf"] == 82.639805
    assert document["pooled_metrics"]["saliency_mean"]["max"] == 0.25
    assert document["provenance"]["model"] == "m"


def test_csv_keeps_every_cell_as_it_is_spelt(tmp_path):
    write_log(make_log(), tmp_path / "both.csv", with_log=CSV)
    theirs = CSV.read_text().splitlines()
    both = (tmp_path / "both.csv").read_text().splitlines()
    assert both[0].startswith(theirs[0] + "pts_time,saliency_mean,eyeline=")
    assert both[1:] == [line + f"{n / 25!r},{n / 8!r}," for n, line in enumerate(theirs[1:])]


@pytest.mark.parametrize("existing", [JSON, CSV])
def test_a_merged_log_reads_back_with_both(tmp_path, existing):
    path = tmp_path / f"both{existing.suffix}"
    write_log(make_log(), path, with_log=existing)
    log = read_log(path)
    assert list(log.values["saliency_mean"]) == [0, 0.125, 0.25]
    assert log.values["vmaf"] == read_log(existing).values["vmaf"]
    assert list(log.pts_time) == [0, 0.04, 0.08]
    assert log.provenance["model"] == "m"


def test_rows_are_matched_by_number_not_by_place(tmp_path):
    write_log(make_log((2, 0, 1)), tmp_path / "both.csv", with_log=CSV)
    assert list(read_log(tmp_path / "both.csv").values["saliency_mean"]) == [0, 0.125, 0.25]


@pytest.mark.parametrize("existing", [JSON, CSV])
@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0, 1), "3 frames in the log, 2 in the video; frame 2 .* the video's rows lack"),
        ((0, 1, 2, 3, 4), "3 frames in the log, 5 in the video; frame 3 .* the log lacks"),
        ((0, 2, 3), "3 frames in the log, 3 in the video; frame 1 .* the video's rows lack"),
        ((0, 1, 1, 2), "frame 1 appears 2 times"),
        ((), "3 frames in the log, 0 in the video; frame 0"),
    ],
)
def test_other_frames_are_refused(tmp_path, existing, numbers, words):
    with pytest.raises(LogError, match=words):
        write_log(make_log(numbers), tmp_path / f"both{existing.suffix}", with_log=existing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [JSON, CSV])
def test_a_metric_in_both_is_refused(tmp_path, existing):
    with pytest.raises(LogError, match="already holds the metric 'vmaf'"):
        write_log(make_log(column="vmaf"), tmp_path / f"x{existing.suffix}", with_log=existing)


def test_a_frame_twice_in_the_log_is_refused(tmp_path):
    text = CSV.read_text()
    (tmp_path / "twice.csv").write_text(text + text.splitlines()[-1] + "\n")
    with pytest.raises(LogError, match="frame 2 appears 2 times"):
        write_log(make_log(), tmp_path / "both.csv", with_log=tmp_path / "twice.csv")


@pytest.mark.parametrize("existing", [JSON, CSV])
def test_merging_in_place(tmp_path, existing):
    path = tmp_path / f"log{existing.suffix}"
    path.write_bytes(existing.read_bytes())
    write_log(make_log(), path, with_log=path)
    assert {"vmaf", "saliency_mean"} <= set(read_log(path).columns)


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_a_second_merge_keeps_the_first_ones_provenance_and_clock(tmp_path, suffix):
    path = tmp_path / f"log{suffix}"
    write_log(make_log(), path, with_log=JSON if suffix == ".json" else CSV)
    again = Log(["other"], {"model": "n"})
    for number in range(3):
        again.append(number, 99.0, {"other": 1.0})
    write_log(again, path, with_log=path)
    log = read_log(path)
    assert log.provenance["model"] == "n"
    assert log.provenance["merged_log"]["model"] == "m"
    assert list(log.pts_time) == [0, 0.04, 0.08]


def test_merging_keeps_the_format(tmp_path, capfdbinary):
    with pytest.raises(OutputError, match=r"says csv, but merging keeps .* json"):
        write_log(make_log(), tmp_path / "both.csv", with_log=JSON)
    write_log(make_log(), "-", with_log=CSV)
    assert capfdbinary.readouterr().out.startswith(b"Frame,integer_adm2,")


def test_parquet_can_not_be_merged_into(tmp_path):
    write_log(make_log(), tmp_path / "log.parquet")
    with pytest.raises(LogError, match="columns can't be added to"):
        write_log(make_log(column="b"), tmp_path / "x.parquet", with_log=tmp_path / "log.parquet")


def test_keys_that_we_do_not_know_are_kept(tmp_path):
    document = json.loads(JSON.read_text()) | {"mine": {"a": [1, None, "é"]}}
    document["frames"][0]["note"] = "kept"
    (tmp_path / "vmaf.json").write_text(json.dumps(document))
    write_log(make_log(), tmp_path / "both.json", with_log=tmp_path / "vmaf.json")
    both = json.loads((tmp_path / "both.json").read_text())
    assert both["mine"] == document["mine"]
    assert both["frames"][0]["note"] == "kept"
