"""Find, check and read image/mask pairs, for training and for evaluation.

A dataset is a folder, a .tar or a .zip that holds `images/` and `masks/`, or the folders that its
authors chose (`IMAGE_FOLDERS`, `MASK_FOLDERS`), at its top or inside one wrapping folder. Folders below
these are kept in the names: DAVIS has one for each video. Archives are read in place.

A picture that two sets have in common, whether copied, scaled or compressed again, would count twice in
training, or leak from a test set into it. `find_union` keeps the first one and names the others.
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

# Lower case, for any case is read; the first existing one counts.
IMAGE_FOLDERS = (
    *("images", "duts-tr-image", "duts-te-image"),
    *("jpegimages/480p", "image", "imgs", "img"),  # DAVIS-2016 first
)
MASK_FOLDERS = (
    *("masks", "ground_truth_mask", "duts-tr-mask", "duts-te-mask"),  # ECSSD's authors' is second
    *("annotations/480p", "mask", "gt"),
)
MASK_THRESHOLD = 127
"""A pixel is foreground above this value, as the sets' authors evaluate."""

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
        DatasetError: there is no such dataset, it has no pairs, an image has no mask (or the reverse),
            two files have one name, or a file cannot be read.
    """
    found = find_files(
        root, (*IMAGE_FOLDERS, *MASK_FOLDERS), lambda path: has_suffix(path, IMAGE_SUFFIXES)
    )
    images, masks = (_under(root, found, names) for names in (IMAGE_FOLDERS, MASK_FOLDERS))
    lonely = sorted(images.keys() ^ masks.keys())
    if lonely:
        raise DatasetError(
            f"{root}: {len(lonely)} files without a partner, first {lonely[0]!r}",
            "give every image a mask of the same name",
        )
    return [Pair(n, images[n], masks[n], file_digest(images[n])) for n in sorted(images)]


def _under(
    root: Path, found: list[tuple[PurePosixPath, Source]], folders: tuple[str, ...]
) -> dict[str, Source]:
    under = files_under(root, found, folders)
    if under is None:
        raise DatasetError(
            f"{root}: no pictures in a folder named {' or '.join(folders)}",
            f"supported suffixes: {', '.join(IMAGE_SUFFIXES)}",
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
            exc.strerror if isinstance(exc, OSError) and exc.strerror else "not a whole picture"
        )
        raise DatasetError(
            f"{source}: unreadable {kind}: {reason}", "replace or remove the file"
        ) from exc


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduce 16-bit grey to its upper byte: Pillow's own conversion would clip it."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    return image


def read_image(source: Source) -> Image.Image:
    """Return an image as upright 8-bit RGB: EXIF rotation applied, alpha dropped, CMYK converted.

    Raises:
        DatasetError: the file is unreadable or truncated.
    """
    with _open(source, "image") as image:
        return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")


def read_mask(source: Source) -> Image.Image:
    """Return a mask as upright 8-bit grey with only 0 and 255, split at `MASK_THRESHOLD`.

    Raises:
        DatasetError: the file is unreadable or truncated.
    """
    with _open(source, "mask") as image:
        grey = _eight_bits(ImageOps.exif_transpose(image)).convert("L")
        return grey.point(lambda v: 255 if v > MASK_THRESHOLD else 0)


def upright_size(source: Source) -> tuple[int, int]:
    """Return (width, height) of a picture as it is shown, from its header.

    Raises:
        DatasetError: the header is unreadable.
    """
    with _open(source, "image") as image:
        width, height = image.size
        quarter_turn = image.getexif().get(0x0112) in (5, 6, 7, 8)  # EXIF Orientation
    return (height, width) if quarter_turn else (width, height)


def check_sizes(pairs: Iterable[Pair]) -> None:
    """Compare the sizes of every image and its mask, from their headers.

    Raises:
        DatasetError: pairs differ in size, or are a single pixel; or a header is unreadable.
    """
    wrong: list[str] = []
    single: list[str] = []
    for pair in pairs:
        image, mask = upright_size(pair.image), upright_size(pair.mask)
        if image != mask:
            wrong.append(f"{pair.name}: image {image[0]}x{image[1]}, mask {mask[0]}x{mask[1]}")
        elif image == (1, 1):
            single.append(pair.name)
    hint = "fix or remove these pairs"
    if single:
        raise DatasetError(f"{len(single)} images are a single pixel, first {single[0]}", hint)
    if wrong:
        raise DatasetError(
            f"{len(wrong)} masks differ from their image in size, first {wrong[0]}", hint
        )


HASH_SIDE = 16  # 16 x 16 comparisons = 256 bits
NEAR = 28
"""Most different bits of two versions of one picture. Measured on 300 images of ECSSD scaled to 288 and
compressed as WebP at quality 60: 7 in the median, 27 at most; the nearest of 10,553 unrelated pictures
differs in 36 or more (1,000 images)."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Union:
    """Pairs of several datasets.

    Attributes:
        pairs: the pairs to use; with several sets, names begin with the set's name.
        dropped: (name of the pair left out, name of the picture that it repeats).
    """

    pairs: list[Pair]
    dropped: list[tuple[str, str]]


def difference_hash(image: Image.Image) -> Hashes:
    """Return the signs of horizontal differences of a 17 x 16 thumbnail, uint64 (4,).

    The dHash of N. Krawetz, "Kind of Like That" (hackerfactor.com, 2013), with 16 lines instead of 8.
    """
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def find_union(
    roots: Sequence[Path],
    without: Sequence[Path] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Union:
    """Return the pairs of all `roots`, in order, without near-duplicates of an earlier set.

    One set alone is returned as it is: its own duplicates share a fold and do no harm.

    Args:
        roots: datasets, see `find_pairs`.
        without: datasets for testing: a picture that resembles one of theirs is dropped, too.
        on_progress: called with pictures compared and in all.

    Raises:
        DatasetError: see `find_pairs`; two sets have one name; or no pair is left.
    """
    sets = [find_pairs(root) for root in roots]
    if len(sets) == 1 and not without:
        return Union(sets[0], [])
    names = [root.stem for root in roots]
    if len(set(names)) < len(names):
        raise DatasetError(f"two datasets are named {names[-1]}", "rename one of the folders")
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
        # Only now: duplicates within a set are kept.
        seen = np.concatenate([seen, np.array(rows, np.uint64).reshape(-1, 4)])
        seen_names += own
    if not kept:
        raise DatasetError(
            f"{', '.join(names)}: every picture repeats one of the sets that are kept apart",
            "give other sets",
        )
    return Union(kept, dropped)


def _twin(one: Hashes, others: Hashes) -> int | None:
    """Return the index of the nearest of `others` within `NEAR` bits."""
    if not len(others):
        return None
    distances = np.bitwise_count(others ^ one).sum(1)
    nearest = int(distances.argmin())
    return nearest if distances[nearest] <= NEAR else None
