"""Find, check and read image/mask pairs, for training and for evaluation.

A dataset is a folder, a .tar or a .zip with the subfolders `images/` and `masks/`, or with the subfolders
of a known dataset (`IMAGE_FOLDERS`, `MASK_FOLDERS`), at the top level or inside a single top-level folder.
The name of a pair includes the folders below `images/`, because DAVIS has one folder per video. Archives
are not unpacked.

Two datasets can contain the same picture, copied, scaled or compressed again. Such a picture would count
twice in training, or leak from a test set into training. `find_union` keeps the first copy and reports
the others.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from eyeline.datasets.files import (
    IMAGE_SUFFIXES,
    Source,
    file_digest,
    files_under,
    find_files,
    has_suffix,
    read_bytes,
)
from eyeline.errors import DatasetError
from eyeline.parallel import map_in_threads, usable_cores

# Folders in order of preference, in lower case; they are matched in any case.
IMAGE_FOLDERS = (
    *("images", "duts-tr-image", "duts-te-image"),
    *("jpegimages/480p", "image", "imgs", "img"),  # DAVIS-2016 first
)
MASK_FOLDERS = (
    *("masks", "ground_truth_mask", "duts-tr-mask", "duts-te-mask"),  # "ground_truth_mask": ECSSD
    *("annotations/480p", "mask", "gt"),
)
MASK_THRESHOLD = 127
"""Mask pixels above this value are foreground, as in the evaluation code of the datasets' authors."""

# Pillow raises SyntaxError for broken PNG chunks and DecompressionBombError for huge images.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Pair:
    """One image and its ground-truth mask.

    Attributes:
        name: path of the image below the image folder, without suffix; unique in the dataset.
        image: location of the image file.
        mask: location of the mask file.
        digest: SHA-256 hex digest of the image file; training derives the data split from it.
    """

    name: str
    image: Source
    mask: Source
    digest: str


def find_pairs(root: Path) -> list[Pair]:
    """List the image/mask pairs of a dataset, sorted by name.

    Args:
        root: folder, .tar or .zip in a layout that the module's docstring describes.

    Raises:
        DatasetError: the dataset does not exist, it has no pairs, an image has no mask, a mask has no
            image, two files have the same name, or a file cannot be read.
    """
    found = find_files(
        root, (*IMAGE_FOLDERS, *MASK_FOLDERS), lambda path: has_suffix(path, IMAGE_SUFFIXES)
    )
    images, masks = (_under(root, found, names) for names in (IMAGE_FOLDERS, MASK_FOLDERS))
    lonely = sorted(images.keys() ^ masks.keys())
    if lonely:
        raise DatasetError(
            f"{root}: {len(lonely)} images or masks have no counterpart, the first is {lonely[0]!r}",
            "give every image a mask of the same name, and every mask an image",
        )
    return [Pair(n, images[n], masks[n], file_digest(images[n])) for n in sorted(images)]


def _under(
    root: Path, found: list[tuple[PurePosixPath, Source]], folders: tuple[str, ...]
) -> dict[str, Source]:
    under = files_under(root, found, folders)
    if under is None:
        raise DatasetError(
            f"{root}: has no pictures in a folder named {' or '.join(folders)}",
            f"give files with one of the suffixes {', '.join(IMAGE_SUFFIXES)}",
        )
    return under[1]


@contextlib.contextmanager
def _open(source: Source, kind: str) -> Iterator[Image.Image]:
    file = source if isinstance(source, Path) else io.BytesIO(read_bytes(source))
    try:
        with Image.open(file) as image:
            yield image
    except _UNREADABLE as exc:
        reason = (
            exc.strerror if isinstance(exc, OSError) and exc.strerror else "damaged or incomplete"
        )
        raise DatasetError(
            f"{source}: unreadable {kind}: {reason}", "replace or remove the file"
        ) from exc


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8 bits by its upper byte, because Pillow's conversion clips values."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    return image


def read_image(source: Source) -> Image.Image:
    """Return an image as 8-bit RGB, with the EXIF rotation applied and without an alpha channel.

    Raises:
        DatasetError: the file is unreadable or truncated.
    """
    with _open(source, "image") as image:
        return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")


def read_mask(source: Source) -> Image.Image:
    """Return a mask as 8-bit grey, 255 above `MASK_THRESHOLD`, else 0, with the EXIF rotation applied.

    Raises:
        DatasetError: the file is unreadable or truncated.
    """
    with _open(source, "mask") as image:
        grey = _eight_bits(ImageOps.exif_transpose(image)).convert("L")
        return grey.point(lambda v: 255 if v > MASK_THRESHOLD else 0)


