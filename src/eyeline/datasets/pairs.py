"""Image/mask pairs: found, checked and read, for training and for evaluation alike.

A dataset is a folder, a .tar or a .zip that holds `images/` and `masks/`, or the folders that its
authors chose (`IMAGE_FOLDERS`, `MASK_FOLDERS`), at its top or inside one wrapping folder. Folders
below these are kept in the names: DAVIS has one for each video. Archives are read in place, nothing
is unpacked to disk.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from eyeline.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
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
class Member:
    """A file inside an uncompressed .tar or a .zip: where its bytes are.

    Attributes:
        archive: the archive's path.
        name: path in the archive.
        offset: of the data in a .tar, of the local header in a .zip; bytes.
        size: bytes in the archive.
        method: None for a .tar; 0 (stored) or 8 (deflate) for a .zip.
    """

    archive: Path
    name: str
    offset: int
    size: int
    method: int | None = None

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"

    def read_bytes(self) -> bytes:
        """The file's bytes.

        Raises:
            OSError: the archive can't be read, or ends too early.
        """
        with self.archive.open("rb") as f:
            f.seek(self.offset)
            if self.method is not None:
                header = f.read(30)  # PKZIP APPNOTE 4.3.7; its last four bytes are two lengths
                f.seek(int.from_bytes(header[26:28], "little"), io.SEEK_CUR)
                f.seek(int.from_bytes(header[28:30], "little"), io.SEEK_CUR)
            data = f.read(self.size)
        if len(data) != self.size:
            raise OSError(None, "the archive ends in the middle of it")
        if self.method == zipfile.ZIP_DEFLATED:
            try:
                return zlib.decompress(data, -zlib.MAX_WBITS)
            except zlib.error as exc:
                raise OSError(None, f"damaged in the archive: {exc}") from exc
        return data


Source = Path | Member
"""Where a picture is."""


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
    found = list(_pictures(root))
    images = _under(root, found, IMAGE_FOLDERS)
    masks = _under(root, found, MASK_FOLDERS)
    lonely = sorted(images.keys() ^ masks.keys())
    if lonely:
        raise DatasetError(
            f"{root}: {len(lonely)} files without a partner, first {lonely[0]!r}",
            "every image needs a mask of the same name",
        )
    return [Pair(n, images[n], masks[n], file_digest(images[n])) for n in sorted(images)]


def _pictures(root: Path) -> Iterator[tuple[PurePosixPath, Source]]:
    """Every picture of a dataset with its path in it."""
    if root.is_dir():
        inner = [p for p in sorted(root.iterdir()) if p.is_dir()]
        for top in (root, *inner):
            for name in (*IMAGE_FOLDERS, *MASK_FOLDERS):
                for folder in _folders_named(top, name):
                    for path in sorted(folder.rglob("*")):
                        if _is_picture(path):
                            yield PurePosixPath(path.relative_to(root).as_posix()), path
        return
    if not root.exists():
        raise DatasetError(f"{root}: no such dataset", "name a folder, a .tar or a .zip")
    members = _zip_members(root) if root.suffix.lower() == ".zip" else _tar_members(root)
    for member in members:
        place = PurePosixPath(member.name)
        if _is_picture(place):
            yield place, member


def _folders_named(top: Path, name: str) -> list[Path]:
    """Folders below `top` whose relative path is `name` in any case."""
    found = [top]
    for part in name.split("/"):
        found = [p for f in found for p in _listed(f) if p.name.lower() == part and p.is_dir()]
    return sorted(found)


def _listed(folder: Path) -> list[Path]:
    """What a folder holds; nothing where it may not be listed, as a disk's `lost+found`."""
    try:
        return list(folder.iterdir())
    except PermissionError:
        return []


def _is_picture(path: Path | PurePosixPath) -> bool:
    # macOS puts "._name.jpg" beside name.jpg in archives: no picture.
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _tar_members(path: Path) -> list[Member]:
    try:
        # "r:" takes plain .tar alone: a compressed one has no offsets to read from.
        with tarfile.open(path, "r:") as archive:
            return [Member(path, m.name, m.offset_data, m.size) for m in archive if m.isreg()]
    except (OSError, tarfile.TarError) as exc:
        raise DatasetError(
            f"{path}: neither a folder nor a readable .tar or .zip: {exc}",
            "unpack a compressed .tar first",
        ) from exc


def _zip_members(path: Path) -> list[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [i for i in archive.infolist() if not i.is_dir()]
    except (OSError, zipfile.BadZipFile) as exc:
        raise DatasetError(f"{path}: not a readable .zip: {exc}", "is it whole?") from exc
    for info in infos:
        known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not known or info.flag_bits & 1:
            raise DatasetError(
                f"{path}: {info.filename} is encrypted, or packed in a rare way", "unpack it first"
            )
    return [
        Member(path, i.filename, i.header_offset, i.compress_size, i.compress_type) for i in infos
    ]


def _under(
    root: Path, found: list[tuple[PurePosixPath, Source]], folders: Iterable[str]
) -> dict[str, Source]:
    """The pictures in the first folder of these names, by their path in it without suffix.

    The folder may stand at the top or in one wrapping folder.
    """
    for depth in (0, 1):
        for folder in folders:
            below = depth + 1 + folder.count("/")
            inside = [
                (path.parts, source)
                for path, source in found
                if len(path.parts) > below and "/".join(path.parts[depth:below]).lower() == folder
            ]
            if not inside:
                continue
            wrappers = sorted({parts[:depth] for parts, _ in inside})
            if len(wrappers) > 1:
                raise DatasetError(
                    f"{root}: holds several datasets: {', '.join('/'.join(w) for w in wrappers)}",
                    "name one of them",
                )
            names = {
                PurePosixPath(*parts[below:]).with_suffix("").as_posix(): source
                for parts, source in inside
            }
            if len(names) < len(inside):
                count = Counter(
                    PurePosixPath(*p[below:]).with_suffix("").as_posix() for p, _ in inside
                )
                raise DatasetError(
                    f"{root}: two files are named {count.most_common(1)[0][0]!r} in {folder}",
                    "keep one of them",
                )
            return names
    raise DatasetError(
        f"{root}: no pictures in a folder named {' or '.join(folders)}",
        f"suffixes read: {', '.join(IMAGE_SUFFIXES)}",
    )


def file_digest(source: Source) -> str:
    """sha256 hex digest of a file's bytes.

    Raises:
        DatasetError: it can't be read.
    """
    try:
        return hashlib.sha256(source.read_bytes()).hexdigest()
    except OSError as exc:
        raise DatasetError(f"{source}: can't be read: {exc.strerror}", "is it whole?") from exc


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
