"""What passes between the driver and its workers: plain records, all of which pickle.

What one task may take: seconds and memory, watched from within the process that does it.

A worker that goes over a limit says so and ends; the engine hands its next task to a new one. So a
title that hangs or swells takes down its own task alone, on one machine and on a cluster alike.

What carries tasks to workers: the interface of `local` and `ray_engine`.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from eyeline.batch.manifest import Title
from eyeline.batch.store import TitleRecord, Version
from eyeline.errors import MissingExtraError
from eyeline.segments import Segment

_EVERY = 0.05  # seconds between two looks
_GRACE = 10.0  # seconds until the C timer ends a process whose threads can't run


@dataclass(frozen=True)
class Limits:
    """What a task may take.

    Attributes:
        seconds: wall-clock time; 0 = any.
        stall: wall-clock time without a frame, seconds; 0 = any.
        mebibytes: resident memory of the worker, MiB; 0 = any.
    """

    seconds: float = 0.0
    stall: float = 0.0
    mebibytes: int = 0


SHARE = 0.8
"""Share of the machine's memory that all workers together may take; the rest is the page cache's."""


def _psutil() -> Any:
    try:
        import psutil
    except ModuleNotFoundError as exc:
        raise MissingExtraError("psutil", "batch") from exc
    return psutil


def memory_share(workers: int) -> int:
    """What each of so many workers may take of this machine's memory, MiB.

    Raises:
        MissingExtraError: psutil is not installed.
    """
    return int(_psutil().virtual_memory().total * SHARE / max(1, workers)) >> 20


def resident_mebibytes() -> float:
    """Resident memory of this process, MiB."""
    return float(_psutil().Process().memory_info().rss) / (1 << 20)


class Watchdog:
    """Ends this process when its task goes over a limit.

    Args:
        limits: see `Limits`.
        last_words: told why before the process ends.
        end: ends the process.
    """

    def __init__(
        self,
        limits: Limits,
        last_words: Callable[[str], None],
        end: Callable[[], None] = lambda: os._exit(1),
    ) -> None:
        self._limits, self._say, self._end = limits, last_words, end
        self._alive = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        self._alive = time.monotonic()
        self._over.clear()
        if self._limits.seconds:
            # A timer of its own, in C: native code that holds Python's lock would stop ours.
            faulthandler.dump_traceback_later(self._limits.seconds + _GRACE, exit=True)
        if self._limits != Limits():
            self._thread = threading.Thread(target=self._watch, name="eyeline-limits", daemon=True)
            self._thread.start()
        return self

    def alive(self) -> None:
        """The task goes forward: called with each frame."""
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
                self._say(reason)
                self._end()
                return


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


class Engine(ABC):
    """A pool of workers, each of which does one task at a time.

    A worker that dies takes its task with it, is reported, and is replaced.

    Attributes:
        restarts: workers that were replaced so far.
    """

    restarts = 0

    @abstractmethod
    def free(self) -> int:
        """How many tasks can be handed over now without waiting behind another."""

    @abstractmethod
    def submit(self, task: Task) -> int:
        """Hand a task over.

        Returns:
            The number of the worker that does it, from 0.
        """

    @abstractmethod
    def events(self) -> list[Event]:
        """What has happened; waits a moment for something to happen."""

    @abstractmethod
    def close(self) -> None:
        """End all workers, whatever they do; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Throttle:
    """Lets a report through every `seconds`.

    Args:
        seconds: between two.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        self._seconds, self._next = seconds, 0.0

    def __call__(self) -> bool:
        """Whether it is time."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
