"""Is it worth it on this clip? Plain encodes against steered ones, judged inside the subject and out.

::

    result = compare("clip.mp4", "work", CompareOptions(judge_masks="masks"))
    print(result.deltas["psnr_inside"].rate)

Every encode runs in one thread, several at once, so that the number of cores makes no difference. What
is finished lies in the work folder under a name made of all that it depends on: a run that was
interrupted goes on, and another strength finds the plain encodes done.

Compare several maps at several strengths: gain where viewers look, and loss of the whole frame.

A comparison at one strength is one point. A higher strength gains more and costs more, so maps are
compared by the curves through their strengths: the better map gains more at the same cost.

::

    steers = [steer_map("gaze"), steer_map("centre"), steer_map("recorded")]
    found = compare_maps("clip.mp4", "work", options, steers, multiples=(0.5, 1, 2))
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

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
from eyeline.roi.compare._bd import bjontegaard_delta
from eyeline.roi.compare._judge import Quality, Subject, find_subject, judge
from eyeline.roi.compare._records import CompareOptions, Comparison, Kind, Point, SteerBy
from eyeline.roi.compare._work import Counter, Progress, WorkFolder, fingerprint, read_note
from eyeline.roi.encode import EncodeOptions, encode
from eyeline.roi.encode._capabilities import capability
from eyeline.roi.encode._encoder import pixel_format
from eyeline.roi.steering import SteerOptions

SAME_RATE = 0.01
"""Share by which the encodes of a still may differ in rate before another is tried."""

MOST_TRIES = 4


def compare(
    source: str | os.PathLike[str],
    work: str | os.PathLike[str],
    options: CompareOptions | None = None,
    *,
    model: str | Model | None = None,
    registry: str | os.PathLike[str] | None = None,
    on_progress: Progress = lambda part, done, total: None,
) -> Comparison:
    """Encode a clip plainly and steered at several rates, and judge both.

    Args:
        source: a video, a folder of images, anything `open_video` takes but stdin.
        work: folder of what is in between; made if it is missing, kept.
        options: see `CompareOptions`.
        model: registry id, path or `Model` that steers; the registry's default when None.
        registry: the user's own registry folder.
        on_progress: see `Progress`.

    Raises:
        MediaError: the source, maps or masks can't be read, or do not belong together.
        EncoderError: an encoder that is absent, died, or would ignore the regions.
        DatasetError: fixations that can't be read, or are not of this source.
        QualityError: maps without a subject, or a source whose samples the codec would convert.
        OutputError: the work folder can't be written.
        UsageError: options that contradict each other, or stdin.
        ModelError: a model that can't be used.
        MissingExtraError: what judging or the deltas need is not installed.
    """
    o = options or CompareOptions()
    if str(source) == "-":
        raise UsageError(
            "stdin is read once, and a comparison reads its source often", "give a file"
        )
    run = _Run(Path(source), Path(work), o, model, registry, on_progress)
    return run.result()


class _Run:
    """One comparison: what its parts share."""

    def __init__(
        self,
        source: Path,
        work: Path,
        options: CompareOptions,
        model: str | Model | None,
        registry: str | os.PathLike[str] | None,
        on_progress: Progress,
    ) -> None:
        self.source, self.o, self.steer = source, options, options.steer
        row = capability(options.codec)
        self.setting: Literal["crf", "qp"] = "crf" if "crf" in row.rates else "qp"
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
                f"{source}: is {self.info.pix_fmt}, and {options.codec} codes {coded}: the two can't "
                "be compared sample by sample",
                f"convert the source to {coded} first, or take another codec",
            )
        self.progress = Counter(on_progress)
        self.work = WorkFolder(
            work, source, self.info, options, model, Path(registry) if registry else None,
            self.progress,
        )  # fmt: skip

    def encode_options(self, kind: Kind, rate: float) -> EncodeOptions:
        """Options of one encode."""
        o = self.o
        # A plain encode is the same whatever steers the others.
        steer = self.steer if kind == "roi" else SteerOptions(strength=0.0)
        value = {"crf": rate} if self.setting == "crf" else {"qp": int(rate)}
        return EncodeOptions(
            o.codec, preset=o.preset, steer=steer, extra=o.extra, extract=o.extract,
            video=o.video, threads=1, **value,
        )  # fmt: skip

    def result(self) -> Comparison:
        """Do what is not done yet."""
        o = self.o
        steering, steered_by, shows = self.work.steering_maps()
        self.steer = o.steer.for_map(shows)
        judging, judged_by, own = self.work.judging_maps(steering, steered_by)
        i = self.info
        subject = find_subject(judging, i.width, i.height, i.rotation)
        tasks: list[tuple[Kind, float]] = [
            (kind, rate) for kind in ("plain", "roi") for rate in sorted(set(o.rates))
        ]
        for part in ("encode", "judge"):
            self.progress.expect(part, subject.frames * (len(tasks) + o.still))
        pool = ThreadPoolExecutor(o.jobs or usable_cores(), "eyeline-compare")
        try:
            jobs = [
                pool.submit(self.point, kind, rate, steering, judging, subject)
                for kind, rate in tasks
            ]
            # The first failure ends the others: they may have hours to go.
            ended, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            for job in ended:
                job.result()
            points = tuple(job.result() for job in jobs)
            pair = self.matched(points, steering, judging, subject) if o.still else None
        finally:
            self.progress.stop()
            pool.shutdown(wait=True, cancel_futures=True)
        result = Comparison(
            self.source.name, i, o.extract.start, points, subject, judged_by, own, {}, {},
            str(judging), self.provenance(steered_by, judged_by),
            self.o.judge_fixations is not None, pair,
        )  # fmt: skip
        for metric in points[0].quality.to_json():
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
        """What the numbers depend on."""
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

    def point(
        self, kind: Kind, rate: float, steering: Path, judging: Path, subject: Subject
    ) -> Point:
        """One encode and its quality, or what an earlier run found."""
        path, kbps = self.encoded(kind, rate, steering, subject)
        return Point(kind, rate, str(path), kbps, self.judged(path, judging, subject))

    def encoded(
        self, kind: Kind, rate: float, steering: Path, subject: Subject
    ) -> tuple[Path, float]:
        """One encode and its rate in kbit/s, or what an earlier run made."""
        options = self.encode_options(kind, rate)
        depends: list[object] = [options]
        if kind == "roi":
            depends += [steering.name, fingerprint(steering) if self.o.maps is not None else ""]
        path = self.work.named(f"{kind}-{rate:g}", self.suffix, *depends)
        note = path.with_suffix(".json")
        found = read_note(note) if path.exists() else None
        if found is None:
            maps = str(steering) if kind == "roi" else None
            done = encode(
                str(self.source), path, options, maps,
                on_frame=lambda run, count: self.progress.advance("encode"),
            )  # fmt: skip
            found = {"bytes": done.video_bytes, "frames": done.frames}
            write_bytes(note, json.dumps(found).encode())
        else:
            self.progress.advance("encode", subject.frames)
        if found["frames"] != subject.frames:
            raise QualityError(
                f"{self.source}: {found['frames']} frames were encoded, {subject.frames} have a map",
                "the maps must be of these frames",
            )
        seconds = found["frames"] / float(self.info.fps or DEFAULT_FPS)
        return path, found["bytes"] * 8 / seconds / 1000

    def matched(
        self, points: Iterable[Point], steering: Path, judging: Path, subject: Subject
    ) -> tuple[Point, Point]:
        """A plain encode of the lower rates, where differences show best, and a steered one like it.

        The setting is interpolated on the logarithm of the rate, again with what came out, until
        the rates differ by `SAME_RATE`; whole QPs may not get there.
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
            known[setting] = self.encoded("roi", setting, steering, subject)[1]
            if abs(known[setting] / plain.kbps - 1) < SAME_RATE:
                break
        best = min(known, key=lambda setting: abs(np.log(known[setting] / plain.kbps)))
        return plain, self.point("roi", best, steering, judging, subject)

    def judged(self, path: Path, judging: Path, subject: Subject) -> Quality:
        """The quality of an encode, or what an earlier run found."""
        depends = [path.name, judging.name, self.vmaf]
        if str(judging) == self.o.maps:
            depends.append(fingerprint(judging))
        note = self.work.named(f"{path.stem}-judged", ".json", *depends)
        found = read_note(note)
        if found is not None:
            self.progress.advance("judge", subject.frames)
            return Quality(**found)
        quality = judge(
            str(self.source), path, judging, subject,
            start=self.o.extract.start, video=self.o.video, vmaf=self.vmaf,
            on_frame=lambda: self.progress.advance("judge"),
        )  # fmt: skip
        write_bytes(note, json.dumps(quality.to_json()).encode())
        return quality


