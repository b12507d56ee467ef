"""Records that the driver and its workers exchange, and the interface of an engine (`Engine`).

All records can be pickled. To add an engine next to `local` and `ray_engine`, implement `Engine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from eyeline.batch.manifest import Title
from eyeline.batch.store import TitleRecord, Version
from eyeline.segments import Segment


@dataclass(frozen=True)
class TaskLimits:
    """Limits of time and memory for one task; `eyeline.batch.worker.Watchdog` enforces them.

    Attributes:
        seconds: longest wall-clock time of the task; 0 = no limit.
        stall: longest wall-clock time without a new frame, seconds; 0 = no limit.
        mebibytes: resident memory of the worker, MiB; 0 = no limit.
    """

    seconds: float = 0.0
    stall: float = 0.0
    mebibytes: int = 0


@dataclass(frozen=True)
class Job:
    """The work to do for each title, and its limits.

    Attributes:
        work: an `eyeline.batch.work.Work`.
        output: path or URL of the output folder.
        version: command, model and options of the batch; the folder of the results is named after them.
        limits: limits of time and memory for one task.
        threads: number of threads per worker.
        segment: approximate number of frames per segment; 0 disables splitting.
    """

    work: Any
    output: str
    version: Version
    limits: TaskLimits = field(default_factory=TaskLimits)
    threads: int = 1
    segment: int = 0


@dataclass(frozen=True)
class TitlePlan:
    """The segments of a title.

    Attributes:
        segments: ranges of frames.
        source_sha256: SHA-256 of the sources when they were split.
        stamp: `Title.stamp` when the sources were split.
        folder: folder of the finished segments, below the output folder.
        done: numbers of the segments that an earlier run finished.
    """

    segments: tuple[Segment, ...]
    source_sha256: str
    stamp: dict[str, Any]
    folder: str
    done: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Task:
    """One unit of work for a worker.

    Attributes:
        kind: `title` = process a title or split it into segments; `segment` = process one segment;
            `join` = join all segments into the result file.
        title: the title.
        plan: the segments of the title, for the kinds `segment` and `join`.
        number: number of the segment, from 0.
        whole_because: the reason why the title must not be split; empty if it may be split.
    """

    kind: Literal["title", "segment", "join"]
    title: Title
    plan: TitlePlan | None = None
    number: int = 0
    whole_because: str = ""

    @property
    def frames(self) -> int | None:
        """Return the approximate number of rows of the task; None if it is not known."""
        if self.kind != "segment" or self.plan is None:
            return None
        segment = self.plan.segments[self.number]
        return None if segment.stop is None else segment.stop - segment.start

    @property
    def label(self) -> str:
        """Return a name to show to the user."""
        if self.kind == "segment" and self.plan is not None:
            return f"{self.title.name} {self.number + 1}/{len(self.plan.segments)}"
        return self.title.name


@dataclass
class Outcome:
    """The result of a task: `record`, `plan` or `whole_because` is set, or none of them for a segment.

    Attributes:
        record: the record of the title, which is finished or has failed.
        plan: the segments that the title was split into; each of them becomes a task.
        whole_because: the reason why the title must be processed again in one piece.
        frames: number of rows that the task made.
    """

    record: TitleRecord | None = None
    plan: TitlePlan | None = None
    whole_because: str = ""
    frames: int = 0


@dataclass
class Event:
    """A message from an engine to the driver about a task.

    Attributes:
        task: the task.
        kind: `progress` = the task is running; `done` = the task ended; `died` = the worker process
            ended before the task; `stop` = the batch can't continue.
        worker: number of the worker, from 0.
        outcome: the outcome, for the kind `done`.
        frames: number of rows so far, for the kind `progress`.
        reason: why the worker died, for the kind `died`.
        at_limit: whether the worker died because the task exceeded a limit; it is not retried then.
        error: the error that stops the batch, such as a full disk, for the kind `stop`.
    """

    task: Task
    kind: Literal["progress", "done", "died", "stop"]
    worker: int = 0
    outcome: Outcome | None = None
    frames: int = 0
    reason: str = ""
    at_limit: bool = False
    error: Exception | None = None


@dataclass
class BatchResult:
    """The result of a run of a batch.

    Attributes:
        ok, failed, skipped: names of the titles in each state.
        reasons: the reason of each failed title, by its name.
        frames: number of rows that this run made.
        seconds: wall-clock time.
        restarts: number of workers that were replaced.
    """

    ok: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    frames: int = 0
    seconds: float = 0.0
    restarts: int = 0


class Engine(ABC):
    """A pool of workers, each of which runs one task at a time.

    If a worker dies, its task ends without an outcome. The engine reports the death and replaces the
    worker.

    Attributes:
        restarts: number of workers that were replaced so far.
    """

    restarts = 0

    @abstractmethod
    def free(self) -> int:
        """Return the number of tasks that can be submitted now."""

    @abstractmethod
    def submit(self, task: Task) -> int:
        """Begin a task; return the number of its worker, from 0."""

    @abstractmethod
    def events(self) -> list[Event]:
        """Wait briefly for events, then return those that arrived."""

    @abstractmethod
    def close(self) -> None:
        """End all workers, including busy ones; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
