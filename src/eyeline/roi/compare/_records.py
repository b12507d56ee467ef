"""The options and results of a comparison, and the Bjøntegaard deltas of two rate-quality curves.

The deltas are computed by the `bjontegaard` package.

BD-rate is the mean horizontal distance of the curves, as a change of rate at equal quality; BD-quality is
the mean vertical distance, as a change of quality at equal rate. Both cover the range that the curves
share, with rates on a logarithmic scale (Bjøntegaard, "Calculation of average PSNR differences between
RD-curves", ITU-T VCEG-M33, 2001).

Between its points a curve is interpolated piecewise: `akima` (the default; the least error against densely
sampled curves in Herglotz et al., "The Bjøntegaard Bible", IEEE TIP 2024) or `pchip` (the piecewise cubic
of the JVT's and JVET's common test conditions). A single cubic through all points, as in 2001, oscillates
between them and is not offered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

from eyeline.datasets.fixations import check_pixels_per_degree
from eyeline.errors import MissingExtraError, QualityError, UsageError
from eyeline.media.types import VideoInfo, VideoOptions
from eyeline.roi.compare._judge import Subject, SubjectQuality
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import ExtractOptions

Method = Literal["akima", "pchip"]

FEWEST_POINTS = 4
"""From VCEG-M33; with fewer points a delta depends more on the interpolation than on the encoder."""

GOOD_OVERLAP = 0.75
"""Least overlap of the curves for a reliable delta."""


@dataclass(frozen=True)
class Curve:
    """One encoder's points.

    Attributes:
        rates: bits in any unit, positive.
        quality: dB, points or an index; more is better.
    """

    rates: Sequence[float]
    quality: Sequence[float]


@dataclass(frozen=True)
class Delta:
    """The difference of a curve to an anchor.

    Attributes:
        rate: percent of the anchor's rate at equal quality; negative means fewer bits.
        quality: in the metric's unit at equal rate; positive means better.
        overlap: share of the whole range of quality that both curves cover, 0..1.
    """

    rate: float
    quality: float
    overlap: float


def bjontegaard_delta(
    anchor: Curve, test: Curve, method: Method = "akima", name: str = "quality"
) -> Delta:
    """Return the deltas of the curve `test` against `anchor`; points may come in any order.

    Raises:
        QualityError: there are too few points, quality does not rise with the rate, or the curves have no
            common range. `name` is the metric in the message.
        UsageError: the method is unknown.
        MissingExtraError: the package is not installed.
    """
    if method not in get_args(Method):
        raise UsageError(
            f"the method is {method!r}", f"choose one of: {', '.join(get_args(Method))}"
        )
    a, t = _ordered(anchor, name, "plain"), _ordered(test, name, "roi")
    overlap = _overlap(a.quality, t.quality)
    for what, x, y in (("curves", a.quality, t.quality), ("rates", a.rates, t.rates)):
        if _overlap(x, y) <= 0:
            spans = " and ".join(f"{values[0]:.4g} to {values[-1]:.4g}" for values in (x, y))
            raise QualityError(
                f"{name}: the {what} do not overlap ({spans})", "choose rates that are closer"
            )
    try:
        from bjontegaard import bd_psnr, bd_rate
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "bjontegaard", "roi") from exc
    # The package's own warning about the overlap is off: `Delta.overlap` has it.
    points = a.rates, a.quality, t.rates, t.quality
    options = {"require_matching_points": False, "min_overlap": 0}
    rate, quality = (float(f(*points, method=method, **options)) for f in (bd_rate, bd_psnr))
    return Delta(rate, quality, overlap)


def _ordered(curve: Curve, name: str, which: str) -> Curve:
    if len(curve.rates) != len(curve.quality):
        raise QualityError(
            f"{name}: {len(curve.rates)} rates and {len(curve.quality)} values",
            "give one value per rate",
        )
    if len(curve.rates) < FEWEST_POINTS:
        raise QualityError(
            f"{name}: {len(curve.rates)} points; a delta needs {FEWEST_POINTS} or more",
            "give more rates",
        )
    if min(curve.rates) <= 0:
        raise QualityError(
            f"{name}: a rate is {min(curve.rates):g}; it must be positive", "remove the point"
        )
    points = sorted(zip(curve.rates, curve.quality, strict=True))
    for (low, worse), (high, better) in pairwise(points):
        if not (high > low and better > worse):
            raise QualityError(
                f"{name}: {which} goes from {worse:.4g} to {better:.4g} as the rate goes from "
                f"{low:.6g} to {high:.6g}",
                "a delta needs quality that rises with the rate: leave out saturated points",
            )
    return Curve([p[0] for p in points], [p[1] for p in points])


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the common range of two rising sequences over their whole range; at most 0 without one."""
    return (min(a[-1], b[-1]) - max(a[0], b[0])) / (max(a[-1], b[-1]) - min(a[0], b[0]))


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
