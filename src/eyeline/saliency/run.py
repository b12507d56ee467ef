"""Run an extraction into files: one pass over the frames feeds the log, maps and overlay.

What a run that stops part-way had finished is kept: every output is committed with the rows so
far and the log says `complete: false`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eyeline.errors import DamagedMediaError, MediaError, UsageError
from eyeline.logs import format_for, write_log
from eyeline.logs.record import Log
from eyeline.media.types import DecodeReport
from eyeline.saliency.features import FEATURES
from eyeline.saliency.maps import open_map_sink
from eyeline.saliency.overlay import OverlayWriter
from eyeline.saliency.pipeline import Extraction, FrameSaliency
from eyeline.saliency.plot import check_plot_path, plot_log


@dataclass(frozen=True)
class Outputs:
    """Where the results go; formats are chosen by suffix.

    Attributes:
        logs: JSON, CSV or Parquet files, or `-` for JSON on stdout.
        with_log: a libvmaf log to merge the columns into.
        maps: folder, `.npz` or `.mkv` for the maps.
        map_depth: bits of PNG and FFV1 maps.
        overlay: `.mp4` or `.mkv` with the heat map over the source.
        plot: `.svg` or `.png` of the features over time.
    """

    logs: tuple[str, ...] = ()
    with_log: str | None = None
    maps: str | None = None
    map_depth: Literal[8, 16] = 8
    overlay: str | None = None
    plot: str | None = None

    def check(self, source: str) -> None:
        """Find what would fail at the end before the work begins.

        Raises:
            UsageError: two outputs of one name, or one that is the input.
            OutputError: an unknown suffix, or a folder that is missing or not writable.
            MissingExtraError: a format whose library is not installed.
        """
        files = [p for p in (*self.logs, self.maps, self.overlay, self.plot) if p and p != "-"]
        places = [Path(p).resolve() for p in files]
        for path, place in zip(files, places, strict=True):
            if places.count(place) > 1:
                raise UsageError(f"{path}: two outputs of that name", "give each its own")
            if source != "-" and place == Path(source).resolve():
                raise UsageError(f"{path}: is the input", "give the output another name")
        for path in self.logs:
            format_for(path)
        if self.plot:
            check_plot_path(self.plot)


@dataclass
class RunResult:
    """What a run made.

    Attributes:
        log: the rows, with provenance.
        cuts: presentation times of scene starts, seconds.
        stopped: what ended the run early, None when it is complete.
        written: the outputs, in order.
    """

    log: Log
    cuts: list[float] = field(default_factory=list)
    stopped: BaseException | None = None
    written: list[str] = field(default_factory=list)


def open_log(extraction: Extraction) -> Log:
    """The empty log of an extraction."""
    fps = extraction.info.fps
    return Log(list(FEATURES), extraction.provenance, float(fps) if fps else None)


def outcome(log: Log, report: DecodeReport, cuts: list[float], complete: bool) -> dict[str, Any]:
    """What the provenance says of how a run went.

    Args:
        log: the rows.
        report: what the decoder met.
        cuts: presentation times of scene starts, seconds.
        complete: whether the run came to its end.
    """
    return {
        "complete": complete,
        "frames": len(log),
        "corrupt_frames": report.corrupt,
        "first_corrupt": report.first_corrupt,
        "size_changes": [[i, list(size)] for i, size in report.size_changes],
        "cuts": cuts,
    }


def run_extraction(
    extraction: Extraction,
    outputs: Outputs,
    on_frame: Callable[[FrameSaliency], None] = lambda frame: None,
    shield: AbstractContextManager[None] | None = None,
) -> RunResult:
    """Iterate an extraction and write every output.

    Args:
        extraction: from `eyeline.extract`; needs `keep_source` for an overlay. It is closed.
        outputs: where results go.
        on_frame: called after each frame, for progress.
        shield: entered around what must not be split by an interrupt: a frame's writes, and the
            finishing of files.

    Returns:
        The result; its `stopped` holds `DamagedMediaError` or `KeyboardInterrupt` of a run that
        ended part-way, after its rows were written.

    Raises:
        MediaError: nothing could be decoded.
        ModelError: the model broke the contract; nothing is written.
        OutputError: an output can't be written.
    """
    info = extraction.info
    fps = float(info.fps) if info.fps else None
    result = RunResult(open_log(extraction))
    log = result.log
    whole = shield or contextlib.nullcontext()
    with contextlib.ExitStack() as stack:
        stack.enter_context(extraction)
        maps = overlay = None
        if outputs.maps:
            maps = stack.enter_context(
                open_map_sink(outputs.maps, depth=outputs.map_depth, fps=fps or 25.0)
            )
        if outputs.overlay:
            overlay = stack.enter_context(
                OverlayWriter(
                    outputs.overlay, info.display_width, info.display_height, fps=fps or 25.0
                )
            )
        try:
            for frame in extraction:
                with whole:
                    if maps:
                        maps.write(frame.index, frame.pts_time, frame.full_map())
                    if overlay:
                        overlay.write(frame.frame, info.colour, frame.map)
                    log.append(frame.index, frame.pts_time, frame.features)
                    if frame.cut:
                        result.cuts.append(frame.pts_time)
                    on_frame(frame)
        except (DamagedMediaError, KeyboardInterrupt) as exc:
            if not len(log):
                raise
            result.stopped = exc
    if not len(log):
        raise MediaError(f"{info.path}: no frames in the range asked for", "check --frames")
    log.provenance |= outcome(log, extraction.report, result.cuts, result.stopped is None)
    with whole:
        for path in outputs.logs:
            write_log(log, path, with_log=outputs.with_log)
        if outputs.plot:
            plot_log(log, outputs.plot, result.cuts, title=Path(info.path).name)
    result.written = [p for p in (*outputs.logs, outputs.maps, outputs.overlay, outputs.plot) if p]
    return result
