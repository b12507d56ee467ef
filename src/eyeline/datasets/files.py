"""Files of a dataset: found in a folder, .tar or .zip, and read where they are.

A dataset holds folders of known names, at its top or inside one wrapping folder. Archives are read
in place; only a reader that needs a path, such as a video decoder, gets a temporary copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from eyeline.errors import DatasetError
from eyeline.files import output_error

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

MAX_BYTES = 2**29
"""Largest file that is read into memory: a larger picture or table is a mistake, or a bomb."""

_BLOCK = 1 << 20


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
        """Return the file's bytes.

        Raises:
            OSError: the archive can't be read, ends too early, or the file exceeds `MAX_BYTES`.
        """
        return _joined(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """Yield the file's bytes in blocks of at most 1 MiB.

        Raises:
            OSError: the archive can't be read, or ends too early.
        """
        unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        left = self.size
        with self.archive.open("rb") as f:
            f.seek(self.offset)
            if self.method is not None:
                header = f.read(30)  # PKZIP APPNOTE 4.3.7; its last four bytes are two lengths
                f.seek(int.from_bytes(header[26:28], "little"), io.SEEK_CUR)
                f.seek(int.from_bytes(header[28:30], "little"), io.SEEK_CUR)
            while left:
                block = f.read(min(_BLOCK, left))
                if not block:
                    raise OSError(None, "the archive ends in the middle of it")
                left -= len(block)
                if self.method != zipfile.ZIP_DEFLATED:
                    yield block
                    continue
                try:
                    while block:
                        yield unpack.decompress(block, _BLOCK)
                        block = unpack.unconsumed_tail
                    if not left:
                        yield unpack.flush()
                except zlib.error as exc:
                    raise OSError(None, f"damaged in the archive: {exc}") from exc
        if self.method == zipfile.ZIP_DEFLATED and not unpack.eof:
            raise OSError(None, "damaged in the archive: its data are incomplete")


Source = Path | Member
"""Where a file is."""


def find_files(
    root: Path,
    folders: Iterable[str],
    wanted: Callable[[PurePosixPath], bool],
    beside: Iterable[str] = (),
) -> list[tuple[PurePosixPath, Source]]:
    """List a dataset's files with their paths in it.

    Args:
        root: folder, .tar or .zip.
        folders: names of the folders to look in, lower case; of an archive all files are listed.
        wanted: whether a path is of interest.
        beside: names of files, lower case, that stand beside these folders.

    Raises:
        DatasetError: no such dataset, or an archive that cannot be read or whose names lead out of
            it.
    """
    found: list[tuple[PurePosixPath, Source]] = []
    if root.is_dir():
        inner = [p for p in sorted(root.iterdir()) if p.is_dir()]
        for top in (root, *inner):
            inside = [f for name in folders for f in _folders_named(top, name)]
            paths = [p for f in inside for p in sorted(f.rglob("*"))]
            paths += [p for p in sorted(_listed(top)) if p.name.lower() in beside]
            relative = [(PurePosixPath(p.relative_to(root).as_posix()), p) for p in paths]
            found += [(place, path) for place, path in relative if wanted(place)]
        return found
    if not root.exists():
        raise DatasetError(f"{root}: no such dataset", "name a folder, a .tar or a .zip")
    members = _zip_members(root) if root.suffix.lower() == ".zip" else _tar_members(root)
    for member in members:
        place = PurePosixPath(member.name)
        if ".." in place.parts:
            raise DatasetError(f"{member}: its name leads out of the archive", "pack it again")
        if wanted(place):
            found.append((place, member))
    return found


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


def has_suffix(path: Path | PurePosixPath, suffixes: tuple[str, ...]) -> bool:
    """Return whether a visible file's name ends in one of these suffixes, in any case."""
    # macOS puts "._name.jpg" beside name.jpg in archives: no picture.
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


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


def files_under(
    root: Path, found: list[tuple[PurePosixPath, Source]], folders: Iterable[str]
) -> tuple[PurePosixPath, dict[str, Source]] | None:
    """Return the files in the first folder of these names, by their path in it without suffix.

    The folder may stand at the top or in one wrapping folder.

    Args:
        root: the dataset, named in errors.
        found: from `find_files`, without files of other kinds.
        folders: names in lower case, the preferred one first.

    Returns:
        The folder that holds the named one (`.` or the wrapping folder), and the files; None where
        there are none.

    Raises:
        DatasetError: several wrapping folders hold such a folder, or two files have one name.
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
            count = Counter(_stem(parts[below:]) for parts, _ in inside)
            name, times = count.most_common(1)[0]
            if times > 1:
                raise DatasetError(
                    f"{root}: two files are named {name!r} in {folder}", "keep one of them"
                )
            return PurePosixPath(*wrappers[0]), {_stem(p[below:]): s for p, s in inside}
    return None


def _stem(parts: tuple[str, ...]) -> str:
    return PurePosixPath(*parts).with_suffix("").as_posix()


def unreadable_file(source: Source, exc: OSError) -> DatasetError:
    """Return the error for a file whose bytes cannot be read."""
    return DatasetError(f"{source}: can't be read: {exc.strerror}", "check that it is whole")


def read_bytes(source: Source) -> bytes:
    """Return a file's bytes.

    Raises:
        DatasetError: it cannot be read, or has more than `MAX_BYTES`.
    """
    try:
        return _joined(_blocks(source))
    except OSError as exc:
        raise unreadable_file(source, exc) from exc


def file_digest(source: Source) -> str:
    """Return the sha256 hex digest of a file's bytes, read in blocks.

    Raises:
        DatasetError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for block in _blocks(source):
            digest.update(block)
    except OSError as exc:
        raise unreadable_file(source, exc) from exc
    return digest.hexdigest()


def _blocks(source: Source) -> Iterator[bytes]:
    if isinstance(source, Member):
        yield from source.blocks()
        return
    with source.open("rb") as f:
        while block := f.read(_BLOCK):
            yield block


def _joined(blocks: Iterable[bytes]) -> bytes:
    kept = bytearray()
    for block in blocks:
        kept += block
        if len(kept) > MAX_BYTES:
            raise OSError(None, f"it has more than {MAX_BYTES:,} bytes")
    return bytes(kept)


def copy_file(source: Source, target: Path) -> None:
    """Copy a file's bytes.

    Raises:
        DatasetError: it cannot be read.
        OutputError: the copy cannot be written.
    """
    blocks = _blocks(source)
    try:
        with target.open("wb") as f:
            while (block := _next(source, blocks)) is not None:
                f.write(block)
    except OSError as exc:
        raise output_error(target, exc) from exc


def _next(source: Source, blocks: Iterator[bytes]) -> bytes | None:
    try:
        return next(blocks, None)
    except OSError as exc:
        raise unreadable_file(source, exc) from exc


@contextlib.contextmanager
def local_path(source: Source) -> Iterator[Path]:
    """Give a path to a file: its own, or that of a temporary copy of an archive's member.

    Args:
        source: where the file is.

    Yields:
        A path with the file's suffix; a temporary copy is removed when the block ends.

    Raises:
        DatasetError: the member cannot be read.
        OutputError: the temporary copy cannot be written.
    """
    if isinstance(source, Path):
        yield source
        return
    suffix = PurePosixPath(source.name).suffix
    with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
        copy = Path(folder) / f"{PurePosixPath(source.name).stem[:100]}{suffix}"
        copy_file(source, copy)
        yield copy
