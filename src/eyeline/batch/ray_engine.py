"""Workers as Ray tasks: on this machine, or wherever a cluster has room.

Ray schedules, and its worker processes keep the model loaded from task to task. The driver does the
rest: Ray retries nothing, so that a task runs once at a time and every death is counted. When a
driver dies, Ray ends its tasks, so only the holder of the output's lock writes there.
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

_WAIT = 0.5  # seconds that `events` waits for something to happen
_ASK_EVERY = 2.0  # seconds between two questions to the head
_CANCEL_WAIT = 3.0  # seconds that a cancelled task has to remove its temporary files
_OBJECTS = 100 << 20  # bytes of Ray's object store, where it is ours: only records pass through it

HEAD_PATIENCE = 45.0
"""Seconds without the head until the batch ends; after 60 Ray would end the process without an error."""

ROOM_PATIENCE = 600.0
"""Seconds without a node that has enough cores until the batch ends: autoscalers take minutes."""


class ProgressActor:
    """Takes the reports of workers; a Ray actor beside the driver, which outlives the workers."""

    def __init__(self) -> None:
        self._frames: dict[int, tuple[int, str]] = {}
        self._limits: dict[int, str] = {}

    def report(self, number: int, frames: int, where: str) -> None:
        """Note the rows so far of the attempt `number`; `where` names its process."""
        self._frames[number] = frames, where

    def report_limit(self, number: int, reason: str) -> None:
        """Note why an attempt ends itself."""
        self._limits[number] = reason

    def latest(self) -> dict[int, tuple[int, str]]:
        """Return the reports since the last call, by attempt."""
        latest, self._frames = self._frames, {}
        return latest

    def limit(self, number: int) -> str:
        """Return why an attempt ended itself; empty if it did not."""
        return self._limits.pop(number, "")


class _WorkerState:
    """What a worker process keeps from task to task."""

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

        with contextlib.suppress(ray.exceptions.RayError):  # the process must end all the same
            ray.get(self._actor.report_limit.remote(self._number, reason), timeout=5)


_state: _WorkerState | None = None


def do_task(job: Job, task: Task, number: int, actor: Any) -> tuple[str, Any]:
    """Do a task in a Ray worker process; the model stays loaded for the next.

    Args:
        job: what is done to every title.
        task: what to do.
        number: number of this attempt.
        actor: handle of a `ProgressActor`.

    Returns:
        The result of `Worker.do_watched`.
    """
    global _state  # noqa: PLW0603 - what a process keeps between tasks is its modules
    wanted = job.version.facts["eyeline"]
    if __version__ != wanted:
        return "stop", BatchError(
            f"{socket.gethostname()}: has eyeline {__version__}, but the driver has {wanted}",
            "install one release on every node",
        )
    if _state is None or _state.job != job:
        _state = _WorkerState(job)
    state, _state = _state, None  # a cancelled task leaves no state that may be half-changed
    done = state.do(task, number, actor)
    _state = state
    return done


@dataclass
class _RunningTask:
    """A task that Ray has.

    Attributes:
        task: the task.
        number: number of the attempt.
        worker: number of its line in the view, from 0.
        where: names its process.
    """

    task: Task
    number: int
    worker: int
    where: str = ""


class RayEngine(Engine):
    """Ray tasks, each on `job.threads` cores.

    Args:
        job: what is done to every title.
        address: `auto` finds the cluster that this machine belongs to, `HOST:PORT` names its head,
            `local` starts Ray here; None = `RAY_ADDRESS`, or else `local`. A Ray that this process
            is connected to is used as it is.
        workers: most tasks at a time; 0 = as many as the cluster has cores for, those of nodes that
            join later included.
        verbose: let Ray print its messages.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: an address of another kind.
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
        """Start with the first task, since a batch without tasks needs no cluster."""
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
        # Its process takes seconds to begin; a task may reach a limit sooner.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._actor.latest.remote(), timeout=HEAD_PATIENCE)
        self._do = ray.remote(num_cpus=self._job.threads, max_retries=0)(do_task)

    def free(self) -> int:
        """Return how many more tasks Ray may have: one waits, so that no worker waits for a task."""
        room = self._cluster.slots + 1 if self._cluster else 1
        most = min(self._most, room) if self._most else room
        return max(0, most - len(self._running))

    def submit(self, task: Task) -> int:
        """Hand a task to Ray; start Ray before the first."""
        if self._cluster is None:
            self._start()
        taken = {running.worker for running in self._running.values()}
        worker = next(n for n in range(len(taken) + 1) if n not in taken)
        self._count += 1
        ref = self._do.remote(self._job, task, self._count, self._actor)
        self._running[ref] = _RunningTask(task, self._count, worker)
        return worker

    def events(self) -> list[Event]:
        """Return the tasks that ended, and what workers reported.

        Raises:
            BatchError: the cluster is gone, or has no node with enough cores.
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
            error = BatchError(f"Ray can't run the task: {said}", "look into the logs of Ray")
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
            reason = f"Ray ended its worker{where}, since the node ran out of memory"
        elif isinstance(error, errors.NodeDiedError):
            reason = f"the node of its worker{where} was lost"
        else:
            reason = f"its worker{where} was killed"
        return Event(
            running.task, "died", running.worker, reason=limit or reason, at_limit=bool(limit)
        )

    def _progress(self) -> list[Event]:
        """Return what workers reported, as far as it has arrived."""
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
        """Cancel all tasks; end Ray if it was started here."""
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
    """What the head reports of its nodes; a thread asks, since without a head the question hangs."""

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
        """Raise a `BatchError` if the head is gone, or no node has enough cores."""
        now = time.monotonic()
        if now - self._answered > HEAD_PATIENCE:
            self.lost = True
            raise BatchError(
                f"{self._address}: the head of the Ray cluster is gone",
                "start a cluster and rerun the batch to go on",
            )
        if now - self._had_room > ROOM_PATIENCE:
            raise BatchError(
                f"no node of the Ray cluster has {self._threads} cores",
                "add nodes, or lower --threads",
            )

    def close(self) -> None:
        self._ended.set()


def _connect(ray: Any, address: str, threads: int, verbose: bool) -> None:
    """Connect this process to a cluster, or start Ray here."""
    quiet: dict[str, Any] = {
        "logging_level": logging.INFO if verbose else logging.CRITICAL,
        "log_to_driver": verbose,
    }
    # Otherwise Ray prints a paragraph on stdout for every worker that dies.
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
        except Exception as exc:  # Ray raises bare exceptions here
            raise BatchError(
                f"Ray did not start: {_first_line(exc)}", "look into the logs of Ray"
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
            f"--address {address}: the Ray cluster asks for its token",
            "set RAY_AUTH_MODE=token and copy the head's ~/.ray/auth_token to this machine",
        ) from exc
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as exc:
        raise _no_cluster(address, _first_line(exc)) from exc


def _checked(address: str) -> str:
    if not re.fullmatch(r"auto|local|[^/]+:\d+", address):
        raise UsageError(
            f"--address {address} is not auto, local or HOST:PORT",
            "for a remote cluster, run the batch on one of its nodes, such as by `ray job submit`",
        )
    return address


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")


def _no_cluster(address: str, why: str) -> BatchError:
    return BatchError(
        f"--address {address}: no Ray cluster: {why}",
        "start one with `ray start --head`, and join this machine to it",
    )


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ours)
