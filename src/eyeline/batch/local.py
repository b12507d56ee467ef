"""Workers as processes of this machine, each on cores of its own.

Every worker has a pipe of its own: a lock that all of them share would be held for ever by one that
is killed while it holds it.
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

from eyeline.batch.task import Engine, Event, Job, Task, Watchdog
from eyeline.batch.worker import Worker, do_watched
from eyeline.parallel import become_worker

_WAIT = 0.5  # seconds that `events` waits for something to happen


def plan_cores(workers: int, threads: int) -> list[frozenset[int] | None]:
    """Which cores each worker runs on: `threads` of its own, or any when there are not enough.

    A worker that has its own cores decodes and infers on them alone: N workers never fight, and
    caches stay warm.

    Args:
        workers: how many.
        threads: of each.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [None] * workers
    cores = sorted(os.sched_getaffinity(0))
    if workers * threads > len(cores):
        return [None] * workers
    return [frozenset(cores[i * threads : (i + 1) * threads]) for i in range(workers)]


class _Slot:
    """A worker process and what it is doing."""

    def __init__(self, number: int, cores: frozenset[int] | None) -> None:
        self.number, self.cores = number, cores
        self.task: Task | None = None
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.last_words = ""


class LocalEngine(Engine):
    """Worker processes of this machine.

    Args:
        job: what is done to every title.
        workers: how many processes.
    """

    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        # spawn: a forked child would inherit ONNX Runtime's and FFmpeg's threads half-dead.
        self._context = multiprocessing.get_context("spawn")
        plan = plan_cores(workers, job.threads)
        self._slots = [_Slot(i, cores) for i, cores in enumerate(plan)]

    def free(self) -> int:
        """See `Engine`."""
        return sum(slot.task is None for slot in self._slots)

    def submit(self, task: Task) -> int:
        """See `Engine`."""
        slot = next(s for s in self._slots if s.task is None)
        if slot.process is None or not slot.process.is_alive():
            self._start(slot)
        assert slot.pipe is not None  # noqa: S101 - it was started
        slot.task, slot.last_words = task, ""
        # To a worker that died just now nothing can be sent: `events` will find it dead.
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
        """See `Engine`."""
        busy = [s for s in self._slots if s.task is not None]
        signs: dict[Any, _Slot] = {}
        for slot in busy:
            assert slot.process is not None  # noqa: S101 - it has a task
            signs[slot.process.sentinel] = slot
            signs[slot.pipe] = slot
        seen: dict[int, _Slot] = {}
        for sign in wait(list(signs), _WAIT):
            seen[signs[sign].number] = signs[sign]
        events: list[Event] = []
        for slot in seen.values():
            events += self._read(slot)
        return events

    def _read(self, slot: _Slot) -> list[Event]:
        """What a worker said; and that it died, if it did, once all it said was read."""
        assert slot.process is not None and slot.pipe is not None and slot.task is not None  # noqa: S101
        dead = not slot.process.is_alive()
        events: list[Event] = []
        with contextlib.suppress(EOFError, OSError):
            while slot.task is not None and slot.pipe.poll():
                kind, value = slot.pipe.recv()
                if kind == "words":
                    slot.last_words = value
                    continue
                event = Event(slot.task, kind, slot.number)
                if kind == "progress":
                    event.frames = value
                else:
                    slot.task = None
                    event.outcome, event.error = (value, None) if kind == "done" else (None, value)
                events.append(event)
        if dead and slot.task is not None:
            reason = slot.last_words or _cause(slot.process.exitcode)
            events.append(
                Event(slot.task, "died", slot.number, reason=reason, limit=bool(slot.last_words))
            )
            slot.task = None
        return events

    def close(self) -> None:
        """See `Engine`."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                self._forget(slot)
            slot.task = None


def _cause(code: int | None) -> str:
    """Why a process ended, for people."""
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ": out of memory?" if name == "SIGKILL" else ""
        return f"its worker was killed by {name}{hint}"
    return f"its worker ended with exit code {code}"


def _serve(pipe: Connection, job: Job, cores: frozenset[int] | None) -> None:
    """Do the tasks that come through the pipe, until it is closed."""
    become_worker()
    if cores is not None:
        os.sched_setaffinity(0, cores)
    turn = threading.Lock()  # the watchdog may speak while a task reports its progress

    def say(kind: str, value: Any) -> None:
        with turn:
            pipe.send((kind, value))

    worker = Worker(job)
    watchdog = Watchdog(job.limits, lambda reason: say("words", reason))
    with contextlib.suppress(EOFError, OSError):  # the driver is gone, or wants us to go
        while True:
            task: Task = pipe.recv()
            say(*do_watched(worker, watchdog, task, lambda frames: say("progress", frames)))
