"""Prepare the training material: decoded pictures, targets, maps of a teacher model, and a backbone.

`prepare_objects` reads image/mask pairs, and `prepare_gaze` reads fixation sets. These functions decode
each picture once into memory-mapped arrays in a cache folder, which is named by the digest of the data.
After an interruption, the next call reuses the arrays that are complete.
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

GAZE_GRID = (
    96,
    128,
)  # rows and columns of a gaze density; its blur, 3 % of the width, is 4 columns
CHUNK = 64  # pictures after which the progress of the teacher is saved

Task = Literal["objects", "gaze"]
OnProgress = Callable[[int, int], None]  # called with the number done and the total
OnStep = Callable[
    [str, int, int], None
]  # called with the name of a step, the number done and the total


@dataclass(frozen=True)
class Arrays:
    """Decoded pictures of a dataset, resized to squares of S pixels, and their targets.

    Attributes:
        names: names of the N pictures.
        images: uint8 (N, S, S, 3), RGB.
        targets: object masks, uint8 (N, S, S), 0 or 255 except for blended pixels at edges; or gaze
            densities, float16 (N, 96, 128), each divided by its maximum.
        aspect: float32 (N,), width / height of each picture.
        train: bool (N,), True for the training fold, False for the fold that selects the best epoch.
        digest: SHA-256 of the pictures and their targets in hex.
        facts: entries of the run record that describe the data.
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
    """All data of a training run.

    Attributes:
        task: the task of the recipes that can use the data.
        names: names of the datasets.
        arrays: pictures and targets.
        facts: entries of the run record that describe the data.
        teacher: saliency maps of the same pictures by a teacher, uint8 (N, h, w); or None.
        unlabelled: pictures with gaze densities by a teacher as targets; or None.
        backbone: file content of the pretrained encoder; or None.
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
    backbone: Path | None = None,
    on_step: OnStep = lambda part, done, total: None,
) -> TrainingMaterial:
    """Decode image/mask pairs, drop near-duplicates, run the teacher, and download the backbone.

    Args:
        recipe: a recipe for object masks.
        data: folders of datasets; of near-duplicates in several datasets, the first is kept.
        cache: folder for decoded pictures, the maps of the teacher and the backbone.
        without: folders of test sets; near-duplicates of test pictures are dropped.
        teacher: ONNX file of the teacher; used if `recipe.teacher` is above 0.
        backbone: local copy of the recipe's backbone; None = download it.
        on_step: called with the name of the step, the number of pictures done and their total.

    Raises:
        DatasetError: the data cannot be used.
        ModelError: ONNX Runtime cannot run the teacher.
        TrainingError: the local copy of the backbone is not the file that the recipe needs.
    """
    weights = None
    if recipe.backbone is not None:
        fetching = partial(on_step, "fetching the backbone")
        weights = fetch_backbone(recipe.backbone, cache, backbone, fetching)
    union = find_union(data, without, partial(on_step, "comparing pictures"))
    for name, twin in union.dropped:
        log.info("%s is left out: it is a near-duplicate of %s", name, twin)
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
    names = [root.stem for root in data]
    return TrainingMaterial("objects", names, arrays, facts, teacher=maps, backbone=weights)


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
    """Decode fixation sets, download the backbone, and run the teacher on unlabelled pictures.

    Args:
        recipe: a recipe for recorded gaze.
        data: folders of fixation sets of images.
        cache: folder for decoded pictures, the maps of the teacher and the backbone.
        backbone: local copy of the backbone; None = download it.
        unlabelled: folder of an image/mask set; the teacher predicts gaze for its pictures, and its
            masks are not used.
        teacher: ONNX file of a gaze model.
        on_step: called with the name of the step, the number of items done and their total.

    Raises:
        DatasetError: the data cannot be used.
        ModelError: ONNX Runtime cannot run the teacher.
        TrainingError: the local copy of the backbone is not the file that the recipe needs.
        UsageError: only one of `unlabelled` and `teacher` is given.
    """
    if (unlabelled is None) != (teacher is None):
        options = ["--unlabelled", "--teacher"]
        given, missing = options if teacher is None else options[::-1]
        raise UsageError(
            f"{given} is given without {missing}", "give both options, or neither of them"
        )
    weights = fetch_backbone(
        recipe.backbone, cache, backbone, partial(on_step, "fetching the backbone")
    )
    sets = [load_fixation_set(root, partial(on_step, f"checking {root.stem}")) for root in data]
    arrays = load_gaze_arrays(sets, recipe.store, cache, partial(on_step, "decoding pictures"))
    more, facts = None, arrays.facts
    if unlabelled is not None and teacher is not None:
        pairs = find_pairs(unlabelled)
        # The share of the selection fold (0.05) has no effect, since all unlabelled pictures are used.
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
    """Return whether a picture is in the selection fold; equal pictures are always in the same fold."""
    return int(digest[:8], 16) / 0xFFFFFFFF < share


def load_object_arrays(
    pairs: list[Pair], size: int, selection_share: float, cache: Path, on_progress: OnProgress
) -> Arrays:
    """Decode image/mask pairs into squares of `size` pixels, or open the arrays of an earlier call.

    Raises:
        DatasetError: a picture is unreadable or a single pixel, an image and its mask differ in size,
            all masks hold one class only, or a fold has no pictures.
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
            log.warning("%d masks are %s, first %s; they are kept", len(alike), kind, alike[0])
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
    """Decode pictures with recorded gaze (not the fold `report`), or open the arrays of an earlier call.

    Raises:
        DatasetError: a set holds videos, a picture is unreadable, or a fold has no pictures.
    """
    for s in sets:
        if s.kind != "images":
            raise DatasetError(
                f"{s.name} holds videos, but training needs images", "give fixation sets of images"
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
            # Blur at the aspect ratio of the picture, so that the blur is round; then resize.
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
            f"{len(train)} pictures leave a fold empty: the training fold and the fold that selects "
            "the epoch need at least one each",
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
    """Call `decode` for each index, store the picture that it returns, and return the other values."""
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


# Per task: preprocessing of the teacher, its input width and height, and the type of the stored maps.
# Objects: preprocessing of U-2-Net (Qin et al., 2020). Gaze: small densities need a float type.
TEACHERS = {
    "objects": (IoSpec(scale="max", multiple=1), (320, 320), np.uint8),
    "gaze": (IoSpec(multiple=1), (256, 192), np.float16),
}


def run_teacher(
    task: Task, pairs: list[Pair], teacher: Path, cache: Path, on_progress: OnProgress
) -> npt.NDArray[Any]:
    """Run a teacher on the images of `pairs`, or open the maps of an earlier call.

    The teacher is an ONNX file with one image input, whose first output is the saliency map. The stored
    maps have half the width and height of the input; uint8 maps are in units of 1/255. One map per
    image is enough, because training crops the map together with the image.

    Raises:
        ModelError: ONNX Runtime cannot run the teacher, or its first output is not a saliency map.
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
                f"{teacher}: ONNX Runtime cannot run this model on an image of {width}x{height} pixels",
                "use a model that takes one RGB image of that size",
            ) from exc
        if y.shape != (1, 1, height, width) or not (y.min() >= 0 and y.max() <= 1):
            raise ModelError(
                f"{teacher}: its first output has the shape {y.shape} and values from {y.min():g} to "
                f"{y.max():g}; expected the shape (1, 1, {height}, {width}) and values from 0 to 1",
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
