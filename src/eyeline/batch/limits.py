"""What one task may take: seconds and memory, watched from within the process that does it.

A worker that goes over a limit says so and ends; the engine hands its next task to a new one. So a
title that hangs or swells takes down its own task alone, on one machine and on a cluster alike.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eyeline.errors import MissingExtraError

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