def _vmaf(wanted: bool | None) -> tuple[bool, str]:
    """Whether libvmaf runs, and why not.

    Raises:
        MissingExtraError: it was asked for by name and is not there.
    """
    if wanted is False:
        return False, "not asked for"
    try:
        find_ffmpeg()
    except MissingExtraError as exc:
        if wanted:
            raise
        return False, str(exc)
    return True, ""


__all__ = ["CompareOptions", "Comparison", "Point", "compare"]


COSTS = ("vmaf", "psnr_whole")
"""Metrics that measure the loss of the whole frame."""

FIXED: dict[str, SteerBy] = {"centre": "centre", "recorded": "recorded"}
"""Names of maps that no model makes."""


@dataclass(frozen=True)
class SteerMap:
    """A map that steers.

    Attributes:
        name: label of the map in tables and plots.
        by: kind of the map, see `CompareOptions.steer_by`.
        model: the model that makes the map if `by` is `model`; None if `CompareOptions.maps` steer.
    """

    name: str
    by: SteerBy
    model: Model | None = None

    @property
    def shows(self) -> str | None:
        """`gaze` or `objects`; None where that is not known, and for the wide map of the centre."""
        if self.by == "recorded":
            return "gaze"
        return None if self.model is None else self.model.task


@dataclass(frozen=True)
class TradePoint:
    """One map at one strength.

    Attributes:
        strength: strength of the law, QP.
        gain: bits saved at equal quality where the judge looks (`sw_psnr`), percent.
        costs: each metric of the whole frame and its loss at equal rate, in the metric's unit.
    """

    strength: float
    gain: float
    costs: dict[str, float]


