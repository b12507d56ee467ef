"""What a worker does with a task: the same in a local process and on a node of a cluster."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eyeline.arrays import read_member
from eyeline.batch.manifest import Title, as_local, is_url
from eyeline.batch.store import Store, TitleRecord, segment_name
from eyeline.batch.task import Job, Outcome, Plan, Task, Throttle, Watchdog
from eyeline.batch.work import Product, Runner
from eyeline.digests import file_sha256
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


class BatchStoppedError(Exception):
    """What no other title would survive either: its cause is an `EyelineError`."""


class Worker:
    """Does tasks, one after the other.

    Args:
        job: what is done to every title.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._store = Store(job.output, job.version)
        self._runner: Runner | None = None
        self._indexes: tuple[str, Indexes] | None = None

    def do(self, task: Task, on_frames: OnFrames = lambda frames: None) -> Outcome:
        """Do a task.

        Args:
            task: what to do.
            on_frames: called with the rows so far.

        Raises:
            BatchStoppedError: a full disk, or a model that can't be used.
        """
        begun = time.monotonic()
        count = 0

        def on_frame() -> None:
            nonlocal count
            count += 1
            on_frames(count)

        try:
            outcome = self._do(task, on_frame)
        except (OutputError, ModelError, MissingExtraError) as exc:
            raise BatchStoppedError from exc
        except EyelineError as exc:
            outcome = Outcome(record=self._failed(task, str(exc)))
        except MemoryError:
            outcome = Outcome(record=self._failed(task, "out of memory"))
        except Exception as exc:  # noqa: BLE001 - one title must not take the others down
            outcome = Outcome(
                record=self._failed(task, f"internal error: {type(exc).__name__}: {exc}")
            )
        outcome.seconds = time.monotonic() - begun
        return outcome

    def _failed(self, task: Task, reason: str) -> TitleRecord:
        return failed(self._store, task, reason)

    @property
    def _ready(self) -> Runner:
        if self._runner is None:
            self._runner = self._job.work.open(self._job.threads)
        return self._runner

    def _do(self, task: Task, on_frame: Callable[[], None]) -> Outcome:
        if task.kind == "segment":
            return self._segment(task, on_frame)
        if task.kind == "join":
            return self._join(task)
        return self._title(task, on_frame)

    def _title(self, task: Task, on_frame: Callable[[], None]) -> Outcome:
        title, runner = task.title, self._ready
        mark = title.stamp()
        with contextlib.ExitStack() as stack:
            paths = [stack.enter_context(as_local(s)) for s in title.sources]
            digest = "+".join(file_sha256(p) for p in map(regular_file, paths))
            same = self._unchanged(task, digest)
            if same is not None:
                same.stamp = mark  # the same bytes, written again
                self._store.write_record(same)
                return Outcome(record=same)
            plan = self._plan(task, paths, digest, mark)
            if plan is not None:
                return Outcome(plan=plan)
            product = runner.whole(title, paths, on_frame)
        _check_unchanged(title, mark)
        if task.whole:
            product.warnings.append(f"done in one piece: {task.whole}")
        record = self._publish(task, product, digest, mark, 1)
        return Outcome(record=record, frames=product.frames)

    def _unchanged(self, task: Task, digest: str) -> TitleRecord | None:
        """The record of a title that was done from these very bytes."""
        record = self._store.record(task.title.name)
        if record is None or record.state != "ok" or record.source_sha256 != digest:
            return None
        return record if self._store.place.exists(record.part) else None

    def _plan(self, task: Task, paths: Sequence[str], digest: str, mark: Any) -> Plan | None:
        """Split a title, where that is asked for and possible."""
        # A remote source is not split: each segment would fetch all of it.
        if not self._job.segment or task.whole or any(map(is_url, task.title.sources)):
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
        # What is there belongs to another plan, if segments have another length now.
        ranges = json.dumps([[s.start, s.stop] for s in segments]).encode()
        fits = store.place.read(f"{folder}/plan.json") == ranges
        if not fits or not store.place.exists(f"{folder}/{_INDEX}"):
            store.place.remove(folder)
            store.place.write(f"{folder}/{_INDEX}", _packed(indexes))
            store.place.write(f"{folder}/plan.json", ranges)
        done = frozenset(store.finished_segments(folder))
        return Plan(tuple(segments), digest, mark, folder, done)

    def _frame_indexes(self, folder: str) -> Indexes:
        if self._indexes is None or self._indexes[0] != folder:
            data = self._store.place.read(f"{folder}/{_INDEX}")
            if data is None:
                raise MediaError(f"{folder}: was removed while the batch ran", "run it again")
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
                return Outcome(whole=str(exc))
        self._store.place.write(segment_name(plan.folder, task.number), _serialise(log))
        return Outcome(frames=len(log))

    def _join(self, task: Task) -> Outcome:
        plan, place = _planned(task), self._store.place
        _check_unchanged(task.title, plan.stamp)
        logs = []
        for number in range(len(plan.segments)):
            data = place.read(segment_name(plan.folder, number))
            if data is None:
                raise MediaError(f"{plan.folder}: lost segment {number}", "run the batch again")
            logs.append(parquet_format.read(io.BytesIO(data)))
        try:
            log = join_segments(logs)
        except SeamError as exc:
            return Outcome(whole=str(exc))
        product = Product(log, len(log))
        record = self._publish(task, product, plan.source_sha256, plan.stamp, len(logs))
        place.remove(plan.folder)
        return Outcome(record=record)

    def _publish(
        self, task: Task, product: Product, digest: str, mark: dict[str, Any], segments: int
    ) -> TitleRecord:
        """Write the part, then the record that says so."""
        name = self._store.part_name(task.title.name, self._job.work.file)
        data = product.content
        if isinstance(data, Log):
            data.provenance |= {
                "title": task.title.name,
                "source_sha256": digest,
                "version": self._job.version.name,
            }
            data = _serialise(data)
        part_sha256 = self._store.write(name, data)
        record = TitleRecord(
            title=task.title.name,
            state="ok",
            source=task.title.source,
            stamp=mark,
            source_sha256=digest,
            part=name,
            part_sha256=part_sha256,
            frames=product.frames,
            segments=segments,
            warnings=product.warnings,
        )
        self._store.write_record(record)
        return record


