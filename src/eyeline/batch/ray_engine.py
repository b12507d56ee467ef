"""An engine that runs tasks with Ray, on this machine or on a cluster.

Ray schedules the tasks, and its worker processes keep the model loaded between tasks. Retries in Ray are
switched off, because the driver counts failures and retries tasks itself. If the driver dies, Ray ends
its tasks, so only the batch that holds the lock of the output folder writes there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eyeline._version import __version__
from eyeline.batch.task import Engine, Event, Job, Task
from eyeline.batch.worker import Watchdog, Worker
from eyeline.errors import BatchError, MissingExtraError, UsageError
from eyeline.parallel import usable_cores

_WAIT = 0.5  # seconds that `events` waits for an event
_ASK_EVERY = 2.0  # seconds between two requests to the head node
_CANCEL_WAIT = 3.0  # seconds for a cancelled task to remove its temporary files
_OBJECTS = 100 << 20  # bytes of the object store of a Ray started here; it holds records only

HEAD_PATIENCE = 45.0
"""The batch ends if the head node gives no answer for so many seconds; after 60 s, Ray exits silently."""

ROOM_PATIENCE = 600.0
"""The batch ends after so many seconds without a node that has enough cores; autoscalers take minutes."""


class ProgressActor:
    """Collects the reports of workers; a Ray actor on the driver's node, which outlives the workers."""

    def __init__(self) -> None:
        self._frames: dict[int, tuple[int, str]] = {}
        self._limits: dict[int, str] = {}

    def report(self, number: int, frames: int, where: str) -> None:
        """Store how many rows attempt `number` has made; `where` is its process and host."""
        self._frames[number] = frames, where

    def report_limit(self, number: int, reason: str) -> None:
        """Store which limit an attempt exceeded."""
        self._limits[number] = reason

    def latest(self) -> dict[int, tuple[int, str]]:
        """Return the reports since the last call, by attempt number."""
        latest, self._frames = self._frames, {}
        return latest

    def limit(self, number: int) -> str:
        """Return which limit an attempt exceeded; an empty string if it exceeded none."""
        return self._limits.pop(number, "")


