"""Is it worth it on this clip? Plain encodes against steered ones, judged inside the subject and out.

::

    result = compare("clip.mp4", "work", CompareOptions(judge_masks="masks"))
    print(result.deltas["psnr_inside"].rate)

Every encode runs in one thread, several at once, so that its bits don't depend on the machine. What
is finished lies in the work folder under a name made of all that it depends on: a run that was
interrupted goes on, and another strength finds the plain encodes done.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt

import eyeline
from eyeline.cores import usable_cores
from eyeline.errors import MediaError, MissingExtraError, QualityError, UsageError
from eyeline.media import open_video
from eyeline.media.images import list_images
from eyeline.media.planes import layout_of
from eyeline.media.reader import DEFAULT_FPS
from eyeline.media.types import VideoInfo, VideoOptions
from eyeline.models.registry import resolve_model, sha256_hex
from eyeline.output import output_error, write_bytes
from eyeline.quality.libvmaf import find_ffmpeg
from eyeline.quality.maps_in import from_masks
from eyeline.quality.weights import resample
from eyeline.roi.bd import FEWEST_POINTS, Curve, Delta, Method, bjontegaard_delta
from eyeline.roi.capabilities import capability
from eyeline.roi.encode import EncodeOptions, encode
from eyeline.roi.encoder import pixel_format
from eyeline.roi.grid import ASPECT_TOLERANCE, check_map
from eyeline.roi.judge import Quality, Subject, find_subject, judge
from eyeline.roi.steer import SteerOptions
from eyeline.saliency.maps import GreyVideo
from eyeline.saliency.pipeline import ExtractOptions, extract

Kind = Literal["plain", "roi"]
Map = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, the frames of it done so far, and its frames in all."""

RATES = (22.0, 27.0, 32.0, 37.0)
"""Of CRF or QP: the base QPs of JCT-VC's common test conditions (JCTVC-L1100), high to low quality."""

SAME_RATE = 0.01
"""Share by which the encodes of a still may differ in rate before another is tried."""

MOST_TRIES = 4

SCHEMA = 2  # rises with any change to what is computed


@dataclass(frozen=True)
class CompareOptions:
    """What is compared, and who judges.

    Attributes:
        codec: a row of `capabilities.toml`.
        rates: CRFs, or QPs of an encoder that has no CRF; at least four.
        preset: the encoder's own name.
        steer: how maps become offsets; strength not 0.
        extra: the encoder's own options, for both.
        maps: files that steer in place of the model.
        judge_model: registry id or path of a model that judges.
        judge_masks: folder of ground-truth masks, the n-th by name for frame n.
        extract: how the models are run; `start` and `stop` choose the frames.
        video: how the source is read.
        vmaf: run libvmaf; None = if it is installed.
        method: interpolation of the curves.
        jobs: encodes at once; 0 = one a core.
        still: make one more steered encode, at the rate of a plain one, to look at.
    """

    codec: str = "x264"
    rates: tuple[float, ...] = RATES
    preset: str | None = None
    steer: SteerOptions = field(default_factory=SteerOptions)
    extra: Mapping[str, str] = field(default_factory=dict)
    maps: str | None = None
    judge_model: str | None = None
    judge_masks: str | None = None
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    vmaf: bool | None = None
    method: Method = "akima"
    jobs: int = 0
    still: bool = False

    def __post_init__(self) -> None:
        if len(set(self.rates)) < FEWEST_POINTS:
            raise UsageError(
                f"{len(set(self.rates))} rates", f"give {FEWEST_POINTS} or more, as 22,27,32,37"
            )
        if self.steer.strength == 0:
            raise UsageError("strength 0 steers nothing", "there is nothing to compare")
        if self.judge_model and self.judge_masks:
            raise UsageError("a model and masks are both to judge", "give one")
        if self.jobs < 0:
            raise UsageError(f"jobs are {self.jobs}", "0 is one a core")


