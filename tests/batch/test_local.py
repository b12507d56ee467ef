"""Batches whose processes are really killed: a rerun finishes, and the dataset is the same to the byte."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from batches import SEGMENT, call, dataset, make_clips, nothing_is_left_over, run, status_of
from inline import run_inline
from kills import (
    die_at_write,
    kill_driver,
    kill_machine,
    kill_workers,
    make_catalogue,
    start,
)

from shared import SHARED

pytest.importorskip("pyarrow")

from eyeline.batch.local import plan_cores

ARGUMENTS = ("--workers", 2, "--segment", SEGMENT, "--retries", 100, "--quiet")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"), count=6)


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    run(clips, out, workers=2)
    return dataset(out)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that keeps a worker busy for seconds."""
    return make_clips(tmp_path_factory.mktemp("long"), count=1, frames=3000) / "clip000.mp4"


def visible_parts_are_whole(out: Path, undisturbed: dict[str, bytes]) -> None:
    """Whatever a reader of the dataset sees at any time is what it will be."""
    for name, data in dataset(out).items():
        assert undisturbed[name] == data


def test_workers_have_cores_of_their_own_while_there_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 2, 4, 6})
    assert plan_cores(2, 1) == [{0}, {2}]
    assert plan_cores(2, 2) == [{0, 2}, {4, 6}]
    assert plan_cores(5, 1) == [None] * 5


