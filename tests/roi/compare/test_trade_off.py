"""Several maps and strengths on real encodes, judged by recorded gaze."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from witness import COUNT, H, W, textured

import commands
from clips import write_clip
from eyeline.errors import DatasetError, UsageError
from eyeline.roi.compare import (
    CompareOptions,
    TradeOff,
    compare,
    compare_maps,
    mean_lines,
    steer_map,
)
from eyeline.roi.compare.report import plot_trade_off, to_markdown, trade_off_table
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.maps import read_maps
from eyeline.saliency.pipeline import ExtractOptions

OPTIONS = CompareOptions(preset="veryfast", steer=SteerOptions(smoothing=0), vmaf=False, jobs=2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "park.mkv", textured(), "ffv1")


@pytest.fixture(scope="module")
def fixations(clip: Path) -> str:
    """Three viewers look at the lower right for all frames but the last."""
    path = clip.parent / "fixations.csv"
    rows = [f"park,{v},0,200,{140 + 6 * v},{90 + 4 * v}" for v in range(3)]
    path.write_text("\n".join(["video,viewer,onset_ms,duration_ms,x,y", *rows]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def found(clip: Path, fixations: str, tmp_path_factory: pytest.TempPathFactory) -> TradeOff:
    options = replace(OPTIONS, judge_fixations=fixations)
    steers = [steer_map("recorded"), steer_map("centre")]
    return compare_maps(clip, tmp_path_factory.mktemp("work"), options, steers, (0.5, 1.5))


def test_recorded_gaze_gains_most_where_viewers_look(found: TradeOff) -> None:
    gains = {n: [c.deltas["sw_psnr"].rate for c in cs] for n, cs in found.comparisons.items()}
    assert gains["recorded"][1] < gains["recorded"][0] < -3
    assert gains["recorded"][1] < gains["centre"][1]


def test_the_whole_frame_pays_more_for_more_strength(found: TradeOff) -> None:
    mild, strong = found.comparisons["recorded"]
    assert strong.deltas["psnr_whole"].quality < mild.deltas["psnr_whole"].quality


def test_all_are_compared_with_the_same_plain_encodes(found: TradeOff) -> None:
    assert len({tuple(p.path for p in c.of("plain")) for c in found.all()}) == 1


def test_the_judging_map_is_the_density_and_zero_where_nobody_looks(found: TradeOff) -> None:
    maps = dict(read_maps(Path(found.first.maps)))
    assert len(maps) == COUNT
    h, w = maps[0].shape
    peak = np.unravel_index(maps[0].argmax(), (h, w))
    assert peak[1] / w == pytest.approx(146 / W, abs=0.05)
    assert peak[0] / h == pytest.approx(94 / H, abs=0.05)
    assert maps[5].max() == 0
    assert found.first.subject.empty == 1


def test_the_report_says_who_judged_and_names_ewpsnr(found: TradeOff) -> None:
    text = trade_off_table(found)
    assert "judged by the recorded gaze of 3 viewers (fixations.csv)" in text
    assert "6 frames (1 without an active fixation" in text
    assert "EWPSNR" in text
    assert [line.split("|")[1].strip() for line in text.splitlines()[4:]] == [
        "recorded", "recorded", "centre", "centre",
    ]  # fmt: skip


def test_one_comparison_by_gaze_says_that_recorded_steering_is_the_most(found: TradeOff) -> None:
    text = to_markdown(found.comparisons["recorded"][0])
    assert "EWPSNR (weighted by recorded gaze)" in text
    assert "which also steers: the most that any prediction of gaze could gain" in text
    assert "favours" not in text


def test_the_trade_off_is_drawn(found: TradeOff, tmp_path: Path) -> None:
    plot_trade_off(found.lines, "park", "EWPSNR", tmp_path / "curve.png")
    with av.open(str(tmp_path / "curve.png")) as picture:
        assert picture.streams.video[0].width == 540


def test_lines_are_gains_and_costs_and_average_over_clips(found: TradeOff) -> None:
    lines = found.lines
    mild, strong = lines["recorded"]
    assert strong.gain == -found.comparisons["recorded"][1].deltas["sw_psnr"].rate > mild.gain
    assert strong.costs["psnr_whole"] > mild.costs["psnr_whole"]
    assert (mild.strength, strong.strength) == (0.5, 1.5)
    twice = {n: [replace(p, gain=3 * p.gain) for p in points] for n, points in lines.items()}
    assert mean_lines([lines, twice])["centre"][0].gain == pytest.approx(
        2 * lines["centre"][0].gain
    )


def test_several_maps_need_a_judge_of_their_own(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="but no judging maps are given"):
        compare_maps(clip, tmp_path, OPTIONS, [steer_map("centre"), steer_map("recorded")])


def test_a_map_is_named_once(clip: Path, fixations: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, judge_fixations=fixations)
    with pytest.raises(UsageError, match="is given more than once"):
        compare_maps(clip, tmp_path, options, [steer_map("centre"), steer_map("centre")])


@pytest.mark.parametrize(
    ("multiples", "said"),
    [
        ((0.0,), "--multiples is 0; all values must be positive"),
        ((1.0, 1.0), "positive and different"),
        ((1.0, float("inf")), "--multiples is 1,inf"),
        ((1.0, 1e3), "strength is 3000"),
    ],
)
def test_multiples_are_checked_before_the_first_encode(
    multiples: tuple[float, ...], said: str, clip: Path, fixations: str, tmp_path: Path
) -> None:
    options = replace(OPTIONS, judge_fixations=fixations, steer=SteerOptions())
    work = tmp_path / "work"
    with pytest.raises(UsageError, match=said):
        compare_maps(clip, work, options, [steer_map("centre")], multiples)
    assert not work.exists()


def test_fixations_on_another_video_are_refused(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "fixations.csv"
    other.write_text("video,viewer,onset_ms,duration_ms,x,y\nother,a,0,200,20,30\n")
    options = replace(OPTIONS, judge_fixations=str(other), steer_by="centre")
    with pytest.raises(DatasetError, match="park"):
        compare(clip, tmp_path / "work", options)


def test_fixations_on_other_frames_cannot_judge(clip: Path, tmp_path: Path) -> None:
    late = tmp_path / "fixations.csv"
    late.write_text("video,viewer,onset_ms,duration_ms,x,y\npark,a,200,100,20,30\n")
    options = replace(OPTIONS, judge_fixations=str(late), extract=ExtractOptions(stop=3))
    with pytest.raises(DatasetError, match="no fixation is active at any of the 3 frames"):
        compare(clip, tmp_path / "work", replace(options, steer_by="centre"))


def test_the_command_compares_maps(clip: Path, fixations: str, tmp_path: Path) -> None:
    files = [tmp_path / n for n in ("out.json", "table.md", "curve.svg")]
    done = commands.run(
        "roi", "compare", clip, "--judge-fixations", fixations,
        "--steer", "recorded", "--steer", "centre", "--multiples", "1,2", "--no-vmaf", "--preset",
        "veryfast", "-o", files[0], "--markdown", files[1], "--plot", files[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == files[1].read_text()
    assert files[2].stat().st_size
    written = json.loads(files[0].read_text())
    assert list(written) == ["recorded", "centre"]
    assert written["recorded"][1]["deltas"]["sw_psnr"]["rate"] < 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steer", "centre", "--still", "a.png"), "--still shows one steered encode"),
        (("--steer", "centre", "--maps", "a.npz"), "also say what steers"),
        (("--multiples", "1,x"), "--multiples '1,x' is not a list of numbers"),
        (("--steer", "absent_model"), "absent_model"),
    ],
)
def test_what_can_not_work_is_one_line(clip: Path, words: tuple[str, ...], said: str) -> None:
    done = commands.run("roi", "compare", clip, "--no-vmaf", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
