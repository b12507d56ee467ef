"""How many cores there are to use: the one owner of that question.

Processes that end with their parent, whatever ends it: the one owner of that.

Many items through one function in processes that end with their parent, whatever ends it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from eyeline.errors import EyelineError


def usable_cores() -> int:
    """Cores this process may run on; all of the machine's where the system can't say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def become_worker() -> None:
    """Called first in a child of `multiprocessing`: leave Ctrl-C to the parent, and end with it.

    A child that waits on a pipe would wait for ever for a parent that was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    with contextlib.suppress(OSError):
        wait([sentinel])
    os._exit(1)


Item = TypeVar("Item")
Answer = TypeVar("Answer")

_AHEAD = 4  # items in flight for each worker: enough to keep it busy, little to hold

_work: Callable[[Any], Any] | None = None


def run_in_processes(
    make: Callable[..., Callable[[Item], Answer]],
    arguments: tuple[Any, ...],
    items: Iterable[Item],
    workers: int,
) -> Iterator[Answer]:
    """Answers in the order of their items, with a bounded number in flight.

    Args:
        make: called with `arguments` once in each process; a top-level name, so that it pickles.
        arguments: of `make`.
        items: what its result is called with, one at a time.
        workers: processes.

    Raises:
        EyelineError: what the work raises; or a process that was killed.
    """
    # spawn: a forked child would inherit ONNX Runtime's threads half-dead.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(make, arguments))
    pending: deque[Future[Answer]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(_do, item))
            if len(pending) > workers * _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as exc:
        raise EyelineError(
            "a worker process was killed", "out of memory? try fewer with --workers"
        ) from exc
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _work  # noqa: PLW0603 - the one thing that a worker process is for
    become_worker()
    _work = make(*arguments)


def _do(item: Any) -> Any:
    if _work is None:
        raise RuntimeError("the process has no work")
    return _work(item)
