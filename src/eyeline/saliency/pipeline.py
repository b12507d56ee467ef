"""From a video to a stream of saliency maps: decode thread -> one-thread workers -> in order.

The decoder runs in a thread of its own and hands small planes to a pool of workers, which share
one session; results come back in frame order, so they are bit-identical whatever the number of
workers. Everything is bounded: memory does not grow with the length of the video.

Run an extraction into files: one pass over the frames feeds the log, maps and overlay.

What a run that stops part-way had finished is kept: every output is committed with the rows so
far and the log says `complete: false`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from eyeline._version import __version__
from eyeline.errors import DamagedMediaError, MediaError, UsageError
from eyeline.inference import Session, finish, input_size, prepare, upscale
from eyeline.logs import format_for, write_log
from eyeline.logs.base import Log
from eyeline.media import Video, open_video
from eyeline.media.source import difference
from eyeline.media.types import DEFAULT_FPS, DecodeReport, Frame, VideoInfo, VideoOptions
from eyeline.parallel import map_in_threads, usable_cores
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model, resolve_model
from eyeline.runtime import Device
from eyeline.saliency.features import FEATURES, map_features
from eyeline.saliency.maps import open_map_sink
from eyeline.saliency.overlay import OverlayWriter
from eyeline.saliency.plot import check_plot_path, plot_log
from eyeline.saliency.temporal import (
    CUT_THRESHOLD,
    FILTERS,
    MAX_TIME_CONSTANT_MS,
    TIME_CONSTANT_MS,
    Estimate,
    Fill,
    TemporalFilter,
    fill_skipped,
)

Map = npt.NDArray[np.float32]


LONGEST_STILL = 50
"""Frames after which a still picture is inferred again: those that wait to be filled are held."""

MACHINE = ("workers", "keep_source", "device")
"""Options that decide how long a run takes, and nothing that it finds."""

AVERAGES = ("ema", "motion")
"""Temporal filters that have a time constant."""


@dataclass(frozen=True)
class ExtractOptions:
    """What `extract` does to a video; every value travels in the log's provenance.

    Attributes:
        lines: short side of the working size in pixels, `native`, or None for what the model's I/O
            spec says.
        stride: infer every n-th frame (and every first frame of a scene), fill those between.
        still: percent of full scale: a frame that differs from the last inferred one by less, on
            average over the green plane, is filled, too; 0 = none is.
        fill: how frames between are filled.
        temporal: filter on the maps; `model` is the one that the model's I/O spec names.
        temporal_ms: time constant of `ema` and `motion`, milliseconds, above 0 and at most 2000;
            None: the model's own, or 80 where it has none.
        start, stop: first frame and the one after the last, as decoded; None = all.
        device: where the model runs.
        workers: inference threads; 0 = one per core.
        keep_source: keep each decoded frame for the consumer (an overlay needs it).
    """

    lines: int | Literal["native"] | None = None
    stride: int = 1
    still: float = 0.0
    fill: Fill = "linear"
    temporal: TemporalFilter = "model"
    temporal_ms: float | None = None
    start: int = 0
    stop: int | None = None
    device: Device = "auto"
    workers: int = 0
    keep_source: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("fill", self.fill, get_args(Fill)),
            ("temporal", self.temporal, get_args(TemporalFilter)),
            ("device", self.device, get_args(Device)),
        ):
            if value not in known:
                raise UsageError(f"{name} is {value!r}", f"one of {', '.join(known)}")
        if self.stride < 1:
            raise UsageError(f"stride is {self.stride}", "1 infers every frame, 2 every second")
        if not 0 <= self.still <= 100:
            raise UsageError(f"still is {self.still:g}", "give percent of full scale, such as 0.5")
        if isinstance(self.lines, int) and not 16 <= self.lines <= 4320:
            raise UsageError(f"working size is {self.lines} lines", "give 16..4320, or 'native'")
        if self.temporal_ms is not None:
            if self.temporal not in AVERAGES:
                raise UsageError(
                    f"a time constant of {self.temporal_ms:g} ms is given, and the temporal filter is "
                    f"{self.temporal!r}",
                    f"choose one of {', '.join(AVERAGES)}, or leave the time constant out",
                )
            if not 0 < self.temporal_ms <= MAX_TIME_CONSTANT_MS:
                raise UsageError(
                    f"the time constant is {self.temporal_ms:g} ms",
                    f"give more than 0 and at most {MAX_TIME_CONSTANT_MS:g} ms",
                )
        if self.workers < 0:
            raise UsageError(f"workers are {self.workers}", "0 is one per core")
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise UsageError(f"frames {self.start}:{self.stop} are none", "give A:B with A < B")

    @property
    def skips(self) -> bool:
        """Whether frames are filled rather than inferred."""
        return self.stride > 1 or self.still > 0

    def for_model(self, io: IoSpec) -> ExtractOptions:
        """These options with the temporal filter and time constant that a model's I/O spec names."""
        if self.temporal == "model":
            own = io.temporal_ms or None
            return replace(self, temporal="ema" if own else "none", temporal_ms=own)
        if self.temporal in AVERAGES and self.temporal_ms is None:
            return replace(self, temporal_ms=io.temporal_ms or TIME_CONSTANT_MS)
        return self