def upright_size(source: Source) -> tuple[int, int]:
    """Return (width, height) of a picture from its header, with the EXIF rotation applied.

    Raises:
        DatasetError: the header is unreadable.
    """
    with _open(source, "image") as image:
        width, height = image.size
        quarter_turn = image.getexif().get(0x0112) in (5, 6, 7, 8)  # EXIF Orientation
    return (height, width) if quarter_turn else (width, height)


def check_sizes(pairs: Iterable[Pair]) -> None:
    """Check that every image is as large as its mask; only the file headers are read.

    Raises:
        DatasetError: an image and its mask differ in size or have a single pixel, or a header is
            unreadable.
    """
    wrong: list[str] = []
    single: list[str] = []
    for pair in pairs:
        image, mask = upright_size(pair.image), upright_size(pair.mask)
        if image != mask:
            wrong.append(f"{pair.name}: image {image[0]}x{image[1]}, mask {mask[0]}x{mask[1]}")
        elif image == (1, 1):
            single.append(pair.name)
    hint = "replace or remove these pairs"
    if single:
        raise DatasetError(
            f"{len(single)} images have a single pixel, the first is {single[0]}", hint
        )
    if wrong:
        raise DatasetError(
            f"{len(wrong)} masks differ in size from their image, the first is {wrong[0]}", hint
        )


HASH_SIDE = 16  # 16 x 16 comparisons = 256 bits
NEAR = 28
"""Pictures whose hashes differ in at most this number of bits count as duplicates. Measured: 300 images of
ECSSD differ from their copies at 288 pixels and WebP quality 60 in 7 bits (median) and at most 27 bits;
1,000 images differ from the nearest of 10,553 unrelated pictures in at least 36 bits."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Union:
    """Pairs of several datasets.

    Attributes:
        pairs: the pairs to use; with several datasets, their names begin with the name of the dataset.
        dropped: pairs that were left out, each as (name, name of the picture that it duplicates).
    """

    pairs: list[Pair]
    dropped: list[tuple[str, str]]


def difference_hash(image: Image.Image) -> Hashes:
    """Return the dHash of an image, uint64 (4,): signs of horizontal differences of a 17 x 16 thumbnail.

    Krawetz, "Kind of Like That" (hackerfactor.com, 2013); his thumbnail is 9 x 8.
    """
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def find_union(
    roots: Sequence[Path],
    without: Sequence[Path] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Union:
    """Return the pairs of all datasets in `roots`, without near-duplicates of pictures in earlier datasets.

    Duplicates within a dataset are kept.

    Args:
        roots: folders or archives that `find_pairs` reads.
        without: test datasets; near-duplicates of their pictures are left out, too.
        on_progress: called with the number of pictures compared and the total.

    Raises:
        DatasetError: a dataset cannot be read, two datasets have the same name, or no pair is left.
    """
    sets = [find_pairs(root) for root in roots]
    if len(sets) == 1 and not without:
        return Union(sets[0], [])
    names = [root.stem for root in roots]
    if len(set(names)) < len(names):
        raise DatasetError(f"two datasets have the name {names[-1]}", "rename one of the folders")
    apart = [find_pairs(root) for root in without]
    every = [pair for pairs in (*apart, *sets) for pair in pairs]
    hashes: Iterator[Hashes] = map_in_threads(
        lambda p: difference_hash(read_image(p.image)), every, usable_cores()
    )
    seen: Hashes = np.empty((0, 4), np.uint64)
    seen_names: list[str] = []
    kept: list[Pair] = []
    dropped: list[tuple[str, str]] = []
    done = 0
    for number, (root, pairs) in enumerate(zip((*without, *roots), (*apart, *sets), strict=True)):
        rows: list[Hashes] = []
        own: list[str] = []
        for pair in pairs:
            name, row = f"{root.stem}/{pair.name}", next(hashes)
            done += 1
            on_progress(done, len(every))
            twin = _twin(row, seen) if number >= len(apart) else None
            if twin is not None:
                dropped.append((name, seen_names[twin]))
                continue
            rows.append(row)
            own.append(name)
            if number >= len(apart):
                kept.append(replace(pair, name=name) if len(sets) > 1 else pair)
        # The hashes are appended after the whole dataset, so duplicates within a dataset are kept.
        seen = np.concatenate([seen, np.array(rows, np.uint64).reshape(-1, 4)])
        seen_names += own
    if not kept:
        raise DatasetError(
            f"{', '.join(names)}: every picture duplicates a picture of the test datasets",
            "train on other datasets, or exclude fewer test datasets",
        )
    return Union(kept, dropped)


def _twin(one: Hashes, others: Hashes) -> int | None:
    """Return the index of the nearest hash in `others` if it differs in at most `NEAR` bits."""
    if not len(others):
        return None
    distances = np.bitwise_count(others ^ one).sum(1)
    nearest = int(distances.argmin())
    return nearest if distances[nearest] <= NEAR else None