@dataclass(frozen=True)
class Point:
    """One encode.

    Attributes:
        kind: `plain` or `roi`.
        setting: CRF or QP.
        path: the file, in the work folder.
        kbps: bits of its pictures, kbit/s.
        quality: see `eyeline.roi.judge`.
    """

    kind: Kind
    setting: float
    path: str
    kbps: float
    quality: Quality


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        source: name of the clip.
        info: facts of it.
        start: its first frame that was encoded.
        points: every encode, plain ones first, by setting.
        subject: what was judged.
        judge: who judged, in words.
        own_homework: whether the steering maps also judged.
        deltas: metric to the steered curve against the plain one.
        refused: metric to why it has no delta.
        maps: the judging maps, in the work folder.
        provenance: options, models and versions, JSON values.
        pair: a plain encode and a steered one of its rate, see `CompareOptions.still`.
    """

    source: str
    info: VideoInfo
    start: int
    points: tuple[Point, ...]
    subject: Subject
    judge: str
    own_homework: bool
    deltas: dict[str, Delta]
    refused: dict[str, str]
    maps: str
    provenance: dict[str, Any]
    pair: tuple[Point, Point] | None = None

    def of(self, kind: Kind) -> list[Point]:
        """The encodes of a kind, by setting."""
        return [p for p in self.points if p.kind == kind]

    def curve(self, kind: Kind, metric: str) -> Curve | None:
        """A kind's curve of a metric; None if it was not measured."""
        values = [getattr(p.quality, metric) for p in self.of(kind)]
        return None if None in values else Curve([p.kbps for p in self.of(kind)], values)

    def to_json(self) -> dict[str, Any]:
        """Everything but the paths of the work folder."""
        return {
            "source": self.source,
            "judge": self.judge,
            "own_homework": self.own_homework,
            "subject": asdict(self.subject),
            "deltas": {k: asdict(v) for k, v in self.deltas.items()},
            "refused": self.refused,
            "points": [{k: v for k, v in asdict(p).items() if k != "path"} for p in self.points],
            "provenance": self.provenance,
        }


