"""Run tasks in a worker process, within limits of time and memory; used by all engines.

If a task exceeds a limit, its worker reports this and ends its process, and the engine starts a new worker.
So a title that hangs or needs too much memory does not affect the other titles.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eyeline.arrays import read_member
from eyeline.batch.manifest import Title, as_local, is_url
from eyeline.batch.store import Store, TitleRecord, segment_name
from eyeline.batch.task import Job, Outcome, Task, TaskLimits, TitlePlan
from eyeline.batch.work import Product, Runner
from eyeline.digests import file_sha256, sha256_hex
from eyeline.errors import (
    EyelineError,
    MediaError,
    MissingExtraError,
    ModelError,
    OutputError,
    SeamError,
    SeekError,
)
from eyeline.logs import parquet_format
from eyeline.logs.base import Log
from eyeline.media.types import FrameIndex
from eyeline.segments import Indexes, join_segments, run_segment

OnFrames = Callable[[int], None]

_INDEX = "indexes.npz"


SHARE = 0.8
"""Share of the machine's memory that all workers together may use; the rest is for the page cache."""

_EVERY = 0.05  # seconds between two checks of the limits
_GRACE = (
    10.0  # seconds after the limit until the C timer ends a process that the watchdog can't end
)
_REPORT_EVERY = 0.5  # seconds between two reports of progress


def _psutil() -> Any:
    try:
        import psutil
    except ModuleNotFoundError as exc:
        raise MissingExtraError("psutil", "batch") from exc
    return psutil


def memory_share(workers: int) -> int:
    """Return the default memory limit per worker on this machine, MiB.

    Raises:
        MissingExtraError: psutil is not installed.
    """
    return int(_psutil().virtual_memory().total * SHARE / max(1, workers)) >> 20


def resident_mebibytes() -> float:
    """Return the resident memory of this process, MiB."""
    return float(_psutil().Process().memory_info().rss) / (1 << 20)


class Watchdog:
    """Context manager around a task that ends this process if the task exceeds a limit.

    Args:
        limits: limits of the task.
        report: called with the reason before the process ends.
        end: called to end the process.
    """

    def __init__(
        self,
        limits: TaskLimits,
        report: Callable[[str], None],
        end: Callable[[], None] = lambda: os._exit(1),
    ) -> None:
        self._limits, self._report, self._end = limits, report, end
        self._alive = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        self._alive = time.monotonic()
        self._over.clear()
        if self._limits.seconds:
            # A second timer in C, since the watchdog thread can't run while native code holds the GIL.
            faulthandler.dump_traceback_later(self._limits.seconds + _GRACE, exit=True)
        if self._limits != TaskLimits():
            self._thread = threading.Thread(target=self._watch, name="eyeline-limits", daemon=True)
            self._thread.start()
        return self

    def alive(self) -> None:
        """Reset the stall timer; called after each frame."""
        self._alive = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._limits.seconds:
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        limits, begun = self._limits, self._alive
        while not self._over.wait(_EVERY):
            reason, now = "", time.monotonic()
            if limits.seconds and now - begun > limits.seconds:
                reason = f"took longer than {limits.seconds:g} s"
            elif limits.stall and now - self._alive > limits.stall:
                reason = f"gave no frame for {limits.stall:g} s"
            elif limits.mebibytes and (size := resident_mebibytes()) > limits.mebibytes:
                reason = f"took {size:.0f} MiB of memory, more than {limits.mebibytes}"
            if reason:
                self._report(reason)
                self._end()
                return


class BatchStoppedError(Exception):
    """An error that would also affect all other titles; its `__cause__` is an `EyelineError`."""


