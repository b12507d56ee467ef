"""Batches on Ray: the same bytes as on local processes, whatever dies."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import dataset, make_clips, make_job, run
from clusters import SMALL, Killer, quick_imports

pytest.importorskip("ray", reason="Ray is not installed")

import ray
from ray.cluster_utils import Cluster

from eyeline.batch.driver import run_batch
from eyeline.batch.limits import Limits
from eyeline.batch.manifest import read_titles
from eyeline.batch.ray_engine import RayEngine
from eyeline.batch.task import BatchResult, Job
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
        made = Cluster(initialize_head=True, head_node_args=SMALL)
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
        (Limits(seconds=0.5), "took longer than 0.5 s"),
        (Limits(mebibytes=50), "MiB of memory, more than 50"),
    ],
)
def test_a_task_over_a_limit_fails_at_once_with_the_reason(
    cluster: Cluster, long: Path, tmp_path: Path, limits: Limits, reason: str
) -> None:
    job = make_job(tmp_path, limits=limits, segment=0)
    result = run_on_ray(long, tmp_path, job)
    assert result.failed == ["clip000"]
    assert reason in result.reasons["clip000"]
    assert "times" not in result.reasons["clip000"]


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
