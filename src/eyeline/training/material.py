"""Prepare what a run learns from: decoded pictures, their targets, a teacher's maps, a backbone.

`prepare_objects` reads image/mask pairs, `prepare_gaze` reads fixation sets. Both decode each picture
once into memory-mapped arrays in a cache folder, which is named by the digest of the data. An
interrupted call continues there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from eyeline.datasets.files import file_digest
from eyeline.datasets.fixations import FixationSet, fold_of, gaze_density, load_fixation_set
from eyeline.datasets.pairs import Pair, check_sizes, find_pairs, find_union, read_image, read_mask
from eyeline.digests import file_sha256, sha256_hex
from eyeline.errors import DatasetError, ModelError, UsageError
from eyeline.files import read_regular_file, write_bytes
from eyeline.inference import prepare
from eyeline.parallel import map_in_threads, usable_cores
from eyeline.registry.records import IoSpec
from eyeline.runtime import open_runtime_session, runtime_errors
from eyeline.training._backbone import fetch_backbone
from eyeline.training.recipes import GazeRecipe, Recipe

log = logging.getLogger(__name__)

GAZE_GRID = (96, 128)  # rows and columns of a density; a blur of 3 % of the width is 4 columns
CHUNK = 64  # pictures of the teacher between two saved states

Map = npt.NDArray[np.float32]
OnProgress = Callable[[int, int], None]  # called with the number done and the total
OnStep = Callable[[str, int, int], None]  # called with a part's name, the number done and the total


@dataclass(frozen=True)
class Arrays:
    """Decoded pictures of a dataset, squashed to squares of S pixels, with their targets.

    Attributes:
        names: names of the N pictures.
        images: uint8 (N, S, S, 3), RGB.
        targets: masks, uint8 (N, S, S), 0 or 255 except where resizing blends an edge; or densities
            of gaze, float16 (N, 96, 128), each divided by its maximum.
        aspect: float32 (N,), width / height at which a picture is shown.
        train: bool (N,), False for the fold that only selects an epoch.
        digest: sha256 hex digest of the pictures and their targets.
        facts: entries for the run record.
    """

    names: list[str]
    images: np.ndarray
    targets: np.ndarray
    aspect: np.ndarray
    train: np.ndarray
    digest: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class TrainingMaterial:
    """Everything that a run learns from.

    Attributes:
        task: the task of the recipes that can use it.
        names: names of the datasets.
        arrays: pictures and targets.
        facts: entries for the run record.
        teacher: uint8 (N, h, w), a teacher's maps of the same pictures, or None.
        unlabelled: pictures whose targets are a teacher's densities, or None.
        backbone: bytes of the encoder's pretrained weights, or None.
    """

    task: Literal["objects", "gaze"]
    names: list[str]
    arrays: Arrays
    facts: dict[str, Any] = field(default_factory=dict)
    teacher: np.ndarray | None = None
    unlabelled: Arrays | None = None
    backbone: bytes | None = None


def prepare_objects(
    recipe: Recipe,
    data: Sequence[Path],
    cache: Path,
    *,
    without: Sequence[Path] = (),
    teacher: Path | None = None,
    on_step: OnStep = lambda part, done, total: None,
) -> TrainingMaterial:
    """Find and decode image/mask pairs, without near-duplicates, and run the teacher on them.

    Args:
        recipe: recipe of a run on object masks.
        data: datasets; of near-duplicates across several datasets, the first is kept.
        cache: folder for decoded pictures and the teacher's maps.
        without: test sets; pictures that resemble one of theirs are dropped.
        teacher: ONNX file; used when the recipe's `teacher` is above 0.
        on_step: called with the part of the work, pictures done and pictures in total.

    Raises:
        DatasetError: the data cannot be used.
        ModelError: ONNX Runtime cannot run the teacher.
    """
    union = find_union(data, without, partial(on_step, "comparing pictures"))
    for name, twin in union.dropped:
        log.info("%s repeats %s: left out", name, twin)
    arrays = load_object_arrays(
        union.pairs,
        recipe.store,
        recipe.selection_share,
        cache,
        partial(on_step, "decoding pictures"),
    )
    maps = None
    if teacher is not None and recipe.teacher > 0:
        maps = run_teacher(union.pairs, teacher, cache, partial(on_step, "running the teacher"))
    facts = arrays.facts | {"dropped": len(union.dropped)}
    return TrainingMaterial("objects", [root.stem for root in data], arrays, facts, teacher=maps)


def prepare_gaze(
    recipe: GazeRecipe,
    data: Sequence[Path],
    cache: Path,
    *,
    backbone: Path | None = None,
    unlabelled: Path | None = None,
    teacher: Path | None = None,
    on_step: OnStep = lambda part, done, total: None,
) -> TrainingMaterial:
    """Check and decode fixation sets, fetch the backbone, and run the teacher on other pictures.

    Args:
        recipe: recipe of a run on recorded gaze.
        data: fixation sets of images.
        cache: folder for decoded pictures, the teacher's maps and the backbone.
        backbone: a local copy of the recipe's backbone.
        unlabelled: image/mask set whose pictures the teacher labels; the masks are not used.
        teacher: ONNX file of a gaze model.
        on_step: called with the part of the work, items done and items in total.

    Raises:
        DatasetError: the data cannot be used.
        ModelError: ONNX Runtime cannot run the teacher.
        TrainingError: the backbone is not the recipe's.
        UsageError: unlabelled pictures without a teacher, or a teacher without them.
    """
    if (unlabelled is None) != (teacher is None):
        options = ["--unlabelled", "--teacher"]
        given, missing = options if teacher is None else options[::-1]
        raise UsageError(f"{given} is given without {missing}", "give both of them, or neither")
    weights = fetch_backbone(
        recipe.backbone, cache, backbone, partial(on_step, "fetching the backbone")
    )
    sets = [load_fixation_set(root, partial(on_step, f"checking {root.stem}")) for root in data]
    arrays = load_gaze_arrays(sets, recipe.store, cache, partial(on_step, "decoding pictures"))
    more, facts = None, arrays.facts
    if unlabelled is not None and teacher is not None:
        pairs = find_pairs(unlabelled)
        # The share of the selection fold has no effect: the student learns from both folds.
        pictures = load_object_arrays(
            pairs, recipe.store, 0.05, cache, partial(on_step, "decoding unlabelled pictures")
        )
        maps = run_teacher(
            pairs, teacher, cache, partial(on_step, "running the teacher"), GAZE_TEACHER
        )
        more = replace(pictures, targets=maps)
        facts = facts | {
            "unlabelled": unlabelled.stem,
            "unlabelled_digest": pictures.digest,
            "teacher_sha256": file_sha256(teacher),
        }
    names = [root.stem for root in data]
    return TrainingMaterial("gaze", names, arrays, facts, unlabelled=more, backbone=weights)


def is_selection_fold(digest: str, share: float) -> bool:
    """Return whether a picture selects the epoch; its content decides, so copies share a fold."""
    return int(digest[:8], 16) / 0xFFFFFFFF < share


def load_object_arrays(
    pairs: list[Pair],
    size: int,
    selection_share: float,
    cache: Path,
    on_progress: OnProgress = lambda done, total: None,
) -> Arrays:
    """Decode image/mask pairs into squares of `size` pixels, or map what an earlier call left.

    Raises:
        DatasetError: unreadable pictures, sizes that differ, pictures of one pixel, masks of one
            class only, or a fold without pictures.
    """
    digest = sha256_hex("\n".join(p.name + p.digest + file_digest(p.mask) for p in pairs).encode())
    train = np.array([not is_selection_fold(p.digest, selection_share) for p in pairs])
    _check_folds(train)
    folder = cache / f"{digest[:16]}-{size}"
    index = folder / "index.json"
    if not index.exists():
        check_sizes(pairs)
        n = len(pairs)
        images = _create(folder / "images.npy", (n, size, size, 3), np.uint8)
        masks = _create(folder / "masks.npy", (n, size, size), np.uint8)

        def decode(i: int) -> tuple[float, float]:
            image, mask = read_image(pairs[i].image), read_mask(pairs[i].mask)
            images[i] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
            masks[i] = np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR))
            return float(np.float32(image.width / image.height)), np.asarray(mask).mean() / 255

        shapes = _for_each(decode, n, on_progress)
        images.flush()
        masks.flush()
        found = {
            "aspect": [aspect for aspect, _ in shapes],
            "empty_masks": [
                p.name for p, (_, share) in zip(pairs, shapes, strict=True) if share == 0
            ],
            "full_masks": [
                p.name for p, (_, share) in zip(pairs, shapes, strict=True) if share == 1
            ],
        }
        write_bytes(index, json.dumps(found).encode())
    facts = json.loads(index.read_text())
    aspect = np.array(facts.pop("aspect"), np.float32)
    for kind in ("empty", "full"):
        if names := facts[f"{kind}_masks"]:
            log.warning("%d masks are %s, first %s: they are kept", len(names), kind, names[0])
    if len(facts["empty_masks"]) + len(facts["full_masks"]) == len(pairs):
        raise DatasetError(
            f"all {len(pairs)} masks hold one class only",
            "check the masks: objects must be white, and everything else black",
        )
    return Arrays(
        names=[p.name for p in pairs],
        images=np.load(folder / "images.npy", mmap_mode="r"),
        targets=np.load(folder / "masks.npy", mmap_mode="r"),
        aspect=aspect,
        train=train,
        digest=digest,
        facts={"pairs": len(pairs), **facts},
    )


def load_gaze_arrays(
    sets: Sequence[FixationSet],
    size: int,
    cache: Path,
    on_progress: OnProgress = lambda done, total: None,
) -> Arrays:
    """Decode pictures with recorded gaze, or map what an earlier call left; `report` is left out.

    Raises:
        DatasetError: a set of videos, an unreadable picture, or a fold without pictures.
    """
    for s in sets:
        if s.kind != "images":
            raise DatasetError(
                f"{s.name} holds videos, and training needs images", "give fixation sets of images"
            )
    kept = [
        (f"{s.name}/{t.name}", t)
        for s in sets
        for t in s.stimuli
        if len(t.fixations) and fold_of(t.digest) != "report"
    ]
    train = np.array([fold_of(t.digest) == "train" for _, t in kept])
    _check_folds(train)
    digest = sha256_hex("\n".join(s.digest for s in sets).encode())
    folder = cache / f"gaze-{digest[:16]}-{size}"
    n, (rows, columns) = len(kept), GAZE_GRID
    if not (folder / "done").exists():
        images = _create(folder / "images.npy", (n, size, size, 3), np.uint8)
        densities = _create(folder / "densities.npy", (n, rows, columns), np.float16)

        def decode(i: int) -> None:
            stimulus = kept[i][1]
            picture = read_image(stimulus.source)
            images[i] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
            # Blurred at the picture's own aspect, then squashed like the picture: the blur is round.
            height = max(1, round(columns * picture.height / picture.width))
            density = Image.fromarray(gaze_density(stimulus.fixations, columns, height))
            squashed = np.asarray(density.resize((columns, rows), Image.Resampling.BOX))
            densities[i] = squashed / squashed.max()

        _for_each(decode, n, on_progress)
        images.flush()
        densities.flush()
        write_bytes(folder / "done", b"")
    return Arrays(
        names=[name for name, _ in kept],
        images=np.load(folder / "images.npy", mmap_mode="r"),
        targets=np.load(folder / "densities.npy", mmap_mode="r"),
        aspect=np.full(n, 4 / 3, np.float32),
        train=train,
        digest=digest,
        facts={
            "pictures": n,
            "fixations": sum(len(t.fixations) for _, t in kept),
            "problems": {s.name: {p.kind: p.count for p in s.problems} for s in sets},
        },
    )


def _check_folds(train: npt.NDArray[np.bool_]) -> None:
    if not train.any() or train.all():
        raise DatasetError(
            f"{len(train)} pictures leave a fold empty: some must train, others select the epoch",
            "add pictures",
        )


def _create(path: Path, shape: tuple[int, ...], dtype: type, mode: str = "w+") -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode, dtype, shape)  # type: ignore[no-untyped-call]


def _for_each(decode: Callable[[int], Any], count: int, on_progress: OnProgress) -> list[Any]:
    results = []
    for result in map_in_threads(decode, range(count), usable_cores()):
        results.append(result)
        on_progress(len(results), count)
    return results


@dataclass(frozen=True)
class TeacherFormat:
    """How a teacher sees pictures, and how its maps are stored.

    Attributes:
        height: rows of its input, pixels; pictures are squashed to it.
        width: columns of its input, pixels.
        io: how a picture becomes the input.
        unit: stored value of a map's 1.0.
        dtype: type of the stored maps, whose sides are half of the input's.
    """

    height: int
    width: int
    io: IoSpec
    unit: float
    dtype: type[np.uint8] | type[np.float16]


# The preprocessing of U-2-Net (Qin et al., 2020); half of its side is finer than any student's output.
OBJECTS_TEACHER = TeacherFormat(320, 320, IoSpec(scale="max", multiple=1), 255, np.uint8)
# A gaze model of this project; the small values of a density need a float's precision.
GAZE_TEACHER = TeacherFormat(192, 256, IoSpec(multiple=1), 1, np.float16)


def run_teacher(
    pairs: list[Pair],
    teacher: Path,
    cache: Path,
    on_progress: OnProgress = lambda done, total: None,
    form: TeacherFormat = OBJECTS_TEACHER,
) -> npt.NDArray[Any]:
    """Run a teacher on the images of `pairs`, or map what an earlier call left.

    One map per image is enough for all its crops: a crop warps the map together with the image.

    Args:
        pairs: images, in order.
        teacher: ONNX file with one image input, and its map as the first output.
        cache: folder for the maps.
        on_progress: called with images done and in total.
        form: how the teacher sees pictures, and how its maps are stored.

    Returns:
        The maps times `form.unit`, (N, height / 2, width / 2) of `form.dtype`, memory-mapped.

    Raises:
        ModelError: ONNX Runtime cannot run the teacher on such images.
        DatasetError: an image cannot be read.
    """
    data = read_regular_file(teacher)
    key = sha256_hex("\n".join([sha256_hex(data), str(form), *(p.digest for p in pairs)]).encode())
    folder = cache / f"teacher-{key[:16]}"
    path, note = folder / "maps.npy", folder / "done.json"
    begin, n = int(note.read_text()) if note.exists() else 0, len(pairs)
    rows, columns = form.height // 2, form.width // 2
    maps = _create(path, (n, rows, columns), form.dtype, mode="r+" if begin else "w+")
    infer = _open_teacher(data, teacher, form)

    def fill(i: int) -> None:
        size = (form.width, form.height)
        image = read_image(pairs[i].image).resize(size, Image.Resampling.BILINEAR)
        planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
        halved = infer(prepare(planes, form.io)).reshape(rows, 2, columns, 2).mean((1, 3))
        stored = halved * form.unit
        maps[i] = np.round(stored) if form.dtype is np.uint8 else stored

    for done, _ in enumerate(map_in_threads(fill, range(begin, n), usable_cores()), begin + 1):
        if done % CHUNK == 0 or done == n:
            maps.flush()
            write_bytes(note, str(done).encode())
            on_progress(done, n)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def _open_teacher(data: bytes, teacher: Path, form: TeacherFormat) -> Callable[[Map], Map]:
    session = open_runtime_session(data, str(teacher), "cpu")
    failures = runtime_errors()
    source, answer = session.get_inputs()[0].name, session.get_outputs()[0].name

    def infer(x: Map) -> Map:
        try:
            y: Map = session.run([answer], {source: x})[0]
        except failures as exc:
            raise ModelError(
                f"{teacher}: ONNX Runtime cannot run it on an image of {form.width}x{form.height} pixels",
                "use a model that takes one RGB image of that size",
            ) from exc
        if y.shape != (1, 1, form.height, form.width) or not (y.min() >= 0 and y.max() <= 1):
            raise ModelError(
                f"{teacher}: its first output has the shape {y.shape} and values from {y.min():g} to "
                f"{y.max():g}; the shape must be (1, 1, {form.height}, {form.width}), the values 0 to 1",
                "use a model whose first output is its saliency map",
            )
        map_: Map = y[0, 0]
        return map_

    return infer
