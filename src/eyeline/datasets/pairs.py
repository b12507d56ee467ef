"""Image/mask pairs: found, checked and read, for training and for evaluation alike.

A dataset is a folder, a .tar or a .zip that holds `images/` and `masks/`, or the folders that its
authors chose (`IMAGE_FOLDERS`, `MASK_FOLDERS`), at its top or inside one wrapping folder. Folders
below these are kept in the names: DAVIS has one for each video. Archives are read in place, nothing
is unpacked to disk.

Several datasets as one, without the pictures that they share.

A picture that two sets have in common, whether copied, scaled or compressed again, would count
twice in training, or leak from a test set into it. `find_union` keeps the first and names the rest.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
)
from eyeline.errors import DatasetError

# DUTS, DAVIS-2016, then other sets' own; in lower case, for any case is read. The first there is counts.
IMAGE_FOLDERS = (
    "images",
    "duts-tr-image",
    "duts-te-image",
    "jpegimages/480p",
    "image",
    "imgs",
    "img",
)
# ECSSD's second: its authors' archives unpack to `images` and `ground_truth_mask`.
MASK_FOLDERS = (
    "masks",
    "ground_truth_mask",
    "duts-tr-mask",
    "duts-te-mask",
    "annotations/480p",
    "mask",
    "gt",
)
MASK_THRESHOLD = 127  # a pixel is foreground above this value, as the sets' authors evaluate

# Pillow raises SyntaxError for broken PNG chunks and its own class for absurd sizes.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Pair:
    """One image and its ground-truth mask.

    Attributes:
        name: path inside the folder of images without suffix, unique in its dataset.
        image: where the image is.
        mask: where the mask is.
        digest: sha256 hex digest of the image file's bytes; decides the split in training.
    """

    name: str
    image: Source
    mask: Source
    digest: str


def find_pairs(root: Path) -> list[Pair]:
    """List the image/mask pairs of a dataset, sorted by name.

    Args:
        root: folder, .tar or .zip with `images/` + `masks/`, or a known set's own folder names.

    Raises:
        DatasetError: no such dataset, no pairs, an image without its mask (or the reverse), two
            files of one name, or bytes that can't be read.
    """
    found = find_files(
        root, (*IMAGE_FOLDERS, *MASK_FOLDERS), lambda path: has_suffix(path, IMAGE_SUFFIXES)
    )
    images, masks = (_under(root, found, names) for names in (IMAGE_FOLDERS, MASK_FOLDERS))
    lonely = sorted(images.keys() ^ masks.keys())
    if lonely:
        raise DatasetError(
            f"{root}: {len(lonely)} files without a partner, first {lonely[0]!r}",
            "every image needs a mask of the same name",
        )
    return [Pair(n, images[n], masks[n], file_digest(images[n])) for n in sorted(images)]


def _under(
    root: Path, found: list[tuple[PurePosixPath, Source]], folders: tuple[str, ...]
) -> dict[str, Source]:
    under = files_under(root, found, folders)
    if under is None:
        raise DatasetError(
            f"{root}: no pictures in a folder named {' or '.join(folders)}",
            f"suffixes read: {', '.join(IMAGE_SUFFIXES)}",
        )
    return under[1]


def _open(source: Source) -> Image.Image:
    return Image.open(source if isinstance(source, Path) else io.BytesIO(source.read_bytes()))


def _unreadable(source: Source, kind: str, exc: Exception) -> DatasetError:
    reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "not a whole picture"
    return DatasetError(f"{source}: unreadable {kind}: {reason}", "replace or remove the pair")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits by its upper byte: Pillow's own conversion would clip it."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    return image


def read_image(source: Source) -> Image.Image:
    """Open an image as upright 8-bit RGB: EXIF rotation applied, alpha dropped, CMYK converted.

    Raises:
        DatasetError: unreadable or truncated file.
    """
    try:
        with _open(source) as image:
            return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except _UNREADABLE as exc:
        raise _unreadable(source, "image", exc) from exc


def read_mask(source: Source) -> Image.Image:
    """Open a mask as upright 8-bit grey holding only 0 and 255, split at `MASK_THRESHOLD`.

    Raises:
        DatasetError: unreadable or truncated file.
    """
    try:
        with _open(source) as image:
            grey = _eight_bits(ImageOps.exif_transpose(image)).convert("L")
            return grey.point(lambda v: 255 if v > MASK_THRESHOLD else 0)
    except _UNREADABLE as exc:
        raise _unreadable(source, "mask", exc) from exc


def upright_size(source: Source) -> tuple[int, int]:
    """(width, height) of a picture as it is shown, from its header.

    Raises:
        DatasetError: unreadable header.
    """
    quarter_turns = (5, 6, 7, 8)  # values of the EXIF tag Orientation that swap the sides
    try:
        with _open(source) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112) in quarter_turns
    except _UNREADABLE as exc:
        raise _unreadable(source, "image", exc) from exc
    return (height, width) if turned else (width, height)


def check_sizes(pairs: Iterable[Pair]) -> None:
    """Compare the sizes of every image and its mask, from their headers.

    Raises:
        DatasetError: pairs that differ, or that are a single pixel, counted, the first one named;
            or an unreadable header.
    """
    wrong: list[str] = []
    single: list[str] = []
    for pair in pairs:
        image, mask = upright_size(pair.image), upright_size(pair.mask)
        if image != mask:
            wrong.append(f"{pair.name}: image {image[0]}x{image[1]}, mask {mask[0]}x{mask[1]}")
        elif image == (1, 1):
            single.append(pair.name)
    if single:
        raise DatasetError(
            f"{len(single)} images are a single pixel, first {single[0]}", "remove the pairs"
        )
    if wrong:
        raise DatasetError(
            f"{len(wrong)} masks differ from their image in size, first {wrong[0]}",
            "fix or remove the pairs",
        )


HASH_SIDE = 16  # 16 x 16 comparisons = 256 bits
NEAR = 28
"""Bits that may differ between two versions of one picture. Measured on 300 images of ECSSD scaled to
288 and compressed as WebP at quality 60: 7 in the median, 27 at most; the nearest of 10,553 unrelated
pictures differs in 36 or more (1,000 images)."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Union:
    """Pairs of several datasets.

    Attributes:
        pairs: what is kept; with several sets, names begin with the set's name.
        dropped: (name of the pair left out, name of the picture that it repeats).
    """

    pairs: list[Pair]
    dropped: list[tuple[str, str]]


