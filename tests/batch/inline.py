"""An engine that does tasks in the process of the driver: every write in one process, in order."""

from eyeline.batch.task import Engine, Event, Job, Task
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