def compare(
    source: str | os.PathLike[str],
    work: str | os.PathLike[str],
    options: CompareOptions | None = None,
    *,
    model: str | None = None,
    registry: str | os.PathLike[str] | None = None,
    on_progress: Progress = lambda part, done, total: None,
) -> Comparison:
    """Encode a clip plainly and steered at several rates, and judge both.

    Args:
        source: a video, a folder of images, anything `open_video` takes but stdin.
        work: folder of what is in between; made if it is missing, kept.
        options: see `CompareOptions`.
        model: registry id or path of the model that steers; the registry's default when None.
        registry: the user's own registry folder.
        on_progress: see `Progress`.

    Raises:
        MediaError: the source, maps or masks can't be read, or do not belong together.
        EncoderError: an encoder that is absent, died, or would ignore the regions.
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
        model: str | None,
        registry: str | os.PathLike[str] | None,
        on_progress: Progress,
    ) -> None:
        self.source, self.work, self.o = source, work, options
        self.registry = Path(registry) if registry is not None else None
        self.model = model
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
        self.key = [SCHEMA, eyeline.__version__, _fingerprint(source), repr(options.video)]
        self.key += [options.extract.start, options.extract.stop]
        self.progress = _Counter(on_progress)
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise output_error(work, exc) from exc

    def encode_options(self, kind: Kind, rate: float) -> EncodeOptions:
        """Options of one encode."""
        o = self.o
        steer = o.steer if kind == "roi" else replace(o.steer, strength=0.0)
        value = {"crf": rate} if self.setting == "crf" else {"qp": int(rate)}
        return EncodeOptions(
            o.codec, preset=o.preset, steer=steer, extra=o.extra, extract=o.extract,
            video=o.video, threads=1, **value,
        )  # fmt: skip

    def result(self) -> Comparison:
        """Do what is not done yet."""
        o = self.o
        steering, steered_by = self.steering_maps()
        judging, judged_by, own = self.judging_maps(steering, steered_by)
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
            str(judging), self.provenance(steered_by, judged_by), pair,
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
            "eyeline": eyeline.__version__,
            "codec": o.codec,
            "preset": o.preset,
            self.setting: sorted(set(o.rates)),
            "extra": dict(o.extra),
            "steer": asdict(o.steer),
            "steered_by": steered_by,
            "judged_by": judged_by,
            "frames": [o.extract.start, o.extract.stop],
            "bd_method": o.method,
        }

    def named(self, prefix: str, suffix: str, *depends: object) -> Path:
        """A file of the work folder, named by all that its content depends on."""
        text = json.dumps([*self.key, *map(repr, depends)])
        return self.work / f"{prefix}-{sha256_hex(text.encode())[:12]}{suffix}"

    def steering_maps(self) -> tuple[Path, str]:
        """The maps that steer, and whose they are."""
        if self.o.maps is not None:
            return Path(self.o.maps), f"maps {Path(self.o.maps).name}"
        return self.model_maps(self.model)

    def judging_maps(self, steering: Path, steered_by: str) -> tuple[Path, str, bool]:
        """The maps that judge, whose they are, and whether they are those that steer."""
        o = self.o
        if o.judge_masks is not None:
            path = self.named("masks", ".mkv", _fingerprint(Path(o.judge_masks)))
            if not path.exists():
                self.keep(path, self.masks(o.judge_masks), 8)
            return path, f"ground truth {Path(o.judge_masks).name}", False
        if o.judge_model is not None:
            path, name = self.model_maps(o.judge_model)
            return path, name, path == steering
        return steering, steered_by, True

    def masks(self, folder: str) -> Iterator[tuple[int, Map]]:
        """Ground truth of the frames that are encoded.

        Raises:
            QualityError: a frame has no mask, or there are more masks than frames.
        """
        count = len(list_images(Path(folder)))
        start, stop = self.o.extract.start, self.o.extract.stop
        last = -1
        with open_video(self.source, self.o.video) as video:
            for seen in from_masks(video, folder, start):
                if stop is not None and seen.index >= stop:
                    return
                last = seen.index
                display = self.info.display_width, self.info.display_height
                yield seen.index, check_map(seen.map, display, f"{folder}: mask {seen.index}")
        if stop is None and count > last + 1:
            raise QualityError(
                f"{folder}: {count} masks for {last + 1} frames", "are they this clip's?"
            )

    def model_maps(self, name: str | None) -> tuple[Path, str]:
        """A model's maps of the frames that are encoded, inferred once."""
        chosen = resolve_model(name, self.registry)
        depends = replace(self.o.extract, workers=0, device="auto", keep_source=False)
        path = self.named("maps", ".mkv", chosen.sha256, chosen.io, depends)
        if not path.exists():
            with extract(
                self.source, model=chosen, video_options=self.o.video, options=self.o.extract
            ) as extraction:
                self.keep(path, ((f.index, self.shaped(f.map)) for f in extraction), 16)
        return path, Path(chosen.id).name.removesuffix(".onnx")  # of a path, its name

    def shaped(self, m: Map) -> Map:
        """A map in the picture's aspect; that of a model which squashes has another."""
        h, w = m.shape
        wanted = h * self.info.display_width / self.info.display_height
        if abs(w / wanted - 1) < ASPECT_TOLERANCE:
            return m
        return np.clip(resample(m, max(1, round(wanted)), h), 0, 1)

    def keep(self, path: Path, maps: Iterable[tuple[int, Map]], depth: Literal[8, 16]) -> None:
        """Write maps whole or not at all."""
        start, stop = self.o.extract.start, self.o.extract.stop
        total = self.info.expected_frames
        stop = min(s for s in (stop, total, 1 << 62) if s is not None)
        part = path.name.split("-")[0]
        self.progress.expect(part, max(1, stop - start) if stop < 1 << 62 else 0)
        sink = GreyVideo(path, depth, self.info.fps)
        try:
            for index, m in maps:
                sink.write(index, (index - start) / float(self.info.fps or DEFAULT_FPS), m)
                self.progress.advance(part)
        except BaseException:
            sink.discard()  # also after damage: half of the maps would pass for all of them
            raise
        sink.commit()

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
            depends += [steering.name, _fingerprint(steering) if self.o.maps is not None else ""]
        path = self.named(f"{kind}-{rate:g}", self.suffix, *depends)
        note = path.with_suffix(".json")
        found = _read_note(note) if path.exists() else None
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
        if self.o.judge_masks is None and self.o.judge_model is None and self.o.maps is not None:
            depends.append(_fingerprint(judging))
        note = self.named(f"{path.stem}-judged", ".json", *depends)
        found = _read_note(note)
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


class _Counter:
    """Frames done of each part, told from several threads."""

    def __init__(self, tell: Progress) -> None:
        self._tell, self._lock = tell, threading.Lock()
        self._parts: dict[str, list[int]] = {}
        self._stopped = False

    def expect(self, part: str, total: int) -> None:
        """A part begins."""
        with self._lock:
            self._parts[part] = [0, total]
            self._tell(part, 0, total)

    def advance(self, part: str, frames: int = 1) -> None:
        """Frames of a part are done.

        Raises:
            KeyboardInterrupt: the run was stopped; ends the encodes that are under way.
        """
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            count = self._parts[part]
            count[0] += frames
            count[1] = max(count)
            self._tell(part, *count)

    def stop(self) -> None:
        """No further frames."""
        with self._lock:
            self._stopped = True


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


def _fingerprint(path: Path) -> str:
    """What tells a file or a folder of files from an edited one: names, sizes, times.

    Raises:
        MediaError: it can't be read.
    """
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        lines = [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    except OSError as exc:
        raise MediaError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    return sha256_hex("\n".join([str(path.resolve()), *lines]).encode())


def _read_note(path: Path) -> dict[str, Any] | None:
    """What an earlier run noted, or None."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return found


__all__ = ["CompareOptions", "Comparison", "Point", "compare"]
