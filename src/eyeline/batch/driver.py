"""Run a batch: find the titles to process, hand out tasks, and act on their outcomes.

The driver holds no results: workers write them to the output folder. After the driver was killed, a
rerun of the batch continues with the unfinished titles.
"""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from eyeline.batch.manifest import Title
from eyeline.batch.store import STATUS_FILE, Store, TitleRecord, exclusive
from eyeline.batch.task import BatchResult, Engine, Event, Job, Outcome, Task, TitlePlan
from eyeline.batch.worker import record_failure
from eyeline.errors import EyelineError, MediaError, OutputError
from eyeline.parallel import map_in_threads

RETRIES = 2
"""Number of further attempts at a task after its worker died."""

_LOOKERS = 16  # threads that look titles up; many, since remote stores answer slowly


class Watcher(Protocol):
    """Shows the progress of a batch."""

    def begin(self, total: int, skipped: int, size: int) -> None:
        """Begin a batch of `total` titles: `skipped` are not processed; the others have `size` bytes."""

    def started(self, task: Task, worker: int) -> None:
        """Show that a worker began a task."""

    def progress(self, event: Event) -> None:
        """Show the number of frames that a worker reported."""

    def ended(self, task: Task, worker: int, outcome: Outcome | None, share: float) -> None:
        """Show that a worker ended a task, which completed `share` bytes of the sources."""

    def finished(self, record: TitleRecord) -> None:
        """Show that a title is finished or has failed."""


@dataclass
class _TitleState:
    """A title that is being processed.

    Attributes:
        size: size of the source videos, bytes.
        plan: segments of the title; None if the title is not split.
        left: numbers of the segments that are not done.
        running: number of the title's tasks that workers are running.
        over: whether the title is finished or has failed; outcomes of its segments are then ignored.
        attempts: number of workers that died, per kind and number of the task.
    """

    title: Title
    size: int
    plan: TitlePlan | None = None
    left: set[int] = field(default_factory=set)
    running: int = 0
    over: bool = False
    attempts: Counter[tuple[str, int]] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Look:
    title: Title
    due: bool  # the title must be processed
    size: int  # bytes
    record: TitleRecord | None


def _look_at(store: Store, title: Title, again: bool) -> _Look:
    record = store.record(title.name)
    try:
        mark = title.stamp()
    except MediaError:
        return _Look(title, True, 0, record)  # the worker will fail, too, and record the reason
    size = sum(m["size"] for m in mark.get("pair", [mark]))
    if record is None or record.stamp != mark or record.source != title.source:
        return _Look(title, True, size, record)
    if record.state == "ok":
        return _Look(title, not store.place.exists(record.part), size, record)
    return _Look(title, again, size, record)


class _Driver:
    def __init__(
        self, job: Job, engine: Engine, watcher: Watcher | None, retries: int, result: BatchResult
    ) -> None:
        self._job, self._engine, self._watcher = job, engine, watcher
        self._retries, self._result = retries, result
        self._store = Store(job.output, job.version)
        self._states: dict[str, _TitleState] = {}
        self._next: deque[Task] = deque()

    def run(self, looks: Sequence[_Look]) -> None:
        waiting = deque(look for look in looks if look.due)
        running = 0
        while True:
            while self._engine.free() > 0:
                task = self._take(waiting)
                if task is None:
                    break
                self._states[task.title.name].running += 1
                running += 1
                worker = self._engine.submit(task)
                if self._watcher:
                    self._watcher.started(task, worker)
            if not running:
                return
            for event in self._engine.events():
                if event.kind == "progress":
                    if self._watcher:
                        self._watcher.progress(event)
                    continue
                running -= 1
                self._handle(event)

    def _take(self, waiting: deque[_Look]) -> Task | None:
        """Return the next task. Segments come before new titles, so that few titles run at a time."""
        if self._next:
            return self._next.popleft()
        if not waiting:
            return None
        look = waiting.popleft()
        self._states[look.title.name] = _TitleState(look.title, look.size)
        return Task("title", look.title)

    def _handle(self, event: Event) -> None:
        task, state = event.task, self._states[event.task.title.name]
        state.running -= 1
        if event.kind == "stop":
            raise event.error or EyelineError(
                "the engine stopped the batch without giving a reason", "run the batch again"
            )
        outcome = event.outcome
        share = 0.0
        if event.kind == "died":
            self._died(state, task, event)
        elif outcome is not None:
            self._result.frames += outcome.frames
            share = self._done(state, task, outcome)
        if self._watcher:
            self._watcher.ended(task, event.worker, outcome, share)
        if state.over and not state.running and state.plan is not None:
            self._tidy(state)

    def _died(self, state: _TitleState, task: Task, event: Event) -> None:
        if state.over:
            return
        key = (task.kind, task.number)
        state.attempts[key] += 1
        if not event.at_limit and state.attempts[key] <= self._retries:
            self._next.appendleft(task)
            return
        where = f" in segment {task.number + 1}" if task.kind == "segment" else ""
        times = f", {state.attempts[key]} times" if state.attempts[key] > 1 else ""
        self._finish(
            state, record_failure(self._store, task.title, f"{event.reason}{where}{times}")
        )

    def _done(self, state: _TitleState, task: Task, outcome: Outcome) -> float:
        """Act on an outcome; return the number of source bytes that it completes."""
        if state.over and task.kind == "segment":
            return 0.0
        if outcome.record is not None:
            done = state.size * (len(state.left) / len(state.plan.segments) if state.plan else 1.0)
            self._finish(state, outcome.record)
            return done
        if outcome.whole_because:
            self._drop(state)
            state.left = set(range(len(state.plan.segments))) if state.plan else set()
            self._next.appendleft(Task("title", state.title, whole_because=outcome.whole_because))
            return 0.0
        if outcome.plan is not None:
            state.plan = plan = outcome.plan
            state.left = set(range(len(plan.segments))) - plan.done
            self._next.extend(
                Task("segment", state.title, plan, number) for number in sorted(state.left)
            )
        elif task.kind == "segment":
            state.left.discard(task.number)
        assert state.plan is not None  # noqa: S101 - the outcome of a title without a plan is a record
        if not state.left:
            self._next.appendleft(Task("join", state.title, state.plan))
        pieces = len(state.plan.segments)
        return state.size * (len(state.plan.done) if outcome.plan else 1) / pieces

    def _drop(self, state: _TitleState) -> None:
        """Drop the waiting tasks of a title."""
        self._next = deque(t for t in self._next if t.title != state.title)

    def _finish(self, state: _TitleState, record: TitleRecord) -> None:
        state.over = True
        self._drop(state)
        result = self._result
        (result.ok if record.state == "ok" else result.failed).append(record.title)
        if record.reason:
            result.reasons[record.title] = record.reason
        if self._watcher:
            self._watcher.finished(record)

    def _tidy(self, state: _TitleState) -> None:
        """Remove the segments of a finished title; those of a failed title are kept for a rerun."""
        if state.plan is not None and state.title.name in self._result.ok:
            self._store.place.remove(state.plan.folder)


