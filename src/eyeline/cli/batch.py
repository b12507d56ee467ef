"""`eyeline batch`: process many videos on one machine or a cluster, and resume."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import typer

from eyeline.cli import options
from eyeline.cli.options import REQUIRED, argument, command, group, option
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.batch.store import TitleRecord, VersionStatus
    from eyeline.batch.task import BatchResult, Event, Job, Outcome, Task
    from eyeline.batch.work import Work

app = typer.Typer(
    help="Process many videos on one machine or a Ray cluster, and resume.", no_args_is_help=True
)

_RUN = "Execution"
_MANIFEST = argument(
    "MANIFEST", "Manifest (.csv, .jsonl, .parquet), folder, or pattern; fsspec URLs too."
)
_OUTPUT = option(REQUIRED, "--output", "-o", help="Dataset: a folder or an fsspec URL.")


def _segment(frames: int) -> Any:
    return option(frames, min=0, panel=_RUN, help="Frames per segment of a title; 0 never splits.")


@dataclass(frozen=True)
class Execution:
    """The options of the run; none of them changes the results."""

    panel: ClassVar = _RUN
    workers: int = option(0, min=0, max=1024, help="Worker processes; 0 = one per core.")
    threads: int = option(1, min=1, max=64, help="Cores per worker.")
    engine: Literal["local", "ray"] = option(
        "local", help="Processes on this machine, or tasks on Ray (extra `ray`)."
    )
    address: str | None = option(None, help="Ray cluster; `auto` finds the running one.")
    retries: int = option(2, min=0, max=100, panel="Limits", help="Retries after a killed worker.")
    retry_failed: bool = option(
        True, "--retry-failed/--keep-failed", panel="Limits",
        help="Whether titles that failed in an earlier run are tried again.",
    )  # fmt: skip
    timeout: float = option(21600.0, min=0, panel="Limits", help="Seconds per task; 0 = no limit.")
    stall: float = option(
        600.0, min=0, panel="Limits", help="Seconds without a frame; 0 = no limit."
    )
    memory: int | None = option(
        None, min=0, panel="Limits",
        help="MiB per worker; 0 = no limit. By default an equal share of the machine's memory.",
    )  # fmt: skip
    quiet: bool = options.QUIET
    verbose: bool = options.VERBOSE

    def run(self, manifest: str, output: str, work: Work, segment: int = 0) -> None:
        """Run the batch and print its result."""
        from eyeline.batch.driver import run_batch
        from eyeline.batch.manifest import read_titles
        from eyeline.batch.store import version_of
        from eyeline.batch.task import Job, TaskLimits
        from eyeline.batch.worker import memory_share
        from eyeline.cli.progress import interruptible
        from eyeline.parallel import usable_cores

        if self.address is not None and self.engine != "ray":
            raise UsageError("--address is given without --engine ray", "add --engine ray")
        workers = self.workers or max(1, usable_cores() // self.threads)
        memory = memory_share(workers) if self.memory is None else self.memory
        titles = read_titles(manifest, pairs=work.pairs)
        model = work.resolve()
        work = replace(work, model_sha256=model.sha256)
        options.warn_of_smoke(model)
        version = version_of(work.command, model.id, work.facts())
        limits = TaskLimits(self.timeout, self.stall, memory)
        job = Job(work, output, version, limits, self.threads, segment)
        if self.verbose:
            sys.stderr.write(f"{len(titles)} titles; {model.label}; version {version.name}\n")
        with (
            interruptible("finished titles are kept; run the command again to resume"),
            _view(self.quiet, self.verbose) as view,
            self._engine(job, workers) as engine,
        ):
            result = run_batch(
                titles, job, engine, watcher=view, retries=self.retries, again=self.retry_failed
            )
        _conclude(result, self.quiet, self.verbose)

    def _engine(self, job: Job, workers: int) -> Any:
        if self.engine == "ray":
            from eyeline.batch.ray_engine import RayEngine

            return RayEngine(job, self.address, workers=self.workers, verbose=self.verbose)
        from eyeline.batch.local import LocalEngine

        return LocalEngine(job, workers)


@command(
    "eyeline batch extract films/ -o dataset",
    "eyeline batch extract films.csv -o dataset --workers 8 --segment 3000",
    'eyeline batch extract "films/*.mp4" -o dataset --engine ray --address auto',
)
def extract(
    manifest: str = _MANIFEST,
    output: str = _OUTPUT,
    model: options.ModelChoice = group(),
    size: str | None = options.SIZE,
    device: options.Device = options.DEVICE,
    filling: options.FrameFilling = group(),
    temporal: options.TemporalFilter = group(),
    colour: options.ColourOptions = group(),
    segment: int = _segment(1500),
    execution: Execution = group(),
) -> None:
    """Find where viewers look in every title: a Parquet dataset with one row per frame."""
    from eyeline.batch.work import ExtractWork
    from eyeline.media.types import VideoOptions
    from eyeline.saliency.pipeline import ExtractOptions

    how = ExtractOptions(
        lines=options.parse_size(size), device=device, **asdict(filling), **asdict(temporal)
    )
    work = ExtractWork(**asdict(model), video=VideoOptions(**asdict(colour)), extract=how)
    execution.run(manifest, output, work, segment)


@command(
    "eyeline batch score pairs.csv -o scores --metrics psnr,ssim",
    "eyeline batch score pairs.jsonl -o scores --scale ref --timeout 3600",
)
def score(
    manifest: str = _MANIFEST,
    output: str = _OUTPUT,
    metrics: str | None = options.METRICS,
    vmaf_model: str = options.VMAF_MODEL,
    weight: float = options.WEIGHT,
    scale: Literal["ref", "dist"] | None = option(
        None, help="Scale differing sizes to one side's; by default they are refused."
    ),
    shortest: bool = option(False, "--shortest", help="Stop where the shorter video ends."),
    model: options.ModelChoice = group(),
    size: str | None = options.SIZE,
    temporal: options.TemporalFilter = group(),
    colour: options.ColourOptions = group(),
    segment: int = _segment(500),  # scoring is far slower per frame than extracting
    execution: Execution = group(),
) -> None:
    """Score every pair of `reference` and `distorted`, whole and where viewers look."""
    from eyeline.batch.work import ScoreWork
    from eyeline.media.types import VideoOptions
    from eyeline.quality.pairs import PairOptions
    from eyeline.quality.score import ScoreOptions
    from eyeline.saliency.pipeline import ExtractOptions

    how = ScoreOptions(
        metrics=None if metrics is None else tuple(m.strip() for m in metrics.split(",")),
        weight=weight,
        vmaf_model=vmaf_model,
        pairs=PairOptions(scale=scale, shortest=shortest),
        extract=ExtractOptions(lines=options.parse_size(size), **asdict(temporal)),
    )
    work = ScoreWork(**asdict(model), video=VideoOptions(**asdict(colour)), score=how)
    execution.run(manifest, output, work, segment)


@command(
    "eyeline batch roi-map films/ -o maps --format kvazaar",
    "eyeline batch roi-map films.csv -o maps --format json --block 16",
)
def roi_map(
    manifest: str = _MANIFEST,
    output: str = _OUTPUT,
    format_: Literal["kvazaar", "kvazaar-binary", "svtav1", "json", "npz"] = option(
        "json", "--format", help="The encoder or format that the files are for."
    ),
    block: int | None = option(None, help="Side of a cell of json and npz, pixels (16)."),
    steering: options.SteeringOptions = group(),
    model: options.ModelChoice = group(),
    size: str | None = options.SIZE,
    stride: int = options.STRIDE,
    execution: Execution = group(),
) -> None:
    """Write the QP offsets of every title to a file that an encoder reads."""
    from eyeline.batch.work import RoiMapWork
    from eyeline.saliency.pipeline import ExtractOptions

    work = RoiMapWork(
        **asdict(model), kind=format_, block=block, steer=steering.record(),
        extract=ExtractOptions(lines=options.parse_size(size), stride=stride),
    )  # fmt: skip
    execution.run(manifest, output, work)


@command(
    "eyeline batch status dataset",
    "eyeline batch status dataset --failed",
    "eyeline batch status dataset --verify",
)
def status(
    output: str = argument("DIR", "Folder or fsspec URL of the dataset."),
    failed: bool = option(False, "--failed", help="Only titles that failed."),
    as_json: bool = option(False, "--json", help="Print JSON, one line per title."),
    verify: bool = option(False, "--verify", help="Read every part and check its digest."),
) -> None:
    """Print the state of the titles of a dataset, by version: ok, or failed and why."""
    from eyeline.batch.store import read_status

    found = read_status(output, verify=verify)
    show_status(found, failed_only=failed, as_json=as_json)
    if any(r.state != "ok" for v in found for r in v.records):
        raise typer.Exit(1)


def _conclude(result: BatchResult, quiet: bool, verbose: bool) -> None:
    if not quiet:
        rate = result.frames / result.seconds if result.seconds > 0 else 0.0
        restarts = f", {result.restarts} workers replaced" if result.restarts else ""
        sys.stderr.write(
            f"{len(result.ok)} ok, {len(result.failed)} failed, {len(result.skipped)} skipped; "
            f"{result.frames:,} frames in {result.seconds:.1f} s, {rate:.1f} frames/s{restarts}\n"
        )
    shown = result.failed if verbose else result.failed[:10]
    for name in shown:
        sys.stderr.write(f"failed: {name}: {result.reasons.get(name, '')}\n")
    if len(shown) < len(result.failed):
        sys.stderr.write(f"and {len(result.failed) - len(shown)} more; _status.csv lists them\n")
    if result.failed:
        raise typer.Exit(3)


class _Lines:
    """Show one line per title with `-v`, and nothing otherwise."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        pass

    begin = started = progress = ended = _ignore

    def finished(self, record: TitleRecord) -> None:
        if self._verbose:
            what = f"{record.frames} frames" if record.state == "ok" else record.reason
            pieces = f" in {record.segments} segments" if record.segments > 1 else ""
            sys.stderr.write(f"{record.state}: {record.title}: {what}{pieces}\n")


