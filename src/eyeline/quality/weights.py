"""Compute the weight of each sample of a frame, and read the maps of a reference.

For a map m and a strength k, the weight of a sample is (1 - k) + k * m / mean(m). So scaling the map has
no effect. k = 0 gives uniform weights, and k = 1 weights from the map alone.

The `from_...` functions decode a reference and yield its frames with maps from a model, from files, from
ground-truth masks or from recorded gaze. `uniform` yields the frames with uniform maps.

PSNR with squared errors weighted by a Gaussian density around recorded fixations is known as
eye-tracking-weighted PSNR, EWPSNR (Li, Qin & Itti, "Visual attention guided bit allocation in video
compression", Image and Vision Computing 29, 2011). The same density weights SSIM and VMAF.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
import numpy.typing as npt

from eyeline.datasets.fixations import (
    TABLES,
    FixationProblem,
    Fixations,
    gaze_density,
    is_fixation_set,
    load_fixation_set,
    read_fixations,
    sigma_of,
)
from eyeline.errors import DatasetError, MissingExtraError, QualityError
from eyeline.media import Video
from eyeline.media.source import list_images
from eyeline.media.types import VideoInfo
from eyeline.quality._vmaf_features import FLOAT, opencv, scratch
from eyeline.saliency.maps import read_maps

if TYPE_CHECKING:
    from eyeline.saliency.pipeline import Extraction

Map = npt.NDArray[np.float32]
PathLike = str | os.PathLike[str]

UNIFORM: Map = np.ones((1, 1), np.float32)
"""A map that gives all samples the same weight, for frames of any size."""

SAMPLES_PER_SIGMA = 8
"""Columns of a gaze density map per standard deviation of its Gaussian. The error of linear
interpolation between columns is at most 1 / (8 * 8**2) = 0.2 % of the peak."""


class Weights:
    """The weights of one frame, at any resolution.

    Args:
        saliency: map, float32 (h, w), finite, 0 or more, of any size with the frame's aspect ratio.
        strength: strength k of the map, 0 to 1.
        where: beginning of error messages, such as `frame 12`.

    Raises:
        QualityError: the map has NaN, infinite or negative values, or is 0 everywhere.
    """

    def __init__(self, saliency: Map, strength: float = 1.0, where: str = "the map") -> None:
        low, high = float(saliency.min()), float(saliency.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise QualityError(
                f"{where}: the map holds NaN or infinite values",
                "write a map with finite values of 0 or more",
            )
        if low < 0:
            raise QualityError(
                f"{where}: the map holds negative values ({low:g})",
                "write a map with finite values of 0 or more",
            )
        if high == 0 and strength > 0:
            raise QualityError(
                f"{where}: the map is zero everywhere, so no sample has a weight",
                "give another map, or give --weight 0 for uniform weights",
            )
        self.saliency = np.ascontiguousarray(saliency, np.float32)
        self.strength = strength
        self.level = float(saliency.mean(dtype=np.float64)) or 1.0

    def map_at(self, width: int, height: int) -> Map:
        """Return the resized map, float32 (height, width); the thread's next call overwrites it."""
        out = scratch("map", (height, width), FLOAT)
        return resample(self.saliency, width, height, out)

    def blend(self, plain: float, salient: float) -> float:
        """Return a weighted sum from the sum of terms (`plain`) and of terms times the map (`salient`)."""
        return (1 - self.strength) * plain + self.strength / self.level * salient

    def at(self, width: int, height: int) -> Map:
        """Return the weights, float32 (height, width), with a mean of about 1."""
        m = self.map_at(width, height) * np.float32(self.strength / self.level)
        m += np.float32(1 - self.strength)
        return m


