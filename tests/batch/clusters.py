"""Real Ray clusters of one machine, and the death of their parts: shared by the tests of Ray."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

NODE = {"num_cpus": 2, "object_store_memory": 100 << 20}
HEAD = NODE | {"include_dashboard": False}


@contextlib.contextmanager
def quick_imports(folder: Path) -> Iterator[None]:
    """Hide a validator of internationalised URIs from Ray's processes.

    Each imports jsonschema, which imports it where `eyeline[audit]` brought it along; it then
    compiles its grammar for a second, seven times for every node that starts.
    """
    (folder / "rfc3987_syntax.py").write_text("raise ImportError\n")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, str(folder)]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def is_at_work(process: psutil.Process) -> bool:
    """Whether it is a worker that has a task of a batch; Ray writes that into its command line."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()[:1] == ["ray::do_task"]
    return False


def workers_at_work(raylets: list[int]) -> list[psutil.Process]:
    """The worker processes of these raylets that have a task of a batch."""
    found = []
    for pid in raylets:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(pid).children(recursive=True):
                if is_at_work(child):
                    found.append(child)
    return found


class Killer(threading.Thread):
    """Kills a worker that has a task, every `pause` seconds, so many times."""

    def __init__(self, raylets: list[int], kills: int, pause: float) -> None:
        super().__init__(daemon=True)
        self.raylets, self.wanted, self.pause = raylets, kills, pause
        self.kills = 0
        self.start()

    def run(self) -> None:
        deadline = time.monotonic() + 60
        while self.kills < self.wanted and time.monotonic() < deadline:
            for victim in workers_at_work(self.raylets)[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._kill(victim)
            time.sleep(0.02)

    def _kill(self, victim: psutil.Process) -> None:
        victim.suspend()  # or it might be done before the kill lands
        if not is_at_work(victim):
            victim.resume()
            return
        victim.kill()
        self.kills += 1
        time.sleep(self.pause)