def run_batch(
    titles: Sequence[Title],
    job: Job,
    engine: Engine,
    *,
    watcher: Watcher | None = None,
    retries: int = RETRIES,
    again: bool = True,
) -> BatchResult:
    """Process every title that is not finished yet.

    Args:
        titles: the titles, from `eyeline.batch.manifest.read_titles`.
        job: the work to do for each title, and the output folder.
        engine: runs the tasks; the caller closes it.
        watcher: shows the progress; None = nothing is shown.
        retries: number of further attempts at a task after its worker died.
        again: whether to retry titles that failed in an earlier run.

    Returns:
        The state of each title. Finished titles are on disk, even if this function raises an error.

    Raises:
        BatchError: another batch uses the output folder, or a title record there is invalid.
        OutputError: results can't be written, for example because the disk is full; a rerun continues.
        ModelError: the model can't be used.
    """
    begun = time.monotonic()
    result = BatchResult()
    store = Store(job.output, job.version)
    with exclusive(store.place):
        store.place.sweep()
        store.begin()
        looks = list(map_in_threads(lambda t: _look_at(store, t, again), titles, _LOOKERS))
        for look in looks:
            if not look.due and look.record is not None:
                if look.record.state == "ok":
                    result.skipped.append(look.title.name)
                    if look.record.segments > 1:  # a killed batch may have left its segments
                        store.place.remove(
                            store.work_folder(look.title.name, look.record.source_sha256)
                        )
                else:
                    result.failed.append(look.title.name)
                    result.reasons[look.title.name] = look.record.reason
        if watcher:
            size = sum(look.size for look in looks if look.due)
            watcher.begin(len(looks), sum(not look.due for look in looks), size)
        try:
            _Driver(job, engine, watcher, retries, result).run(looks)
        except BaseException:
            with contextlib.suppress(
                OutputError
            ):  # on a full disk, the table can't be written either
                _write_status(store, titles, result)
            raise
        result.restarts = engine.restarts
        if engine.restarts:  # a killed worker may have left an unfinished file
            store.place.sweep()
        result.seconds = time.monotonic() - begun
        _write_status(store, titles, result)
    return result


def _write_status(store: Store, titles: Sequence[Title], result: BatchResult) -> None:
    """Write the table with the state of every title of this run."""
    ok, skipped = set(result.ok), set(result.skipped)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["title", "status", "source", "version"])
    for title in titles:
        if title.name in result.reasons:
            status = f"failed: {result.reasons[title.name]}"
        elif title.name in ok:
            status = "ok"
        else:
            status = "skipped: unchanged" if title.name in skipped else "not done yet"
        writer.writerow([title.name, status, title.source, store.version.name])
    store.place.write(STATUS_FILE, out.getvalue().encode())
