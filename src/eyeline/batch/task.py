"""What passes between the driver and its workers: plain records, all of which pickle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from eyeline.batch.limits import Limits
from eyeline.batch.manifest import Title
from eyeline.batch.store import TitleRecord, Version
from eyeline.saliency.segment import Segment


@dataclass(frozen=True)
class Job:
    """What is done to every title.

    Attributes:
        work: what `eyeline.batch.worker` does with a title: a `Work` (`eyeline.batch.work`).
        output: path or URL of the output folder.
        version: see `eyeline.batch.store`.
        limits: of one task.
        threads: of one worker.
        segment: frames of a segment, about; 0 = titles are not split.
    """

    work: Any
    output: str
    version: Version
    limits: Limits = field(default_factory=Limits)
    threads: int = 1
    segment: int = 0


Kind = Literal["title", "segment", "join"]


@dataclass(frozen=True)
class Task:
    """One piece of work, done by one worker in one go.

    Attributes:
        kind: `title`: look at it, do it or split it; `segment`: one of its pieces; `join`: make the
            part of the pieces.
        title: which title.
        plan: how the title was split.
        number: of the segment.
        whole: why `title` must not be split, empty where it may be.
    """

    kind: Kind
    title: Title
    plan: Plan | None = None
    number: int = 0
    whole: str = ""

    @property
    def frames(self) -> int | None:
        """About how many rows it will make, None where that is not known."""
        if self.kind != "segment" or self.plan is None:
            return None
        segment = self.plan.segments[self.number]
        return None if segment.stop is None else segment.stop - segment.start

    @property
    def label(self) -> str:
        """For people."""
        if self.kind == "segment" and self.plan is not None:
            return f"{self.title.name} {self.number + 1}/{len(self.plan.segments)}"
        return self.title.name


@dataclass(frozen=True)
class Plan:
    """How a title is split.

    Attributes:
        segments: nominal ranges of frames.
        source_sha256: of the bytes that the plan was made from.
        stamp: of that source.
        folder: where finished segments wait.
        done: numbers of those that an earlier run left there.
    """

    segments: tuple[Segment, ...]
    source_sha256: str
    stamp: dict[str, Any]
    folder: str
    done: frozenset[int] = frozenset()


@dataclass
class Outcome:
    """What a task came to: one of the three.

    Attributes:
        record: the title is finished, well or not.
        plan: the title is to be done in pieces.
        whole: the pieces don't fit together: why. The title is to be done in one go.
        seconds: the task took.
        frames: rows it made.
    """

    record: TitleRecord | None = None
    plan: Plan | None = None
    whole: str = ""
    seconds: float = 0.0
    frames: int = 0


@dataclass
class Event:
    """What an engine tells the driver.

    Attributes:
        task: about which.
        kind: `progress`, `done`, or `died`: its worker ended before the task did.
        worker: which worker, from 0.
        outcome: of a task that is done.
        frames: rows so far.
        reason: why the worker died.
        limit: it ended itself at a limit, so that another attempt would too.
        error: what stops the batch as a whole, such as a full disk.
    """

    task: Task
    kind: Literal["progress", "done", "died", "stop"]
    worker: int = 0
    outcome: Outcome | None = None
    frames: int = 0
    reason: str = ""
    limit: bool = False
    error: Exception | None = None


@dataclass
class BatchResult:
    """What a run of a batch came to.

    Attributes:
        ok, failed, skipped: names of titles.
        reasons: why titles failed.
        frames: rows made by this run.
        seconds: wall-clock time.
        restarts: workers that were replaced.
    """

    ok: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    frames: int = 0
    seconds: float = 0.0
    restarts: int = 0
