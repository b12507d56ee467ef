"""As many pictures as a size allows, evenly spread, found in one pass over frames of unknown cost."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from typing import Any

from eyeline.errors import UsageError

MEGABYTE = 1_000_000


def base64_size(size: int) -> int:
    """Characters that `size` bytes take in a page."""
    return -(-size // 3) * 4


class Strip:
    """Pictures by frame, thinned to every second whenever they outgrow their budget.

    Frames that must be there are never thinned out.

    Args:
        budget: bytes that the pictures may take in the page, as base64.
        keep: frame numbers that must be there.
    """

    def __init__(self, budget: int, keep: Collection[int] = ()) -> None:
        self.every = 1
        self.size = 0
        self._budget = budget
        self._keep = frozenset(keep)
        self._shots: dict[int, tuple[int, Mapping[str, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._shots)

    def wants(self, position: int, number: int) -> bool:
        """Whether a frame would be kept now.

        Args:
            position: its place among the frames, from 0.
            number: its frame number.
        """
        return position % self.every == 0 or number in self._keep

    def add(self, position: int, number: int, pictures: Mapping[str, bytes]) -> None:
        """Take a frame's pictures, by track.

        Raises:
            UsageError: not even the frames that must be there fit.
        """
        self._shots[number] = position, pictures
        self.size += self._cost(pictures)
        while self.size > self._budget:
            if self.every > position:
                raise UsageError(
                    f"{len(self)} frames alone take {self.size / MEGABYTE:.1f} MB, more than "
                    f"--max-size {self._budget / MEGABYTE:g}",
                    "raise --max-size, or lower --picture-size or --worst",
                )
            self.every *= 2
            for n, (place, old) in list(self._shots.items()):
                if not self.wants(place, n):
                    self.size -= self._cost(old)
                    del self._shots[n]

    @staticmethod
    def _cost(pictures: Mapping[str, bytes]) -> int:
        return sum(base64_size(len(data)) for data in pictures.values())

    def to_json(self) -> dict[str, Any]:
        """Frame numbers, and for each track a list of base64, one a frame; empty where a frame has none."""
        shots = [pictures for _, pictures in self._shots.values()]
        names = dict.fromkeys(name for pictures in shots for name in pictures)
        tracks = {
            name: [base64.b64encode(p.get(name, b"")).decode() for p in shots] for name in names
        }
        return {
            "every": self.every,
            "frames": list(self._shots),
            "tracks": tracks,
        }
