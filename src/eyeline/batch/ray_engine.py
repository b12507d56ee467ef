"""Workers as Ray tasks: on this machine, or wherever a cluster has room.

Ray schedules, and its worker processes keep the model loaded from task to task. All else is the
driver's: Ray retries nothing, so that a task runs once at a time and every death is counted. Ray
ends the tasks of a driver that dies, so that only who holds the output's lock writes there.
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
from eyeline.batch.task import Engine, Event, Job, Task, Watchdog
from eyeline.batch.worker import Worker, do_watched
from eyeline.errors import BatchError, MissingExtraError, UsageError
from eyeline.parallel import usable_cores

_WAIT = 0.5  # seconds that `events` waits for something to happen
_LOOK = 2.0  # seconds between two questions to the head
_UNWIND = 3.0  # seconds that a cancelled task has to remove its temporary files
_OBJECTS = 100 << 20  # bytes of Ray's object store, where it is ours: only records pass through it

HEAD_PATIENCE = 45.0
"""Seconds without the head until the batch ends; at 60 Ray itself ends the process, without a word."""

ROOM_PATIENCE = 600.0
"""Seconds without any node that has enough cores until the batch ends: autoscalers take minutes."""


class Board:
    """What workers say while they are at work; an actor beside the driver, which outlives them."""

    def __init__(self) -> None:
        self._frames: dict[int, tuple[int, str]] = {}
        self._words: dict[int, str] = {}

    def report(self, number: int, frames: int, where: str) -> None:
        """The attempt `number` has so many rows so far; `where` names its process."""
        self._frames[number] = frames, where

    def say(self, number: int, reason: str) -> None:
        """The last words of an attempt."""
        self._words[number] = reason

    def news(self) -> dict[int, tuple[int, str]]:
        """The reports since the last call, by attempt."""
        news, self._frames = self._frames, {}
        return news

    def words(self, number: int) -> str:
        """The last words of an attempt, empty if it had none."""
        return self._words.pop(number, "")


class _Seat:
    """What a worker process keeps from task to task."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._worker = Worker(job)
        self._watchdog = Watchdog(job.limits, self._last_words)
        self._number = 0
        self._board: Any = None

    def do(self, task: Task, number: int, board: Any) -> tuple[str, Any]:
        self._number, self._board = number, board
        where = f"process {os.getpid()} on {socket.gethostname()}"
        board.report.remote(number, 0, where)
        return do_watched(
            self._worker, self._watchdog, task, lambda n: board.report.remote(number, n, where)
        )

    def _last_words(self, reason: str) -> None:
        import ray

        assert self._board is not None  # noqa: S101 - a task runs
        with contextlib.suppress(ray.exceptions.RayError):  # the process must end all the same
            ray.get(self._board.say.remote(self._number, reason), timeout=5)


_seat: _Seat | None = None


def do_task(job: Job, task: Task, number: int, board: Any) -> tuple[str, Any]:
    """Do a task in a Ray worker process; the model stays loaded for the next.

    Args:
        job: what is done to every title.
        task: what to do.
        number: of this attempt.
        board: handle of a `Board`.

    Returns:
        See `eyeline.batch.worker.do_watched`.
    """
    global _seat  # noqa: PLW0603 - what a process keeps between tasks is its modules
    wanted = job.version.facts["eyeline"]
    if __version__ != wanted:
        return "stop", BatchError(
            f"{socket.gethostname()}: has eyeline {__version__}, the driver {wanted}",
            "install one release on every node",
        )
    if _seat is None or _seat.job != job:
        _seat = _Seat(job)
    seat, _seat = _seat, None  # a cancelled task leaves nothing that may be half-way
    done = seat.do(task, number, board)
    _seat = seat
    return done


