"""Compare plain and steered encodes of a clip, for one map at one strength or for several.

Each encode uses one thread, so the number of cores does not change the result; several encodes run in
parallel. The names of files in the work folder depend on all options that affect their content, so an
interrupted run resumes, and a run at another strength reuses the plain encodes.

A higher strength has a larger gain where viewers look and a larger cost over the whole frame. To compare
maps, compare their curves of gain against cost over several strengths: the better map gains more at the
same cost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np

from eyeline._version import __version__
from eyeline.errors import MissingExtraError, QualityError, UsageError
from eyeline.files import write_bytes
from eyeline.media import open_video
from eyeline.media.colour import layout_of
from eyeline.media.types import DEFAULT_FPS
from eyeline.parallel import usable_cores
from eyeline.quality.libvmaf import find_ffmpeg
from eyeline.registry.records import Task
from eyeline.registry.registry import Model, resolve_model
from eyeline.roi.compare._judge import SubjectQuality, find_subject, judge
from eyeline.roi.compare._records import (
    CompareOptions,
    Comparison,
    EncodeKind,
    Point,
    SteerBy,
    bjontegaard_delta,
)
from eyeline.roi.compare._work import (
    CompareProgress,
    ProgressCounter,
    WorkFolder,
    fingerprint,
    read_note,
)
from eyeline.roi.encode import EncodeOptions, encode
from eyeline.roi.encode._encoder import capability, pixel_format
from eyeline.roi.steering import SteerOptions

SAME_RATE = 0.01
"""Largest relative difference in bit rate between the two encodes that a still shows."""

MOST_TRIES = 4

COSTS = ("vmaf", "psnr_whole")
"""Metrics of the whole frame, whose loss is the cost of steering."""


def compare(
    source: str | os.PathLike[str],
    work: str | os.PathLike[str],
    options: CompareOptions | None = None,
    *,
    model: str | Model | None = None,
    registry: str | os.PathLike[str] | None = None,
    on_progress: CompareProgress = lambda part, done, total: None,
) -> Comparison:
    """Encode a clip at several rates, plain and steered, and measure the quality of all encodes.

    Args:
        source: a video, a folder of images, or another source that `open_video` accepts, except stdin.
        work: folder for maps, encodes and scores; it is created if it does not exist, and kept.
        options: options of the comparison.
        model: registry id, path or `Model` for the steering maps; None uses the registry's default.
        registry: folder of the user's own registry.
        on_progress: called with the progress of each part, see `CompareProgress`.

    Raises:
        MediaError: the source, maps or masks cannot be read, or the maps or masks do not fit the source.
        EncoderError: the encoder is not available, failed, or would ignore the regions.
        DatasetError: the fixations cannot be read, or they are not of this source.
        QualityError: the judging maps have no subject, or the codec would convert the source's samples.
        OutputError: the work folder cannot be written.
        UsageError: the options contradict each other, or the source is stdin.
        ModelError: a model cannot be used.
        MissingExtraError: a package for the metrics or for the Bjøntegaard deltas is not installed.
    """
    if str(source) == "-":
        raise UsageError(
            "the source is stdin, but a comparison reads its source several times", "give a file"
        )
    run = _Run(
        Path(source), Path(work), options or CompareOptions(), model,
        Path(registry) if registry else None, on_progress,
    )  # fmt: skip
    return run.result()


class _Run:
    def __init__(
        self,
        source: Path,
        work: Path,
        options: CompareOptions,
        model: str | Model | None,
        registry: Path | None,
        on_progress: CompareProgress,
    ) -> None:
        self.source, self.o, self.steer = source, options, options.steer
        self.failure: BaseException | None = None
        row = capability(options.codec)
        self.setting = "crf" if "crf" in row.rates else "qp"
        self.suffix = row.containers[0]
        for rate in options.rates:
            self.encode_options("roi", rate).checked()
        try:
            import bjontegaard  # noqa: F401
        except ModuleNotFoundError as exc:
            raise MissingExtraError(exc.name or "bjontegaard", "roi") from exc
        self.vmaf, self.no_vmaf = _vmaf(options.vmaf)
        with open_video(source, options.video) as video:
            self.info = video.info
        coded = pixel_format(row, self.info)
        if layout_of(av.VideoFormat(coded)) != layout_of(av.VideoFormat(self.info.pix_fmt)):
            raise QualityError(
                f"{source}: is {self.info.pix_fmt}, but {options.codec} encodes {coded}, so the samples "
                "can't be compared",
                f"convert the source to {coded} first, or choose another codec",
            )
        self.progress = ProgressCounter(on_progress)
        self.work = WorkFolder(work, source, self.info, options, model, registry, self.progress)

    def encode_options(self, kind: EncodeKind, rate: float) -> EncodeOptions:
        o = self.o
        # The steering options must not change the file name of a plain encode.
        steer = self.steer if kind == "roi" else SteerOptions(strength=0.0)
        return EncodeOptions(
            o.codec, preset=o.preset, steer=steer, extra=o.extra, extract=o.extract,
            video=o.video, threads=1,
            **({"crf": rate} if self.setting == "crf" else {"qp": int(rate)}),
        )  # fmt: skip

    def result(self) -> Comparison:
        o, i = self.o, self.info
        self.steering, steered_by, shows = self.work.steering_maps()
        self.steer = o.steer.for_map(shows)
        self.judging, judged_by, own = self.work.judging_maps(self.steering, steered_by)
        self.subject = find_subject(self.judging, i.width, i.height, i.rotation)
        kinds: tuple[EncodeKind, ...] = ("plain", "roi")
        tasks = [(kind, rate) for kind in kinds for rate in sorted(set(o.rates))]
        for part in ("encode", "judge"):
            self.progress.expect(part, self.subject.frames * (len(tasks) + o.still))
        pool = ThreadPoolExecutor(o.jobs or usable_cores(), "eyeline-compare")
        try:
            jobs = [pool.submit(self.point, kind, rate) for kind, rate in tasks]
            wait(jobs, return_when=FIRST_EXCEPTION)
            if self.failure is not None:
                raise self.failure
            points = tuple(job.result() for job in jobs)
            pair = self.matched(points) if o.still else None
        finally:
            self.progress.stop()
            pool.shutdown(wait=True, cancel_futures=True)
        result = Comparison(
            self.source.name, i, o.extract.start, points, self.subject, judged_by, own, {}, {},
            str(self.judging), self.provenance(steered_by, judged_by),
            o.judge_fixations is not None, pair,
        )  # fmt: skip
        for metric in asdict(points[0].quality):
            plain, roi = result.curve("plain", metric), result.curve("roi", metric)
            if plain is None or roi is None:
                result.refused[metric] = self.no_vmaf
                continue
            try:
                result.deltas[metric] = bjontegaard_delta(plain, roi, o.method, metric)
            except QualityError as exc:
                result.refused[metric] = exc.message
        return result

    def provenance(self, steered_by: str, judged_by: str) -> dict[str, Any]:
        o = self.o
        return {
            "eyeline": __version__,
            "codec": o.codec,
            "preset": o.preset,
            self.setting: sorted(set(o.rates)),
            "extra": dict(o.extra),
            "steer": asdict(self.steer),
            "steered_by": steered_by,
            "judged_by": judged_by,
            "frames": [o.extract.start, o.extract.stop],
            "bd_method": o.method,
        }

    def point(self, kind: EncodeKind, rate: float) -> Point:
        try:
            path, kbps = self.encoded(kind, rate)
            return Point(kind, rate, str(path), kbps, self.judged(path))
        except BaseException as exc:
            # Stop the other encodes at once; they could run for hours.
            self.failure = self.failure or exc
            self.progress.stop()
            raise

    def encoded(self, kind: EncodeKind, rate: float) -> tuple[Path, float]:
        """Encode the clip, or reuse an earlier encode; return the encode's path and bit rate in kbit/s."""
        options = self.encode_options(kind, rate)
        depends: list[object] = [options]
        if kind == "roi":
            given = self.o.maps is not None
            depends += [self.steering.name, fingerprint(self.steering) if given else ""]
        path = self.work.named(f"{kind}-{rate:g}", self.suffix, *depends)
        note = path.with_suffix(".json")
        found = read_note(note) if path.exists() else None
        if found is None:
            done = encode(
                str(self.source), path, options, str(self.steering) if kind == "roi" else None,
                on_frame=lambda run, count: self.progress.advance("encode"),
            )  # fmt: skip
            found = {"bytes": done.video_bytes, "frames": done.frames}
            write_bytes(note, json.dumps(found).encode())
        else:
            self.progress.advance("encode", self.subject.frames)
        if found["frames"] != self.subject.frames:
            raise QualityError(
                f"{self.source}: {found['frames']} frames were encoded, but there are "
                f"{self.subject.frames} maps",
                "make maps of exactly the frames that are compared",
            )
        seconds = found["frames"] / float(self.info.fps or DEFAULT_FPS)
        return path, found["bytes"] * 8 / seconds / 1000

    def judged(self, path: Path) -> SubjectQuality:
        """Measure the quality of an encode, or reuse the result of an earlier run."""
        depends = [path.name, self.judging.name, self.vmaf]
        if str(self.judging) == self.o.maps:
            depends.append(fingerprint(self.judging))
        note = self.work.named(f"{path.stem}-judged", ".json", *depends)
        found = read_note(note)
        if found is not None:
            self.progress.advance("judge", self.subject.frames)
            return SubjectQuality(**found)
        quality = judge(
            str(self.source), path, self.judging, self.subject,
            start=self.o.extract.start, video=self.o.video, vmaf=self.vmaf,
            on_frame=lambda: self.progress.advance("judge"),
        )  # fmt: skip
        write_bytes(note, json.dumps(asdict(quality)).encode())
        return quality

    def matched(self, points: Iterable[Point]) -> tuple[Point, Point]:
        """Return a plain encode at a low bit rate and a steered encode at nearly the same bit rate.

        Differences are most visible at a low rate. The CRF or QP of the steered encode is interpolated over
        the logarithm of the rate, and refined with each new encode until the rates differ by less than
        `SAME_RATE`. If the encoder takes only whole QPs, a larger difference in rate may remain.
        """
        plain = sorted((p for p in points if p.kind == "plain"), key=lambda p: p.kbps)[1]
        known = {p.setting: p.kbps for p in points if p.kind == "roi"}
        for _ in range(MOST_TRIES):
            settings = sorted(known, reverse=True)
            logs = [np.log(known[setting]) for setting in settings]
            exact = float(np.interp(np.log(plain.kbps), logs, settings))
            setting = round(exact, 2) if self.setting == "crf" else float(round(exact))
            if setting in known:
                break
            known[setting] = self.encoded("roi", setting)[1]
            if abs(known[setting] / plain.kbps - 1) < SAME_RATE:
                break
        best = min(known, key=lambda setting: abs(np.log(known[setting] / plain.kbps)))
        return plain, self.point("roi", best)


