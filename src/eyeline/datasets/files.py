"""Find the files of a dataset in a folder, .tar or .zip, and read them without unpacking.

A dataset has folders with known names, at its top level or inside a single top-level folder. A reader
that needs a path, such as a video decoder, gets a temporary copy of the file in the archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from eyeline.errors import DatasetError
from eyeline.files import output_error

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

MAX_BYTES = 2**29
"""Size limit in bytes of a file that is read into memory; a larger image or table is taken for an error."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file inside an uncompressed .tar or a .zip.

    Attributes:
        archive: path of the archive.
        name: path of the file inside the archive.
        size: size of the file in bytes; 0 for a .zip.
        offset: byte offset of the file's data in a .tar; None for a .zip.
    """

    archive: Path
    name: str
    size: int = 0
    offset: int | None = None

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"

    def blocks(self) -> Iterator[bytes]:
        """Yield the file's bytes in blocks of at most 1 MiB; raise OSError for a damaged archive."""
        if self.offset is None:
            status = self.archive.stat()
            try:
                with _zip(self.archive, status.st_mtime_ns, status.st_size).open(self.name) as f:
                    while block := f.read(_BLOCK):
                        yield block
            except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as exc:
                raise OSError(None, f"its data in the archive are damaged: {exc}") from exc
            return
        left = self.size
        with self.archive.open("rb") as f:
            f.seek(self.offset)
            while left:
                block = f.read(min(_BLOCK, left))
                if not block:
                    raise OSError(None, "the archive ends before the end of this file")
                left -= len(block)
                yield block


@lru_cache(maxsize=4)
def _zip(path: Path, modified_ns: int, size: int) -> zipfile.ZipFile:
    """Open a .zip, and cache it, because parsing the list of files is slow.

    `modified_ns` and `size` are part of the cache key, so a replaced archive is opened again.
    """
    # ZipFile does not close a file object that it was given, so threads can share it.
    return zipfile.ZipFile(path.open("rb"))


Source = Path | Member
"""Location of a file: a path, or a file inside an archive."""


def find_files(
    root: Path,
    folders: Iterable[str],
    wanted: Callable[[PurePosixPath], bool],
    beside: Iterable[str] = (),
) -> list[tuple[PurePosixPath, Source]]:
    """List the files of a dataset that `wanted` accepts, each with its path inside the dataset.

    In a folder, only the subfolders `folders`, and the files `beside` next to them, are listed; an archive
    is searched as a whole. `folders` and `beside` are in lower case.

    Raises:
        DatasetError: the dataset does not exist, the archive cannot be read, or a path in the archive
            contains `..`.
    """
    if root.is_dir():
        found: list[tuple[PurePosixPath, Source]] = []
        for top in (root, *(p for p in sorted(root.iterdir()) if p.is_dir())):
            inside = [f for name in folders for f in _folders_named(top, name)]
            paths = [p for f in inside for p in sorted(f.rglob("*"))]
            paths += [p for p in sorted(_listed(top)) if p.name.lower() in beside]
            found += [(PurePosixPath(p.relative_to(root).as_posix()), p) for p in paths]
        return [(place, path) for place, path in found if wanted(place)]
    if not root.exists():
        raise DatasetError(f"{root}: no such dataset", "give a folder, a .tar or a .zip")
    members = (_zip_members if root.suffix.lower() == ".zip" else _tar_members)(root)
    listed = [(PurePosixPath(member.name), member) for member in members]
    for place, member in listed:
        if ".." in place.parts:
            raise DatasetError(
                f"{member}: the path contains '..' and leads out of the archive",
                "pack the archive again",
            )
    return [(place, member) for place, member in listed if wanted(place)]


def _folders_named(top: Path, name: str) -> list[Path]:
    found = [top]
    for part in name.split("/"):
        found = [p for f in found for p in _listed(f) if p.name.lower() == part and p.is_dir()]
    return sorted(found)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except PermissionError:  # such as `lost+found` at the top of a disk, which only root reads
        return []