@dataclass(frozen=True)
class FrameRange:
    """The frames that an extraction decodes and infers, where several share a video.

    Attributes:
        start: first frame to decode.
        stop: the frame after the last to decode; None = to the end.
        infer_from: first frame to infer; frames before it only serve to score scene changes.
        start_at_cut: begin to infer only at a cut, or at the first frame of `ExtractOptions`.
        stop_at_cut_after: end before the first cut at or after this frame; None = at `stop`.
    """

    start: int
    stop: int | None
    infer_from: int
    start_at_cut: bool = False
    stop_at_cut_after: int | None = None


@dataclass(frozen=True)
class FrameSaliency:
    """Where viewers look in one frame.

    Attributes:
        index: position in the stream, from 0 (`frameNum` of logs).
        pts_time: presentation time, seconds.
        features: the numbers of `eyeline.saliency.features.FEATURES`.
        map: float32 (h, w) in [0, 1] at the working size.
        cut: whether a scene starts here.
        filled: whether the map was interpolated (see `ExtractOptions.stride`).
        frame: the decoded frame behind it.
    """

    index: int
    pts_time: float
    features: dict[str, float]
    map: Map
    cut: bool
    filled: bool
    frame: Frame

    @property
    def saliency_mean(self) -> float:
        """Arithmetic mean of the map."""
        return self.features["saliency_mean"]

    def full_map(self) -> Map:
        """The map at the display size of the source, float32 (H, W) in [0, 1]."""
        return upscale(self.map, *self.frame.display_size)


@dataclass(frozen=True)
class _Decoded:
    """A decoded frame, and what is to be done with it."""

    frame: Frame
    wanted: bool = False
    cut: bool = False
    due: bool = False


class _Run:
    """The machinery of one extraction: a decode thread, a pool of workers, filters.

    Nothing here refers to the `Extraction` or to the generator that `results` returns, so that a
    caller who leaves the loop drops the last reference to that generator, which ends the threads.
    """

    def __init__(
        self, video: Video, session: Session, options: ExtractOptions, frames: FrameRange | None
    ) -> None:
        self._video, self._session, self.options = video, session, options
        self._range = frames or FrameRange(options.start, options.stop, options.start)
        self.frame_before: Frame | None = None
        self.stopped_at_cut = False
        self._workers = options.workers or usable_cores()
        self._damage: DamagedMediaError | None = None

    def _plan(self, width: int, height: int) -> tuple[int, int]:
        return input_size(width, height, self._session.model.io, self.options.lines)

    def _frames(self) -> Iterator[_Decoded]:
        """Decode, and decide what is to be inferred."""
        o, wanted = self.options, self._range
        since = 0
        inferred: npt.NDArray[np.uint8] | None = None
        size: tuple[int, ...] | None = None
        begun = False
        for frame in self._video.frames(self._plan, wanted.start, wanted.stop, o.keep_source):
            cut = size != frame.rgb.shape or frame.scene_score >= CUT_THRESHOLD
            first, size = size is None, frame.rgb.shape
            limit = wanted.stop_at_cut_after
            if limit is not None and frame.index >= limit and (cut or not begun):
                self.stopped_at_cut = True
                return
            if not begun:
                may_begin = cut or not wanted.start_at_cut or frame.index == o.start
                begun = may_begin and frame.index >= wanted.infer_from
            if not begun:
                yield _Decoded(frame)
                continue
            due = cut or since % o.stride == 0
            if due and not cut and inferred is not None and since < LONGEST_STILL:
                due = difference(frame.rgb[1], inferred) >= o.still
            if due:
                inferred = frame.rgb[1] if o.still else None
            since = 1 if due else since + 1
            yield _Decoded(frame, wanted=True, cut=cut and not first, due=due)

    def _infer(self, decoded: _Decoded) -> tuple[_Decoded, Map | None]:
        if not decoded.due:
            return decoded, None
        io = self._session.model.io
        rgb = decoded.frame.rgb
        _, h, w = rgb.shape
        return decoded, finish(self._session.run(prepare(rgb, io)), h, w, io)

    def _estimates(self) -> Iterator[Estimate]:
        mapped = map_in_threads(self._infer, self._frames(), self._workers)
        try:
            with contextlib.closing(mapped):
                for decoded, m in mapped:
                    if decoded.wanted:
                        yield Estimate(decoded.frame, decoded.cut, m)
                    else:
                        self.frame_before = decoded.frame
        except DamagedMediaError as exc:
            self._damage = exc  # raised once the filters gave the frames they hold
        finally:
            self._video.close()

    def results(self) -> Generator[FrameSaliency]:
        """What the extraction yields; closing it ends the threads and closes the video."""
        estimates: Iterator[Estimate] = self._estimates()
        if self.options.skips:
            estimates = fill_skipped(estimates, self.options.fill)
        previous: Map | None = None
        o, fps = self.options, float(self._video.info.fps or DEFAULT_FPS)
        for e in FILTERS[o.temporal](estimates, o.temporal_ms or TIME_CONSTANT_MS, fps):
            m = e.known_map
            m.setflags(write=False)
            features = map_features(m, None if e.cut else previous)
            previous = m
            yield FrameSaliency(
                e.frame.index, e.frame.pts_time, features, m, e.cut, e.filled, e.frame
            )
        if self._damage is not None:
            raise self._damage


