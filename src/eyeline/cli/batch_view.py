"""What people see of a batch: a bar for the whole, a line for each worker, the status table."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from eyeline.batch.status import VersionStatus
    from eyeline.batch.store import TitleRecord
    from eyeline.batch.task import Event, Outcome, Task


class _Lines:
    """For logs: a line a title with `-v`, nothing otherwise."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose

    def begin(self, total: int, skipped: int, size: int) -> None:
        """See `Watcher`."""

    def started(self, task: Task, worker: int) -> None:
        """See `Watcher`."""

    def progress(self, event: Event) -> None:
        """See `Watcher`."""

    def ended(self, task: Task, worker: int, outcome: Outcome | None, share: float) -> None:
        """See `Watcher`."""

    def finished(self, record: TitleRecord) -> None:
        """See `Watcher`."""
        if self._verbose:
            what = f"{record.frames} frames" if record.state == "ok" else record.reason
            pieces = f" in {record.segments} segments" if record.segments > 1 else ""
            sys.stderr.write(f"{record.state}: {record.title}: {what}{pieces}\n")


class _Bars(_Lines):
    """For a terminal."""

    def __init__(self, verbose: bool, progress: Any) -> None:
        super().__init__(verbose)
        self._progress = progress
        self._whole = progress.add_task("titles", total=None, note="looking which are due")
        self._workers: dict[int, Any] = {}
        self._begun: dict[int, float] = {}
        self._titles = [0, 0, 0]  # done, failed, in all

    def begin(self, total: int, skipped: int, size: int) -> None:
        """See `Watcher`."""
        self._titles = [skipped, 0, total]
        self._progress.update(self._whole, total=max(1, size), completed=0)
        self._note()

    def _note(self) -> None:
        done, failed, total = self._titles
        note = f"{done}/{total}" + (f", {failed} failed" if failed else "")
        self._progress.update(self._whole, note=note)

    def started(self, task: Task, worker: int) -> None:
        """See `Watcher`."""
        if worker not in self._workers:
            self._workers[worker] = self._progress.add_task("", total=None, note="")
        self._begun[worker] = time.monotonic()
        label = task.label if len(task.label) <= 40 else f"...{task.label[-37:]}"
        self._progress.reset(
            self._workers[worker],
            description=f"{worker}: {label}",
            total=task.frames,
            note="joining" if task.kind == "join" else "",
        )

    def progress(self, event: Event) -> None:
        """See `Watcher`."""
        seconds = max(1e-3, time.monotonic() - self._begun.get(event.worker, 0.0))
        self._progress.update(
            self._workers[event.worker],
            completed=event.frames,
            note=f"{event.frames:,} frames, {event.frames / seconds:.0f} frames/s",
        )

    def ended(self, task: Task, worker: int, outcome: Outcome | None, share: float) -> None:
        """See `Watcher`."""
        self._progress.advance(self._whole, share)
        self._progress.reset(self._workers[worker], description=f"{worker}: idle", total=1, note="")

    def finished(self, record: TitleRecord) -> None:
        """See `Watcher`."""
        self._titles[0] += 1
        self._titles[1] += record.state != "ok"
        self._note()
        super().finished(record)


@contextlib.contextmanager
def batch_view(quiet: bool, verbose: bool) -> Iterator[_Lines]:
    """A `Watcher` that shows a batch on stderr: bars on a terminal, lines with `verbose`.

    Args:
        quiet: show nothing.
        verbose: also a line a title.
    """
    if quiet or not sys.stderr.isatty():
        yield _Lines(verbose and not quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        yield _Bars(verbose, progress)


def show_status(found: Sequence[VersionStatus], *, failed_only: bool, as_json: bool) -> None:
    """Print how titles stand."""
    for status in found:
        records = [r for r in status.records if r.state != "ok" or not failed_only]
        if as_json:
            for r in records:
                typer.echo(json.dumps({"version": status.version.name, **asdict(r)}))
            continue
        _table(status, records)


def _table(status: VersionStatus, records: Sequence[TitleRecord]) -> None:
    from rich.console import Console
    from rich.table import Table

    counts = Counter(r.state for r in status.records)
    frames = sum(r.frames for r in status.records)
    table = Table(title=status.version.name, title_justify="left", box=None, pad_edge=False)
    for name in ("title", "status", "frames", "segments"):
        table.add_column(name, justify="right" if name in ("frames", "segments") else "left")
    for r in records:
        said = "; ".join([r.state + (f": {r.reason}" if r.reason else ""), *r.warnings])
        table.add_row(r.title, said, f"{r.frames:,}", str(r.segments))
    console = Console()
    console.print(table)
    console.print(f"{counts['ok']} ok, {counts['failed']} failed, {frames:,} frames\n")