def has_suffix(path: Path | PurePosixPath, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file has one of these suffixes, in upper or lower case, and is not hidden."""
    # macOS adds "._name.jpg" to archives next to name.jpg; it holds metadata and no image.
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def _tar_members(path: Path) -> list[Member]:
    try:
        # Mode "r:" rejects compressed archives, whose files have no offsets to read from.
        with tarfile.open(path, "r:") as archive:
            return [Member(path, m.name, m.size, m.offset_data) for m in archive if m.isreg()]
    except (OSError, tarfile.TarError) as exc:
        raise DatasetError(
            f"{path}: is not a folder, a .zip or a readable .tar: {exc}",
            "give one of them; unpack a compressed .tar first",
        ) from exc


def _zip_members(path: Path) -> list[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [i for i in archive.infolist() if not i.is_dir()]
    except (OSError, zipfile.BadZipFile) as exc:
        raise DatasetError(
            f"{path}: is not a readable .zip: {exc}", "check that the file is complete"
        ) from exc
    for info in infos:
        if info.flag_bits & 1:
            raise DatasetError(
                f"{path}: {info.filename} is encrypted", "unpack the archive and give the folder"
            )
    return [Member(path, i.filename) for i in infos]


def files_under(
    root: Path, found: list[tuple[PurePosixPath, Source]], folders: Iterable[str]
) -> tuple[PurePosixPath, dict[str, Source]] | None:
    """Return the files below the first of `folders` that contains files.

    Args:
        root: path of the dataset, for error messages.
        found: files that `find_files` returned.
        folders: folder names in lower case, in order of preference; each is searched at the top level,
            then inside a single top-level folder.

    Returns:
        The folder's parent relative to `root`, and the files by their path below the folder without
        suffix; None if no folder has files.

    Raises:
        DatasetError: several top-level folders hold such a folder, or two files have the same name.
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
                    f"{root}: contains several datasets: {', '.join('/'.join(w) for w in wrappers)}",
                    "give the path of one dataset",
                )
            names = [PurePosixPath(*p[below:]).with_suffix("").as_posix() for p, _ in inside]
            name, times = Counter(names).most_common(1)[0]
            if times > 1:
                raise DatasetError(
                    f"{root}: two files in {folder} have the name {name!r}",
                    "remove or rename one of them",
                )
            sources = dict(zip(names, (source for _, source in inside), strict=True))
            return PurePosixPath(*wrappers[0]), sources
    return None


def _blocks(source: Source) -> Iterator[bytes]:
    """Yield a file's bytes; raise DatasetError if it cannot be read."""
    try:
        if isinstance(source, Member):
            yield from source.blocks()
            return
        with source.open("rb") as f:
            while block := f.read(_BLOCK):
                yield block
    except OSError as exc:
        raise DatasetError(
            f"{source}: can't be read: {exc.strerror}", "check that the file is complete"
        ) from exc


def read_bytes(source: Source) -> bytes:
    """Return a file's bytes.

    Raises:
        DatasetError: the file cannot be read, or it has more than `MAX_BYTES` bytes.
    """
    kept = bytearray()
    for block in _blocks(source):
        kept += block
        if len(kept) > MAX_BYTES:
            raise DatasetError(
                f"{source}: has more than the allowed {MAX_BYTES:,} bytes",
                "check that this is the right file",
            )
    return bytes(kept)


def file_digest(source: Source) -> str:
    """Return the SHA-256 hex digest of a file; raise DatasetError if it cannot be read."""
    digest = hashlib.sha256()
    for block in _blocks(source):
        digest.update(block)
    return digest.hexdigest()


def copy_file(source: Source, target: Path) -> None:
    """Copy a file's bytes.

    Raises:
        DatasetError: the file cannot be read.
        OutputError: the copy cannot be written.
    """
    try:
        with target.open("wb") as f:
            for block in _blocks(source):
                f.write(block)
    except OSError as exc:
        raise output_error(target, exc) from exc


@contextlib.contextmanager
def local_path(source: Source) -> Iterator[Path]:
    """Yield the path of a file; a file inside an archive is copied to a temporary file.

    Raises:
        DatasetError: the file in the archive cannot be read.
        OutputError: the temporary copy cannot be written.
    """
    if isinstance(source, Path):
        yield source
        return
    name = PurePosixPath(source.name)
    with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
        copy = Path(folder) / f"{name.stem[:100]}{name.suffix}"
        copy_file(source, copy)
        yield copy
