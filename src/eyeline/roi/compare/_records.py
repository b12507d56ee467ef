"""Options and results of a comparison, and the Bjøntegaard deltas of two rate-quality curves.

The `bjontegaard` package computes the deltas. BD-rate is the mean change of rate at equal quality, and
BD-quality is the mean change of quality at equal rate. The means are taken over the common range of the two
curves, with rates on a logarithmic scale (Bjøntegaard, "Calculation of average PSNR differences between
RD-curves", ITU-T VCEG-M33, 2001).

There are two piecewise interpolations between the points of a curve. `akima`, the default, has the least
error against densely sampled curves (Herglotz et al., "The Bjøntegaard Bible", IEEE TIP 2024). `pchip` is
the piecewise cubic of the common test conditions of JVT and JVET. The original method (VCEG-M33) is not
offered, because its single cubic through all points oscillates between the points.
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
"""Smallest number of points of a curve (VCEG-M33). With fewer points, a delta depends more on the
interpolation than on the encoder."""

GOOD_OVERLAP = 0.75
"""Smallest overlap of two curves for a reliable delta."""


@dataclass(frozen=True)
class Curve:
    """A rate-quality curve.

    Attributes:
        rates: bit rates in any unit, positive.
        quality: quality at each rate in the unit of the metric; higher is better.
    """

    rates: Sequence[float]
    quality: Sequence[float]


@dataclass(frozen=True)
class Delta:
    """The Bjøntegaard deltas of a curve against an anchor curve.

    Attributes:
        rate: change of rate at equal quality, percent; negative means fewer bits.
        quality: change of quality at equal rate, in the unit of the metric; positive means better.
        overlap: common quality range of the curves, as a fraction of their combined range, 0..1.
    """

    rate: float
    quality: float
    overlap: float


def bjontegaard_delta(
    anchor: Curve, test: Curve, method: Method = "akima", name: str = "quality"
) -> Delta:
    """Return the deltas of the curve `test` against `anchor`.

    The points of a curve may be in any order. `name` is the name of the metric in error messages.

    Raises:
        QualityError: there are too few points, quality does not rise with the rate, or the curves have no
            common range.
        UsageError: the method is unknown.
        MissingExtraError: the package `bjontegaard` is not installed.
    """
    if method not in get_args(Method):
        raise UsageError(
            f"{method!r} is not a known interpolation method",
            f"choose one of: {', '.join(get_args(Method))}",
        )
    a, t = _ordered(anchor, name, "plain"), _ordered(test, name, "roi")
    overlap = _overlap(a.quality, t.quality)
    for what, x, y in (("qualities", a.quality, t.quality), ("rates", a.rates, t.rates)):
        if _overlap(x, y) <= 0:
            spans = " and ".join(f"{values[0]:.4g} to {values[-1]:.4g}" for values in (x, y))
            raise QualityError(
                f"{name}: the {what} of the two curves do not overlap: {spans}",
                "give --rates that are closer together",
            )
    try:
        from bjontegaard import bd_psnr, bd_rate
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "bjontegaard", "roi") from exc
    # min_overlap=0 disables the package's warning, because `Delta.overlap` reports the overlap.
    points = a.rates, a.quality, t.rates, t.quality
    options = {"require_matching_points": False, "min_overlap": 0}
    rate, quality = (float(f(*points, method=method, **options)) for f in (bd_rate, bd_psnr))
    return Delta(rate, quality, overlap)


def _ordered(curve: Curve, name: str, which: str) -> Curve:
    if len(curve.rates) != len(curve.quality):
        raise QualityError(
            f"{name}: the {which} curve has {len(curve.rates)} rates, but {len(curve.quality)} values",
            "give one value per rate",
        )
    if len(curve.rates) < FEWEST_POINTS:
        raise QualityError(
            f"{name}: the {which} curve has {len(curve.rates)} points; at least {FEWEST_POINTS} are needed",
            "give more --rates",
        )
    if min(curve.rates) <= 0:
        raise QualityError(
            f"{name}: a rate of the {which} curve is {min(curve.rates):g}; it must be positive",
            "remove this point",
        )
    points = sorted(zip(curve.rates, curve.quality, strict=True))
    for (low, worse), (high, better) in pairwise(points):
        if not (high > low and better > worse):
            raise QualityError(
                f"{name}: the {which} curve does not rise with the rate: {worse:.4g} at {low:.6g}, "
                f"{better:.4g} at {high:.6g}",
                "a BD-rate needs quality that rises with the rate: leave out saturated points",
            )
    return Curve([p[0] for p in points], [p[1] for p in points])


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the ratio of common to combined range of two rising sequences; 0 or less without overlap."""
    return (min(a[-1], b[-1]) - max(a[0], b[0])) / (max(a[-1], b[-1]) - min(a[0], b[0]))


EncodeKind = Literal["plain", "roi"]
SteerBy = Literal["model", "centre", "recorded"]

