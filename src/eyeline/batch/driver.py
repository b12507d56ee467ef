"""The course of a batch: which titles are due, which task comes next, what each outcome means.

It holds no results: whatever is finished is on disk, so a driver that dies is replaced by a rerun.
"""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from eyeline.batch.manifest import Title
from eyeline.batch.store import STATUS_FILE, Store, TitleRecord, exclusive
from eyeline.batch.task import BatchResult, Engine, Event, Job, Outcome, Plan, Task
from eyeline.batch.worker import failed
from eyeline.errors import EyelineError, MediaError, OutputError

RETRIES = 2
"""Further attempts after a worker was killed from outside: machines die, titles rarely kill."""

_LOOKERS = 16  # threads that look which titles are due: remote stores answer slowly


class Watcher(Protocol):
    """What is told of a batch while it runs."""

    def begin(self, total: int, skipped: int, size: int) -> None:
        """So many titles, of which so many are unchanged; the others have `size` bytes."""

    def started(self, task: Task, worker: int) -> None:
        """A worker took a task."""

    def progress(self, event: Event) -> None:
        """A worker reported its frames."""

    def ended(self, task: Task, worker: int, outcome: Outcome | None, share: float) -> None:
        """A worker is done with a task: `share` bytes of the total are done with it."""

    def finished(self, record: TitleRecord) -> None:
        """A title is finished, well or not."""


@dataclass
class _Course:
    """Where a title stands.

    Attributes:
        title: which.
        size: bytes of its source.
        plan: how it was split.
        left: segments that are not done.
        flying: its tasks that workers have.
        over: it is finished, or is to be done whole: what pieces still come to means nothing.
    """

    title: Title
    size: int
    plan: Plan | None = None
    left: set[int] = field(default_factory=set)
    flying: int = 0
    over: bool = False
    attempts: Counter[tuple[str, int]] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Look:
    """What a look at a title found: whether it is due."""

    title: Title
    due: bool
    size: int
    record: TitleRecord | None


