"""The log itself: rows by frame number, pooled values, provenance. Every format writes this."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Any


class Log:
    """Columns of per-frame numbers that grow row by row, eight bytes a number.

    Args:
        columns: names of the metrics, in order.
        provenance: what made them: model id, digest, options, version; JSON values.
        fps: average frame rate of the video, or None.
    """

    def __init__(
        self, columns: list[str], provenance: Mapping[str, Any], fps: float | None = None
    ) -> None:
        self.columns = columns
        self.provenance: dict[str, Any] = dict(provenance)
        self.fps = fps
        self.frame_num = array("q")
        self.pts_time = array("d")
        self.values = {name: array("d") for name in columns}

    def append(self, frame_num: int, pts_time: float, metrics: Mapping[str, float]) -> None:
        """Add a row; a column that `metrics` lacks is a KeyError."""
        self.frame_num.append(frame_num)
        self.pts_time.append(pts_time)
        for name, column in self.values.items():
            column.append(metrics[name])

    def extend(self, other: Log) -> None:
        """Add the rows of another log; a column that it lacks is a KeyError."""
        self.frame_num.extend(other.frame_num)
        self.pts_time.extend(other.pts_time)
        for name, column in self.values.items():
            column.extend(other.values[name])

    def sliced(self, start: int, stop: int) -> Log:
        """A log of the rows at `start` up to `stop`, counted from 0; the provenance is copied as it is."""
        part = Log(list(self.columns), self.provenance, self.fps)
        part.frame_num = self.frame_num[start:stop]
        part.pts_time = self.pts_time[start:stop]
        part.values = {name: column[start:stop] for name, column in self.values.items()}
        return part

    def __len__(self) -> int:
        return len(self.frame_num)

    def rows(self) -> Iterator[tuple[int, float, dict[str, float]]]:
        """Frame number, presentation time in seconds, metrics; in order."""
        for i, number in enumerate(self.frame_num):
            yield number, self.pts_time[i], {k: v[i] for k, v in self.values.items()}