def resample(m: Map, width: int, height: int, out: Map | None = None) -> Map:
    """Resize a float32 map with linear interpolation to enlarge it and area averages to shrink it.

    Interpolation runs between pixel centres and repeats the outermost values. An enlarged map is written
    to `out`, float32 (height, width), if `out` is given.
    """
    if m.shape[0] > height:
        m = _average_rows(m, height)
    if m.shape[1] > width:
        m = _average_rows(m.T, width).T
    m = np.ascontiguousarray(m)
    if m.shape == (height, width):
        return m
    cv2 = opencv()
    larger: Map = cv2.resize(m, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    return larger


def _average_rows(m: Map, rows: int) -> Map:
    """Average rows by area, without BLAS, whose threads would slow down a busy machine."""
    if len(m) % rows == 0:
        by = len(m) // rows
        total: Map = m[::by].copy()
        for i in range(1, by):
            total += m[i::by]
        total *= np.float32(1 / by)
        return total
    # Subtract running sums, which are interpolated linearly between rows.
    running = np.zeros((len(m) + 1, m.shape[1]))
    np.cumsum(m, axis=0, out=running[1:])
    edges = np.arange(rows + 1) * (len(m) / rows)
    left = np.minimum(edges.astype(np.intp), len(m) - 1)
    at = running[left] + (running[left + 1] - running[left]) * (edges - left)[:, None]
    means = np.diff(at, axis=0) * (rows / len(m))
    # Rounding may make a difference of sums negative.
    return np.maximum(means, 0).astype(np.float32)


@dataclass(frozen=True)
class ReferenceFrame:
    """A frame of the reference and the map of where viewers look in it.

    Attributes:
        index: frame number in the reference, from 0.
        seconds: presentation time in seconds.
        frame: the decoded frame.
        map: float32 (h, w), upright, of any size with the frame's aspect ratio.
    """

    index: int
    seconds: float
    frame: av.VideoFrame
    map: Map


def from_model(extraction: Extraction, start: int) -> Iterator[ReferenceFrame]:
    """Yield frames and their maps from a model; `extraction` must keep its source frames."""
    for f in extraction:
        if f.index >= start:
            yield ReferenceFrame(f.index, f.pts_time, cast(av.VideoFrame, f.frame.source), f.map)


def from_files(
    video: Video, path: PathLike, start: int, stop: int | None = None
) -> Iterator[ReferenceFrame]:
    """Yield frames and their maps from files, matched by frame number (see `saliency.maps.read_maps`).

    Raises:
        MediaError: the maps cannot be read.
        QualityError: a frame has no map.
    """
    maps = read_maps(Path(path))
    number, found = -1, UNIFORM

    def read(index: int, _: float) -> Map:
        nonlocal number, found
        while number < index:
            given = next(maps, None)
            if given is None:
                raise _missing(path, index, number)
            number, found = given
        if number != index:
            raise _missing(path, index, number)
        return found

    yield from _with_maps(video, read, start, stop)


def from_masks(
    video: Video, folder: PathLike, start: int, stop: int | None = None
) -> Iterator[ReferenceFrame]:
    """Yield frames and their ground-truth masks; frame n gets the n-th image of the folder by name.

    Raises:
        MediaError: the folder holds no images.
        DatasetError: an image cannot be read.
        QualityError: a frame has no mask.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from eyeline.datasets.pairs import read_mask
    except ImportError as exc:
        raise MissingExtraError("pillow", "eval") from exc
    masks = list_images(Path(folder))

    def read(index: int, _: float) -> Map:
        if index >= len(masks):
            raise _missing(folder, index, len(masks) - 1)
        return np.asarray(read_mask(Path(masks[index])), np.float32) / np.float32(255)

    yield from _with_maps(video, read, start, stop)


def from_gaze(
    video: Video, gaze: RecordedGaze, start: int, stop: int | None = None
) -> Iterator[ReferenceFrame]:
    """Yield frames and their gaze densities; a frame without an active fixation gets a uniform map."""

    def density(index: int, seconds: float) -> Map:
        m = gaze.density(index, seconds)
        return UNIFORM if m is None else m

    return _with_maps(video, density, start, stop)


def uniform(video: Video, start: int, stop: int | None = None) -> Iterator[ReferenceFrame]:
    """Yield frames with uniform maps."""
    return _with_maps(video, lambda index, seconds: UNIFORM, start, stop)


def _with_maps(
    video: Video, map_of: Callable[[int, float], Map], start: int, stop: int | None
) -> Iterator[ReferenceFrame]:
    for d in video.pictures(start, stop):
        yield ReferenceFrame(d.index, d.seconds, d.frame, map_of(d.index, d.seconds))


def _missing(path: PathLike, index: int, last: int) -> QualityError:
    return QualityError(
        f"{path}: has no map for frame {index} of the reference; the last map found is of frame {last}",
        "give one map per frame, and check that the maps belong to this video",
    )


def as_coded(m: Map, rotation: int) -> Map:
    """Rotate an upright map to the orientation of the coded frame.

    Args:
        m: map, float32 (h, w).
        rotation: degrees by which the coded frame must be rotated clockwise to be upright.
    """
    return np.ascontiguousarray(np.rot90(m, rotation // 90)) if rotation else m


@dataclass
class RecordedGaze:
    """The gaze of all viewers on one reference.

    Attributes:
        name, digest: name and hex SHA-256 of the file or set with the fixations.
        fixations: valid fixations.
        start: presentation time of the reference's first frame in seconds.
        size: (width, height) of the density maps in samples.
        sigma: standard deviation of the Gaussian around a fixation, as a share of the width.
        still: whether the reference is an image; then all fixations count at any time.
        problems: kinds of invalid rows in the fixation table; these rows are left out.
        empty: numbers of the frames at which no fixation was active; `density` adds to it.
    """

    name: str
    digest: str
    fixations: Fixations
    start: float
    size: tuple[int, int]
    sigma: float
    still: bool
    problems: tuple[FixationProblem, ...]
    empty: set[int] = field(default_factory=set)

    def density(self, index: int, seconds: float) -> Map | None:
        """Return the gaze density at a frame; None, and add `index` to `empty`, if no fixation is active.

        The density is float32 (height, width) of `size`, upright, with a sum of 1.
        """
        since = 1000 * (seconds - self.start)
        active = self.fixations if self.still else self.fixations.active_at(since)
        if not len(active):
            self.empty.add(index)
            return None
        return gaze_density(active, *self.size, self.sigma)

    def provenance(self) -> dict[str, Any]:
        """Return the sources of the weights as JSON values; call it after the last frame."""
        return {
            "fixations": self.name,
            "fixations_sha256": self.digest,
            "fixations_used": len(self.fixations),
            "fixations_left_out": {p.kind: p.count for p in self.problems},
            "viewers": len(np.unique(self.fixations.viewer)),
            "density_sigma": round(self.sigma, 6),
            "frames_without_fixation": len(self.empty),
        }

    def warnings(self, frames: int) -> list[str]:
        """Return warnings about scores of `frames` frames; call it after the last frame."""
        lines = [
            f"{self.name}: {p.count} rows left out: {p.kind}, such as {p.examples[0]}"
            for p in self.problems
        ]
        if self.empty:
            lines.append(
                f"{self.name}: no fixation is active at {len(self.empty)} of {frames} frames; all "
                "samples of these frames weigh the same"
            )
        return lines


def read_gaze(path: Path, info: VideoInfo, pixels_per_degree: float | None = None) -> RecordedGaze:
    """Read the fixations that were recorded for a reference.

    Args:
        path: a fixation table (`fixations.csv`, `.csv.gz`), or a fixation set (folder, .tar, .zip)
            with an image or video of the same name as the reference.
        info: size, times and name of the reference.
        pixels_per_degree: pixels of the reference per degree of visual angle; None if not known.

    Raises:
        DatasetError: the table or set cannot be read, or has no fixations for this reference.
    """
    name = Path(info.path).stem
    width, height = info.display_width, info.display_height
    sigma = sigma_of(width, pixels_per_degree)
    columns = min(width, math.ceil(SAMPLES_PER_SIGMA / sigma))
    size = columns, max(1, round(columns * height / width))
    if path.is_dir() or not path.name.endswith((".csv", ".csv.gz")):
        if path.exists() and not is_fixation_set(path):
            raise DatasetError(
                f"{path}: is not a fixation set",
                f"give {TABLES[0]}, or a folder, .tar or .zip with this file and images/ or videos/",
            )
        loaded = load_fixation_set(path)
        found = [s for s in loaded.stimuli if name in (s.name, Path(s.name).name)]
        if len(found) != 1 or not len(found[0].fixations):
            held = ", ".join(s.name for s in loaded.stimuli[:8])
            many = "more than one" if len(found) > 1 else "none"
            kind = loaded.kind[:-1]
            raise DatasetError(
                f"{path}: needs one {kind} named {name} with fixations, but has {many}; "
                f"the set holds {held}",
                "give the reference the same file name as in the set, or give a table for it alone",
            )
        return RecordedGaze(
            loaded.name, loaded.digest, found[0].fixations, info.start, size, sigma,
            loaded.kind == "images", loaded.problems,
        )  # fmt: skip
    recording = read_fixations(
        path, name, (width, height), None if info.duration is None else 1000 * info.duration
    )
    return RecordedGaze(
        path.name, recording.digest, recording.fixations, info.start, size, sigma, False,
        recording.problems,
    )  # fmt: skip