class _Bars(_Lines):
    """Show a bar for the batch and one per worker."""

    def __init__(self, verbose: bool, progress: Any) -> None:
        super().__init__(verbose)
        self._progress = progress
        self._whole = progress.add_task("titles", total=None, note="reading the manifest")
        self._workers: dict[int, Any] = {}
        self._begun: dict[int, float] = {}
        self._titles = [0, 0, 0]  # done, failed, total

    def begin(self, total: int, skipped: int, size: int) -> None:
        self._titles = [skipped, 0, total]
        self._progress.update(self._whole, total=max(1, size), completed=0)
        self._note()

    def _note(self) -> None:
        done, failed, total = self._titles
        note = f"{done}/{total}" + (f", {failed} failed" if failed else "")
        self._progress.update(self._whole, note=note)

    def started(self, task: Task, worker: int) -> None:
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
        seconds = max(1e-3, time.monotonic() - self._begun.get(event.worker, 0.0))
        self._progress.update(
            self._workers[event.worker],
            completed=event.frames,
            note=f"{event.frames:,} frames, {event.frames / seconds:.0f} frames/s",
        )

    def ended(self, task: Task, worker: int, outcome: Outcome | None, share: float) -> None:
        self._progress.advance(self._whole, share)
        self._progress.reset(self._workers[worker], description=f"{worker}: idle", total=1, note="")

    def finished(self, record: TitleRecord) -> None:
        self._titles[0] += 1
        self._titles[1] += record.state != "ok"
        self._note()
        super().finished(record)


@contextlib.contextmanager
def _view(quiet: bool, verbose: bool) -> Iterator[_Lines]:
    """Yield a watcher that shows a batch on stderr: bars on a terminal, lines with `verbose`."""
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
    """Print the state of every title."""
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


app.command("extract")(extract)
app.command("score")(score)
app.command("roi-map")(roi_map)
app.command()(status)
