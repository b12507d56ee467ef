"""What a run learns from: pictures decoded once, and the teacher's maps of them.

Soft maps of a teacher for every training image, made once and kept: the targets of distillation.

One map an image is enough for every augmented crop: the map is warped along with the image.
The teacher is an ONNX file with one image input and its map as first output, such as u2netp; it
is run by U-2-Net's own preprocessing (Qin et al., 2020): squashed, divided by the image's maximum,
ImageNet-normalised.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from eyeline.datasets.fixations import load_fixation_set
from eyeline.datasets.pairs import Pair, find_pairs, find_union, read_image
from eyeline.digests import file_sha256, sha256_hex
from eyeline.errors import ModelError, UsageError
from eyeline.files import read_regular_file
from eyeline.inference import prepare
from eyeline.registry.records import IoSpec
from eyeline.runtime import open_runtime_session, runtime_errors
from eyeline.training.backbone import fetch_backbone
from eyeline.training.data import Arrays, load_arrays
from eyeline.training.gaze import GazeArrays, Unlabelled, load_gaze_arrays
from eyeline.training.recipes import GazeRecipe, Recipe

Map = npt.NDArray[np.float32]

SIZE = 320  # U-2-Net's input side, pixels
STORED = 160  # side of the kept maps: half, finer than any student's output
CHUNK = 64  # images between two notes of progress


@dataclass(frozen=True)
class Look:
    """How a teacher sees pictures, and how its maps are kept.

    Attributes:
        height: rows of its input, pixels; pictures are squashed to it.
        width: columns of its input.
        io: how a picture becomes the input.
        unit: the stored number that means 1.
        dtype: of the stored maps, whose sides are half the input's.
    """

    height: int
    width: int
    io: IoSpec
    unit: float
    dtype: type[np.uint8] | type[np.float16]


OBJECTS = Look(SIZE, SIZE, IoSpec(scale="max", multiple=1), 255, np.uint8)
"""U-2-Net's own preprocessing (Qin et al., 2020); maps in 1/255."""

GAZE = Look(192, 256, IoSpec(multiple=1), 1, np.float16)
"""A gaze model of ours; the small values of a density need a float's precision."""


def soft_maps(
    pairs: list[Pair],
    teacher: Path,
    cache: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    look: Look = OBJECTS,
) -> npt.NDArray[Any]:
    """Run the teacher over a dataset, or map what an earlier call left in `cache`.

    An interrupted call goes on where it stopped.

    Args:
        pairs: images, in order.
        teacher: ONNX file.
        cache: folder for the maps, named by the digests of teacher and data, and by `look`.
        on_progress: called with images done and in all.
        look: how the teacher sees pictures.

    Returns:
        (N, height / 2, width / 2) of `look.dtype`, memory-mapped: the teacher's map times `look.unit`.

    Raises:
        ModelError: a teacher that ONNX Runtime can't run on such images.
        DatasetError: an unreadable image.
    """
    data = read_regular_file(teacher)
    parts = [sha256_hex(data), str(look), *(p.digest for p in pairs)]
    key = sha256_hex("\n".join(parts).encode())[:16]
    folder = cache / f"teacher-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    path, note = folder / "maps.npy", folder / "done.json"
    done = int(json.loads(note.read_text())) if note.exists() else 0
    rows, columns = look.height // 2, look.width // 2
    maps: np.memmap[tuple[int, ...], np.dtype[Any]] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        path,
        mode="r+" if done else "w+",
        dtype=look.dtype,
        shape=(len(pairs), rows, columns),
    )
    infer = _session(data, teacher, look)

    def fill(i: int) -> None:
        size = (look.width, look.height)
        image = read_image(pairs[i].image).resize(size, Image.Resampling.BILINEAR)
        planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
        halved = infer(prepare(planes, look.io)).reshape(rows, 2, columns, 2).mean((1, 3))
        stored = halved * look.unit
        maps[i] = np.round(stored) if look.dtype is np.uint8 else stored

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(done, len(pairs), CHUNK):
            stop = min(start + CHUNK, len(pairs))
            list(pool.map(fill, range(start, stop)))
            maps.flush()
            note.write_text(json.dumps(stop))
            on_progress(stop, len(pairs))
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def _session(data: bytes, teacher: Path, look: Look) -> Callable[[Map], Map]:
    """The teacher as a function of (1, 3, height, width) to (height, width)."""
    session = open_runtime_session(data, str(teacher), "cpu")
    failures = runtime_errors()
    source, answer = session.get_inputs()[0].name, session.get_outputs()[0].name

    def infer(x: Map) -> Map:
        try:
            y: Map = session.run([answer], {source: x})[0]
        except failures as exc:
            raise ModelError(
                f"{teacher}: ONNX Runtime cannot run it on an image of {look.width}x{look.height} pixels",
                "use a model that takes one RGB image of that size",
            ) from exc
        if y.shape != (1, 1, look.height, look.width) or not (y.min() >= 0 and y.max() <= 1):
            raise ModelError(
                f"{teacher}: its first output has the shape {y.shape} and values from {y.min():g} to "
                f"{y.max():g}; a teacher's is (1, 1, {look.height}, {look.width}) in 0 to 1",
                "use a model whose first output is its saliency map",
            )
        map_: Map = y[0, 0]
        return map_

    return infer


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


def prepare_material(
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
            dropped, see `eyeline.datasets.pairs`.
        cache: folder for decoded arrays and the teacher's maps; an interrupted call goes on there.
        without: test sets whose pictures must not be learned from.
        teacher: ONNX file whose soft maps the recipe learns from, see `eyeline.training.material`.
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
