"""What is compared, and what was found: plain records, apart from the work that fills them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from eyeline.datasets.fixations import check_pixels_per_degree
from eyeline.errors import UsageError
from eyeline.media.types import VideoInfo, VideoOptions
from eyeline.roi.compare._bd import FEWEST_POINTS, Curve, Delta, Method
from eyeline.roi.compare._judge import Quality, Subject
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import ExtractOptions

Kind = Literal["plain", "roi"]
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
        steer: how maps become offsets; strength not 0.
        extra: the encoder's own options, for both.
        maps: files that steer in place of the model.
        judge_model: registry id or path of a model that judges.
        judge_masks: folder of ground-truth masks, the n-th by name for frame n.
        judge_fixations: fixation table or set that judges, see `eyeline.quality.weights.read_gaze`.
        pixels_per_degree: pixels of the source per degree of visual angle, for `judge_fixations`.
        steer_by: `model` or, in its place, a fixed map of the picture's `centre`, or the `recorded`
            gaze that judges.
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
                f"{len(set(self.rates))} rates", f"give {FEWEST_POINTS} or more, as 22,27,32,37"
            )
        if self.steer.strength == 0:
            raise UsageError("strength 0 steers nothing", "there is nothing to compare")
        judges = [n for n in ("model", "masks", "fixations") if getattr(self, f"judge_{n}")]
        if len(judges) > 1:
            raise UsageError(f"{' and '.join(judges)} are both given as judges", "give one of them")
        if self.pixels_per_degree is not None and not self.judge_fixations:
            raise UsageError(
                "--pixels-per-degree is given without --judge-fixations",
                "give --judge-fixations, or leave out --pixels-per-degree",
            )
        check_pixels_per_degree(self.pixels_per_degree)
        if self.steer_by == "recorded" and not self.judge_fixations:
            raise UsageError(
                "--steer recorded is given without --judge-fixations",
                "give --judge-fixations, or steer by another map",
            )
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
        quality: see `eyeline.roi.compare._judge`.
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
        by_gaze: whether recorded gaze judged, so that `sw_psnr` is the EWPSNR.
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
    by_gaze: bool = False
    pair: tuple[Point, Point] | None = None

    def of(self, kind: Kind) -> list[Point]:
        """The encodes of a kind, by setting."""
        return [p for p in self.points if p.kind == kind]

    def curve(self, kind: Kind, metric: str) -> Curve | None:
        """A kind's curve of a metric; None if it was not measured."""
        values = [getattr(p.quality, metric) for p in self.of(kind)]
        return None if None in values else Curve([p.kbps for p in self.of(kind)], values)

    @property
    def growth(self) -> float:
        """What regions do to the bits at an equal setting: geometric mean of the ratios, less 1."""
        pairs = zip(self.of("plain"), self.of("roi"), strict=True)
        logs = [math.log(roi.kbps / plain.kbps) for plain, roi in pairs]
        return math.exp(sum(logs) / len(logs)) - 1

    def to_json(self) -> dict[str, Any]:
        """Everything but the paths of the work folder."""
        return {
            "source": self.source,
            "judge": self.judge,
            "own_homework": self.own_homework,
            "by_gaze": self.by_gaze,
            "subject": asdict(self.subject),
            "growth": self.growth,
            "deltas": {k: asdict(v) for k, v in self.deltas.items()},
            "refused": self.refused,
            "points": [{k: v for k, v in asdict(p).items() if k != "path"} for p in self.points],
            "provenance": self.provenance,
        }