class Worker:
    """Runs tasks, one after the other; keeps the model loaded."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._store = Store(job.output, job.version)
        self._runner: Runner | None = None
        self._indexes: tuple[str, Indexes] | None = None

    def do_watched(
        self, watchdog: Watchdog, task: Task, on_frames: OnFrames
    ) -> tuple[Literal["done", "stop"], Any]:
        """Run a task within its limits; call `on_frames` every 0.5 s with the number of rows so far.

        Returns:
            `done` and the outcome, or `stop` and the error that would also affect all other titles.
        """
        due = 0.0

        def count(frames: int) -> None:
            nonlocal due
            watchdog.alive()
            if (now := time.monotonic()) >= due:
                due = now + _REPORT_EVERY
                on_frames(frames)

        try:
            with watchdog:
                return "done", self.do(task, count)
        except BatchStoppedError as exc:
            return "stop", exc.__cause__

    def do(self, task: Task, on_frames: OnFrames = lambda frames: None) -> Outcome:
        """Run a task; call `on_frames` after each row with the number of rows so far.

        Raises:
            BatchStoppedError: for example, the disk is full or the model can't be used.
        """
        count = 0

        def on_frame() -> None:
            nonlocal count
            count += 1
            on_frames(count)

        try:
            if task.kind == "segment":
                return self._segment(task, on_frame)
            if task.kind == "join":
                return self._join(task)
            return self._title(task, on_frame)
        except (OutputError, ModelError, MissingExtraError) as exc:
            raise BatchStoppedError from exc
        except EyelineError as exc:
            reason = str(exc)
        except MemoryError:
            reason = "out of memory"
        except Exception as exc:  # noqa: BLE001 - the other titles must continue
            reason = f"internal error: {type(exc).__name__}: {exc}"
        return Outcome(record=record_failure(self._store, task.title, reason))

    @property
    def _ready(self) -> Runner:
        if self._runner is None:
            self._runner = self._job.work.open(self._job.threads)
        return self._runner

    def _title(self, task: Task, on_frame: Callable[[], None]) -> Outcome:
        title, runner = task.title, self._ready
        mark = title.stamp()
        with contextlib.ExitStack() as stack:
            paths = [stack.enter_context(as_local(s)) for s in title.sources]
            for path in map(Path, paths):
                if not path.is_file():
                    raise MediaError(
                        f"{path}: is not a regular file", "give a file; a batch can't read pipes"
                    )
            digest = "+".join(file_sha256(Path(path)) for path in paths)
            same = self._unchanged(task, digest)
            if same is not None:
                same.stamp = mark  # the file was written again with the same bytes
                self._store.write_record(same)
                return Outcome(record=same)
            plan = self._plan(task, paths, digest, mark)
            if plan is not None:
                return Outcome(plan=plan)
            product = runner.whole(title, paths, on_frame)
        _check_unchanged(title, mark)
        if task.whole_because:
            product.warnings.append(f"done in one piece: {task.whole_because}")
        record = self._publish(task, product, digest, mark, 1)
        return Outcome(record=record, frames=product.frames)

    def _unchanged(self, task: Task, digest: str) -> TitleRecord | None:
        """Return the record of a title if it is finished and its sources had this digest, or else None."""
        record = self._store.record(task.title.name)
        if record is None or record.state != "ok" or record.source_sha256 != digest:
            return None
        return record if self._store.place.exists(record.part) else None

    def _plan(self, task: Task, paths: Sequence[str], digest: str, mark: Any) -> TitlePlan | None:
        """Split a title into segments; return None if splitting is disabled or not possible."""
        # A remote source is not split, since each segment would download the whole file.
        if not self._job.segment or task.whole_because or any(map(is_url, task.title.sources)):
            return None
        run = self._ready.segmented(task.title, paths)
        indexes = run.index() if run else None
        if run is None or indexes is None:
            return None
        segments = run.plan(indexes, self._job.segment)
        if len(segments) == 1:
            return None
        store = self._store
        folder = store.work_folder(task.title.name, digest)
        # An earlier run may have used another segment length; its segments are then removed.
        ranges = json.dumps([[s.start, s.stop] for s in segments]).encode()
        fits = store.place.read(f"{folder}/plan.json") == ranges
        if not fits or not store.place.exists(f"{folder}/{_INDEX}"):
            store.place.remove(folder)
            store.place.write(f"{folder}/{_INDEX}", _packed(indexes))
            store.place.write(f"{folder}/plan.json", ranges)
        done = frozenset(store.finished_segments(folder))
        return TitlePlan(tuple(segments), digest, mark, folder, done)

    def _frame_indexes(self, folder: str) -> Indexes:
        if self._indexes is None or self._indexes[0] != folder:
            data = self._store.place.read(f"{folder}/{_INDEX}")
            if data is None:
                raise MediaError(
                    f"{folder}: was removed while the batch ran", "run the batch again"
                )
            self._indexes = folder, _unpacked(data)
        return self._indexes[1]

    def _segment(self, task: Task, on_frame: Callable[[], None]) -> Outcome:
        plan, title = _planned(task), task.title
        _check_unchanged(title, plan.stamp)
        segment = plan.segments[task.number]
        with contextlib.ExitStack() as stack:
            paths = [stack.enter_context(as_local(s)) for s in title.sources]
            run = self._ready.segmented(title, paths)
            assert run is not None  # noqa: S101 - there is a plan
            try:
                log = run_segment(run, segment, self._frame_indexes(plan.folder), on_frame)
            except (SeamError, SeekError) as exc:
                return Outcome(whole_because=str(exc))
        self._store.place.write(segment_name(plan.folder, task.number), _serialise(log))
        return Outcome(frames=len(log))

    def _join(self, task: Task) -> Outcome:
        plan, place = _planned(task), self._store.place
        _check_unchanged(task.title, plan.stamp)
        logs = []
        for number in range(len(plan.segments)):
            data = place.read(segment_name(plan.folder, number))
            if data is None:
                raise MediaError(
                    f"{plan.folder}: segment {number} is missing", "run the batch again"
                )
            logs.append(parquet_format.read(io.BytesIO(data)))
        try:
            log = join_segments(logs)
        except SeamError as exc:
            return Outcome(whole_because=str(exc))
        product = Product(log, len(log))
        record = self._publish(task, product, plan.source_sha256, plan.stamp, len(logs))
        place.remove(plan.folder)
        return Outcome(record=record)

    def _publish(
        self, task: Task, product: Product, digest: str, mark: dict[str, Any], segments: int
    ) -> TitleRecord:
        """Write the result file of a title, then the record of the title."""
        name = self._store.part_name(task.title.name, self._job.work.file)
        data = product.content
        if isinstance(data, Log):
            data.provenance |= {
                "title": task.title.name,
                "source_sha256": digest,
                "version": self._job.version.name,
            }
            data = _serialise(data)
        self._store.place.write(name, data)
        record = TitleRecord(
            title=task.title.name,
            state="ok",
            source=task.title.source,
            stamp=mark,
            source_sha256=digest,
            part=name,
            part_sha256=sha256_hex(data),
            frames=product.frames,
            segments=segments,
            warnings=product.warnings,
        )
        self._store.write_record(record)
        return record


def _planned(task: Task) -> TitlePlan:
    assert task.plan is not None  # noqa: S101 - segments and joins carry their plan
    return task.plan


def _check_unchanged(title: Title, mark: dict[str, Any]) -> None:
    """Raise a `MediaError` if a source has changed since its stamp `mark` was taken."""
    if title.stamp() != mark:
        raise MediaError(
            f"{' or '.join(title.sources)}: changed while the batch read it", "run the batch again"
        )


def _serialise(log: Log) -> bytes:
    out = io.BytesIO()
    parquet_format.write(log, out)
    return out.getvalue()


def _packed(indexes: Indexes) -> bytes:
    arrays: dict[str, Any] = {}
    for i, index in enumerate(indexes):
        arrays |= {f"pts{i}": index.pts, f"keyframes{i}": index.keyframes}
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def _unpacked(data: bytes) -> Indexes:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return tuple(
            FrameIndex(read_member(arrays, f"pts{i}"), read_member(arrays, f"keyframes{i}"))
            for i in range(len(arrays.files) // 2)
        )


def record_failure(store: Store, title: Title, reason: str) -> TitleRecord:
    """Record that a title failed, and remove the result file of an earlier run.

    Raises:
        OutputError: the record can't be written.
    """
    store.place.remove(store.part_name(title.name, "").rstrip("/"))
    try:
        mark = title.stamp()
    except MediaError:
        mark = {}
    record = TitleRecord(
        title=title.name, state="failed", source=title.source, stamp=mark, reason=reason
    )
    store.write_record(record)
    return record