def test_killed_workers_are_replaced_and_lose_nothing(
    clips: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    process = start("extract", clips, "-o", tmp_path, *ARGUMENTS)
    kills = kill_workers(process, random.Random(1), 0.8)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert kills >= 1
    assert dataset(tmp_path) == undisturbed
    nothing_is_left_over(tmp_path)


@pytest.mark.parametrize("kill", [pytest.param(kill_driver, marks=pytest.mark.slow), kill_machine])
def test_a_rerun_finishes_what_a_kill_broke_off(
    clips: Path, undisturbed: dict[str, bytes], tmp_path: Path, kill
) -> None:
    rng = random.Random(kill.__name__)
    for _ in range(3):
        process = start("extract", clips, "-o", tmp_path, *ARGUMENTS)
        time.sleep(rng.uniform(0.9, 2.2))
        kill(process)
        visible_parts_are_whole(tmp_path, undisturbed)
    assert run(clips, tmp_path, workers=2).failed == []
    assert dataset(tmp_path) == undisturbed
    nothing_is_left_over(tmp_path)


def redone(source: Path, out: Path, at: int, when: str, undisturbed: dict[str, bytes]) -> int:
    """Die at a write, run again; how many frames were done twice."""
    assert die_at_write(source, out, at, when) == (-signal.SIGKILL, at)
    visible_parts_are_whole(out, undisturbed)
    ok = {r.title: r.frames for s in status_of(out) for r in s.records if r.state == "ok"}
    pieces = [p.parent.name for p in (out / "_eyeline" / "work").rglob("0*.segment")]
    kept = sum(ok.values()) + SEGMENT * sum(p.rsplit("-", 1)[0] not in ok for p in pieces)
    total = 60 * len(list(source.iterdir()))
    again = run_inline(source, out).frames
    assert dataset(out) == undisturbed
    nothing_is_left_over(out)
    return again - (total - kept)


@pytest.fixture(scope="module")
def two(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for name in ("clip000.mp4", "clip001.mp4"):
        shutil.copy(clips / name, folder)
    return folder


@pytest.fixture(scope="module")
def writes(two: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many writes a batch over `two` makes."""
    code, count = die_at_write(two, tmp_path_factory.mktemp("count"), 0, "")
    assert code == 0
    return count


def whole_of(two: Path, undisturbed: dict[str, bytes]) -> dict[str, bytes]:
    names = [f"title={f.stem}/" for f in two.iterdir()]
    return {k: v for k, v in undisturbed.items() if any(n in k for n in names)}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.75])
def test_a_death_at_a_write_costs_at_most_a_segment(
    two: Path, writes: int, undisturbed: dict[str, bytes], tmp_path: Path, share: float
) -> None:
    at = max(1, round(writes * share))
    for when in ("before", "after"):
        wanted = whole_of(two, undisturbed)
        assert redone(two, tmp_path / when, at, when, wanted) <= SEGMENT


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_death_between_any_two_writes_costs_at_most_a_segment(
    two: Path, writes: int, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    assert writes >= 14
    for at in range(1, writes + 1):
        for when in ("before", "after"):
            out = tmp_path / f"{at}-{when}"
            assert redone(two, out, at, when, whole_of(two, undisturbed)) <= SEGMENT


def test_a_worker_that_crashes_on_a_title_again_and_again_fails_that_title_alone(
    clips: Path, long: Path, tmp_path: Path
) -> None:
    import psutil
    from kills import children_of

    source = tmp_path / "in"
    source.mkdir()
    for name in ("clip000.mp4", "clip001.mp4"):
        shutil.copy(clips / name, source)
    poison = source / "poison.mp4"
    shutil.copy(long, poison)
    out = tmp_path / "out"
    words = ("--workers", 2, "--segment", 0, "--retries", 1)
    process = start("extract", source, "-o", out, *words)
    while process.poll() is None:  # a decoder's crash: SIGSEGV, whenever a worker has it open
        for child in children_of(process.pid):
            try:
                if any(f.path == str(poison) for f in child.open_files()):
                    child.send_signal(signal.SIGSEGV)
            except psutil.Error:
                continue
        time.sleep(0.01)
    errors = process.communicate()[1]
    assert process.returncode == 3
    assert "2 ok, 1 failed" in errors
    assert "failed: poison: its worker was killed by SIGSEGV, 2 times" in errors


def test_a_full_disk_stops_the_batch_and_a_rerun_with_room_finishes(
    clips: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    inside = (
        "mount -t tmpfs -o size=60k tmpfs {out} && {command}; code=$?; "
        "mkdir {kept} && cp -a {out}/. {kept}; exit $code"
    )
    from batches import command

    out, kept = tmp_path / "out", tmp_path / "kept"
    out.mkdir()
    words = command("batch", "extract", clips, "-o", out, *ARGUMENTS)
    text = inside.format(out=out, kept=kept, command=" ".join(words))
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here, so no small disk")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", text], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert len(dataset(kept)) < len(undisturbed)
    visible_parts_are_whole(kept, undisturbed)
    again = call("batch", "extract", clips, "-o", kept, *ARGUMENTS)
    assert again.returncode == 0, again.stderr
    assert dataset(kept) == undisturbed


def test_a_second_batch_on_the_same_output_refuses(clips: Path, tmp_path: Path) -> None:
    process = start("extract", clips, "-o", tmp_path, *ARGUMENTS)
    while not (tmp_path / "_eyeline" / "versions").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)  # it would end while the second begins
    second = call("batch", "extract", clips, "-o", tmp_path, *ARGUMENTS)
    process.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert "another batch is at work there" in second.stderr
    process.communicate()
    assert process.returncode == 0


def test_an_interrupt_ends_the_batch_and_keeps_what_is_done(
    clips: Path, long: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(clips, source)
    shutil.copy(long, source / "long.mp4")  # goes on when the first are done
    process = start("extract", source, "-o", out, *ARGUMENTS)
    while not dataset(out):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].startswith("interrupted: finished titles are kept")
    assert process.returncode == 130
    visible_parts_are_whole(out, undisturbed)
    (source / "long.mp4").unlink()
    run(source, out)
    assert dataset(out) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_clips_survive_fifty_kills(tmp_path: Path, request) -> None:
    clips = make_catalogue(tmp_path / "in", 200, SHARED if SHARED.is_dir() else None)
    run(clips, tmp_path / "undisturbed", workers=2)
    wanted = dataset(tmp_path / "undisturbed")
    assert len(wanted) == 200
    out, rng, kills = tmp_path / "out", random.Random(5), 0
    while kills < 50:
        process = start("extract", clips, "-o", out, *ARGUMENTS)
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0.9, 3.0))
            rng.choice((kill_driver, kill_machine))(process)
            kills += 1
        else:
            kills += kill_workers(process, rng, 0.6)
            process.communicate()
        visible_parts_are_whole(out, wanted)
        if len(dataset(out)) == 200 and kills < 50:  # done too early: begin anew, with what is left
            shutil.rmtree(out)
    assert run(clips, out, workers=2).failed == []
    assert dataset(out) == wanted
    nothing_is_left_over(out)