Lines = Mapping[str, Sequence[TradePoint]]
"""Name of a map to its points, by strength."""


@dataclass(frozen=True)
class TradeOff:
    """The comparisons of several maps at several strengths with the same plain encodes.

    Attributes:
        comparisons: the map's name to its comparisons, in the order of the strengths.
    """

    comparisons: dict[str, tuple[Comparison, ...]]

    @property
    def lines(self) -> Lines:
        """Gain and costs of each map; comparisons without a gain are left out."""
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
        """The first comparison, for the facts that all of them share."""
        return next(iter(self.comparisons.values()))[0]

    def all(self) -> list[Comparison]:
        """Return every comparison, map by map."""
        return [c for found in self.comparisons.values() for c in found]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values of every comparison, by the map's name."""
        return {name: [c.to_json() for c in found] for name, found in self.comparisons.items()}


def mean_lines(clips: Sequence[Lines]) -> Lines:
    """Return the means over several clips that were compared with the same maps and multiples."""
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
    """Find a map by its name.

    Args:
        name: `centre` (a Gaussian around the picture's centre), `recorded` (the gaze that judges),
            `gaze` or `objects` (the registry's production model of that task), a model's id or path,
            or `gaze=MODEL` and `objects=MODEL`, which say what a path's map shows.
        registry: the user's own registry folder.

    Raises:
        RegistryError: there is no such model, or it has another task.
    """
    if name in FIXED:
        return SteerMap(name, FIXED[name])
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
    on_progress: Progress = lambda part, done, total: None,
) -> TradeOff:
    """Compare several maps at several strengths; see `eyeline.roi.compare.compare`.

    Args:
        source: a video or a folder of images.
        work: folder for maps, encodes and scores. Plain encodes are made once.
        options: the options that all comparisons share.
        steers: the maps.
        multiples: factors of the strength of `options`, or else of the default for each map.
        registry: the user's own registry folder.
        on_progress: see `Progress`.

    Raises:
        UsageError: a map that is named twice, several maps without a judge of their own, or
            multiples that are not positive, stand there twice, or give too great a strength.
        EyelineError: see `eyeline.roi.compare.compare`.
    """
    names = [s.name for s in steers]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UsageError(f"--steer {twice} is given more than once", "give each map once")
    if len(names) > 1 and not (
        options.judge_fixations or options.judge_masks or options.judge_model
    ):
        raise UsageError(
            f"{', '.join(names)} are compared, and no judge is given",
            "give --judge-fixations, --judge-masks or --judge-model",
        )
    if len(set(multiples)) < len(multiples) or not all(0 < k < float("inf") for k in multiples):
        given = ",".join(f"{k:g}" for k in multiples)
        raise UsageError(
            f"--multiples {given}: each must be more than 0, and none may stand there twice",
            "give for example 0.5,1,2",
        )
    # All options are made, and so checked, before the first comparison takes its time.
    asked = {
        s: [
            replace(options, steer_by=s.by, steer=_times(options.steer.for_map(s.shows), k))
            for k in multiples
        ]
        for s in steers
    }
    found = {
        s.name: tuple(
            compare(source, work, o, model=s.model, registry=registry, on_progress=on_progress)
            for o in each
        )
        for s, each in asked.items()
    }
    return TradeOff(found)


def _times(steer: SteerOptions, multiple: float) -> SteerOptions:
    return replace(steer, strength=steer.chosen[1] * multiple)
