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

Task = Literal["objects", "gaze"]
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

    task: Task
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
        teach = partial(on_step, "running the teacher")
        maps = run_teacher("objects", union.pairs, teacher, cache, teach)
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
        teach = partial(on_step, "running the teacher")
        maps = run_teacher("gaze", pairs, teacher, cache, teach)
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
    pairs: list[Pair], size: int, selection_share: float, cache: Path, on_progress: OnProgress
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
    index, targets = folder / "index.json", folder / "masks.npy"
    if not index.exists():
        check_sizes(pairs)
        masks = _create(targets, (len(pairs), size, size), np.uint8)

        def decode(i: int) -> tuple[Image.Image, float, float]:
            image, mask = read_image(pairs[i].image), read_mask(pairs[i].mask)
            masks[i] = np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR))
            return image, float(np.float32(image.width / image.height)), np.asarray(mask).mean()

        found = _decode_images(decode, len(pairs), size, folder, on_progress)
        masks.flush()
        record = {
            "aspect": [aspect for aspect, _ in found],
            "empty_masks": [p.name for p, (_, mean) in zip(pairs, found, strict=True) if mean == 0],
            "full_masks": [
                p.name for p, (_, mean) in zip(pairs, found, strict=True) if mean == 255
            ],
        }
        write_bytes(index, json.dumps(record).encode())
    facts = json.loads(index.read_text())
    aspect = np.array(facts.pop("aspect"), np.float32)
    for kind in ("empty", "full"):
        if alike := facts[f"{kind}_masks"]:
            log.warning("%d masks are %s, first %s: they are kept", len(alike), kind, alike[0])
    if len(facts["empty_masks"]) + len(facts["full_masks"]) == len(pairs):
        raise DatasetError(
            f"all {len(pairs)} masks hold one class only",
            "check the masks: objects must be white, and everything else black",
        )
    facts = {"pairs": len(pairs), **facts}
    return _map_arrays([p.name for p in pairs], targets, aspect, train, digest, facts)


def load_gaze_arrays(
    sets: Sequence[FixationSet], size: int, cache: Path, on_progress: OnProgress
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
    done, targets = folder / "done", folder / "densities.npy"
    rows, columns = GAZE_GRID
    if not done.exists():
        densities = _create(targets, (len(kept), rows, columns), np.float16)

        def decode(i: int) -> tuple[Image.Image]:
            stimulus = kept[i][1]
            picture = read_image(stimulus.source)
            # Blurred at the picture's own aspect, then squashed like the picture: the blur is round.
            height = max(1, round(columns * picture.height / picture.width))
            density = Image.fromarray(gaze_density(stimulus.fixations, columns, height))
            squashed = np.asarray(density.resize((columns, rows), Image.Resampling.BOX))
            densities[i] = squashed / squashed.max()
            return (picture,)

        _decode_images(decode, len(kept), size, folder, on_progress)
        densities.flush()
        write_bytes(done, b"")
    facts = {
        "pictures": len(kept),
        "fixations": sum(len(t.fixations) for _, t in kept),
        "problems": {s.name: {p.kind: p.count for p in s.problems} for s in sets},
    }
    aspect = np.full(len(kept), 4 / 3, np.float32)
    return _map_arrays([name for name, _ in kept], targets, aspect, train, digest, facts)


def _check_folds(train: npt.NDArray[np.bool_]) -> None:
    if not train.any() or train.all():
        raise DatasetError(
            f"{len(train)} pictures leave a fold empty: some must train, others select the epoch",
            "add pictures",
        )


def _create(path: Path, shape: tuple[int, ...], dtype: type, mode: str = "w+") -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode, dtype, shape)  # type: ignore[no-untyped-call]


def _decode_images(
    decode: Callable[[int], tuple[Any, ...]],
    count: int,
    size: int,
    folder: Path,
    on_progress: OnProgress,
) -> list[tuple[Any, ...]]:
    """Store the picture that `decode` returns first, for each index; return the other values."""
    images = _create(folder / "images.npy", (count, size, size, 3), np.uint8)

    def store(i: int) -> tuple[Any, ...]:
        image, *others = decode(i)
        images[i] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
        return tuple(others)

    results = []
    for result in map_in_threads(store, range(count), usable_cores()):
        results.append(result)
        on_progress(len(results), count)
    images.flush()
    return results


def _map_arrays(
    names: list[str],
    targets: Path,
    aspect: np.ndarray,
    train: np.ndarray,
    digest: str,
    facts: dict[str, Any],
) -> Arrays:
    images = np.load(targets.with_name("images.npy"), mmap_mode="r")
    return Arrays(names, images, np.load(targets, mmap_mode="r"), aspect, train, digest, facts)


# Per task: how a picture becomes a teacher's input, its width and height, and the type of stored maps.
# Objects: the preprocessing of U-2-Net (Qin et al., 2020). Gaze: a density's small values need a float.
TEACHERS = {
    "objects": (IoSpec(scale="max", multiple=1), (320, 320), np.uint8),
    "gaze": (IoSpec(multiple=1), (256, 192), np.float16),
}


def run_teacher(
    task: Task, pairs: list[Pair], teacher: Path, cache: Path, on_progress: OnProgress
) -> npt.NDArray[Any]:
    """Run a teacher on the images of `pairs`, or map what an earlier call left.

    One map per image is enough for all its crops: a crop warps the map together with the image.
    A teacher is an ONNX file with one image input, and its map as the first output. The result has
    half of the input's sides. uint8 maps are in units of 1/255.

    Raises:
        ModelError: ONNX Runtime cannot run the teacher on such images.
        DatasetError: an image cannot be read.
    """
    io, size, dtype = TEACHERS[task]
    data = read_regular_file(teacher)
    parts = [sha256_hex(data), io.model_dump_json(), str(size), *(p.digest for p in pairs)]
    key = sha256_hex("\n".join(parts).encode())
    path, note = cache / f"teacher-{key[:16]}/maps.npy", cache / f"teacher-{key[:16]}/done.json"
    begin, n = int(note.read_text()) if note.exists() else 0, len(pairs)
    width, height = size
    shape = n, height // 2, width // 2
    maps = _create(path, shape, dtype, mode="r+" if begin else "w+")
    session = open_runtime_session(data, str(teacher), "cpu")
    source, answer = session.get_inputs()[0].name, session.get_outputs()[0].name
    failures = runtime_errors()

    def fill(i: int) -> None:
        image = read_image(pairs[i].image).resize(size, Image.Resampling.BILINEAR)
        planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
        try:
            y = session.run([answer], {source: prepare(planes, io)})[0]
        except failures as exc:
            raise ModelError(
                f"{teacher}: ONNX Runtime cannot run it on an image of {width}x{height} pixels",
                "use a model that takes one RGB image of that size",
            ) from exc
        if y.shape != (1, 1, height, width) or not (y.min() >= 0 and y.max() <= 1):
            raise ModelError(
                f"{teacher}: its first output has the shape {y.shape} and values from {y.min():g} to "
                f"{y.max():g}; the shape must be (1, 1, {height}, {width}), the values 0 to 1",
                "use a model whose first output is its saliency map",
            )
        halved = y.reshape(shape[1], 2, shape[2], 2).mean((1, 3))
        maps[i] = np.round(halved * 255) if dtype is np.uint8 else halved

    for done, _ in enumerate(map_in_threads(fill, range(begin, n), usable_cores()), begin + 1):
        if done % CHUNK == 0 or done == n:
            maps.flush()
            write_bytes(note, str(done).encode())
            on_progress(done, n)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
