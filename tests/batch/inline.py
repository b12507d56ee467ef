"""An engine that does tasks in the process of the driver: every write in one process, in order."""

from pathlib import Path

from batches import make_job

from eyeline.batch.driver import run_batch
from eyeline.batch.manifest import read_titles
from eyeline.batch.task import BatchResult, Engine, Event, Job, Task
from eyeline.batch.worker import Worker


class InlineEngine(Engine):
    """One worker, which is the driver."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)
        self._task: Task | None = None

    def free(self) -> int:
        return int(self._task is None)

    def submit(self, task: Task) -> int:
        self._task = task
        return 0

    def events(self) -> list[Event]:
        task, self._task = self._task, None
        assert task is not None
        return [Event(task, "done", outcome=self._worker.do(task))]

    def close(self) -> None:
        self._task = None


def run_inline(source: Path | str, out: Path | str, job: Job | None = None) -> BatchResult:
    """A batch in this process."""
    job = job or make_job(out)
    with InlineEngine(job) as engine:
        return run_batch(read_titles(str(source), pairs=job.work.pairs), job, engine)
