"""Compute the saliency maps of a video and write them to files.

`extract` decodes in a thread, infers in single-threaded workers that share a session, and filters the
maps over time. Results come in frame order and are bit-identical for any number of workers. All
queues are bounded, so memory does not grow with the length of the video.

`run_extraction` writes the log, maps, overlay and plot in one pass. If a run stops early, the outputs
hold the rows so far, and the provenance of the log has `complete: false`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from eyeline._version import __version__
from eyeline.errors import DamagedMediaError, MediaError, UsageError
from eyeline.files import check_outputs
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
from eyeline.saliency.features import FEATURES, check_plot_path, map_features, plot_log
from eyeline.saliency.maps import open_map_sink
from eyeline.saliency.overlay import OverlayWriter
from eyeline.saliency.temporal import (
    CUT_THRESHOLD,
    FILTERS,
    MAX_TIME_CONSTANT_MS,
    TIME_CONSTANT_MS,
    Fill,
    FrameMap,
    TemporalFilter,
    fill_skipped,
)

Map = npt.NDArray[np.float32]


LONGEST_STILL = 50
"""Infer at least every 50th frame of a still picture, because frames that wait to be filled take memory."""

MACHINE = ("workers", "keep_source", "device")
"""Options that affect the speed of a run, but not its results."""

AVERAGES = ("ema", "motion")
"""Temporal filters that have a time constant."""


@dataclass(frozen=True)
class ExtractOptions:
    """Options of `extract`. The provenance of the log holds every option that affects the results.

    Attributes:
        lines: short side of the working size in pixels, or `native`; None = the size in the model's
            I/O spec.
        stride: infer every n-th frame and the first frame of every scene; interpolate the maps of the
            other frames.
        still: threshold in percent of full scale; 0 = off. A frame is not inferred if the mean difference
            of its green plane from that of the last inferred frame is below this threshold.
        fill: how the maps of frames that are not inferred are interpolated.
        temporal: temporal filter of the maps; `model` = the filter in the model's I/O spec.
        temporal_ms: time constant of `ema` and `motion`, milliseconds, above 0 and at most 2000;
            None = the value in the model's I/O spec, or 80 if it has none.
        start, stop: first frame, and the frame after the last; `stop` None = to the end.
        device: device that runs the model.
        workers: number of inference threads; 0 = one per core.
        keep_source: keep each decoded frame for the consumer; an overlay needs it.
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
                raise UsageError(
                    f"{value!r} is not a known value of {name}", f"choose one of {', '.join(known)}"
                )
        if self.stride < 1:
            raise UsageError(
                f"the stride {self.stride} is too small",
                "give at least 1: 1 infers every frame, 2 every second frame",
            )
        if not 0 <= self.still <= 100:
            raise UsageError(
                f"the still threshold {self.still:g} is out of range",
                "give 0 to 100 percent of full scale, such as 0.5",
            )
        if isinstance(self.lines, int) and not 16 <= self.lines <= 4320:
            raise UsageError(
                f"a working size of {self.lines} lines is out of range",
                "give 16 to 4320, or 'native'",
            )
        if self.temporal_ms is not None:
            if self.temporal not in AVERAGES:
                raise UsageError(
                    f"a time constant ({self.temporal_ms:g} ms) can't be used with the temporal filter "
                    f"{self.temporal!r}",
                    f"choose the filter {' or '.join(AVERAGES)}, or leave the time constant out",
                )
            if not 0 < self.temporal_ms <= MAX_TIME_CONSTANT_MS:
                raise UsageError(
                    f"a time constant of {self.temporal_ms:g} ms is out of range",
                    f"give more than 0 and at most {MAX_TIME_CONSTANT_MS:g} ms",
                )
        if self.workers < 0:
            raise UsageError(
                f"{self.workers} workers are too few", "give at least 1, or 0 for one per core"
            )
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise UsageError(
                f"the frame range {self.start}:{self.stop} selects no frames",
                "give A:B with 0 <= A < B",
            )

    @property
    def skips(self) -> bool:
        """Return whether the maps of some frames are interpolated, not inferred."""
        return self.stride > 1 or self.still > 0

    def for_model(self, io: IoSpec) -> ExtractOptions:
        """Fill in the temporal filter and time constant from a model's I/O spec, and return the options."""
        if self.temporal == "model":
            own = io.temporal_ms or None
            return replace(self, temporal="ema" if own else "none", temporal_ms=own)
        if self.temporal in AVERAGES and self.temporal_ms is None:
            return replace(self, temporal_ms=io.temporal_ms or TIME_CONSTANT_MS)
        return self


