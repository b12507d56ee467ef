"""Logs to charts: order, panels, cuts, packed numbers, the pooled table; and which frames are worst."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from eyeline.errors import LogError
from eyeline.report._pictures import Thumbnails
from eyeline.report._series import pack, panels_of, pick_worst, pooled_table, read_rows
from report_pages import MakeLog


def columns_of(names: list[str]) -> list[tuple[tuple[str, ...], bool]]:
    return [(p.columns, p.main) for p in panels_of(names)]


def test_weighted_columns_join_what_they_weight() -> None:
    names = ["psnr_y", "integer_adm2", "vmaf", "sw_psnr_y", "sw_vmaf"]
    assert columns_of(names) == [
        (("vmaf", "sw_vmaf"), True),
        (("psnr_y", "sw_psnr_y"), True),
        (("integer_adm2",), False),
    ]


def test_columns_weighted_by_recorded_gaze_do_too() -> None:
    assert columns_of(["psnr_y", "ew_psnr_y"]) == [(("psnr_y", "ew_psnr_y"), True)]


def test_both_centroids_share_a_chart() -> None:
    assert (("saliency_cx", "saliency_cy"), True) in columns_of(["saliency_cy", "saliency_cx"])


def test_unknown_columns_stand_open_when_alone() -> None:
    assert columns_of(["a", "b"]) == [(("a",), True), (("b",), True)]


@pytest.mark.parametrize(
    "names", [["vmaf", "sw_x", "x"], ["sw_sw_a", "sw_a", "sw_"], ["saliency_mean", "sw_vmaf"]]
)
def test_every_column_is_in_one_chart(names: list[str]) -> None:
    assert sorted(c for p in panels_of(names) for c in p.columns) == sorted(names)


def test_rows_come_in_the_order_of_frames(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    frames = [{"frameNum": n, "metrics": {"vmaf": float(n)}} for n in (7, 2, 5)]
    path.write_text(json.dumps({"frames": frames}))
    rows = read_rows([str(path)])[0]
    assert rows.numbers.tolist() == [2, 5, 7]
    assert rows.values["vmaf"].tolist() == [2, 5, 7]


def test_cuts_become_frames(make_log: MakeLog) -> None:
    path = make_log(provenance={"cuts": [0.16, 0.4, "x", None, float("1e400")]}, vmaf=np.arange(20))
    assert read_rows([str(path)])[0].cuts == [4, 10]


def test_notices(make_log: MakeLog) -> None:
    path = make_log(
        provenance={"smoke": True, "complete": False, "corrupt_frames": 2, "first_corrupt": 5},
        vmaf=[1],
    )
    text = " ".join(read_rows([str(path)])[0].notices)
    assert "smoke" in text
    assert "part-way" in text
    assert "2 frames" in text


def test_equal_names_are_told_apart(tmp_path: Path, make_log: MakeLog) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make_log(f"{folder}/x.json", vmaf=[1])
    paths = [str(tmp_path / f / "x.json") for f in ("a", "b")]
    assert [r.name for r in read_rows(paths)] == ["a/x.json", "b/x.json"]
    assert [r.name for r in read_rows([paths[0]] * 2)] == ["x.json (1)", "x.json (2)"]


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "no frame"),
        ([{"frameNum": 0, "metrics": {}}], "no metric"),
        ([{"frameNum": 2**60, "metrics": {"a": 1}}], "2^53"),
    ],
)
def test_logs_with_nothing_to_show(tmp_path: Path, frames: list[object], said: str) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"frames": frames}))
    with pytest.raises(LogError, match=said.replace("^", r"\^")):
        read_rows([str(path)])


def test_packed_numbers_keep_what_json_has_not() -> None:
    back = np.frombuffer(
        base64.b64decode(pack(np.array([1.5, np.nan, np.inf, 1e300]), "<f4")), "<f4"
    )
    assert back[0] == 1.5
    assert np.isnan(back[1])
    assert np.isinf(back[2:]).all()


def test_the_table_pools_as_logs_do(make_log: MakeLog) -> None:
    rows = read_rows([str(make_log(vmaf=[1, 2, 3, 4], odd=[1, float("nan"), 3, 4]))])
    table = pooled_table(rows, panels_of(["vmaf", "odd"]))
    assert (table[0]["mean"], table[0]["min"], table[0]["p50"]) == (2.5, 1.0, 2.5)
    assert (table[1]["mean"], table[1]["missing"]) == (None, 1)


def test_differences_are_paired(make_log: MakeLog) -> None:
    base = 60 + 20 * np.sin(np.arange(200) / 15)
    noise = np.random.default_rng(4).normal(size=200) / 10
    logs = [make_log("a.json", vmaf=base), make_log("b.json", vmaf=base - 2 + noise)]
    table = pooled_table(read_rows([str(log) for log in logs]), panels_of(["vmaf"]))
    mean, low, high = table[1]["difference"]
    assert table[0]["difference"] is None
    assert mean == pytest.approx(-2 + noise.mean())
    assert low < mean < high
    assert high - low < (table[1]["high"] - table[1]["low"]) / 20


def test_no_difference_between_other_frames(make_log: MakeLog) -> None:
    logs = [make_log("a.json", vmaf=np.arange(20)), make_log("b.json", vmaf=np.arange(21))]
    table = pooled_table(read_rows([str(log) for log in logs]), panels_of(["vmaf"]))
    assert table[1]["difference"] is None


def test_worst_frames_lie_apart(make_log: MakeLog) -> None:
    vmaf = np.full(200, 90.0)
    vmaf[[50, 51, 52, 120]] = 10, 11, 12, 30
    worst = pick_worst(read_rows([str(make_log(vmaf=vmaf))]), 2)
    assert worst is not None
    assert worst.frames == (50, 120)


def test_worst_flicker_is_the_highest(make_log: MakeLog) -> None:
    flicker = np.zeros(40)
    flicker[17] = 0.5
    worst = pick_worst(read_rows([str(make_log(saliency_flicker=flicker))]), 1)
    assert worst is not None
    assert (worst.end, worst.frames) == ("highest", (17,))


def test_worst_by_a_column_that_nobody_has(make_log: MakeLog) -> None:
    with pytest.raises(LogError, match=r"no log holds the column 'x'.*vmaf"):
        pick_worst(read_rows([str(make_log(vmaf=[1]))]), 1, "x")


def test_no_worst_without_numbers(make_log: MakeLog) -> None:
    assert pick_worst(read_rows([str(make_log(vmaf=[float("nan")] * 3))]), 3) is None
    assert pick_worst(read_rows([str(make_log(odd=[1]))]), 3) is None


def test_thumbnails_thin_evenly_and_keep_what_they_must() -> None:
    thumbnails = Thumbnails(budget=400, keep={13})
    for i in range(64):
        if thumbnails.wants(i, i):
            thumbnails.add(i, i, {"a": b"x" * 30})  # 40 characters
    held = thumbnails.to_json()
    assert held["every"] == 8
    assert held["frames"] == sorted({*range(0, 64, 8), 13}, key=held["frames"].index)
    assert set(held["frames"]) == {*range(0, 64, 8), 13}
    assert thumbnails.size == 40 * 9 <= 400
