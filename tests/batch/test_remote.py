"""Batches from and to object stores: a server that speaks S3, and fsspec's own store in memory."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from batches import SEGMENT, call, command, dataset, make_clips, run
from inline import run_inline

pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")
pytest.importorskip("moto", reason="moto is not installed")

import fsspec
from moto.server import ThreadedMotoServer

from commands import run as run_command
from eyeline.batch import store
from eyeline.batch.manifest import read_titles
from eyeline.batch.store import Place, exclusive, read_status
from eyeline.errors import BatchError

LOCK = "_eyeline/lock"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"), count=2)


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a batch from and to local folders gives."""
    out = tmp_path_factory.mktemp("undisturbed")
    run(clips, out)
    return dataset(out)


@pytest.fixture(scope="module")
def s3(clips: Path) -> Iterator[object]:
    """A server with the clips in the bucket `films`, which workers find by the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ours = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        fs = fsspec.filesystem("s3")
        fs.mkdir("films")
        fs.mkdir("out")
        fs.put(f"{clips}/", "films/2026/", recursive=True)
        yield fs
        server.stop()


@pytest.fixture
def brief_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes a lease looks again after 0.2 s: for tests in which nobody else takes it."""
    monkeypatch.setattr(store, "_PAUSE", 0.2)


@pytest.fixture
def out(s3: object, request: pytest.FixtureRequest) -> str:
    """An output folder of one test."""
    return f"s3://out/{request.node.name}"


def remote_dataset(fs: object, url: str) -> dict[str, bytes]:
    root = url.split("://")[1]
    fs.invalidate_cache()  # type: ignore[attr-defined]
    listed = [f for f in fs.find(root) if f != root]  # type: ignore[attr-defined]  # a folder that appeared just now
    found = {f.removeprefix(f"{root}/"): f for f in listed}
    return {k: fs.cat_file(v) for k, v in sorted(found.items()) if not k.startswith("_")}  # type: ignore[attr-defined]


def test_remote_sources_give_the_rows_of_local_ones(
    s3, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    result = run("s3://films/2026", tmp_path, workers=2)
    assert (sorted(result.ok), result.frames) == (["clip000", "clip001"], 120)
    assert dataset(tmp_path) == undisturbed


def test_a_remote_dataset_is_the_local_one(
    s3, clips: Path, undisturbed: dict[str, bytes], out: str
) -> None:
    result = run(clips, out, workers=2)
    assert result.failed == []
    assert remote_dataset(s3, out) == undisturbed
    left = s3.find(f"{out}/_eyeline/work".removeprefix("s3://"))
    assert left == []
    assert not s3.exists(f"{out}/{LOCK}")


def test_the_command_from_store_to_store_by_a_manifest_there(
    s3, undisturbed: dict[str, bytes], out: str
) -> None:
    rows = "path,title\n2026/clip000.mp4,clip000\ns3://films/2026/clip001.mp4,clip001\n"
    s3.pipe_file("films/list.csv", rows.encode())
    words = ("batch", "extract", "s3://films/list.csv", "-o", out)
    first = call(*words)
    assert first.returncode == 0, first.stderr
    assert remote_dataset(s3, out) == undisturbed
    assert "0 ok, 0 failed, 2 skipped" in run_command(*words).stderr
    status = run_command("batch", "status", out, "--verify")
    assert status.returncode == 0
    assert "2 ok, 0 failed, 120 frames" in status.stdout


def test_patterns_name_titles_by_what_differs(s3) -> None:
    assert [t.name for t in read_titles("s3://films/*/*.mp4")] == ["clip000", "clip001"]
    assert [t.name for t in read_titles("s3://films")] == ["2026/clip000", "2026/clip001"]


@pytest.mark.usefixtures("brief_lease")
def test_a_changed_object_is_done_again_alone(s3, clips: Path, out: str) -> None:
    s3.put(f"{clips}/", "films/changing/", recursive=True)
    run_inline("s3://films/changing", out)
    make_clips(clips.parent / "other", count=1, frames=12)
    s3.put(str(clips.parent / "other" / "clip000.mp4"), "films/changing/clip001.mp4")
    result = run_inline("s3://films/changing", out)
    assert (result.ok, result.skipped, result.frames) == (["clip001"], ["clip000"], 12)


@pytest.mark.usefixtures("brief_lease")
def test_an_object_that_is_gone_fails_its_title_alone(s3, out: str, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("path\ns3://films/2026/clip000.mp4\ns3://films/2026/gone.mp4\n")
    result = run_inline(str(manifest), out)
    assert len(result.ok) == 1
    (reason,) = result.reasons.values()
    assert reason.startswith("s3://films/2026/gone.mp4: can't be read: no such file")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("s3://films/2026", "s3://nowhere/x"), "s3://nowhere/x/_eyeline/lock: can't be written"),
        (("s3://nowhere/list.csv", "OUT"), "s3://nowhere/list.csv: can't be read: no such file"),
        (("s3://nowhere/films", "OUT"), "s3://nowhere/films: names no videos"),
        (("nowhere://films/x", "OUT"), "Protocol not known: nowhere"),
    ],
)
def test_what_is_not_there_is_one_clear_line(s3, tmp_path: Path, words, said: str) -> None:
    source, target = words
    done = run_command("batch", "extract", source, "-o", tmp_path if target == "OUT" else target)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not s3.exists("nowhere")