@dataclass(frozen=True)
class FrameRange:
    """The frames that an extraction decodes and infers, if it processes one segment of a video.

    Attributes:
        start: first frame to decode.
        stop: the frame after the last to decode; None = to the end.
        infer_from: first frame to infer; earlier frames are decoded only to detect scene changes.
        start_at_cut: begin to infer only at a cut, or at `ExtractOptions.start`.
        stop_at_cut_after: end before the first cut at or after this frame; None = end at `stop`.
    """

    start: int
    stop: int | None
    infer_from: int
    start_at_cut: bool = False
    stop_at_cut_after: int | None = None


@dataclass(frozen=True)
class FrameSaliency:
    """The saliency map of one frame, and its features.

    Attributes:
        index: frame number in the stream, from 0 (`frameNum` in logs).
        pts_time: presentation time, seconds.
        features: values of `eyeline.saliency.features.FEATURES` by name.
        map: float32 (h, w) in [0, 1] at the working size.
        cut: whether a scene starts here.
        filled: whether the map was interpolated rather than inferred.
        frame: the decoded frame.
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
        """Return the arithmetic mean of the map."""
        return self.features["saliency_mean"]

    def full_map(self) -> Map:
        """Return the map at the display size of the source, float32 (H, W) in [0, 1]."""
        return upscale(self.map, *self.frame.display_size)


@dataclass(frozen=True)
class _Decoded:
    frame: Frame
    wanted: bool = False  # the frame gets a result
    cut: bool = False
    due: bool = False  # the frame is inferred


class _ExtractionLoop:
    """The threads and filters of one extraction.

    This object must not refer to the `Extraction` or to the generator that `results` returns. A reference
    cycle would keep the generator and its threads alive after the caller drops the `Extraction`.
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
        """Decode frames, and decide which frames to infer."""
        o, wanted = self.options, self._range
        since = 0
        inferred: npt.NDArray[np.uint8] | None = None
        size: tuple[int, ...] | None = None
        begun = False
        frames = self._video.frames(
            self._plan, wanted.start, wanted.stop, keep_source=o.keep_source
        )
        for frame in frames:
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

    def _inferred(self) -> Iterator[FrameMap]:
        mapped = map_in_threads(self._infer, self._frames(), self._workers)
        try:
            with contextlib.closing(mapped):
                for decoded, m in mapped:
                    if decoded.wanted:
                        yield FrameMap(decoded.frame, decoded.cut, m)
                    else:
                        self.frame_before = decoded.frame
        except DamagedMediaError as exc:
            self._damage = exc  # `results` raises this after the filters' last frames
        finally:
            self._video.close()

    def results(self) -> Generator[FrameSaliency]:
        """Yield the results. Closing the generator ends the threads and closes the video."""
        frames: Iterator[FrameMap] = self._inferred()
        if self.options.skips:
            frames = fill_skipped(frames, self.options.fill)
        previous: Map | None = None
        o, fps = self.options, float(self._video.info.fps or DEFAULT_FPS)
        for e in FILTERS[o.temporal](frames, o.temporal_ms or TIME_CONSTANT_MS, fps):
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
    """A running extraction; iterate over it once to get a `FrameSaliency` per frame, in order.

    Args:
        video: an open video.
        session: a loaded model.
        options: options of the extraction; `ExtractOptions.for_model` is applied to them.
        frames: the frames to decode and infer for one segment of the video; None = the range in
            `options`.

    Attributes:
        model: the model that makes the maps.
        info: size, frame rate and other properties of the video.
        report: damage and size changes that the decoder found; complete when the iteration ends.
        provenance: model id, digest, task, options and versions, as JSON values.
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
        run = _ExtractionLoop(video, session, options, frames)
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

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[FrameSaliency]:
        return self._iterator

    @property
    def frame_before(self) -> Frame | None:
        """Return the last frame before the first inferred frame; None until it was decoded."""
        return self._run.frame_before

    @property
    def stopped_at_cut(self) -> bool:
        """Return whether the extraction ended at a cut because of `FrameRange.stop_at_cut_after`."""
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
        video: path of a video, Y4M or raw YUV file (with size and format in `video_options`), a
            folder of images, a list of image paths, or `-` for Y4M on stdin.
        model: model id, path of a model, or `Model`; None = the default model of the registry. For maps
            of viewers' gaze, give `resolve_model(task="gaze")`.
        registry: path of a registry folder of the user.
        video_options: how to read the video.
        options: stride, temporal filter and other options of the extraction.

    Returns:
        An `Extraction`, which is a context manager and can be iterated once.

    Raises:
        MediaError: the video can't be read.
        ModelError: the model can't be used.
        DamagedMediaError: decoding failed; raised during the iteration, after the last good frame.
    """
    o = options or ExtractOptions()
    session = Session(resolve_model(model, registry), o.device)
    return Extraction(open_video(video, video_options or VideoOptions()), session, o)