def _look(store: Store, title: Title, again: bool) -> _Look:
    record = store.record(title.name)
    try:
        mark = title.stamp()
    except MediaError:
        return _Look(title, True, 0, record)  # the worker records why
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
        self._courses: dict[str, _Course] = {}
        self._next: deque[Task] = deque()

    def run(self, looks: Sequence[_Look]) -> None:
        """Do the titles that are due."""
        waiting = deque(look for look in looks if look.due)
        flying = 0
        while True:
            while self._engine.free() > 0:
                task = self._take(waiting)
                if task is None:
                    break
                self._courses[task.title.name].flying += 1
                flying += 1
                worker = self._engine.submit(task)
                if self._watcher:
                    self._watcher.started(task, worker)
            if not flying:
                return
            for event in self._engine.events():
                if event.kind == "progress":
                    if self._watcher:
                        self._watcher.progress(event)
                    continue
                flying -= 1
                self._handle(event)

    def _take(self, waiting: deque[_Look]) -> Task | None:
        """Pieces of a title that has begun come before new titles, so that few are open at a time."""
        if self._next:
            return self._next.popleft()
        if not waiting:
            return None
        look = waiting.popleft()
        self._courses[look.title.name] = _Course(look.title, look.size)
        return Task("title", look.title)

    def _handle(self, event: Event) -> None:
        task, course = event.task, self._courses[event.task.title.name]
        course.flying -= 1
        if event.kind == "stop":
            raise event.error or EyelineError("the batch can't go on")
        outcome = event.outcome
        share = 0.0
        if event.kind == "died":
            self._died(course, task, event)
        elif outcome is not None:
            self._result.frames += outcome.frames
            share = self._done(course, task, outcome)
        if self._watcher:
            self._watcher.ended(task, event.worker, outcome, share)
        if course.over and not course.flying and course.plan is not None:
            self._tidy(course)

    def _died(self, course: _Course, task: Task, event: Event) -> None:
        if course.over:
            return
        key = (task.kind, task.number)
        course.attempts[key] += 1
        if not event.limit and course.attempts[key] <= self._retries:
            self._next.appendleft(task)
            return
        where = f" in segment {task.number + 1}" if task.kind == "segment" else ""
        times = f", {course.attempts[key]} times" if course.attempts[key] > 1 else ""
        self._finish(course, failed(self._store, task, f"{event.reason}{where}{times}"))

    def _done(self, course: _Course, task: Task, outcome: Outcome) -> float:
        """What an outcome leads to; the bytes of the source that are done with it."""
        if course.over and task.kind == "segment":
            return 0.0
        if outcome.record is not None:
            done = course.size * (
                len(course.left) / len(course.plan.segments) if course.plan else 1.0
            )
            self._finish(course, outcome.record)
            return done
        if outcome.whole:
            self._drop(course)
            course.left = set(range(len(course.plan.segments))) if course.plan else set()
            self._next.appendleft(Task("title", course.title, whole=outcome.whole))
            return 0.0
        if outcome.plan is not None:
            course.plan = plan = outcome.plan
            course.left = set(range(len(plan.segments))) - plan.done
            self._next.extend(
                Task("segment", course.title, plan, number) for number in sorted(course.left)
            )
        elif task.kind == "segment":
            course.left.discard(task.number)
        assert course.plan is not None  # noqa: S101 - a title without a plan ends in a record
        if not course.left:
            self._next.appendleft(Task("join", course.title, course.plan))
        pieces = len(course.plan.segments)
        return course.size * (len(course.plan.done) if outcome.plan else 1) / pieces

    def _drop(self, course: _Course) -> None:
        """Forget the tasks of a title that no worker has yet."""
        self._next = deque(t for t in self._next if t.title != course.title)

    def _finish(self, course: _Course, record: TitleRecord) -> None:
        course.over = True
        self._drop(course)
        result = self._result
        (result.ok if record.state == "ok" else result.failed).append(record.title)
        if record.reason:
            result.reasons[record.title] = record.reason
        if self._watcher:
            self._watcher.finished(record)

    def _tidy(self, course: _Course) -> None:
        """Of a title that is done its pieces go; of one that failed they wait for the next attempt."""
        if course.plan is not None and course.title.name in self._result.ok:
            self._store.place.remove(course.plan.folder)


def run_batch(
    titles: Sequence[Title],
    job: Job,
    engine: Engine,
    *,
    watcher: Watcher | None = None,
    retries: int = RETRIES,
    again: bool = True,
) -> BatchResult:
    """Do every title that is not done yet.

    Args:
        titles: see `eyeline.batch.manifest.read_titles`.
        job: what is done to each, and where the results go.
        engine: who does it; not closed.
        watcher: told of all that happens.
        retries: further attempts after a worker was killed from outside.
        again: whether titles that failed in an earlier run are tried again.

    Returns:
        How the titles ended. Everything finished is on disk, also when this raises.

    Raises:
        BatchError: another batch is at work in the output folder, or a record there does not parse.
        OutputError: results can't be written, such as on a full disk; a rerun goes on.
        ModelError: the model can't be used.
    """
    begun = time.monotonic()
    result = BatchResult()
    store = Store(job.output, job.version)
    with exclusive(store.place):
        store.place.sweep()
        store.begin()
        with ThreadPoolExecutor(_LOOKERS) as pool:
            looks = list(pool.map(lambda t: _look(store, t, again), titles))
        for look in looks:
            if not look.due and look.record is not None:
                if look.record.state == "ok":
                    result.skipped.append(look.title.name)
                    if look.record.segments > 1:  # a death may have left its pieces
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
            with contextlib.suppress(OutputError):  # a full disk takes the table, too
                _write_status(store, titles, result)
            raise
        result.restarts = engine.restarts
        if engine.restarts:  # a killed worker may have left a file that it had not finished
            store.place.sweep()
        result.seconds = time.monotonic() - begun
        _write_status(store, titles, result)
    return result


def _write_status(store: Store, titles: Sequence[Title], result: BatchResult) -> None:
    """The table of how every title of this run ended."""
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
