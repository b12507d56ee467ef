"""What carries tasks to workers: the interface of `local` and `ray_engine`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from eyeline.batch.task import Event, Task


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
