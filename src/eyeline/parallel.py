"""Thread and process pools for the whole package, and the number of usable cores.

- `usable_cores` returns the number of cores.
- `Prefetch` runs an iterator in a thread, a few items ahead of its consumer.
- `map_in_threads` and `map_in_processes` apply a function to many items in parallel and yield the
  results in the order of the items. The number of items in flight is bounded, so memory does not grow
  with the number of items.
- `become_worker` makes a child process end together with its parent.
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
    """Return the number of cores this process may run on, or of all cores if the system has no affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def become_worker() -> None:
    """Make this `multiprocessing` child ignore Ctrl-C and end when its parent ends.

    Call this first in the child. Otherwise a child that reads from a pipe would wait for ever after
    its parent was killed.
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
    """Run an iterator in a thread, a few items ahead of the consumer.

    If the iterator raises an error, the consumer gets it after the last item. The thread runs until
    the iterator ends or `close` is called.

    Args:
        items: the iterator, which the thread consumes.
        ahead: largest number of items that wait for the consumer.
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
        except BaseException as exc:  # noqa: BLE001 - the consumer raises it
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
        """Stop the thread and wait until it has finished its current item."""
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

    One more thread prefetches the items. If the iterable `items` raises an error, the results of the
    earlier items come first. Closing the generator cancels the calls that have not begun, waits for
    the running ones, and ends all threads.

    Args:
        function: called by several threads at the same time.
        items: iterable, prefetched by a thread.
        workers: number of threads.
        ahead: largest number of results that wait for the consumer; None = 2 * workers + 2.
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

    The worker processes end when this process ends, even if it is killed.

    Args:
        make: called once in each process; returns the function that is applied to the items. It must
            be a top-level function, so that it can be pickled.
        arguments: arguments of `make`.
        items: iterable, prefetched by a thread.
        workers: number of processes.

    Raises:
        EyelineError: a worker raised this error, or a worker process was killed.
    """
    # spawn, since a forked child would inherit the locks of ONNX Runtime without its threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(make, arguments))
    try:
        yield from _results(pool, _do, items, 4 * workers, "eyeline")
    except BrokenProcessPool as exc:
        raise EyelineError(
            "a worker process was killed, perhaps because memory ran out",
            "use fewer --workers",
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
        # Shut down the pool first: then the feeding thread fails at once, and `close` returns sooner.
        pool.shutdown(wait=True, cancel_futures=True)
        futures.close()


def _begin(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _work  # noqa: PLW0603 - a worker process has one function
    become_worker()
    _work = make(*arguments)


def _do(item: Any) -> Any:
    if _work is None:
        raise RuntimeError("the worker process was not initialized")
    return _work(item)
