"""What a run learns from: pictures decoded once, and the teacher's maps of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eyeline.datasets.fixations import load_fixation_set
from eyeline.datasets.pairs import find_pairs
from eyeline.datasets.union import find_union
from eyeline.digest import file_sha256
from eyeline.errors import UsageError
from eyeline.training.backbone import fetch_backbone
from eyeline.training.data import Arrays, load_arrays
from eyeline.training.gaze import GazeArrays, Unlabelled, load_gaze_arrays
from eyeline.training.recipes import GazeRecipe, Recipe
from eyeline.training.teacher import GAZE, soft_maps

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


@dataclass(frozen=True)
class GazeMaterial:
    """Fixation sets ready to learn from.

    Attributes:
        names: of the sets.
        arrays: pictures and densities of gaze.
        unlabelled: pictures whose density a teacher predicts, or None.
        backbone: bytes of the encoder's pretrained weights.
        facts: what the run record says of unlabelled pictures and their teacher.
    """

    names: list[str]
    arrays: GazeArrays
    unlabelled: Unlabelled | None
    backbone: bytes
    facts: dict[str, str]


def prepare_gaze(
    recipe: GazeRecipe,
    data: Sequence[Path],
    cache: Path,
    *,
    backbone: Path | None = None,
    unlabelled: Path | None = None,
    teacher: Path | None = None,
    on_step: OnStep = lambda part, done, total: None,
) -> GazeMaterial:
    """Check and decode fixation sets, fetch the backbone, and run the teacher over other pictures.

    Args:
        recipe: see `eyeline.training.recipes`.
        data: fixation sets of images.
        cache: folder for decoded arrays, the teacher's maps and the backbone.
        backbone: a local copy of the recipe's backbone.
        unlabelled: image/mask set whose pictures the teacher labels; the masks are not used.
        teacher: ONNX file of a gaze model.
        on_step: see `OnStep`.

    Raises:
        DatasetError: data that cannot be used.
        ModelError: a teacher that cannot be run.
        TrainingError: another backbone than the recipe's.
        UsageError: unlabelled pictures without a teacher, or the reverse.
    """

    def part(name: str) -> Callable[[int, int], None]:
        return lambda done, total: on_step(name, done, total)

    if (unlabelled is None) != (teacher is None):
        raise UsageError(
            f"{'--unlabelled' if teacher is None else '--teacher'} is given without "
            f"{'--teacher' if teacher is None else '--unlabelled'}",
            "give both of them, or neither",
        )
    weights = fetch_backbone(recipe.backbone, cache, backbone, part("fetching the backbone"))
    sets = [load_fixation_set(root, part(f"checking {root.stem}")) for root in data]
    arrays = load_gaze_arrays(sets, recipe.store, cache, part("decoding pictures"))
    more, facts = None, {}
    if unlabelled is not None and teacher is not None:
        pairs = find_pairs(unlabelled)
        pictures = load_arrays(pairs, recipe.store, 0.05, cache, part("decoding unlabelled"))
        maps = soft_maps(pairs, teacher, cache, part("asking the teacher"), GAZE)
        more = Unlabelled(pictures.images, maps)
        facts = {
            "unlabelled": unlabelled.stem,
            "unlabelled_digest": pictures.digest,
            "teacher_sha256": file_sha256(teacher),
        }
    return GazeMaterial([root.stem for root in data], arrays, more, weights, facts)
