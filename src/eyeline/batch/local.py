"""An engine whose workers are processes of this machine, each pinned to separate cores.

Each worker has a separate pipe. A shared pipe would stay locked if a worker were killed while it holds
the lock.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from eyeline.batch.task import Engine, Event, Job, Task
from eyeline.batch.worker import Watchdog, Worker
from eyeline.parallel import become_worker

_WAIT = 0.5  # seconds that `events` waits for an event


def plan_cores(workers: int, threads: int) -> list[frozenset[int] | None]:
    """Return `threads` separate cores per worker, or None per worker if there are too few cores.

    Workers that are pinned to separate cores do not compete, and their caches stay warm.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [None] * workers
    cores = sorted(os.sched_getaffinity(0))
    if workers * threads > len(cores):
        return [None] * workers
    return [frozenset(cores[i * threads : (i + 1) * threads]) for i in range(workers)]


class _Slot:
    """A worker process and its current task."""

    def __init__(self, number: int, cores: frozenset[int] | None) -> None:
        self.number, self.cores = number, cores
        self.task: Task | None = None
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.limit_reason = ""


class LocalEngine(Engine):
    """An engine of `workers` processes of this machine."""

    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        # spawn, since a forked child would inherit locks of ONNX Runtime without its threads.
        self._context = multiprocessing.get_context("spawn")
        plan = plan_cores(workers, job.threads)
        self._slots = [_Slot(i, cores) for i, cores in enumerate(plan)]

    def free(self) -> int:
        """Return how many workers are idle."""
        return sum(slot.task is None for slot in self._slots)

    def submit(self, task: Task) -> int:
        """Send a task to an idle worker; start its process if it has none or the process died."""
        slot = next(s for s in self._slots if s.task is None)
        if slot.process is None or not slot.process.is_alive():
            self._start(slot)
        assert slot.pipe is not None  # noqa: S101 - the process was started
        slot.task, slot.limit_reason = task, ""
        # Sending fails if the worker has just died; `events` will report that.
        with contextlib.suppress(OSError):
            slot.pipe.send(task)
        return slot.number

    def _start(self, slot: _Slot) -> None:
        if slot.process is not None:
            self.restarts += 1
            self._forget(slot)
        ours, theirs = self._context.Pipe()
        slot.process = self._context.Process(
            target=_serve,
            args=(theirs, self._job, slot.cores),
            name=f"eyeline-batch-{slot.number}",
            daemon=True,
        )
        slot.process.start()
        theirs.close()
        slot.pipe = ours

    @staticmethod
    def _forget(slot: _Slot) -> None:
        if slot.pipe is not None:
            slot.pipe.close()
        if slot.process is not None:
            slot.process.join()
            slot.process.close()
        slot.process = slot.pipe = None

    def events(self) -> list[Event]:
        """Return the events that the busy workers reported."""
        busy = [s for s in self._slots if s.task is not None]
        signals: dict[Any, _Slot] = {}
        for slot in busy:
            assert slot.process is not None  # noqa: S101 - it has a task
            signals[slot.process.sentinel] = slot
            signals[slot.pipe] = slot
        ready = {signals[s].number: signals[s] for s in wait(list(signals), _WAIT)}
        return [event for slot in ready.values() for event in self._read(slot)]

    def _read(self, slot: _Slot) -> list[Event]:
        """Return the events of one worker; if the worker died, the last event says so."""
        assert slot.process is not None and slot.pipe is not None and slot.task is not None  # noqa: S101
        dead = not slot.process.is_alive()
        events: list[Event] = []
        with contextlib.suppress(EOFError, OSError):
            while slot.task is not None and slot.pipe.poll():
                kind, value = slot.pipe.recv()
                if kind == "limit":
                    slot.limit_reason = value
                    continue
                event = Event(slot.task, kind, slot.number)
                if kind == "progress":
                    event.frames = value
                else:
                    slot.task = None
                    event.outcome, event.error = (value, None) if kind == "done" else (None, value)
                events.append(event)
        if dead and slot.task is not None:
            limit = slot.limit_reason
            reason = limit or _cause(slot.process.exitcode)
            events.append(
                Event(slot.task, "died", slot.number, reason=reason, at_limit=bool(limit))
            )
            slot.task = None
        return events

    def close(self) -> None:
        """Kill all workers."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                self._forget(slot)
            slot.task = None


def _cause(code: int | None) -> str:
    """Describe why a process ended."""
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
        return f"its worker was killed by {name}{hint}"
    return f"its worker ended with exit code {code}"


def _serve(pipe: Connection, job: Job, cores: frozenset[int] | None) -> None:
    """Run the tasks that come through the pipe until the driver closes the pipe."""
    become_worker()
    if cores is not None:
        os.sched_setaffinity(0, cores)
    lock = threading.Lock()  # the watchdog may report while a task reports its progress

    def send(kind: str, value: Any) -> None:
        with lock:
            pipe.send((kind, value))

    worker = Worker(job)
    watchdog = Watchdog(job.limits, lambda reason: send("limit", reason))
    with contextlib.suppress(EOFError, OSError):  # the driver ended, or closed the pipe
        while True:
            task: Task = pipe.recv()
            send(*worker.do_watched(watchdog, task, lambda frames: send("progress", frames)))
