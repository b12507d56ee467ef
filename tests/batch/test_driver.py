"""Batches on local processes: equal to single runs, unchanged titles skipped, bad ones isolated."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from batches import call, command, dataset, make_clips, make_job, parts, run

from clips import flat, moving, write_clip

pytest.importorskip("pyarrow")

import eyeline
from eyeline.batch.store import read_status
from eyeline.batch.task import TaskLimits
from eyeline.batch.work import ExtractWork
from eyeline.errors import ModelError
from eyeline.logs import read_log
from eyeline.saliency.pipeline import ExtractOptions, Outputs, run_extraction


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def done(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch over `clips`, which tests must not change."""
    out = tmp_path_factory.mktemp("done")
    result = run(clips, out, workers=2)
    assert len(result.ok) == 4
    assert result.frames == 4 * 60
    return out


def test_a_part_is_the_log_of_a_single_run(clips: Path, done: Path) -> None:
    for clip, part in zip(sorted(clips.iterdir()), parts(done), strict=True):
        single = run_extraction(eyeline.extract(clip), Outputs()).log
        log = read_log(part)
        assert log.frame_num == single.frame_num
        assert log.pts_time == single.pts_time
        assert log.values == single.values
        said = log.provenance
        own = {k: said.pop(k) for k in ("title", "source_sha256", "version")}
        assert json.dumps(said) == json.dumps(single.provenance)
        assert own["title"] == clip.stem


def test_the_clips_were_really_split(done: Path) -> None:
    (status,) = read_status(str(done))
    assert [r.segments for r in status.records] == [3, 3, 3, 3]


@pytest.mark.parametrize(
    "how", [{"temporal": "ema"}, {"temporal": "median"}, {"stride": 3}, {"still": 50}]
)
def test_filters_reach_across_seams(clips: Path, tmp_path: Path, how: dict) -> None:
    options = ExtractOptions(**how)
    run(
        clips / "clip000.mp4",
        tmp_path / "out",
        job=make_job(tmp_path / "out", ExtractWork(extract=options)),
    )
    log = read_log(parts(tmp_path / "out")[0])
    single = run_extraction(eyeline.extract(clips / "clip000.mp4", options=options), Outputs()).log
    assert log.values == single.values


def test_neither_workers_nor_segments_change_a_byte_of_the_rows(
    clips: Path, done: Path, tmp_path: Path
) -> None:
    run(clips, tmp_path / "one", workers=1)
    assert dataset(tmp_path / "one") == dataset(done)
    job = make_job(tmp_path / "whole", segment=0)
    run(clips, tmp_path / "whole", job=job)
    assert dataset(tmp_path / "whole") == dataset(done)


def test_readers_of_datasets_see_titles_and_versions(done: Path) -> None:
    data = pytest.importorskip("pyarrow.dataset").dataset(done, partitioning="hive")
    table = data.to_table()
    assert table.num_rows == 240
    assert sorted(set(table["title"].to_pylist())) == ["clip000", "clip001", "clip002", "clip003"]
    assert len(set(table["version"].to_pylist())) == 1


def test_unchanged_titles_are_skipped(clips: Path, done: Path, tmp_path: Path) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    before = {f: f.stat().st_mtime_ns for f in parts(out)}
    result = run(clips, out)
    assert (len(result.ok), len(result.skipped), result.frames) == (0, 4, 0)
    assert {f: f.stat().st_mtime_ns for f in parts(out)} == before
    rows = list(csv.DictReader((out / "_status.csv").open()))
    assert {row["status"] for row in rows} == {"skipped: unchanged"}


