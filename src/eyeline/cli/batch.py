"""`eyeline batch`: many videos, resumable, on one machine or a cluster.

What people see of a batch: a bar for the whole, a line for each worker, the status table.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from eyeline.cli import options
from eyeline.errors import UsageError

if TYPE_CHECKING:
    from eyeline.batch.store import TitleRecord, VersionStatus
    from eyeline.batch.task import BatchResult, Event, Job, Outcome, Task
    from eyeline.batch.work import Work


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


app = typer.Typer(
    help="Many videos: resumable, on one machine or a Ray cluster.", no_args_is_help=True
)

_RUN, _LIMITS = "How it is run", "Limits of a task"

EXTRACT_EXAMPLES = """
Examples:

    eyeline batch extract films/ -o dataset

    eyeline batch extract films.csv -o dataset --workers 8 --segment 3000

    eyeline batch extract "films/*.mp4" -o dataset --engine ray --address auto
"""

SCORE_EXAMPLES = """
Examples:

    eyeline batch score pairs.csv -o scores --metrics psnr,ssim

    eyeline batch score pairs.jsonl -o scores --scale ref --timeout 3600
"""

ROI_MAP_EXAMPLES = """
Examples:

    eyeline batch roi-map films/ -o maps --format kvazaar

    eyeline batch roi-map films.csv -o maps --format json --block 16
"""

_Manifest = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST",
        help="Manifest (.csv, .jsonl, .parquet), folder, or pattern; fsspec URLs too.",
        show_default=False,
    ),
]
_Output = Annotated[
    str,
    typer.Option("--output", "-o", help="Folder or fsspec URL of the dataset.", show_default=False),
]
_Workers = Annotated[
    int,
    typer.Option(min=0, max=1024, help="Worker processes; 0 = one per core.", rich_help_panel=_RUN),
]
_Threads = Annotated[
    int, typer.Option(min=1, max=64, help="Cores of each worker.", rich_help_panel=_RUN)
]
_Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Processes here, or tasks on Ray (extra `ray`).", rich_help_panel=_RUN),
]
_Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster; `auto` finds the running one.", rich_help_panel=_RUN),
]
_Segment = Annotated[
    int,
    typer.Option(
        min=0, help="Frames of a segment of long titles; 0 never splits.", rich_help_panel=_RUN
    ),
]
_Retries = Annotated[
    int,
    typer.Option(
        min=0, max=100, help="Further attempts after a worker was killed.", rich_help_panel=_LIMITS
    ),
]
_Again = Annotated[
    bool,
    typer.Option(
        "--retry-failed/--keep-failed",
        help="Try titles again that failed before.",
        rich_help_panel=_LIMITS,
    ),
]
_Timeout = Annotated[float, typer.Option(min=0, help="Seconds; 0 = any.", rich_help_panel=_LIMITS)]
_Stall = Annotated[
    float,
    typer.Option(min=0, help="Seconds without a frame; 0 = any.", rich_help_panel=_LIMITS),
]
_Memory = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="MiB of a worker; 0 = any. By default the machine's share.",
        rich_help_panel=_LIMITS,
    ),
]

TIMEOUT, STALL = 6 * 3600.0, 600.0
SEGMENT, SCORE_SEGMENT = 1500, 500  # a pair takes many times as long as a frame


def extract(
    manifest: _Manifest,
    output: _Output,
    model: options.ModelName = None,
    task: options.MapTask = None,
    registry: options.Registry = None,
    size: options.Size = None,
    device: options.Device = "auto",
    stride: options.Stride = 1,
    still: options.Still = 0.0,
    fill: options.Fill = "linear",
    temporal: options.Temporal = "model",
    temporal_ms: options.TemporalMs = None,
    matrix: options.Matrix = None,
    color_range: options.ColorRange = None,
    hdr: options.Hdr = "map",
    workers: _Workers = 0,
    threads: _Threads = 1,
    engine: _Engine = "local",
    address: _Address = None,
    segment: _Segment = SEGMENT,
    retries: _Retries = 2,
    retry_failed: _Again = True,
    timeout: _Timeout = TIMEOUT,
    stall: _Stall = STALL,
    memory: _Memory = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Where viewers look in every title: a Parquet dataset, a row a frame."""
    from eyeline.batch.work import ExtractWork
    from eyeline.cli.extract import parse_size
    from eyeline.media.types import VideoOptions
    from eyeline.saliency.pipeline import ExtractOptions

    how = ExtractOptions(
        lines=parse_size(size),
        stride=stride,
        still=still,
        fill=fill,
        temporal=temporal,
        temporal_ms=temporal_ms,
        device=device,
    )
    video = VideoOptions(matrix=matrix, color_range=color_range, hdr=hdr)
    work = ExtractWork(model=model, task=task, registry=registry, video=video, extract=how)
    run = _Run(workers, threads, engine, address, segment, retries, retry_failed)
    run.go(manifest, output, work, _limits(run, timeout, stall, memory), quiet, verbose)


