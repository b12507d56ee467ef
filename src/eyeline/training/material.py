"""What a run learns from: pictures decoded once, and the teacher's maps of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eyeline.datasets.union import find_union
from eyeline.training.data import Arrays, load_arrays
from eyeline.training.recipes import Recipe
from eyeline.training.teacher import soft_maps

log = logging.getLogger(__name__)

OnStep = Callable[[str, int, int], None]
"""Called with a part's name, its pictures done, and in all."""


@dataclass(frozen=True)
class Material:
    """A dataset ready to learn from.

    Attributes:
        names: of the sets.
        arrays: pictures and masks.
        teacher: uint8 (N, h, w) soft maps, or None.
        dropped: pictures left out because another one resembles them.
    """

    names: list[str]
    arrays: Arrays
    teacher: np.ndarray | None
    dropped: int


def prepare(
    recipe: Recipe,
    data: Sequence[Path],
    cache: Path,
    *,
    without: Sequence[Path] = (),
    teacher: Path | None = None,
    on_step: OnStep = lambda part, done, total: None,
) -> Material:
    """Find, compare and decode pictures, and run the teacher over them; what `cache` holds is taken.

    Args:
        recipe: see `eyeline.training.recipes`.
        data: datasets, see `eyeline.datasets.pairs.find_pairs`; near-duplicates across several are
            dropped, see `eyeline.datasets.union`.
        cache: folder for decoded arrays and the teacher's maps; an interrupted call goes on there.
        without: test sets whose pictures must not be learned from.
        teacher: ONNX file whose soft maps the recipe learns from, see `eyeline.training.teacher`.
        on_step: see `OnStep`.

    Raises:
        DatasetError: data that can't be used.
        ModelError: a teacher that can't be run.
    """

    def part(name: str) -> Callable[[int, int], None]:
        return lambda done, total: on_step(name, done, total)

    union = find_union(data, without, part("comparing pictures"))
    for name, twin in union.dropped:
        log.info("%s repeats %s: left out", name, twin)
    arrays = load_arrays(
        union.pairs, recipe.store, recipe.selection_share, cache, part("decoding pictures")
    )
    soft = None
    if teacher is not None and recipe.teacher > 0:
        soft = soft_maps(union.pairs, teacher, cache, part("asking the teacher"))
    return Material([root.stem for root in data], arrays, soft, len(union.dropped))