@dataclass
class _Flight:
    """A task that Ray has.

    Attributes:
        task: which.
        number: of the attempt.
        worker: place in the view, from 0.
        where: its process.
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
            `local` starts Ray here; None = what `RAY_ADDRESS` says, or else `local`. A Ray that
            this process is connected to is used as it is.
        workers: most tasks at a time; 0 = as many as the cluster has room for, nodes that join later
            included.
        verbose: let Ray say what it says.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: an address of another kind.
        BatchError: no cluster there.
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
        self._board: Any = None
        self._news: Any = None
        self._flights: dict[Any, _Flight] = {}
        self._count = 0
        self._cluster: _Cluster | None = None

    def _start(self) -> None:
        """With the first task, since a batch that has none needs no cluster."""
        ray = self._ray
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(ray, self._address, self._job.threads, self._verbose)
        context = ray.get_runtime_context()
        self._cluster = _Cluster(ray, context.gcs_address, self._job.threads)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            context.get_node_id(), soft=False
        )
        board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here, max_restarts=-1)
        self._board = board.remote()
        # Its process takes seconds to begin; a task whose worker is there has last words sooner.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._board.news.remote(), timeout=HEAD_PATIENCE)
        self._do = ray.remote(num_cpus=self._job.threads, max_retries=0)(do_task)

    def free(self) -> int:
        """See `Engine`: one more than there are cores for, so that none waits for its next task."""
        room = self._cluster.slots + 1 if self._cluster else 1
        most = min(self._most, room) if self._most else room
        return max(0, most - len(self._flights))

    def submit(self, task: Task) -> int:
        """See `Engine`."""
        if self._cluster is None:
            self._start()
        taken = {flight.worker for flight in self._flights.values()}
        worker = next(n for n in range(len(taken) + 1) if n not in taken)
        self._count += 1
        ref = self._do.remote(self._job, task, self._count, self._board)
        self._flights[ref] = _Flight(task, self._count, worker)
        return worker

    def events(self) -> list[Event]:
        """See `Engine`.

        Raises:
            BatchError: the cluster is gone, or has no node with enough cores.
        """
        ray, refs = self._ray, list(self._flights)
        done, _ = ray.wait(refs, num_returns=1, timeout=_WAIT)
        if done:
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        elif self._cluster is not None:
            self._cluster.check()
        ended = [self._ended(ref, self._flights.pop(ref)) for ref in done]
        return self._progress() + ended

    def _ended(self, ref: Any, flight: _Flight) -> Event:
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
            return self._died(flight, exc)
        except errors.RayError as exc:
            said = str(exc).strip().splitlines()[-1]
            error = BatchError(f"Ray can't run the task: {said}", "see its logs")
            return Event(flight.task, "stop", flight.worker, error=error)
        if kind == "done":
            return Event(flight.task, "done", flight.worker, outcome=value)
        return Event(flight.task, "stop", flight.worker, error=value)

    def _died(self, flight: _Flight, error: Exception) -> Event:
        errors = self._ray.exceptions
        self.restarts += 1
        words = ""
        with contextlib.suppress(errors.RayError):
            words = self._ray.get(self._board.words.remote(flight.number), timeout=5)
        where = f" ({flight.where})" if flight.where else ""
        if isinstance(error, errors.OutOfMemoryError):
            reason = f"Ray ended its worker{where}, since the node ran out of memory"
        elif isinstance(error, errors.NodeDiedError):
            reason = f"the node of its worker{where} was lost"
        else:
            reason = f"its worker{where} was killed"
        return Event(flight.task, "died", flight.worker, reason=words or reason, limit=bool(words))

    def _progress(self) -> list[Event]:
        """What workers reported, as far as it has come."""
        ray = self._ray
        if self._news is None:
            self._news = self._board.news.remote()
            return []
        ready, _ = ray.wait([self._news], timeout=0)
        if not ready:
            return []
        news: dict[int, tuple[int, str]] = {}
        with contextlib.suppress(ray.exceptions.RayError):
            news = ray.get(self._news)
        self._news = None
        events = []
        for flight in self._flights.values():
            if flight.number in news:
                frames, flight.where = news[flight.number]
                events.append(Event(flight.task, "progress", flight.worker, frames=frames))
        return events

    def close(self) -> None:
        """See `Engine`."""
        ray, refs = self._ray, list(self._flights)
        self._flights = {}
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
                _, refs = ray.wait(refs, num_returns=len(refs), timeout=_UNWIND)
        ray.kill(self._board)
        if self._ours:
            ray.shutdown()


class _Cluster:
    """What the head says of its nodes, asked for in a thread: without a head the question hangs.

    Args:
        ray: the module.
        address: of the head.
        threads: cores of a task.
    """

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
        while not self._ended.wait(_LOOK):
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ask()

    def check(self) -> None:
        """Whether there is any point in waiting.

        Raises:
            BatchError: there is none.
        """
        now = time.monotonic()
        if now - self._answered > HEAD_PATIENCE:
            self.lost = True
            raise BatchError(
                f"{self._address}: the head of the Ray cluster is gone",
                "when there is a cluster again, rerun to go on",
            )
        if now - self._had_room > ROOM_PATIENCE:
            raise BatchError(
                f"no node of the Ray cluster has {self._threads} cores",
                "add nodes, or lower --threads",
            )

    def close(self) -> None:
        """Ask no more."""
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
            raise BatchError(f"Ray did not start: {_first_line(exc)}", "see its logs") from exc
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
            f"--address {address}: the Ray cluster wants its token",
            "set RAY_AUTH_MODE=token and have the head's ~/.ray/auth_token here",
        ) from exc
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as exc:
        raise _no_cluster(address, _first_line(exc)) from exc


def _checked(address: str) -> str:
    """An address of a kind that a batch may use."""
    if not re.fullmatch(r"auto|local|[^/]+:\d+", address):
        raise UsageError(
            f"--address {address}: is not auto, local or HOST:PORT",
            "run the batch on a node of the cluster, such as by `ray job submit`",
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
    """Ray puts a handler of its own in place of the program's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ours)