def difference_hash(image: Image.Image) -> Hashes:
    """Signs of horizontal differences of a 17 x 16 thumbnail, uint64 (4,).

    The dHash of N. Krawetz, "Kind of Like That" (hackerfactor.com, 2013), at 16 in place of 8 lines.
    """
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def find_union(
    roots: Sequence[Path],
    without: Sequence[Path] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Union:
    """The pairs of all `roots`, in order, less near-duplicates of an earlier set.

    One set alone is returned as it stands: its own duplicates share a fold and do no harm.

    Args:
        roots: datasets, see `eyeline.datasets.pairs.find_pairs`.
        without: datasets that are kept apart for testing: what resembles one of their pictures is
            dropped as well.
        on_progress: called with pictures compared and in all.

    Raises:
        DatasetError: see `find_pairs`; two sets of one name; or nothing is left.
    """
    sets = [find_pairs(root) for root in roots]
    if len(sets) == 1 and not without:
        return Union(sets[0], [])
    names = [root.stem for root in roots]
    if len(set(names)) < len(names):
        raise DatasetError(f"two datasets are named {names[-1]}", "rename one of the folders")
    apart = [find_pairs(root) for root in without]
    total = sum(map(len, sets)) + sum(map(len, apart))
    done = 0
    seen: Hashes = np.empty((0, 4), np.uint64)
    seen_names: list[str] = []

    def remember(prefix: str, pairs: list[Pair], hashes: Hashes) -> None:
        nonlocal seen
        seen = np.concatenate([seen, hashes])
        seen_names.extend(f"{prefix}/{p.name}" for p in pairs)

    def hashes_of(pairs: list[Pair]) -> Hashes:
        nonlocal done
        rows = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for row in pool.map(lambda p: difference_hash(read_image(p.image)), pairs):
                rows.append(row)
                done += 1
                on_progress(done, total)
        return np.array(rows, np.uint64).reshape(-1, 4)

    for root, pairs in zip(without, apart, strict=True):
        remember(root.stem, pairs, hashes_of(pairs))
    kept: list[Pair] = []
    dropped: list[tuple[str, str]] = []
    for name, pairs in zip(names, sets, strict=True):
        hashes = hashes_of(pairs)
        twin = [_twin(h, seen) for h in hashes]
        dropped += [
            (f"{name}/{p.name}", seen_names[t]) for p, t in zip(pairs, twin, strict=True) if t >= 0
        ]
        own = [p for p, t in zip(pairs, twin, strict=True) if t < 0]
        remember(name, own, hashes[[t < 0 for t in twin]])
        kept += [replace(p, name=f"{name}/{p.name}") for p in own] if len(sets) > 1 else own
    if not kept:
        raise DatasetError(
            f"{', '.join(names)}: every picture repeats one that is kept apart", "name other sets"
        )
    return Union(kept, dropped)


def _twin(one: Hashes, others: Hashes) -> int:
    """Index of the nearest of `others` within `NEAR` bits, or -1."""
    if not len(others):
        return -1
    distances = np.bitwise_count(others ^ one).sum(1)
    nearest = int(distances.argmin())
    return nearest if distances[nearest] <= NEAR else -1