@dataclass(frozen=True)
class Outputs:
    """Paths of the outputs; the suffix of a path selects the format.

    Attributes:
        logs: JSON, CSV or Parquet files, or `-` for JSON on stdout.
        with_log: a libvmaf log; the logs then hold its columns, too.
        maps: folder, `.npz` or `.mkv` for the maps.
        map_depth: bits per sample of PNG and FFV1 maps.
        overlay: `.mp4` or `.mkv` for the video with the heat map.
        plot: `.svg` or `.png` for a plot of the features over time.
    """

    logs: tuple[str, ...] = ()
    with_log: str | None = None
    maps: str | None = None
    map_depth: Literal[8, 16] = 8
    overlay: str | None = None
    plot: str | None = None

    def check(self, source: str) -> None:
        """Check, before the work begins, that all outputs can be written.

        Raises:
            UsageError: two outputs have the same path, or an output is the input.
            OutputError: a suffix is unknown, or a file cannot be written.
            MissingExtraError: the library of a format is not installed.
        """
        check_outputs((*self.logs, self.overlay, self.plot), folders=[self.maps], inputs=[source])
        for path in self.logs:
            format_for(path)
        if self.plot:
            check_plot_path(self.plot)


@dataclass
class ExtractResult:
    """The result of `run_extraction`.

    Attributes:
        log: the rows, with provenance.
        cuts: presentation times of scene starts, seconds.
        stopped: the error that ended the run early; None if the run is complete.
        written: paths of the outputs.
    """

    log: Log
    cuts: list[float] = field(default_factory=list)
    stopped: BaseException | None = None
    written: list[str] = field(default_factory=list)


def open_log(extraction: Extraction) -> Log:
    """Return a log without rows, with the columns and provenance of an extraction."""
    fps = extraction.info.fps
    return Log(list(FEATURES), extraction.provenance, float(fps) if fps else None)


def outcome(log: Log, report: DecodeReport, cuts: list[float], complete: bool) -> dict[str, Any]:
    """Return the part of the provenance that is known only at the end of a run; `cuts` are in seconds."""
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
) -> ExtractResult:
    """Run an extraction to its end, write every output, and close the extraction.

    Args:
        extraction: an extraction from `eyeline.extract`; an overlay needs its option `keep_source`.
        outputs: paths of the outputs.
        on_frame: called after each frame, for progress.
        shield: context manager that delays interrupts; it is entered to write one frame, and to
            complete the files.

    Returns:
        The result. If the run ended early, the rows so far are written, and `stopped` holds the
        `DamagedMediaError` or `KeyboardInterrupt`.

    Raises:
        MediaError: no frame could be decoded.
        ModelError: the model's output is invalid; nothing is written.
        OutputError: an output can't be written.
    """
    info = extraction.info
    fps = float(info.fps) if info.fps else None
    result = ExtractResult(open_log(extraction))
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
        raise MediaError(
            f"{info.path}: has no frames in the given range", "give another range with --frames"
        )
    log.provenance |= outcome(log, extraction.report, result.cuts, result.stopped is None)
    with whole:
        for path in outputs.logs:
            write_log(log, path, with_log=outputs.with_log)
        if outputs.plot:
            plot_log(log, outputs.plot, result.cuts, title=Path(info.path).name)
    result.written = [p for p in (*outputs.logs, outputs.maps, outputs.overlay, outputs.plot) if p]
    return result