@pytest.mark.parametrize(("source", "target"), [("s3://films/2026", "OUT"), ("IN", "s3://out/x")])
def test_without_credentials_it_is_one_clear_line(
    s3, clips: Path, tmp_path: Path, source: str, target: str
) -> None:
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = {k: v for k, v in os.environ.items() if k not in keys} | {"HOME": str(tmp_path)}
    names = {"IN": str(clips), "OUT": str(tmp_path / "out")}
    words = (names.get(source, source), "-o", names.get(target, target))
    done = call("batch", "extract", *words, env=environment)
    assert done.returncode == 2
    assert "Unable to locate credentials" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_second_batch_refuses_while_the_first_renews_its_lease(s3, clips: Path, out: str) -> None:
    place = Place(out)

    def noted() -> float:
        return float(json.loads(place.read(LOCK))["time"])

    with exclusive(place, renew=0.2):
        first = noted()
        while noted() < first + 2:
            time.sleep(0.05)
        old = time.time() - first  # by now the first note means nothing; by its renewals it does
        with pytest.raises(BatchError, match="another batch is at work there"):
            exclusive(place, stale=old).__enter__()
        second = call("batch", "extract", clips, "-o", out)
    assert second.returncode == 2
    assert f"{out}: another batch is at work there, process {os.getpid()}" in second.stderr
    assert not place.exists(LOCK)


def test_a_lease_that_is_not_renewed_is_taken_over(s3, out: str) -> None:
    place = Place(out)
    place.write(LOCK, json.dumps({"pid": 1, "host": "gone", "time": time.time() - 61}).encode())
    with exclusive(place):
        pass
    noted = time.time() - 20
    place.write(LOCK, json.dumps({"pid": 1, "host": "gone", "time": noted}).encode())
    with pytest.raises(BatchError, match=r"process 1 on gone.*try again in \d+ s") as caught:
        exclusive(place).__enter__()
    said = re.search(r"in (\d+) s", str(caught.value))
    assert said
    assert noted + 60 - time.time() - 1 < int(said[1]) <= 40


def test_two_that_begin_at_once_do_not_both_hold(s3, out: str) -> None:
    together, refused = threading.Barrier(4), threading.Semaphore(0)

    def hold() -> bool:
        place = Place(out)
        together.wait(60)
        try:
            with exclusive(place):  # until all others were refused
                return all(refused.acquire(timeout=60) for _ in range(3))
        except BatchError:
            refused.release()
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: hold(), range(4))) == 1


def test_a_note_that_is_written_late_takes_nobodys_place(tmp_path: Path) -> None:
    """Between its look and its note another batch looked, wrote, looked again and began."""
    url = f"memory://{tmp_path.name}"
    late, place = Place(url), Place(url)
    looked, holds, write = threading.Event(), threading.Event(), late.write

    def write_late(name: str, data: bytes) -> None:
        looked.set()
        holds.wait(60)
        write(name, data)

    late.write = write_late  # type: ignore[method-assign]

    def begin_late() -> None:
        with exclusive(late, renew=2):
            pass

    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(begin_late)
        assert looked.wait(60)
        with exclusive(place, renew=0.8):
            holds.set()
            with pytest.raises(BatchError, match="another batch is at work there"):
                refused.result()


@pytest.mark.slow
def test_a_killed_batch_goes_on_when_its_lease_has_ended(
    s3, clips: Path, undisturbed: dict[str, bytes], out: str
) -> None:
    process = subprocess.Popen(
        command("batch", "extract", clips, "-o", out, "--segment", SEGMENT), start_new_session=True
    )
    while not remote_dataset(s3, out):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    whole = remote_dataset(s3, out)
    assert {k: undisturbed[k] for k in whole} == whole
    s3.pipe_file(f"{out}/{LOCK}", b"{}")  # as after a minute
    assert run(clips, out).failed == []
    assert remote_dataset(s3, out) == undisturbed


@pytest.mark.usefixtures("brief_lease")
def test_the_store_in_memory(clips: Path, undisturbed: dict[str, bytes]) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{clips}/", "/films/", recursive=True)
    first = run_inline("memory://films", "memory://out")
    assert len(first.ok) == 2
    assert remote_dataset(memory, "memory:///out") == undisturbed
    assert len(run_inline("memory://films", "memory://out").skipped) == 2
    (status,) = read_status("memory://out", verify=True)
    assert [r.state for r in status.records] == ["ok", "ok"]