def _vmaf(wanted: bool | None) -> tuple[bool, str]:
    """Return whether VMAF is measured, and the reason if it is not."""
    if wanted is False:
        return False, "not asked for"
    try:
        find_ffmpeg()
    except MissingExtraError as exc:
        if wanted:
            raise
        return False, str(exc)
    return True, ""


@dataclass(frozen=True)
class SteerMap:
    """The source of the saliency maps for the QP offsets.

    Attributes:
        name: label of the maps in tables and plots.
        by: kind of the maps, see `CompareOptions.steer_by`.
        model: the model, if `by` is `model`; None if `CompareOptions.maps` are used.
    """

    name: str
    by: SteerBy
    model: Model | None = None

    @property
    def shows(self) -> str | None:
        """Content of the maps, `gaze` or `objects`; None for ready-made maps and the centre map."""
        if self.by == "recorded":
            return "gaze"
        return None if self.model is None else self.model.task


@dataclass(frozen=True)
class TradePoint:
    """Gain and cost of one kind of map at one strength.

    Attributes:
        strength: strength of the steering law, QP.
        gain: bits saved at equal `sw_psnr`, which is weighted by the judging maps, percent.
        costs: loss of whole-frame quality at equal rate, by metric, in the unit of the metric.
    """

    strength: float
    gain: float
    costs: dict[str, float]