def test_a_touched_source_with_the_same_bytes_is_not_done_again(
    clips: Path, done: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(clips, tmp_path / "in")
    out = tmp_path / "out"
    run(source, out)
    os.utime(source / "clip001.mp4", ns=(1, 1))
    assert run(source, out).frames == 0
    assert len(run(source, out).skipped) == 4


def test_a_changed_source_is_done_again_alone(clips: Path, tmp_path: Path) -> None:
    source = shutil.copytree(clips, tmp_path / "in")
    out = tmp_path / "out"
    run(source, out)
    write_clip(source / "clip001.mp4", moving(12, seed=9))
    result = run(source, out)
    assert (result.ok, len(result.skipped)) == (["clip001"], 3)
    assert len(read_log(parts(out)[1])) == 12
    assert not list((out / "_eyeline" / "work").rglob("*.segment"))


def test_a_lost_part_is_made_again(clips: Path, done: Path, tmp_path: Path) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    parts(out)[2].unlink()
    assert run(clips, out).ok == ["clip002"]
    assert dataset(out) == dataset(done)


def test_other_options_make_another_version_beside_the_first(
    clips: Path, done: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    job = make_job(out, ExtractWork(extract=ExtractOptions(lines=96)))
    assert len(run(clips, out, job=job).ok) == 4
    old, new = read_status(str(out))
    assert old.version.name != new.version.name
    assert {s.version.facts["options"]["lines"] for s in (old, new)} == {None, 96}
    kept = {k: v for k, v in dataset(out).items() if k in dataset(done)}
    assert kept == dataset(done)
    assert len(dataset(out)) == 8


def test_another_model_than_the_batch_began_with_is_refused(clips: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "out")
    job = replace(job, work=replace(job.work, model_sha256="0" * 64))
    with pytest.raises(ModelError, match="has changed since the batch began"):
        run(clips, tmp_path / "out", job=job)


def test_bad_titles_are_recorded_and_the_others_done(clips: Path, tmp_path: Path) -> None:
    source = shutil.copytree(clips, tmp_path / "in")
    (source / "empty.mp4").touch()
    (source / "text.mp4").write_text("no video")
    whole = (source / "clip000.mp4").read_bytes()
    (source / "short.mp4").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(source / "pipe.mp4")
    (source / "gone.mp4").symlink_to("nowhere.mp4")
    out = tmp_path / "out"
    result = run(source, out, workers=2)
    assert len(result.ok) == 4
    reasons = result.reasons
    assert set(reasons) == {"empty", "text", "short", "pipe", "gone"}
    assert "the file is empty" in reasons["empty"]
    assert "not a video" in reasons["text"]
    assert "truncated" in reasons["short"]
    assert "not a regular file" in reasons["pipe"]
    assert "no such file" in reasons["gone"]
    assert len(parts(out)) == 4


def test_a_mended_title_is_done_by_the_next_run(clips: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.mp4").write_text("no video")
    assert run(source, tmp_path / "out").failed == ["a"]
    assert run(source, tmp_path / "out", again=False).failed == ["a"]
    shutil.copy(clips / "clip000.mp4", source / "a.mp4")
    assert run(source, tmp_path / "out", again=False).ok == ["a"]


def test_a_title_that_swells_is_stopped_at_its_limit(clips: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(clips / "clip000.mp4", source / "small.mp4")
    # What libraries and threads take differs between machines: measured, not assumed.
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)"
    )
    words = command("batch", "extract", source, "-o", tmp_path / "free", "--workers", 1, "--quiet")
    measured = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    limit = int(measured.stdout.split()[-1]) + 100
    # One decoded frame takes 144 MiB, whatever the decoder keeps beside it.
    frames = [flat("yuv420p", (90, 128, 128), (12288, 8192)) for _ in range(2)]
    write_clip(source / "big.mkv", frames, codec="ffv1")
    job = make_job(tmp_path / "out", limits=TaskLimits(mebibytes=limit))
    result = run(source, tmp_path / "out", job=job)
    assert result.ok == ["small"]
    assert f"MiB of memory, more than {limit}" in result.reasons["big"]
    assert result.restarts == 1


def test_a_title_that_takes_too_long_is_stopped(clips: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(clips / "clip000.mp4", source / "short.mp4")
    work = ExtractWork(extract=ExtractOptions(lines="native"))
    needed = run(source, tmp_path / "free", job=make_job(tmp_path / "free", work)).seconds
    large = flat("yuv420p", (90, 128, 128), (1280, 720))
    write_clip(source / "long.mp4", (large for _ in range(300)))
    limit = round(needed + 2)
    job = make_job(tmp_path / "out", work, limits=TaskLimits(seconds=limit), segment=0)
    result = run(source, tmp_path / "out", job=job)
    assert result.reasons == {"long": f"took longer than {limit} s"}
    assert result.ok == ["short"]


def test_the_command_says_how_it_ended(clips: Path, tmp_path: Path) -> None:
    source = shutil.copytree(clips, tmp_path / "in")
    (source / "bad.mp4").write_text("no video")
    out = tmp_path / "out"
    ran = call("batch", "extract", source, "-o", out, "--workers", 2, "-v")
    assert ran.returncode == 3, ran.stderr
    assert "4 ok, 1 failed, 0 skipped; 240 frames in" in ran.stderr
    assert "failed: bad: " in ran.stderr
    shown = call("batch", "status", out)
    assert shown.returncode == 1
    assert "4 ok, 1 failed, 240 frames" in shown.stdout
    (source / "bad.mp4").unlink()
    again = call("batch", "extract", source, "-o", out, "--quiet")
    assert (again.returncode, again.stderr) == (0, "")
    lines = [json.loads(x) for x in call("batch", "status", out, "--json").stdout.splitlines()]
    assert {line["state"] for line in lines if line["title"] != "bad"} == {"ok"}


def test_status_verifies_parts(clips: Path, done: Path, tmp_path: Path) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    assert call("batch", "status", out, "--verify").returncode == 0
    parts(out)[1].write_bytes(b"PAR1")
    shown = call("batch", "status", out, "--verify", "--failed")
    assert shown.returncode == 1
    assert "has other" in shown.stdout
    assert "clip000" not in shown.stdout


def test_status_of_a_folder_without_a_batch_is_one_line(tmp_path: Path) -> None:
    shown = call("batch", "status", tmp_path)
    assert shown.returncode == 2
    assert shown.stderr.startswith(f"error: {tmp_path}: is not the output folder of a batch")
