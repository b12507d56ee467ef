"""Batches on Ray: the same bytes as on local processes, whatever dies."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from batches import call, dataset, make_clips, make_job, run
from clusters import HEAD, NODE, Killer, quick_imports, workers_at_work
from kills import make_catalogue, start

from shared import SHARED

pytest.importorskip("ray", reason="Ray is not installed")

import ray
from ray.cluster_utils import Cluster

from eyeline.batch import ray_engine
from eyeline.batch.driver import run_batch
from eyeline.batch.manifest import read_titles
from eyeline.batch.ray_engine import RayEngine
from eyeline.batch.task import BatchResult, Job, TaskLimits
from eyeline.errors import UsageError


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What local processes give."""
    out = tmp_path_factory.mktemp("undisturbed")
    run(clips, out, workers=2)
    return dataset(out)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node with two cores, to which this process is connected."""
    with quick_imports(tmp_path_factory.mktemp("path")):
        made = Cluster(initialize_head=True, head_node_args=HEAD)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
        ray.shutdown()
        made.shutdown()


def raylet(node: object) -> int:
    return node.all_processes["raylet"][0].process.pid  # type: ignore[attr-defined]


def run_on_ray(source: Path, out: Path, job: Job | None = None, **more) -> BatchResult:
    job = job or make_job(out)
    with RayEngine(job, None, **more) as engine:
        return run_batch(read_titles(str(source)), job, engine)


def test_the_dataset_is_the_local_engines(
    cluster: Cluster, clips: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    result = run_on_ray(clips, tmp_path)
    assert (len(result.ok), result.frames, result.restarts) == (4, 240, 0)
    assert dataset(tmp_path) == undisturbed
    assert not list((tmp_path / "_eyeline" / "work").rglob("*.parquet"))


def test_killed_workers_are_replaced_and_lose_nothing(
    cluster: Cluster, clips: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    killer = Killer([raylet(cluster.head_node)], kills=2, pause=0.5)
    result = run_on_ray(clips, tmp_path)
    assert result.failed == []
    assert result.restarts == killer.kills == 2
    assert dataset(tmp_path) == undisturbed


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that takes a worker longer than the limits below."""
    return make_clips(tmp_path_factory.mktemp("long"), count=1, frames=2000)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (TaskLimits(seconds=0.5), "took longer than 0.5 s"),
        (TaskLimits(mebibytes=50), "MiB of memory, more than 50"),
    ],
)
def test_a_task_over_a_limit_fails_at_once_with_the_reason(
    cluster: Cluster, long: Path, tmp_path: Path, limits: TaskLimits, reason: str
) -> None:
    job = make_job(tmp_path, limits=limits, segment=0)
    result = run_on_ray(long, tmp_path, job)
    assert result.failed == ["clip000"]
    assert reason in result.reasons["clip000"]
    assert "times" not in result.reasons["clip000"]


@pytest.mark.slow
def test_the_reason_is_reported_when_the_actor_begins_late(
    cluster: Cluster, clips: Path, long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LateActor(ray_engine.ProgressActor):
        def __init__(self) -> None:
            time.sleep(20)
            super().__init__()

    assert run_on_ray(clips, tmp_path / "warm").failed == []  # workers are there from now on
    monkeypatch.setattr(ray_engine, "ProgressActor", LateActor)
    job = make_job(tmp_path / "out", limits=TaskLimits(seconds=0.5), segment=0)
    result = run_on_ray(long, tmp_path / "out", job)
    assert result.reasons == {"clip000": "took longer than 0.5 s"}


def test_a_batch_with_nothing_to_do_needs_no_cluster(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path)
    job = make_job(tmp_path)
    with RayEngine(job, "127.0.0.1:1") as engine:
        result = run_batch(read_titles(str(clips)), job, engine)
    assert len(result.skipped) == 4


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "http://head:8265"])
def test_addresses_of_other_kinds_are_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not auto, local or HOST:PORT"):
        RayEngine(make_job(tmp_path), address)


def lose_node_while_it_works(cluster: Cluster, node: object) -> None:
    """Kill everything of a node once one of its workers has a task."""
    deadline = time.monotonic() + 60
    while not workers_at_work([raylet(node)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.slow
def test_a_lost_node_costs_no_title(
    cluster: Cluster, clips: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    job = make_job(tmp_path, threads=2)  # a task fills a node, so that all three have one
    thread = threading.Thread(target=lose_node_while_it_works, args=(cluster, nodes[0]))
    thread.start()
    try:
        result = run_on_ray(clips, tmp_path, job)
    finally:
        thread.join()
        cluster.remove_node(nodes[1])
    assert result.failed == []
    assert result.restarts >= 1
    assert dataset(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_clips_survive_kills_on_ray(cluster: Cluster, tmp_path: Path) -> None:
    clips = make_catalogue(tmp_path / "in", 200, SHARED if SHARED.is_dir() else None)
    run(clips, tmp_path / "undisturbed", workers=2)
    killer = Killer([raylet(cluster.head_node)], kills=15, pause=1.0)
    out = tmp_path / "out"
    job = make_job(out)
    with RayEngine(job, None) as engine:
        result = run_batch(read_titles(str(clips)), job, engine, retries=100)
    assert (len(result.ok), result.failed) == (200, [])
    assert result.restarts == killer.kills == 15
    assert dataset(out) == dataset(tmp_path / "undisturbed")


def words(cluster: Cluster, clips: Path, out: Path) -> list[object]:
    where = ["--engine", "ray", "--address", cluster.address]
    return ["extract", clips, "-o", out, "--segment", 20, *where]


def test_workers_follow_a_killed_driver_and_a_rerun_finishes(
    cluster: Cluster, clips: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    process = start(*words(cluster, clips, tmp_path))
    workers: set[psutil.Process] = set()
    while not (workers and dataset(tmp_path)):  # one title is done, others are not
        assert process.poll() is None, process.communicate()
        workers.update(workers_at_work([raylet(cluster.head_node)]))
        time.sleep(0.02)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, "workers went on without their driver"
    assert {k: undisturbed[k] for k in dataset(tmp_path)} == dataset(tmp_path)
    again = call("batch", *words(cluster, clips, tmp_path))
    assert again.returncode == 0, again.stderr
    assert again.stdout == ""
    assert dataset(tmp_path) == undisturbed


def test_an_interrupt_leaves_nothing_half_written(
    cluster: Cluster, long: Path, tmp_path: Path
) -> None:
    process = start(*words(cluster, long, tmp_path))
    while not list((tmp_path / "_eyeline").rglob("0*.*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].startswith("interrupted: finished titles are kept")
    assert process.returncode == 130
    deadline = time.monotonic() + 30  # a process that Ray has killed is listed until it is gone
    while workers_at_work([raylet(cluster.head_node)]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not [f for f in tmp_path.rglob(".*") if f.is_file()]


def test_a_cluster_that_is_not_there_is_one_clear_line(clips: Path, tmp_path: Path) -> None:
    done = call(
        "batch", "extract", clips, "-o", tmp_path, "--engine", "ray", "--address", "127.0.0.1:1"
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: --address 127.0.0.1:1: no Ray cluster: Connection refused"
    )
    assert len(done.stderr.splitlines()) == 2