Lines = Mapping[str, Sequence[TradePoint]]
"""Trade-off points by the name of the map, in the order of the strengths."""


@dataclass(frozen=True)
class TradeOff:
    """Comparisons of several maps at several strengths with the same plain encodes.

    Attributes:
        comparisons: comparisons by the name of the map, in the order of the strengths.
    """

    comparisons: dict[str, tuple[Comparison, ...]]

    @property
    def lines(self) -> Lines:
        """Gain and costs of each map; a comparison whose gain can't be computed is left out."""
        return {
            name: [
                TradePoint(
                    c.provenance["steer"]["strength"],
                    -c.deltas["sw_psnr"].rate,
                    {m: -c.deltas[m].quality for m in COSTS if m in c.deltas},
                )
                for c in found
                if "sw_psnr" in c.deltas
            ]
            for name, found in self.comparisons.items()
        }

    @property
    def first(self) -> Comparison:
        """The first comparison, for the properties that all comparisons share."""
        return next(iter(self.comparisons.values()))[0]

    def all(self) -> list[Comparison]:
        """Return all comparisons, grouped by map."""
        return [c for found in self.comparisons.values() for c in found]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values of all comparisons by the name of the map."""
        return {name: [c.to_json() for c in found] for name, found in self.comparisons.items()}


def mean_lines(clips: Sequence[Lines]) -> Lines:
    """Return the mean gains and costs of several clips with the same maps and multiples of the strength."""
    means = {}
    for name in clips[0]:
        points = zip(*(lines[name] for lines in clips), strict=True)
        means[name] = [
            TradePoint(
                same[0].strength,
                float(np.mean([p.gain for p in same])),
                {m: float(np.mean([p.costs[m] for p in same])) for m in same[0].costs},
            )
            for same in points
        ]
    return means


def steer_map(name: str, registry: str | os.PathLike[str] | None = None) -> SteerMap:
    """Return the source of steering maps for a value of `--steer`.

    Args:
        name: `centre` (a Gaussian around the picture's centre), `recorded` (the recorded gaze of
            `--judge-fixations`), `gaze` or `objects` (the registry's production model of that task), or the
            id or path of a model. `gaze=MODEL` or `objects=MODEL` also gives the task of a model.
        registry: folder of the user's own registry.

    Raises:
        RegistryError: there is no such model, or it has another task.
    """
    fixed: dict[str, SteerBy] = {"centre": "centre", "recorded": "recorded"}
    if name in fixed:
        return SteerMap(name, fixed[name])
    head, _, rest = name.partition("=")
    task: Task | None = head if head in get_args(Task) else None  # type: ignore[assignment]
    model = resolve_model(rest or None if task else name, registry, task=task, use="roi")
    return SteerMap(model.label if rest or task is None else name, "model", model)


def compare_maps(
    source: str | os.PathLike[str],
    work: str | os.PathLike[str],
    options: CompareOptions,
    steers: Sequence[SteerMap],
    multiples: Sequence[float] = (1.0,),
    *,
    registry: str | os.PathLike[str] | None = None,
    on_progress: CompareProgress = lambda part, done, total: None,
) -> TradeOff:
    """Compare several maps at several strengths with the same plain encodes.

    Args:
        source: see `compare`.
        work: see `compare`.
        options: options of all comparisons.
        steers: sources of the steering maps.
        multiples: factors of the strength in `options`, or of the default strength for each map.
        registry: folder of the user's own registry.
        on_progress: see `CompareProgress`.

    Raises:
        UsageError: a map is given twice, several maps are given without judging maps, or multiples are not
            positive, repeated or too large.
        EyelineError: any error of `compare`.
    """
    names = [s.name for s in steers]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UsageError(f"--steer {twice} is given more than once", "give each map once")
    if len(names) > 1 and not (
        options.judge_fixations or options.judge_masks or options.judge_model
    ):
        raise UsageError(
            f"--steer compares {', '.join(names)}, but no judging maps are given",
            "give --judge-fixations, --judge-masks or --judge-model",
        )
    if len(set(multiples)) < len(multiples) or not all(0 < k < float("inf") for k in multiples):
        given = ",".join(f"{k:g}" for k in multiples)
        raise UsageError(
            f"--multiples is {given}; all values must be positive and different",
            "write them like 0.5,1,2",
        )
    # Creating the options checks them, so all options are created before the first encode.
    asked: dict[SteerMap, list[CompareOptions]] = {}
    for s in steers:
        steer = options.steer.for_map(s.shows)
        strengths = [steer.chosen[1] * k for k in multiples]
        asked[s] = [
            replace(options, steer_by=s.by, steer=replace(steer, strength=strength))
            for strength in strengths
        ]
    return TradeOff(
        {
            s.name: tuple(
                compare(source, work, o, model=s.model, registry=registry, on_progress=on_progress)
                for o in each
            )
            for s, each in asked.items()
        }
    )
