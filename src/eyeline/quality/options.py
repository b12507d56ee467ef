"""What `score` is asked for, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import get_args

from eyeline.datasets.density import check_pixels_per_degree
from eyeline.errors import UsageError
from eyeline.logs.record import Log
from eyeline.media.types import DecodeReport
from eyeline.models.records import IoSpec
from eyeline.quality import methods
from eyeline.quality.pairs import PairOptions
from eyeline.saliency.pipeline import ExtractOptions

METRICS = ("psnr", "ssim", "ms_ssim", "sw_vmaf", "vmaf")
"""What can be asked for; `vmaf` is libvmaf's own, whole frame."""


@dataclass(frozen=True)
class ScoreOptions:
    """What `score` does; every value travels in the log's provenance.

    Attributes:
        metrics: names of `METRICS`; None = all that this picture and installation allow, and the log
            says under `left_out` why one is not there.
        weight: 0 = uniform weights, 1 = the map alone.
        pairs: how the two videos are brought together.
        maps: ready maps in place of a model's: what `extract --maps` writes.
        masks: a folder of ground-truth masks in place of a model's maps.
        fixations: a fixation table or set in place of a model's maps (see `quality.gaze.read_gaze`);
            weighted columns then begin with `ew_`, not `sw_`.
        pixels_per_degree: pixels of the reference per degree of visual angle, for `fixations`;
            None if it is not known.
        method: also run libvmaf by an older way, for comparison (see `quality.methods`).
        vmaf_model: model of `vmaf` and `sw_vmaf`.
        extract: how the model looks at the reference.
        workers: threads that measure; 0 = one per core.
    """

    metrics: tuple[str, ...] | None = None
    weight: float = 1.0
    pairs: PairOptions = field(default_factory=PairOptions)
    maps: str | None = None
    masks: str | None = None
    fixations: str | None = None
    pixels_per_degree: float | None = None
    method: methods.Method | None = None
    vmaf_model: str = "vmaf_v0.6.1"
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    workers: int = 0

    def __post_init__(self) -> None:
        unknown = [m for m in self.metrics or () if m not in METRICS]
        if unknown or self.metrics == ():
            raise UsageError(f"metrics {unknown or 'none'}", f"any of {', '.join(METRICS)}")
        if not 0 <= self.weight <= 1:
            raise UsageError(f"weight is {self.weight:g}", "0 (uniform) to 1 (the map alone)")
        given = [n for n in ("maps", "masks", "fixations") if getattr(self, n)]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are given together", "give one of them")
        if self.fixations and self.weight == 0:
            raise UsageError("--fixations has no effect with --weight 0", "give a weight above 0")
        if self.pixels_per_degree is not None:
            if not self.fixations:
                raise UsageError(
                    "--pixels-per-degree is given without --fixations",
                    "give --fixations, or leave out --pixels-per-degree",
                )
            check_pixels_per_degree(self.pixels_per_degree)
        if self.method is not None and self.method not in get_args(methods.Method):
            raise UsageError(f"method is {self.method!r}", "crop or mask")

    @property
    def needs_model(self) -> bool:
        """Whether a model looks at the reference."""
        return self.weight > 0 and not (self.maps or self.masks or self.fixations)

    def for_model(self, io: IoSpec) -> ScoreOptions:
        """These options with what they leave to a model taken from its I/O spec."""
        return replace(self, extract=self.extract.for_model(io))


@dataclass
class ScoreResult:
    """What a run made.

    Attributes:
        log: a row a pair, with provenance.
        stopped: what ended the run early, None when it is complete.
        warnings: lines worth showing.
        reports: what the decoders met: the reference's, the distorted video's.
    """

    log: Log
    stopped: BaseException | None = None
    warnings: list[str] = field(default_factory=list)
    reports: tuple[DecodeReport, DecodeReport] = field(
        default_factory=lambda: (DecodeReport(), DecodeReport())
    )