def do_watched(
    worker: Worker, watchdog: Watchdog, task: Task, on_frames: OnFrames
) -> tuple[str, Any]:
    """Do a task within its limits: what every engine's worker does with one.

    Args:
        worker: does it.
        watchdog: ends the process at a limit.
        task: what to do.
        on_frames: told of the rows so far, now and then.

    Returns:
        `done` and the outcome, or `stop` and the error that no other title would survive either.
    """
    due = Throttle()

    def count(frames: int) -> None:
        watchdog.alive()
        if due():
            on_frames(frames)

    try:
        with watchdog:
            return "done", worker.do(task, count)
    except BatchStoppedError as exc:
        return "stop", exc.__cause__


def _planned(task: Task) -> Plan:
    assert task.plan is not None  # noqa: S101 - segments and joins carry their plan
    return task.plan


def _check_unchanged(title: Title, mark: dict[str, Any]) -> None:
    """Raise a `MediaError` if a source is not what it was when `mark` was taken."""
    if title.stamp() != mark:
        raise MediaError(
            f"{' or '.join(title.sources)}: changed while it was read", "run the batch again"
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


def failed(store: Store, task: Task, reason: str) -> TitleRecord:
    """Record that a title failed; a part of an earlier state of its source goes.

    Raises:
        OutputError: the record can't be written.
    """
    store.place.remove(store.part_name(task.title.name, "").rstrip("/"))
    try:
        mark = task.title.stamp()
    except MediaError:
        mark = {}
    record = TitleRecord(
        title=task.title.name, state="failed", source=task.title.source, stamp=mark, reason=reason
    )
    store.write_record(record)
    return record


def regular_file(path: str) -> Any:
    """The path, if a file is there that ends.

    Raises:
        MediaError: a folder, pipe or device.
    """
    from pathlib import Path

    if not Path(path).is_file():
        raise MediaError(f"{path}: not a regular file", "a batch reads files")
    return Path(path)
