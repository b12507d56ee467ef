"""The kinds of work: pairs and maps; pairs in segments equal single runs, whatever is killed."""

import io
import json
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from batches import (
    METRICS,
    OBJECTS,
    SEGMENT,
    call,
    dataset,
    make_job,
    make_pairs,
    nothing_is_left_over,
    parts,
    run,
    score_work,
    status_of,
)
from inline import run_inline
from kills import die_at_write, kill_driver, kill_machine, kill_workers, start

from clips import moving, write_clip

pytest.importorskip("pyarrow")
pytest.importorskip("cv2")

import eyeline
from eyeline.batch.manifest import read_titles
from eyeline.batch.store import read_status
from eyeline.batch.task import BatchResult, Job
from eyeline.batch.work import RoiMapWork, ScoreWork
from eyeline.logs import parquet_format, read_log
from eyeline.quality.pairs import PairOptions
from eyeline.quality.score import ScoreOptions
from eyeline.saliency.pipeline import ExtractOptions

ARGUMENTS = (
    *("--workers", 2, "--segment", SEGMENT, "--retries", 100, "--quiet"),
    *("--metrics", ",".join(METRICS), "--map", "objects"),
)


def job_for(out: Path, segment: int = SEGMENT, **options) -> Job:
    return make_job(out, score_work(**options), segment=segment)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def whole(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The dataset of a batch that splits nothing."""
    out = tmp_path_factory.mktemp("whole")
    assert len(run(pairs, out, job=job_for(out, segment=0)).ok) == 3
    return dataset(out)


def run_here(manifest: Path, out: Path, segment: int = SEGMENT, **options) -> BatchResult:
    """A batch in this process."""
    return run_inline(manifest, out, job_for(out, segment, **options))


def first_of(pairs: Path, count: int) -> Path:
    """A manifest of the first pairs."""
    manifest = pairs.with_name(f"{count}.csv")
    manifest.write_text("\n".join(pairs.read_text().splitlines()[: 1 + count]) + "\n")
    return manifest


@pytest.fixture(scope="module")
def one(pairs: Path) -> Path:
    return first_of(pairs, 1)


@pytest.fixture(scope="module")
def two(pairs: Path) -> Path:
    return first_of(pairs, 2)


def pieces(out: Path) -> list[int]:
    """Into how many pieces each title was split."""
    (status,) = read_status(str(out))
    return [r.segments for r in status.records]


@pytest.mark.parametrize("workers", [1, 2])
def test_segments_change_no_byte(
    pairs: Path, whole: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    result = run(pairs, tmp_path, workers, job_for(tmp_path))
    assert result.frames == 3 * 60
    assert pieces(tmp_path) == [3, 3, 3]
    assert dataset(tmp_path) == whole
    nothing_is_left_over(tmp_path)


def test_maps_that_depend_on_whole_scenes_are_scored_in_one_piece(
    one: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path, ScoreWork(score=ScoreOptions(metrics=METRICS)))  # by gaze
    run_inline(one, tmp_path, job)
    assert pieces(tmp_path) == [1]


def test_a_part_has_the_rows_of_eyeline_score(one: Path, tmp_path: Path) -> None:
    run_here(one, tmp_path)
    for title, part in zip(read_titles(str(one), pairs=True), parts(tmp_path), strict=True):
        assert title.distorted is not None
        single = eyeline.score(
            title.source, title.distorted, model=OBJECTS, options=ScoreOptions(metrics=METRICS)
        ).log
        log = read_log(part)
        assert log.frame_num == single.frame_num
        assert log.pts_time == single.pts_time
        assert log.values == single.values


@pytest.mark.parametrize(
    ("options", "split"),
    [
        ({"extract": ExtractOptions(temporal="median")}, True),
        ({"pairs": PairOptions(ref_offset=7, dist_offset=7)}, True),
        ({"pairs": PairOptions(ref_offset=7, dist_offset=3, shortest=True)}, True),
        ({"pairs": PairOptions(frames=45)}, True),
        ({"pairs": PairOptions(crop=(48, 36, 8, 4))}, True),
        ({"weight": 0.0, "metrics": ("psnr", "ssim")}, True),
        ({"extract": ExtractOptions(temporal="ema")}, False),
        ({"pairs": PairOptions(resample=True)}, False),
    ],
    ids=str,
)
def test_what_is_split_and_what_is_not(
    one: Path, tmp_path: Path, options: dict, split: bool
) -> None:
    run_here(one, tmp_path / "split", **options)
    run_here(one, tmp_path / "whole", 0, **options)
    assert (pieces(tmp_path / "split")[0] > 1) == split
    assert dataset(tmp_path / "split") == dataset(tmp_path / "whole")


def test_pairs_that_cannot_be_compared_fail_as_they_do_whole(pairs: Path, tmp_path: Path) -> None:
    ref = pairs.parent / "ref" / "clip000.mp4"
    how = {"g": "10", "preset": "ultrafast"}
    write_clip(tmp_path / "short.mp4", moving(50), codec_options=how)
    write_clip(tmp_path / "fast.mp4", moving(60), fps=50, codec_options=how)
    write_clip(tmp_path / "large.mp4", moving(60, (96, 64)), codec_options=how)
    write_clip(tmp_path / "deep.mp4", moving(60), pix_fmt="yuv444p", codec_options=how)
    (tmp_path / "text.mp4").write_text("no video")
    names = ("short", "fast", "large", "deep", "text", "none")
    manifest = tmp_path / "pairs.csv"
    rows = [f"{name},{ref},{tmp_path}/{name}.mp4" for name in names]
    manifest.write_text("title,reference,distorted\n" + "\n".join(rows) + "\n")
    reasons = [run_here(manifest, tmp_path / str(n), n).reasons for n in (SEGMENT, 0)]
    assert set(reasons[0]) == set(names)
    assert reasons[0] == reasons[1]


def test_pairs_of_different_lengths_are_split_where_that_is_allowed(
    pairs: Path, tmp_path: Path
) -> None:
    refs = sorted((pairs.parent / "ref").iterdir())
    long = write_clip(tmp_path / "long.mp4", moving(75), codec_options={"g": "9"})
    manifest = tmp_path / "pairs.csv"
    rows = [f"a,{refs[0]},{long}", f"b,{long},{refs[0]}"]
    manifest.write_text("title,reference,distorted\n" + "\n".join(rows) + "\n")
    how = {"pairs": PairOptions(shortest=True), "extract": ExtractOptions(temporal="median")}
    for name, segment in (("split", SEGMENT), ("whole", 0)):
        assert run_here(manifest, tmp_path / name, segment, **how).failed == []
    assert min(pieces(tmp_path / "split")) > 1
    assert dataset(tmp_path / "split") == dataset(tmp_path / "whole")


def test_raw_pairs_are_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for name in ("ref", "dist"):
        (tmp_path / f"{name}.yuv").write_bytes(rng.bytes(64 * 48 * 2 * 60))
    manifest = tmp_path / "pairs.jsonl"
    row = {"reference": "ref.yuv", "distorted": "dist.yuv", "pix_fmt": "yuv422p"}
    manifest.write_text(json.dumps(row | {"width": 64, "height": 48}) + "\n")
    for name, segment in (("split", SEGMENT), ("whole", 0)):
        assert run_here(manifest, tmp_path / name, segment).failed == []
    assert pieces(tmp_path / "split") == [3]
    assert dataset(tmp_path / "split") == dataset(tmp_path / "whole")


def test_scores_become_a_dataset(pairs: Path, tmp_path: Path) -> None:
    ref = pairs.parent / "ref"
    manifest = tmp_path / "pairs.csv"
    manifest.write_text(
        f"reference,distorted,title\n{ref}/clip000.mp4,{ref}/clip001.mp4,pair\n"
        f"{ref}/clip000.mp4,{ref}/clip000.mp4,same\n{ref}/clip000.mp4,/no.mp4,none\n"
    )
    out = tmp_path / "out"
    job = make_job(out, ScoreWork(score=ScoreOptions(metrics=("psnr", "ssim"))), segment=0)
    result = run(manifest, out, job=job)
    assert sorted(result.ok) == ["pair", "same"]
    assert "no such file" in result.reasons["none"]
    log = read_log(parts(out)[0])
    single = eyeline.score(
        ref / "clip000.mp4", ref / "clip001.mp4", options=ScoreOptions(metrics=("psnr", "ssim"))
    ).log
    assert log.values == single.values
    assert log.provenance["source_sha256"].count("+") == 1


def test_roi_maps_become_files(pairs: Path, tmp_path: Path) -> None:
    from eyeline.roi.maps import write_map_file

    ref, out = pairs.parent / "ref", tmp_path / "out"
    assert len(run(ref, out, job=make_job(out, RoiMapWork(kind="kvazaar"), segment=0)).ok) == 3
    write_map_file(str(ref / "clip000.mp4"), tmp_path / "single.txt", "kvazaar")
    assert parts(out)[0].name == "map.txt"
    assert parts(out)[0].read_bytes() == (tmp_path / "single.txt").read_bytes()


# --- faults


def test_segments_of_another_distorted_video_are_not_used(pairs: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(pairs.parent, source)
    manifest = source / "pairs.csv"
    manifest.write_text("title,reference,distorted\na,ref/clip000.mp4,clip000.mkv\n")
    assert die_at_write(manifest, tmp_path / "out", 5, "after", "score") == (-signal.SIGKILL, 5)
    assert list((tmp_path / "out" / "_eyeline" / "work").rglob("*.segment"))
    shutil.copy(pairs.parent / "clip001.mkv", source / "clip000.mkv")
    for out in (tmp_path / "out", tmp_path / "fresh"):
        assert run_here(manifest, out).frames == 60
    assert dataset(tmp_path / "out") == dataset(tmp_path / "fresh")


def test_a_failed_pair_is_left_alone_where_that_is_asked(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    manifest = tmp_path / "pairs.csv"
    manifest.write_text(
        f"title,reference,distorted\na,{pairs.parent}/ref/clip000.mp4,{tmp_path}/bad.mp4\n"
    )
    out = tmp_path / "out"
    run_here(manifest, out)
    part = next((out / "_eyeline" / "titles").rglob("*.json"))
    before = part.stat().st_mtime_ns
    assert run(manifest, out, job=job_for(out), again=False).failed == ["a"]
    assert part.stat().st_mtime_ns == before


@pytest.mark.slow
def test_killed_workers_are_replaced_and_lose_nothing(
    pairs: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    process = start("score", pairs, "-o", tmp_path, *ARGUMENTS)
    kills = kill_workers(process, random.Random(1), 0.8)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert kills >= 1
    assert dataset(tmp_path) == whole
    nothing_is_left_over(tmp_path)


@pytest.mark.parametrize("kill", [pytest.param(kill_driver, marks=pytest.mark.slow), kill_machine])
def test_a_rerun_finishes_what_a_kill_broke_off(
    pairs: Path, whole: dict[str, bytes], tmp_path: Path, kill
) -> None:
    rng = random.Random(kill.__name__)
    for _ in range(2):
        process = start("score", pairs, "-o", tmp_path, *ARGUMENTS)
        time.sleep(rng.uniform(0.9, 2.2))
        kill(process)
        for name, data in dataset(tmp_path).items():
            assert whole[name] == data
    assert call("batch", "score", pairs, "-o", tmp_path, *ARGUMENTS).returncode == 0
    assert dataset(tmp_path) == whole
    nothing_is_left_over(tmp_path)


def redone(two: Path, out: Path, at: int, when: str, whole: dict[str, bytes]) -> int:
    """Die at a write, run again; how many pairs were measured again whose rows were kept."""
    assert die_at_write(two, out, at, when, "score") == (-signal.SIGKILL, at)
    for name, data in dataset(out).items():
        assert whole[name] == data
    recorded = {r.title for s in status_of(out) for r in s.records if r.state == "ok"}
    kept = 60 * len(recorded)
    for segment in (out / "_eyeline" / "work").rglob("*.segment"):
        if segment.parent.name.rsplit("-", 1)[0] not in recorded:
            kept += len(parquet_format.read(io.BytesIO(segment.read_bytes())))
    again = run_here(two, out).frames
    assert dataset(out) == {k: v for k, v in whole.items() if "title=clip002/" not in k}
    nothing_is_left_over(out)
    return again - (2 * 60 - kept)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_death_at_a_write_costs_no_finished_segment(
    two: Path, whole: dict[str, bytes], tmp_path: Path, share: float
) -> None:
    at = round(share * WRITES)
    for when in ("before", "after"):
        assert redone(two, tmp_path / when, at, when, whole) == 0


WRITES = 2 + 2 * (2 + 3 + 2)
"""Of a batch of two pairs: version, table; of each the indexes, the plan, segments, part and record."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_death_between_any_two_writes_costs_no_finished_segment(
    two: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    assert die_at_write(two, tmp_path / "count", 0, "", "score") == (0, WRITES)
    for at in range(1, WRITES + 1):
        for when in ("before", "after"):
            assert redone(two, tmp_path / f"{at}-{when}", at, when, whole) == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_long_pair_with_every_metric_survives_kills(tmp_path: Path, shared_data: Path) -> None:
    from kills import make_long_pair

    manifest = make_long_pair(tmp_path, shared_data)
    job = make_job(tmp_path / "whole", score_work(metrics=None), segment=0)
    assert run(manifest, tmp_path / "whole", job=job).failed == []
    rng, kills = random.Random(3), 0
    out = tmp_path / "out"
    words = ("--workers", 2, "--segment", 60, "--retries", 100, "--quiet", "--map", "objects")
    while kills < 12:
        process = start("score", manifest, "-o", out, *words)
        if rng.random() < 0.5:
            time.sleep(rng.uniform(2.0, 9.0))
            rng.choice((kill_driver, kill_machine))(process)
            kills += 1
        else:
            kills += kill_workers(process, rng, 2.5)
            process.communicate()
        if dataset(out) and kills < 12:
            shutil.rmtree(out)
    assert call("batch", "score", manifest, "-o", out, *words).returncode == 0
    assert pieces(out)[0] > 5
    assert dataset(out) == dataset(tmp_path / "whole")
    nothing_is_left_over(out)
