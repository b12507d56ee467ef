"""Many items through one function on several cores: the one owner of pools, and of the core count.

- `usable_cores`: how many cores there are.
- `Prefetch`: run an iterator in a thread, a few items ahead.
- `map_in_threads`, `map_in_processes`: results in the order of the items, with a bounded number of
  items in flight, so that memory does not grow with the number of items.
- `become_worker`: end a child process together with its parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

from eyeline.errors import EyelineError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_work: Callable[[Any], Any] | None = None


def usable_cores() -> int:
    """Return the number of cores this process may run on; all cores where the system can't say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def become_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it; called first in a child of `multiprocessing`.

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


class Prefetch(Iterator[Item], Generic[Item]):
    """Run an iterator in a thread, a few items ahead; its error is raised after the last item.

    The thread refers to this object, so it ends only with the items, or when `close` is called.

    Args:
        items: consumed by the thread.
        ahead: number of items to hold.
        name: name of the thread.
    """

    def __init__(
        self, items: Iterable[Item], ahead: int = 4, name: str = "eyeline-prefetch"
    ) -> None:
        self._queue: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, args=(items,), name=name, daemon=True)
        self._thread.start()

    def _run(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                self._put((item,))
                if self._closed.is_set():
                    return
        except BaseException as exc:  # noqa: BLE001 - carried to the consumer, raised there
            self._put(exc)
        else:
            self._put(None)

    def _put(self, item: tuple[Item] | BaseException | None) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return

    def __next__(self) -> Item:
        if self._over:
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, tuple):
            return item[0]
        self._over = True
        if item is not None:
            raise item
        raise StopIteration

    def close(self) -> None:
        """End the thread, once the item that it works on is there."""
        self._closed.set()
        self._thread.join()


def map_in_threads(
    function: Callable[[Item], Answer],
    items: Iterable[Item],
    workers: int,
    *,
    ahead: int | None = None,
    name: str = "eyeline",
) -> Generator[Answer]:
    """Yield `function(item)` for each item, in order, computed by threads.

    The items are drawn in one more thread, so that it goes on while the consumer is busy. An error
    of the items is raised after the results of the items before it. Closing the generator cancels
    what has not begun, waits for the rest, and ends all threads.

    Args:
        function: called by several threads at a time.
        items: drawn ahead by one thread.
        workers: number of threads.
        ahead: number of items that may wait for the consumer; 2 per worker and 2 more when None.
        name: prefix of the names of the threads.
    """
    pool = ThreadPoolExecutor(workers, f"{name}-work")
    return _results(pool, function, items, 2 * workers + 2 if ahead is None else ahead, name)


def map_in_processes(
    make: Callable[..., Callable[[Item], Answer]],
    arguments: tuple[Any, ...],
    items: Iterable[Item],
    workers: int,
) -> Generator[Answer]:
    """Yield `make(*arguments)(item)` for each item, in order, computed by processes.

    The processes end with this one, whatever ends it.

    Args:
        make: called once in each process; a top-level name, so that it pickles.
        arguments: of `make`.
        items: drawn ahead by a thread.
        workers: number of processes.

    Raises:
        EyelineError: what the work raises; or a process that was killed.
    """
    # spawn: a forked child would inherit ONNX Runtime's threads half-dead.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(make, arguments))
    try:
        yield from _results(pool, _do, items, 4 * workers, "eyeline")
    except BrokenProcessPool as exc:
        raise EyelineError(
            "a worker process was killed", "out of memory? try fewer with --workers"
        ) from exc


def _results(
    pool: Executor,
    function: Callable[[Item], Answer],
    items: Iterable[Item],
    ahead: int,
    name: str,
) -> Generator[Answer]:
    futures = Prefetch((pool.submit(function, item) for item in items), ahead, f"{name}-feed")
    try:
        for future in futures:
            yield future.result()
    finally:
        # The pool first: a thread that still submits fails at once, and `close` waits less.
        pool.shutdown(wait=True, cancel_futures=True)
        futures.close()


def _begin(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _work  # noqa: PLW0603 - the one thing that a worker process is for
    become_worker()
    _work = make(*arguments)


def _do(item: Any) -> Any:
    if _work is None:
        raise RuntimeError("the process has no work")
    return _work(item)
