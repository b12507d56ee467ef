"""Progress bars on stderr, which are silent without a terminal, and the handling of Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

import typer

from eyeline.errors import EyelineError


@contextlib.contextmanager
def frame_progress(
    total: int | None, quiet: bool, label: str = "extract"
) -> Iterator[Callable[[], None]]:
    """Show a bar of frames on a terminal while the block runs; yield a function to call per frame."""
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

    class FrameRate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.1f} frames/s")

    columns = (
        TextColumn(label), BarColumn(), MofNCompleteColumn(), FrameRate(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)


@contextlib.contextmanager
def item_progress(label: str, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar per part of the work on a terminal while the block runs, and `label` before the first.

    Yields:
        A function to call with a part's name, its finished items, and its total.
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
    """Raise `KeyboardInterrupt` on SIGINT and SIGTERM, but only after a running `with` block.

    Each block writes one frame to all outputs. A second signal interrupts the block at once.
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


@contextlib.contextmanager
def interruptible(kept: str) -> Iterator[None]:
    """End the command with exit code 130 if SIGINT or SIGTERM ends the block; print what is kept."""
    InterruptShield()
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted: {kept}\n")
        raise typer.Exit(130) from None


def raise_stopped(stopped: BaseException | None, frames: int) -> None:
    """Raise the error that stopped a run after `frames` frames; end with exit code 130 if Ctrl-C did."""
    if isinstance(stopped, EyelineError):
        raise stopped
    if stopped is not None:
        sys.stderr.write(f"interrupted: {frames} frames are kept\n")
        raise typer.Exit(130)