class _WorkerState:
    """The objects that a worker process keeps between tasks."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._worker = Worker(job)
        self._watchdog = Watchdog(job.limits, self._report_limit)
        self._number = 0
        self._actor: Any = None

    def do(self, task: Task, number: int, actor: Any) -> tuple[str, Any]:
        self._number, self._actor = number, actor
        where = f"process {os.getpid()} on {socket.gethostname()}"
        actor.report.remote(number, 0, where)
        return self._worker.do_watched(
            self._watchdog, task, lambda n: actor.report.remote(number, n, where)
        )

    def _report_limit(self, reason: str) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # the process must end in any case
            ray.get(self._actor.report_limit.remote(self._number, reason), timeout=5)


_state: _WorkerState | None = None


def do_task(job: Job, task: Task, number: int, actor: Any) -> tuple[str, Any]:
    """Run attempt `number` of a task in a Ray worker process; `actor` is the `ProgressActor`.

    Returns:
        The result of `Worker.do_watched`.
    """
    global _state  # noqa: PLW0603 - only globals last between Ray tasks
    wanted = job.version.facts["eyeline"]
    if __version__ != wanted:
        return "stop", BatchError(
            f"{socket.gethostname()}: has eyeline {__version__}, but the driver has {wanted}",
            "install the same version on every node",
        )
    if _state is None or _state.job != job:
        _state = _WorkerState(job)
    state, _state = _state, None  # if the task is cancelled, its state is dropped
    done = state.do(task, number, actor)
    _state = state
    return done


@dataclass
class _RunningTask:
    """A task that was submitted to Ray.

    Attributes:
        task: the task.
        number: number of the attempt.
        worker: number of the worker that is shown to the user, from 0.
        where: process and host that run the task; empty until they are known.
    """

    task: Task
    number: int
    worker: int
    where: str = ""


class RayEngine(Engine):
    """An engine of Ray tasks, each on `job.threads` cores.

    Args:
        job: the work to do for each title.
        address: `auto` = the cluster that this machine belongs to; `HOST:PORT` = address of the head
            node; `local` = start Ray on this machine; None = `RAY_ADDRESS`, or `local` if that is not
            set. If this process is already connected to Ray, the address is not used.
        workers: largest number of tasks at a time; 0 = as many as the cluster has cores for. Nodes
            that join later count, too.
        verbose: let Ray print its messages.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: the address has another form.
        BatchError: there is no cluster at the address.
    """

    def __init__(
        self, job: Job, address: str | None, *, workers: int = 0, verbose: bool = False
    ) -> None:
        try:
            import ray
        except ModuleNotFoundError as exc:
            raise MissingExtraError("ray", "ray") from exc
        self._ray: Any = ray
        self._job, self._most, self._verbose = job, workers, verbose
        self._address = _checked(address or os.environ.get("RAY_ADDRESS") or "local")
        self._ours = False
        self._actor: Any = None
        self._asked: Any = None
        self._running: dict[Any, _RunningTask] = {}
        self._count = 0
        self._cluster: _Cluster | None = None

    def _start(self) -> None:
        """Connect to Ray; called for the first task, since a batch without tasks needs no cluster."""
        ray = self._ray
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(ray, self._address, self._job.threads, self._verbose)
        context = ray.get_runtime_context()
        self._cluster = _Cluster(ray, context.gcs_address, self._job.threads)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            context.get_node_id(), soft=False
        )
        made = ray.remote(ProgressActor).options(
            num_cpus=0, scheduling_strategy=here, max_restarts=-1
        )
        self._actor = made.remote()
        # Wait until the actor runs: it takes seconds, and a task may exceed a limit sooner.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._actor.latest.remote(), timeout=HEAD_PATIENCE)
        self._do = ray.remote(num_cpus=self._job.threads, max_retries=0)(do_task)

    def free(self) -> int:
        """Return the number of tasks to submit: one more than the cluster can run, so no core is idle."""
        room = self._cluster.slots + 1 if self._cluster else 1
        most = min(self._most, room) if self._most else room
        return max(0, most - len(self._running))

    def submit(self, task: Task) -> int:
        """Submit a task to Ray; before the first task, connect to Ray."""
        if self._cluster is None:
            self._start()
        taken = {running.worker for running in self._running.values()}
        worker = next(n for n in range(len(taken) + 1) if n not in taken)
        self._count += 1
        ref = self._do.remote(self._job, task, self._count, self._actor)
        self._running[ref] = _RunningTask(task, self._count, worker)
        return worker

    def events(self) -> list[Event]:
        """Wait briefly for events, then return those that arrived.

        Raises:
            BatchError: the cluster does not answer, or has no node with enough cores.
        """
        ray, refs = self._ray, list(self._running)
        done, _ = ray.wait(refs, num_returns=1, timeout=_WAIT)
        if done:
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        elif self._cluster is not None:
            self._cluster.check()
        ended = [self._ended(ref, self._running.pop(ref)) for ref in done]
        return self._progress() + ended

    def _ended(self, ref: Any, running: _RunningTask) -> Event:
        errors = self._ray.exceptions
        try:
            kind, value = self._ray.get(ref)
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.LocalRayletDiedError,
            errors.TaskCancelledError,
        ) as exc:
            return self._died(running, exc)
        except errors.RayError as exc:
            said = str(exc).strip().splitlines()[-1]
            error = BatchError(f"Ray can't run the task: {said}", "check the logs of Ray")
            return Event(running.task, "stop", running.worker, error=error)
        if kind == "done":
            return Event(running.task, "done", running.worker, outcome=value)
        return Event(running.task, "stop", running.worker, error=value)

    def _died(self, running: _RunningTask, error: Exception) -> Event:
        errors = self._ray.exceptions
        self.restarts += 1
        limit = ""
        with contextlib.suppress(errors.RayError):
            limit = self._ray.get(self._actor.limit.remote(running.number), timeout=5)
        where = f" ({running.where})" if running.where else ""
        if isinstance(error, errors.OutOfMemoryError):
            reason = f"Ray ended its worker{where} because the node ran out of memory"
        elif isinstance(error, errors.NodeDiedError):
            reason = f"the node of its worker{where} was lost"
        else:
            reason = f"its worker{where} was killed"
        return Event(
            running.task, "died", running.worker, reason=limit or reason, at_limit=bool(limit)
        )

    def _progress(self) -> list[Event]:
        """Return the progress reports that have arrived."""
        ray = self._ray
        if self._asked is None:
            self._asked = self._actor.latest.remote()
            return []
        ready, _ = ray.wait([self._asked], timeout=0)
        if not ready:
            return []
        latest: dict[int, tuple[int, str]] = {}
        with contextlib.suppress(ray.exceptions.RayError):
            latest = ray.get(self._asked)
        self._asked = None
        events = []
        for running in self._running.values():
            if running.number in latest:
                frames, running.where = latest[running.number]
                events.append(Event(running.task, "progress", running.worker, frames=frames))
        return events

    def close(self) -> None:
        """Cancel all tasks, and end Ray if this process started it."""
        ray, refs = self._ray, list(self._running)
        self._running = {}
        cluster, self._cluster = self._cluster, None
        if cluster is None:
            return
        cluster.close()
        if cluster.lost or not ray.is_initialized():
            return
        for force in (False, True):
            for ref in refs:
                ray.cancel(ref, force=force)
            if refs:
                _, refs = ray.wait(refs, num_returns=len(refs), timeout=_CANCEL_WAIT)
        ray.kill(self._actor)
        if self._ours:
            ray.shutdown()


class _Cluster:
    """Polls the head node for the state of the cluster, in a thread because a request may hang."""

    def __init__(self, ray: Any, address: str, threads: int) -> None:
        self._ray, self._address, self._threads = ray, address, threads
        self.slots = 0
        self.lost = False
        self._answered = self._had_room = time.monotonic()
        self._ended = threading.Event()
        self._ask()
        threading.Thread(target=self._keep_asking, name="eyeline-cluster", daemon=True).start()

    def _ask(self) -> None:
        nodes = [n["Resources"] for n in self._ray.nodes() if n["Alive"]]
        self.slots = sum(int(n.get("CPU", 0)) // self._threads for n in nodes)
        self._answered = time.monotonic()
        if self.slots:
            self._had_room = self._answered

    def _keep_asking(self) -> None:
        while not self._ended.wait(_ASK_EVERY):
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ask()

    def check(self) -> None:
        """Raise a `BatchError` if the head node does not answer, or no node has enough cores."""
        now = time.monotonic()
        if now - self._answered > HEAD_PATIENCE:
            self.lost = True
            raise BatchError(
                f"{self._address}: the head of the Ray cluster is gone",
                "start the cluster again, and rerun the batch to continue it",
            )
        if now - self._had_room > ROOM_PATIENCE:
            raise BatchError(
                f"no node of the Ray cluster has {self._threads} cores",
                "add larger nodes, or lower --threads",
            )

    def close(self) -> None:
        self._ended.set()


def _connect(ray: Any, address: str, threads: int, verbose: bool) -> None:
    """Connect this process to a cluster, or start Ray here."""
    quiet: dict[str, Any] = {
        "logging_level": logging.INFO if verbose else logging.CRITICAL,
        "log_to_driver": verbose,
    }
    # Keeps Ray from printing a paragraph on stdout for every worker that dies.
    ray._private.worker._worker_logs_enabled = verbose
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            with _sigterm_kept():
                ray.init(
                    address="local",
                    num_cpus=max(usable_cores(), threads),
                    include_dashboard=False,
                    object_store_memory=_OBJECTS,
                    **quiet,
                )
        except Exception as exc:  # Ray raises plain `Exception` here
            raise BatchError(
                f"Ray did not start: {_first_line(exc)}", "check the logs of Ray"
            ) from exc
        return
    if address != "auto":
        host, port = address.rsplit(":", 1)
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as exc:
            raise _no_cluster(address, str(exc.strerror or exc)) from exc
    try:
        with _sigterm_kept():
            ray.init(address=address, **quiet)
    except ray.exceptions.AuthenticationError as exc:
        raise BatchError(
            f"--address {address}: the Ray cluster requires its authentication token",
            "set RAY_AUTH_MODE=token and copy the head's ~/.ray/auth_token to this machine",
        ) from exc
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as exc:
        raise _no_cluster(address, _first_line(exc)) from exc


def _checked(address: str) -> str:
    if not re.fullmatch(r"auto|local|[^/]+:\d+", address):
        raise UsageError(
            f"--address {address} is not auto, local or HOST:PORT",
            "to use a remote cluster, run the batch on one of its nodes, for example with `ray job submit`",
        )
    return address


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")


def _no_cluster(address: str, why: str) -> BatchError:
    return BatchError(
        f"--address {address}: no Ray cluster: {why}",
        "start a cluster with `ray start --head`, and join this machine to it",
    )


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces, at the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ours)
