"""Progress on stderr: frames, frames/s and time left; silent when nobody watches.

Ctrl-C and SIGTERM that never split a row: what a frame wrote, it wrote everywhere.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType


@contextlib.contextmanager
def frame_progress(
    total: int | None, quiet: bool, label: str = "extract"
) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs, on a terminal only.

    Args:
        total: frames to come, None when unknown.
        quiet: show nothing.
        label: what is being done.

    Yields:
        A function to call after each frame.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Frames a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.1f} frames/s")

    columns = (
        TextColumn(label), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)


@contextlib.contextmanager
def item_progress(label: str, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Bars with the time left for work in several parts, each of which tells its name and total.

    Args:
        label: shown until the first part begins.
        quiet: show nothing.

    Yields:
        A function to call with a part's name, its items done, and its items in all.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda part, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), refresh_per_second=5) as progress:
        tasks = {}
        waiting = progress.add_task(label, total=None)

        def advance(part: str, done: int, total: int) -> None:
            if part not in tasks:
                progress.update(waiting, visible=False)
                tasks[part] = progress.add_task(part, total=total)
            progress.update(tasks[part], completed=done, total=total)

        yield advance


class InterruptShield:
    """Turns SIGINT and SIGTERM into `KeyboardInterrupt`, held back while its `with` block runs.

    A second signal while one is held back is not held back.
    """

    def __init__(self) -> None:
        self._inside = False
        self._pending = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._inside and not self._pending:
            self._pending = True
            return
        raise KeyboardInterrupt

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = False
        if self._pending and error is None:
            self._pending = False
            raise KeyboardInterrupt