RATES = (22.0, 27.0, 32.0, 37.0)
"""Default CRFs or QPs, from high to low quality: the QPs of JCT-VC's test conditions (JCTVC-L1100)."""


@dataclass(frozen=True)
class CompareOptions:
    """Options of a comparison; without a `judge_*` option, the steering maps are also the judging maps.

    Attributes:
        codec: name of an encoder in `eyeline.roi.encode`'s `capabilities.toml`.
        rates: CRFs, or QPs if the encoder has no CRF; at least four.
        preset: preset of the encoder.
        steer: options of the conversion from saliency to QP offsets; the strength must not be 0.
        extra: further encoder options for plain and steered encodes.
        maps: file or folder of ready-made steering maps, instead of a model.
        judge_model: registry id or path of the model for the judging maps.
        judge_masks: folder of ground-truth masks as judging maps; the n-th file by name is for frame n.
        judge_fixations: recorded fixations for the judging maps, see `eyeline.quality.weights.read_gaze`.
        pixels_per_degree: pixels of the source per degree of visual angle, for `judge_fixations`.
        steer_by: source of the steering maps: `model`, `centre` (a fixed map of the picture's centre) or
            `recorded` (the recorded gaze of `judge_fixations`).
        extract: options for running the models; `start` and `stop` select the frames.
        video: options for reading the source.
        vmaf: whether to measure VMAF; None measures it if libvmaf is installed.
        method: interpolation between the points of a rate-quality curve.
        jobs: number of parallel encodes; 0 means one per core.
        still: make one more steered encode at the rate of a plain encode, for `draw_still`.
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
                f"--rates has {len(set(self.rates))} different rates; at least {FEWEST_POINTS} are needed",
                "give rates like 22,27,32,37",
            )
        if self.steer.strength == 0:
            raise UsageError(
                "the strength is 0, so there is nothing to compare",
                "give a strength in QP, such as 3",
            )
        judges = [n for n in ("model", "masks", "fixations") if getattr(self, f"judge_{n}")]
        if len(judges) > 1:
            raise UsageError(
                f"--judge-{' and --judge-'.join(judges)} are given together",
                "give only one of them",
            )
        for name, given in (
            ("--pixels-per-degree", self.pixels_per_degree is not None),
            ("--steer recorded", self.steer_by == "recorded"),
        ):
            if given and not self.judge_fixations:
                raise UsageError(
                    f"{name} needs --judge-fixations, which is not given",
                    f"give --judge-fixations, or leave out {name}",
                )
        check_pixels_per_degree(self.pixels_per_degree)
        if self.jobs < 0:
            raise UsageError(
                f"--jobs is {self.jobs}; it must be at least 0",
                "give a number of parallel encodes; 0 means one per core",
            )


@dataclass(frozen=True)
class Point:
    """One encode of a comparison.

    Attributes:
        kind: `plain`, or `roi` for a steered encode.
        setting: CRF or QP of the encode.
        path: path of the encoded file in the work folder.
        kbps: bit rate of the video stream, kbit/s.
        quality: quality of the encode against the source.
    """

    kind: EncodeKind
    setting: float
    path: str
    kbps: float
    quality: SubjectQuality


@dataclass(frozen=True)
class Comparison:
    """Results of a comparison.

    Attributes:
        source: file name of the clip.
        info: properties of the clip.
        start: first frame of the clip that was encoded.
        points: all encodes, first the plain ones, then the steered ones, in the order of their settings.
        subject: the subject of the judging maps.
        judge: description of the judging maps, to be used in sentences.
        judged_by_steering_maps: whether the steering maps are also the judging maps; its JSON key is
            `own_homework`.
        by_gaze: whether the judging maps are recorded gaze; `sw_psnr` is then the EWPSNR.
        deltas: deltas of the steered curve against the plain curve, by metric.
        refused: reason why a metric has no deltas, by metric.
        maps: path of the judging maps.
        provenance: options, models and versions as JSON values.
        pair: a plain and a steered encode at nearly the same rate, see `CompareOptions.still`.
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
        """Return the encodes of a kind, in the order of their settings."""
        return [p for p in self.points if p.kind == kind]

    def curve(self, kind: EncodeKind, metric: str) -> Curve | None:
        """Return the rate-quality curve of one kind of encode, or None if the metric was not measured."""
        values = [getattr(p.quality, metric) for p in self.of(kind)]
        return None if None in values else Curve([p.kbps for p in self.of(kind)], values)

    @property
    def growth(self) -> float:
        """Relative change of the bit rate that steering causes at equal settings (geometric mean)."""
        pairs = zip(self.of("plain"), self.of("roi"), strict=True)
        logs = [math.log(roi.kbps / plain.kbps) for plain, roi in pairs]
        return math.exp(sum(logs) / len(logs)) - 1

    @property
    def setting(self) -> str:
        """Name of the setting of the encodes, `crf` or `qp`."""
        return "crf" if "crf" in self.provenance else "qp"

    def to_json(self) -> dict[str, Any]:
        """Return the results as JSON values, without paths in the work folder."""
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
