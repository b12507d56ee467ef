"""Ordered, bounded maps over items: threads, processes, and an iterator that runs ahead."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from eyeline.errors import EyelineError, QualityError
from eyeline.parallel import Prefetch, map_in_processes, map_in_threads


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("eyeline")]


def failing(count: int) -> Iterator[int]:
    yield from range(count)
    raise QualityError("late")


def slow_if_even(number: int) -> int:
    time.sleep(0.01 * (number % 2 == 0))
    return -number


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_give_results_in_the_order_of_the_items(workers: int) -> None:
    assert list(map_in_threads(slow_if_even, range(20), workers)) == [-i for i in range(20)]
    assert our_threads() == []


def test_an_error_of_the_items_comes_after_the_results_before_it() -> None:
    got = []
    with pytest.raises(QualityError, match="late"):
        for answer in map_in_threads(slow_if_even, failing(7), 3):
            got.append(answer)
    assert got == [-i for i in range(7)]
    assert our_threads() == []


def test_an_error_of_the_function_comes_in_its_place() -> None:
    got = []
    with pytest.raises(ZeroDivisionError):
        for answer in map_in_threads(lambda n: 12 // (4 - n), range(9), 3):
            got.append(answer)
    assert got == [3, 4, 6, 12]
    assert our_threads() == []


def test_the_items_do_not_run_ahead_of_a_slow_consumer() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for i in range(100):
            drawn.append(i)
            yield i

    answers = map_in_threads(slow_if_even, items(), 2, ahead=3)
    assert next(answers) == 0
    time.sleep(0.2)
    assert len(drawn) <= 3 + 3
    answers.close()
    assert our_threads() == []


def test_what_was_never_begun_leaves_no_thread() -> None:
    map_in_threads(slow_if_even, range(5), 2).close()
    assert our_threads() == []


class Worker:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, number: int) -> int:
        if number < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return number * self.factor


def test_processes_give_results_in_the_order_of_the_items() -> None:
    assert list(map_in_processes(Worker, (3,), range(9), 2)) == [3 * i for i in range(9)]


def test_a_killed_process_is_one_error() -> None:
    with pytest.raises(EyelineError, match="a worker process was killed") as caught:
        list(map_in_processes(Worker, (3,), [1, 2, -1, 4], 1))
    assert caught.value.hint == "use fewer --workers"


def test_a_prefetched_error_is_raised_after_the_last_item() -> None:
    ahead = Prefetch(failing(2))
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(QualityError, match="late"):
        next(ahead)
    assert next(ahead, None) is None
    ahead.close()


def test_closing_ends_a_thread_that_waits() -> None:
    ahead = Prefetch(iter(range(10**9)), ahead=2)
    assert next(ahead) == 0
    ahead.close()
    assert our_threads() == []
