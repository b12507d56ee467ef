"""What passes between the driver and its workers, and the interface of what carries it (`Engine`).

The records pickle. To add an engine beside `local` and `ray_engine`, fill `Engine`.
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
    """What a task may take; `eyeline.batch.worker.Watchdog` enforces it.

    Attributes:
        seconds: wall-clock time; 0 = no limit.
        stall: wall-clock time without a frame, seconds; 0 = no limit.
        mebibytes: resident memory of the worker, MiB; 0 = no limit.
    """

    seconds: float = 0.0
    stall: float = 0.0
    mebibytes: int = 0


@dataclass(frozen=True)
class Job:
    """What is done to every title.

    Attributes:
        work: an `eyeline.batch.work.Work`.
        output: path or URL of the output folder.
        version: see `eyeline.batch.store`.
        limits: limits of one task.
        threads: threads of one worker.
        segment: frames per segment, about; 0 = titles are not split.
    """

    work: Any
    output: str
    version: Version
    limits: TaskLimits = field(default_factory=TaskLimits)
    threads: int = 1
    segment: int = 0


@dataclass(frozen=True)
class TitlePlan:
    """How a title is split.

    Attributes:
        segments: ranges of frames.
        source_sha256: digest of the bytes that the plan was made from.
        stamp: stamp of that source.
        folder: where finished segments wait.
        done: numbers of the segments that an earlier run left there.
    """

    segments: tuple[Segment, ...]
    source_sha256: str
    stamp: dict[str, Any]
    folder: str
    done: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Task:
    """What one worker does in one go.

    Attributes:
        kind: `title`: do a title, or split it; `segment`: do one of its segments; `join`: make the
            part from all segments.
        title: the title.
        plan: how the title was split.
        number: number of the segment.
        whole_because: why a `title` must not be split; empty where it may be.
    """

    kind: Literal["title", "segment", "join"]
    title: Title
    plan: TitlePlan | None = None
    number: int = 0
    whole_because: str = ""

    @property
    def frames(self) -> int | None:
        """Return about how many rows it will make; None where that is not known."""
        if self.kind != "segment" or self.plan is None:
            return None
        segment = self.plan.segments[self.number]
        return None if segment.stop is None else segment.stop - segment.start

    @property
    def label(self) -> str:
        """Return a name for people."""
        if self.kind == "segment" and self.plan is not None:
            return f"{self.title.name} {self.number + 1}/{len(self.plan.segments)}"
        return self.title.name


@dataclass
class Outcome:
    """How a task ended: one of the first three is given; for a segment that is done, `frames` alone.

    Attributes:
        record: the title is finished, well or not.
        plan: the title is to be done in segments.
        whole_because: the title is to be done in one piece: why.
        frames: rows that the task made.
    """

    record: TitleRecord | None = None
    plan: TitlePlan | None = None
    whole_because: str = ""
    frames: int = 0


@dataclass
class Event:
    """What an engine tells the driver.

    Attributes:
        task: the task that it is about.
        kind: `progress`; `done`; `died`: its worker ended before the task did; `stop`: the batch
            can't go on.
        worker: number of the worker, from 0.
        outcome: outcome of a task that is done.
        frames: rows so far.
        reason: why the worker died.
        at_limit: the worker ended itself at a limit, so another attempt would do so, too.
        error: what stops the batch, such as a full disk.
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
    """How a run of a batch ended.

    Attributes:
        ok, failed, skipped: names of titles.
        reasons: why titles failed, by name.
        frames: rows made by this run.
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
    """A pool of workers, each of which does one task at a time.

    A worker that dies takes its task with it, is reported, and is replaced.

    Attributes:
        restarts: number of workers that were replaced so far.
    """

    restarts = 0

    @abstractmethod
    def free(self) -> int:
        """Return how many tasks can begin now."""

    @abstractmethod
    def submit(self, task: Task) -> int:
        """Hand a task over; return the number of its worker, from 0."""

    @abstractmethod
    def events(self) -> list[Event]:
        """Return what has happened; wait a moment for something to happen."""

    @abstractmethod
    def close(self) -> None:
        """End all workers, whatever they do; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
