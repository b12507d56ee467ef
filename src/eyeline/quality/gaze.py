"""Weight the frames of a reference by the recorded gaze of its viewers.

Weighting squared errors by a Gaussian density around the recorded fixations gives the
eye-tracking-weighted PSNR, EWPSNR (Li, Qin & Itti, "Visual attention guided bit allocation in video
compression", Image and Vision Computing 29, 2011). The same density weights SSIM and VMAF.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyeline.datasets.density import gaze_density, sigma_of
from eyeline.datasets.fixations import (
    TABLES,
    Fixations,
    Problem,
    is_fixation_set,
    load_fixation_set,
    read_fixations,
)
from eyeline.errors import DatasetError
from eyeline.logs.record import Log
from eyeline.media.types import VideoInfo

Map = npt.NDArray[np.float32]

COLUMNS = "ew_"
"""Prefix of the weighted columns in place of `sw_`, so that a log says what weighted it."""

SAMPLES_PER_SIGMA = 8
"""Columns of a density per standard deviation of its Gaussian. Interpolating linearly between them
is off by 1 / (8 * 8**2) of the peak at most, 0.2 %."""


@dataclass
class RecordedGaze:
    """The gaze of all viewers on one reference.

    Attributes:
        name: name of the file or set that the fixations were read from.
        digest: its sha256 hex digest.
        fixations: valid fixations.
        start: presentation time of the reference's first frame, seconds.
        size: (width, height) of the density maps, samples.
        sigma: standard deviation of the Gaussian around a fixation, share of the width.
        still: whether the reference is an image, so that all fixations count at any time.
        problems: kinds of invalid rows of the table; these rows are left out.
        empty: numbers of the frames so far at which no fixation was active.
    """

    name: str
    digest: str
    fixations: Fixations
    start: float
    size: tuple[int, int]
    sigma: float
    still: bool
    problems: tuple[Problem, ...]
    empty: set[int] = field(default_factory=set)

    def density(self, index: int, seconds: float) -> Map | None:
        """Return the density of gaze at a frame, or None where no fixation is active.

        Args:
            index: the frame's number, for `empty`.
            seconds: its presentation time.

        Returns:
            float32 (height, width) of `size`, upright, sum 1.
        """
        since = 1000 * (seconds - self.start)
        active = self.fixations if self.still else self.fixations.active_at(since)
        if not len(active):
            self.empty.add(index)
            return None
        return gaze_density(active, *self.size, self.sigma)

    def provenance(self) -> dict[str, Any]:
        """Return what the weights depend on, as JSON values; call it after the last frame."""
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
        """Return warnings for a reader of the scores; call it after the last frame.

        Args:
            frames: number of frames that were scored.
        """
        said = [
            f"{self.name}: {p.count} left out: {p.kind}, such as {p.examples[0]}"
            for p in self.problems
        ]
        if self.empty:
            said.append(
                f"{self.name}: no fixation is active at {len(self.empty)} of {frames} frames; all "
                "samples of these frames weigh the same"
            )
        return said


def rename_columns(log: Log) -> None:
    """Replace the prefix `sw_` of a score's weighted columns by that of recorded gaze."""
    names = {c: COLUMNS + c.removeprefix("sw_") if c.startswith("sw_") else c for c in log.columns}
    log.columns = list(names.values())
    log.values = {names[c]: values for c, values in log.values.items()}


def read_gaze(path: Path, info: VideoInfo, pixels_per_degree: float | None = None) -> RecordedGaze:
    """Read the gaze that was recorded on a reference.

    Args:
        path: a fixation table (`fixations.csv`, `.csv.gz`), or a fixation set (folder, .tar, .zip)
            that holds an image or video with the reference's name.
        info: size, times and name of the reference.
        pixels_per_degree: pixels of the reference per degree of visual angle; None if not known.

    Raises:
        DatasetError: the table or set cannot be read, or has no fixation on this reference.
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
                f"give {TABLES[0]}, or a folder, .tar or .zip with it and images/ or videos/",
            )
        loaded = load_fixation_set(path)
        found = [s for s in loaded.stimuli if name in (s.name, Path(s.name).name)]
        if len(found) != 1 or not len(found[0].fixations):
            held = ", ".join(s.name for s in loaded.stimuli[:8])
            many = "more than one" if len(found) > 1 else "no"
            kind = loaded.kind[:-1]
            raise DatasetError(
                f"{path}: has {many} {kind} named {name} with fixations; it holds {held}",
                "name the reference's file as in the set, or give a table of its own",
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
