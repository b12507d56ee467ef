"""Fixation sets: pictures or videos with the recorded gaze of their viewers.

A fixation set is a folder, a .tar or a .zip that holds `images/` or `videos/` and one table,
`fixations.csv` or `fixations.csv.gz`, at its top or inside one wrapping folder:

| kind | columns | coordinates |
|---|---|---|
| images | image, viewer, x, y, duration_ms | fractions of the picture's width and height |
| videos | video, viewer, onset_ms, duration_ms, x, y | pixels of the video |

The name of an image or video is its path below `images/` or `videos/` without its suffix.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from eyeline.datasets.pairs import Source

Kind = Literal["images", "videos"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fixations:
    """The fixations of all viewers on one image or video, in the order of the table.

    Attributes:
        viewer: int64 (N,), index into `FixationSet.viewers`.
        x: float64 (N,), fraction of the width, 0 <= x < 1, left to right.
        y: float64 (N,), fraction of the height, 0 <= y < 1, top to bottom.
        onset_ms: float64 (N,), milliseconds from the first frame; 0 for images.
        duration_ms: float64 (N,), milliseconds; NaN where the table does not say.
    """

    viewer: Ints
    x: Floats
    y: Floats
    onset_ms: Floats
    duration_ms: Floats

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: npt.NDArray[np.bool_] | Ints) -> Fixations:
        """Return the chosen rows.

        Args:
            rows: bool (N,) mask or int64 (M,) indices.
        """
        return Fixations(
            self.viewer[rows],
            self.x[rows],
            self.y[rows],
            self.onset_ms[rows],
            self.duration_ms[rows],
        )

    def active_at(self, time_ms: float) -> Fixations:
        """Return the fixations that have begun and not ended at a time.

        Args:
            time_ms: milliseconds from the first frame.
        """
        started = self.onset_ms <= time_ms
        return self.select(started & (time_ms < self.onset_ms + self.duration_ms))


@dataclass(frozen=True)
class Stimulus:
    """An image or video that viewers looked at.

    Attributes:
        name: path below `images/` or `videos/` without suffix, unique in its set.
        source: where the file is.
        size: (width, height) as shown, pixels.
        digest: sha256 hex digest of the file's bytes.
        fixations: valid fixations; may be empty.
    """

    name: str
    source: Source
    size: tuple[int, int]
    digest: str
    fixations: Fixations


@dataclass(frozen=True)
class Problem:
    """One kind of invalid row or file in a set, counted.

    Attributes:
        kind: what is wrong, such as `outside the picture`.
        count: rows, images, videos or viewers concerned.
        examples: the first few, each as `NAME, row 12: x = 1.02`.
        fatal: whether the set cannot be used because of it.
    """

    kind: str
    count: int
    examples: tuple[str, ...]
    fatal: bool = False


@dataclass(frozen=True)
class FixationSet:
    """A fixation set that was checked.

    Attributes:
        name: of its folder or archive, without suffix.
        kind: whether the stimuli are images or videos.
        stimuli: sorted by name.
        viewers: names of the viewers, in the order of their first row.
        digest: sha256 hex digest over the table and the names and digests of all stimuli.
        problems: what was found wrong; the rows concerned are not in `stimuli`.
    """

    name: str
    kind: Kind
    stimuli: tuple[Stimulus, ...]
    viewers: tuple[str, ...]
    digest: str
    problems: tuple[Problem, ...]


def is_fixation_set(root: Path) -> bool:
    """Return whether a folder or archive holds a fixation table beside `images/` or `videos/`."""
    raise NotImplementedError


def load_fixation_set(root: Path) -> FixationSet:
    """Read and check a fixation set.

    Rows that cannot be used are left out, counted in `FixationSet.problems` and named there.

    Args:
        root: folder, .tar or .zip.

    Raises:
        DatasetError: the set has no table, no stimuli, a missing column, or no valid fixation.
    """
    raise NotImplementedError
