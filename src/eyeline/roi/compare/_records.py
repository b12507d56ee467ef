"""The options of a comparison, and its findings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from eyeline.datasets.fixations import check_pixels_per_degree
from eyeline.errors import UsageError
from eyeline.media.types import VideoInfo, VideoOptions
from eyeline.roi.compare._bd import FEWEST_POINTS, Curve, Delta, Method
from eyeline.roi.compare._judge import Subject, SubjectQuality
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import ExtractOptions

EncodeKind = Literal["plain", "roi"]
SteerBy = Literal["model", "centre", "recorded"]

RATES = (22.0, 27.0, 32.0, 37.0)
"""Of CRF or QP: the base QPs of JCT-VC's common test conditions (JCTVC-L1100), high to low quality."""


@dataclass(frozen=True)
class CompareOptions:
    """What is compared, and who judges.

    Attributes:
        codec: a row of `capabilities.toml`.
        rates: CRFs, or QPs of an encoder that has no CRF; at least four.
        preset: the encoder's own name.
        steer: how maps become offsets; the strength is not 0.
        extra: the encoder's own options, for both.
        maps: a file or folder of maps that steer instead of the model.
        judge_model: registry id or path of a model that judges.
        judge_masks: folder of ground-truth masks; the n-th by name belongs to frame n.
        judge_fixations: fixation table or set that judges, see `eyeline.quality.weights.read_gaze`.
        pixels_per_degree: pixels of the source per degree of visual angle, for `judge_fixations`.
        steer_by: `model`, or a fixed map of the picture's `centre`, or the `recorded` gaze that judges.
        extract: how the models are run; `start` and `stop` choose the frames.
        video: how the source is read.
        vmaf: run libvmaf; None = if it is installed.
        method: interpolation of the curves.
        jobs: simultaneous encodes; 0 = one per core.
        still: make one more steered encode, at the rate of a plain one, for a picture of both.
    """

    codec: str = "x264"
    rates: tuple[float, ...] = RATES
    preset: str | None = None
    steer: SteerOptions = field(default_factory=SteerOptions)
    extra: Mapping[str, str] = field(default_factory=dict)
    maps: str | None = None
    judge_model: str | None = None
    judge_masks: str | None = None
    judge_fixations: str | None = None
    pixels_per_degree: float | None = None
    steer_by: SteerBy = "model"
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    vmaf: bool | None = None
    method: Method = "akima"
    jobs: int = 0
    still: bool = False

    def __post_init__(self) -> None:
        if len(set(self.rates)) < FEWEST_POINTS:
            raise UsageError(
                f"--rates has {len(set(self.rates))} rates",
                f"give {FEWEST_POINTS} or more, like 22,27,32,37",
            )
        if self.steer.strength == 0:
            raise UsageError("a strength of 0 steers nothing", "give a strength in QP, such as 3")
        judges = [n for n in ("model", "masks", "fixations") if getattr(self, f"judge_{n}")]
        if len(judges) > 1:
            raise UsageError(f"{' and '.join(judges)} are both given as judges", "give one of them")
        for name, given in (
            ("--pixels-per-degree", self.pixels_per_degree is not None),
            ("--steer recorded", self.steer_by == "recorded"),
        ):
            if given and not self.judge_fixations:
                raise UsageError(
                    f"{name} is given without --judge-fixations",
                    f"give --judge-fixations, or leave out {name}",
                )
        check_pixels_per_degree(self.pixels_per_degree)
        if self.jobs < 0:
            raise UsageError(
                f"--jobs is {self.jobs}; it must be at least 0", "0 runs one encode per core"
            )


@dataclass(frozen=True)
class Point:
    """One encode.

    Attributes:
        kind: `plain` or `roi`.
        setting: CRF or QP.
        path: the file, in the work folder.
        kbps: bits of its pictures, kbit/s.
        quality: of the encode against the source.
    """

    kind: EncodeKind
    setting: float
    path: str
    kbps: float
    quality: SubjectQuality


@dataclass(frozen=True)
class Comparison:
    """The findings of a comparison.

    Attributes:
        source: name of the clip.
        info: facts of it.
        start: its first frame that was encoded.
        points: every encode, plain ones first, by setting.
        subject: the subject of the judging maps.
        judge: name of the judge, for a sentence.
        judged_by_steering_maps: whether the maps that steer also judge. `own_homework` in JSON.
        by_gaze: whether recorded gaze judges, so that `sw_psnr` is the EWPSNR.
        deltas: metric to the steered curve against the plain one.
        refused: metric to the reason why it has no delta.
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
    judged_by_steering_maps: bool
    deltas: dict[str, Delta]
    refused: dict[str, str]
    maps: str
    provenance: dict[str, Any]
    by_gaze: bool = False
    pair: tuple[Point, Point] | None = None

    def of(self, kind: EncodeKind) -> list[Point]:
        """Return the encodes of a kind, by setting."""
        return [p for p in self.points if p.kind == kind]

    def curve(self, kind: EncodeKind, metric: str) -> Curve | None:
        """Return a kind's curve of a metric, or None if the metric was not measured."""
        values = [getattr(p.quality, metric) for p in self.of(kind)]
        return None if None in values else Curve([p.kbps for p in self.of(kind)], values)

    @property
    def growth(self) -> float:
        """Change of the bits by regions at an equal setting: geometric mean of the ratios, less 1."""
        pairs = zip(self.of("plain"), self.of("roi"), strict=True)
        logs = [math.log(roi.kbps / plain.kbps) for plain, roi in pairs]
        return math.exp(sum(logs) / len(logs)) - 1

    @property
    def setting(self) -> str:
        """`crf` or `qp`."""
        return "crf" if "crf" in self.provenance else "qp"

    def to_json(self) -> dict[str, Any]:
        """Return everything but the paths of the work folder."""
        return {
            "source": self.source,
            "judge": self.judge,
            "own_homework": self.judged_by_steering_maps,
            "by_gaze": self.by_gaze,
            "subject": asdict(self.subject),
            "growth": self.growth,
            "deltas": {k: asdict(v) for k, v in self.deltas.items()},
            "refused": self.refused,
            "points": [{k: v for k, v in asdict(p).items() if k != "path"} for p in self.points],
            "provenance": self.provenance,
        }
