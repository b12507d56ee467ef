"""What `score` is asked for, and what it gives back.

Where a reference's weights come from: a model, maps, masks, recorded gaze, or nothing.

Each source hands out the reference's frames with their maps, in one decode of the reference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import av
import numpy as np
import numpy.typing as npt

from eyeline.datasets.fixations import check_pixels_per_degree
from eyeline.errors import MissingExtraError, QualityError, UsageError
from eyeline.logs.base import Log
from eyeline.media import Video
from eyeline.media.source import list_images
from eyeline.media.types import DecodeReport
from eyeline.quality import measure as methods
from eyeline.quality.pairs import PairOptions
from eyeline.registry.records import IoSpec
from eyeline.saliency.maps import read_maps
from eyeline.saliency.pipeline import ExtractOptions

if TYPE_CHECKING:
    from eyeline.quality.weights import RecordedGaze
    from eyeline.saliency.pipeline import Extraction

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


Map = npt.NDArray[np.float32]

UNIFORM: Map = np.ones((1, 1), np.float32)
"""A map that weighs all alike, at any size."""


@dataclass(frozen=True)
class Seen:
    """A frame of the reference and where viewers look in it.

    Attributes:
        index: position in the reference, from 0.
        seconds: presentation time.
        frame: as decoded.
        map: float32 (h, w), upright, any size with the frame's aspect.
    """

    index: int
    seconds: float
    frame: av.VideoFrame
    map: Map


def from_model(extraction: Extraction, start: int) -> Iterator[Seen]:
    """Frames and the maps that a model gives; the extraction keeps its sources."""
    for f in extraction:
        if f.index < start:
            continue
        if f.frame.source is None:
            raise QualityError("the extraction keeps no frames", "set keep_source")
        yield Seen(f.index, f.pts_time, f.frame.source, f.map)


def from_files(
    video: Video, path: str | os.PathLike[str], start: int, stop: int | None = None
) -> Iterator[Seen]:
    """Frames and ready maps, matched by frame number (see `saliency.maps.read_maps`).

    Raises:
        MediaError: the maps can't be read.
        QualityError: a frame has no map.
    """
    maps = read_maps(Path(path))
    number, found = -1, UNIFORM
    for decoded in video.pictures(start, stop):
        while number < decoded.index:
            given = next(maps, None)
            if given is None:
                raise _missing(path, decoded.index, number)
            number, found = given
        if number != decoded.index:
            raise _missing(path, decoded.index, number)
        yield Seen(decoded.index, decoded.seconds, decoded.frame, found)


def from_masks(
    video: Video, folder: str | os.PathLike[str], start: int, stop: int | None = None
) -> Iterator[Seen]:
    """Frames and ground-truth masks: the n-th picture of the folder, by name, for frame n.

    Raises:
        MediaError: the folder holds no pictures.
        DatasetError: a picture can't be read.
        QualityError: a frame has no mask.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from eyeline.datasets.pairs import read_mask
    except ImportError as exc:
        raise MissingExtraError("pillow", "eval") from exc
    masks = list_images(Path(folder))
    for decoded in video.pictures(start, stop):
        if decoded.index >= len(masks):
            raise _missing(folder, decoded.index, len(masks) - 1)
        m = np.asarray(read_mask(Path(masks[decoded.index])), np.float32) / np.float32(255)
        yield Seen(decoded.index, decoded.seconds, decoded.frame, m)


def from_gaze(
    video: Video, gaze: RecordedGaze, start: int, stop: int | None = None
) -> Iterator[Seen]:
    """Frames and the density of recorded gaze; a uniform map where no fixation is active."""
    for decoded in video.pictures(start, stop):
        density = gaze.density(decoded.index, decoded.seconds)
        m = UNIFORM if density is None else density
        yield Seen(decoded.index, decoded.seconds, decoded.frame, m)


def from_nothing(video: Video, start: int, stop: int | None = None) -> Iterator[Seen]:
    """Frames with a uniform map."""
    for decoded in video.pictures(start, stop):
        yield Seen(decoded.index, decoded.seconds, decoded.frame, UNIFORM)


def as_coded(m: Map, rotation: int) -> Map:
    """An upright map turned to how the frame is coded.

    Args:
        m: float32 (h, w).
        rotation: clockwise degrees that make the frame upright.
    """
    return np.ascontiguousarray(np.rot90(m, rotation // 90)) if rotation else m


def describe(kind: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Provenance of maps that were given."""
    return {"map": kind, "map_path": Path(path).name}


def _missing(path: str | os.PathLike[str], index: int, last: int) -> QualityError:
    return QualityError(
        f"{path}: holds no map for frame {index} of the reference (the last read is {last})",
        "every frame of the reference needs one; are they this clip's?",
    )