def score(
    manifest: _Manifest,
    output: _Output,
    metrics: Annotated[
        str | None,
        typer.Option(help="Of psnr, ssim, ms_ssim, sw_vmaf, vmaf, comma-separated."),
    ] = None,
    vmaf_model: Annotated[
        str, typer.Option(help="Model of vmaf and sw_vmaf, by version.")
    ] = "vmaf_v0.6.1",
    weight: Annotated[
        float, typer.Option(min=0, max=1, help="0 = uniform weights, 1 = the map alone.")
    ] = 1.0,
    scale: Annotated[
        Literal["ref", "dist"] | None,
        typer.Option(help="Scale differing sizes to one side's; refused by default."),
    ] = None,
    shortest: Annotated[
        bool, typer.Option("--shortest", help="Of differing lengths, score the common part.")
    ] = False,
    model: options.ModelName = None,
    task: options.MapTask = None,
    registry: options.Registry = None,
    size: options.Size = None,
    temporal: options.Temporal = "model",
    temporal_ms: options.TemporalMs = None,
    matrix: options.Matrix = None,
    color_range: options.ColorRange = None,
    hdr: options.Hdr = "map",
    workers: _Workers = 0,
    threads: _Threads = 1,
    engine: _Engine = "local",
    address: _Address = None,
    segment: _Segment = SCORE_SEGMENT,
    retries: _Retries = 2,
    retry_failed: _Again = True,
    timeout: _Timeout = TIMEOUT,
    stall: _Stall = STALL,
    memory: _Memory = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Quality of every pair of `reference` and `distorted`, whole and where viewers look."""
    from eyeline.batch.work import ScoreWork
    from eyeline.cli.extract import parse_size
    from eyeline.media.types import VideoOptions
    from eyeline.quality.pairs import PairOptions
    from eyeline.quality.score import ScoreOptions
    from eyeline.saliency.pipeline import ExtractOptions

    chosen = None if metrics is None else tuple(m.strip() for m in metrics.split(","))
    how = ScoreOptions(
        metrics=chosen,
        weight=weight,
        vmaf_model=vmaf_model,
        pairs=PairOptions(scale=scale, shortest=shortest),
        extract=ExtractOptions(lines=parse_size(size), temporal=temporal, temporal_ms=temporal_ms),
    )
    video = VideoOptions(matrix=matrix, color_range=color_range, hdr=hdr)
    work = ScoreWork(model=model, task=task, registry=registry, video=video, score=how)
    run = _Run(workers, threads, engine, address, segment, retries, retry_failed)
    run.go(manifest, output, work, _limits(run, timeout, stall, memory), quiet, verbose)


def roi_map(
    manifest: _Manifest,
    output: _Output,
    format_: Annotated[
        Literal["kvazaar", "kvazaar-binary", "svtav1", "json", "npz"],
        typer.Option("--format", help="Who is to read the maps."),
    ] = "json",
    block: Annotated[
        int | None, typer.Option(help="Side of a cell of json and npz, pixels (16).")
    ] = None,
    strength: options.Strength = None,
    law: options.SteeringLaw = None,
    clamp: options.Clamp = 12.0,
    smoothing: options.Smoothing = None,
    levels: options.Levels = None,
    model: options.ModelName = None,
    task: options.MapTask = None,
    registry: options.Registry = None,
    size: options.Size = None,
    stride: options.Stride = 1,
    workers: _Workers = 0,
    threads: _Threads = 1,
    engine: _Engine = "local",
    address: _Address = None,
    retries: _Retries = 2,
    retry_failed: _Again = True,
    timeout: _Timeout = TIMEOUT,
    stall: _Stall = STALL,
    memory: _Memory = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """QP offsets of every title, in a file that an encoder reads."""
    from eyeline.batch.work import RoiMapWork
    from eyeline.cli.extract import parse_size
    from eyeline.cli.roi import steer_options
    from eyeline.saliency.pipeline import ExtractOptions

    work = RoiMapWork(
        model=model,
        task=task,
        registry=registry,
        kind=format_,
        block=block,
        steer=steer_options(strength, law, clamp, smoothing, levels),
        extract=ExtractOptions(lines=parse_size(size), stride=stride),
    )
    run = _Run(workers, threads, engine, address, 0, retries, retry_failed)
    run.go(manifest, output, work, _limits(run, timeout, stall, memory), quiet, verbose)


class _Run:
    """The options of a run that don't touch its results."""

    def __init__(
        self,
        workers: int,
        threads: int,
        engine: str,
        address: str | None,
        segment: int,
        retries: int,
        again: bool,
    ) -> None:
        from eyeline.parallel import usable_cores

        if address is not None and engine != "ray":
            raise UsageError("--address without --engine ray", "add --engine ray")
        self.engine, self.address = engine, address
        self.threads, self.segment, self.retries, self.again = threads, segment, retries, again
        self.asked, self.workers = workers, workers or max(1, usable_cores() // threads)

    def go(
        self, manifest: str, output: str, work: Work, limits: Any, quiet: bool, verbose: bool
    ) -> None:
        """Run the batch and say how it ended."""
        from eyeline.batch.driver import run_batch
        from eyeline.batch.manifest import read_titles
        from eyeline.batch.store import version_of
        from eyeline.batch.task import Job
        from eyeline.cli.progress import InterruptShield

        titles = read_titles(manifest, pairs=work.pairs)
        model = work.resolve()
        work = replace(work, model_sha256=model.sha256)
        options.warn_of_smoke(model)
        version = version_of(work.command, model.id, work.facts())
        job = Job(work, output, version, limits, self.threads, self.segment)
        if verbose:
            sys.stderr.write(f"{len(titles)} titles; {model.label}; version {version.name}\n")
        InterruptShield()  # a cluster's SIGTERM ends a batch as Ctrl-C does
        try:
            with batch_view(quiet, verbose) as view, self._open(job, verbose) as engine:
                result = run_batch(
                    titles, job, engine, watcher=view, retries=self.retries, again=self.again
                )
        except KeyboardInterrupt as exc:
            sys.stderr.write("interrupted: what is finished is kept; run it again to go on\n")
            raise typer.Exit(130) from exc
        _conclude(result, quiet, verbose)

    def _open(self, job: Job, verbose: bool) -> Any:
        if self.engine == "ray":
            from eyeline.batch.ray_engine import RayEngine

            return RayEngine(job, self.address, workers=self.asked, verbose=verbose)
        from eyeline.batch.local import LocalEngine

        return LocalEngine(job, self.workers)


def _limits(run: _Run, timeout: float, stall: float, memory: int | None) -> Any:
    from eyeline.batch.task import Limits, memory_share

    return Limits(timeout, stall, memory_share(run.workers) if memory is None else memory)


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
        sys.stderr.write(f"and {len(result.failed) - len(shown)} more: see _status.csv\n")
    if result.failed:
        raise typer.Exit(3)


def status(
    output: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder or fsspec URL of the dataset.")
    ],
    failed: Annotated[bool, typer.Option("--failed", help="Only titles that failed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, a line a title.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every part and check its digest.")
    ] = False,
) -> None:
    """How the titles of a dataset stand: ok, failed and why, by version.

    Examples:
        eyeline batch status dataset

        eyeline batch status dataset --failed

        eyeline batch status dataset --verify
    """
    from eyeline.batch.store import read_status

    found = read_status(output, verify=verify)
    show_status(found, failed_only=failed, as_json=as_json)
    if any(r.state != "ok" for v in found for r in v.records):
        raise typer.Exit(1)


for _name, _command, _examples in (
    ("extract", extract, EXTRACT_EXAMPLES),
    ("score", score, SCORE_EXAMPLES),
    ("roi-map", roi_map, ROI_MAP_EXAMPLES),
):
    _command.__doc__ = f"{_command.__doc__}\n{_examples}"
    app.command(_name)(_command)
app.command()(status)