class Extraction:
    """A running extraction: iterate over it for `FrameSaliency`, in frame order, once.

    Args:
        video: an open video.
        session: a loaded model.
        options: see `ExtractOptions`; what they leave to the model is taken from its I/O spec.
        frames: what to decode and infer, where several runs share the video; the range of
            `options` when None.

    Attributes:
        model: whose maps these are.
        info: facts of the video.
        report: what the decoder met; complete when the iteration ends.
        provenance: model id, digest, task, options and versions, JSON values.
    """

    def __init__(
        self,
        video: Video,
        session: Session,
        options: ExtractOptions,
        frames: FrameRange | None = None,
    ) -> None:
        model, info = session.model, video.info
        options = options.for_model(model.io)
        self._video, self.options, self.model = video, options, model
        self.info: VideoInfo = info
        self.report: DecodeReport = video.report
        run = _Run(video, session, options, frames)
        self._run, self._iterator = run, run.results()
        self.provenance: dict[str, Any] = {
            "eyeline": __version__,
            "model": model.id,
            "model_sha256": model.sha256,
            "task": model.task,
            "smoke": model.smoke,
            "io": model.io.model_dump(),
            "options": {k: v for k, v in asdict(options).items() if k not in MACHINE},
            "working_size": list(
                input_size(info.display_width, info.display_height, model.io, options.lines)
            ),
            "provider": session.provider,
            "onnxruntime": session.runtime_version,
            "video": {
                "codec": info.codec,
                "display_size": [info.display_width, info.display_height],
                "pix_fmt": info.pix_fmt,
                "colour": asdict(info.colour),
            },
        }

    def __enter__(self) -> Extraction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FrameSaliency]:
        return self._iterator

    @property
    def frame_before(self) -> Frame | None:
        """Return the last frame before the first that was inferred, once that came."""
        return self._run.frame_before

    @property
    def stopped_at_cut(self) -> bool:
        """Return whether it ended at `FrameRange.stop_at_cut_after`, not with the frames."""
        return self._run.stopped_at_cut

    def close(self) -> None:
        """Stop the threads and close the video; safe to call twice."""
        self._iterator.close()
        self._video.close()


def extract(
    video: str | os.PathLike[str] | list[str],
    *,
    model: str | Model | None = None,
    registry: str | os.PathLike[str] | None = None,
    video_options: VideoOptions | None = None,
    options: ExtractOptions | None = None,
) -> Extraction:
    """Find where viewers look in a video, frame by frame.

    ::

        for frame in eyeline.extract("clip.mp4"):
            print(frame.index, frame.saliency_mean, frame.map.shape)

    Args:
        video: path of a video, Y4M, raw YUV (with size and format in `video_options`), a folder
            of images, a list of image paths, or `-` for Y4M on stdin.
        model: id, path, or `Model`; the registry's default when None. For a map of viewers' gaze:
            `resolve_model(task="gaze")`.
        registry: the user's own registry folder.
        video_options: how to read the video.
        options: what to do with it.

    Returns:
        An `Extraction`: iterable once, and a context manager.

    Raises:
        MediaError: a video that can't be read.
        ModelError: a model that can't be used.
        DamagedMediaError: while iterating, after the last good frame.
    """
    o = options or ExtractOptions()
    session = Session(resolve_model(model, registry), o.device)
    return Extraction(open_video(video, video_options or VideoOptions()), session, o)


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
