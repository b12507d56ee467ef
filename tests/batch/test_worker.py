"""A worker that goes over a limit says so and ends; one within its limits is left alone."""

import threading
import time

import numpy as np

from eyeline.batch.task import TaskLimits
from eyeline.batch.worker import Watchdog, memory_share, resident_mebibytes


def watch(limits: TaskLimits) -> tuple[Watchdog, list[str], threading.Event]:
    said: list[str] = []
    ended = threading.Event()
    return Watchdog(limits, said.append, ended.set), said, ended


def test_time_is_limited() -> None:
    watchdog, said, ended = watch(TaskLimits(seconds=0.2))
    with watchdog:
        assert ended.wait(60)
    assert said == ["took longer than 0.2 s"]


def test_time_without_a_frame_is_limited() -> None:
    watchdog, said, ended = watch(TaskLimits(stall=1.0))
    begun = time.monotonic()
    with watchdog:
        while time.monotonic() < begun + 1.5:  # frames keep it alive
            watchdog.alive()
            time.sleep(0.01)
        assert not ended.is_set()
        assert ended.wait(60)
    assert said == ["gave no frame for 1 s"]


def test_memory_is_limited() -> None:
    watchdog, said, ended = watch(TaskLimits(mebibytes=int(resident_mebibytes()) + 100))
    with watchdog:
        assert not ended.wait(0.3)
        held = np.ones(200 << 20, np.uint8)
        assert ended.wait(60)
    assert held.nbytes
    assert said[0].startswith("took ")
    assert "MiB of memory, more than" in said[0]


def test_between_tasks_nothing_is_limited() -> None:
    watchdog, said, ended = watch(TaskLimits(seconds=0.1, stall=0.1))
    with watchdog:
        pass
    assert not ended.wait(0.5)
    assert not said


def test_workers_share_the_machines_memory() -> None:
    assert memory_share(1) > memory_share(4) > 0
