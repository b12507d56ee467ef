"""Find the files of a dataset in a folder, .tar or .zip, and read them in place.

A dataset has folders with known names, at its top or inside one wrapping folder. Only a reader that
needs a path, such as a video decoder, gets a temporary copy of an archive's member.
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
"""Largest file that is read into memory: a larger picture or table is a mistake, or a bomb."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file inside an uncompressed .tar or a .zip.

    Attributes:
        archive: the archive's path.
        name: path in the archive.
        size: bytes in a .tar.
        offset: of the data in a .tar, bytes; None for a .zip.
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
                raise OSError(None, f"damaged in the archive: {exc}") from exc
            return
        left = self.size
        with self.archive.open("rb") as f:
            f.seek(self.offset)
            while left:
                block = f.read(min(_BLOCK, left))
                if not block:
                    raise OSError(None, "the archive ends in the middle of it")
                left -= len(block)
                yield block


@lru_cache(maxsize=4)
def _zip(path: Path, modified_ns: int, size: int) -> zipfile.ZipFile:
    """Open an archive once: its list of files is long, and its members are read one by one.

    `modified_ns` and `size` are part of the key, so that an archive that was replaced is opened anew.
    """
    # Given an open file, ZipFile never closes it, so that threads may share it.
    return zipfile.ZipFile(path.open("rb"))


Source = Path | Member
"""Where a file is."""


def find_files(
    root: Path,
    folders: Iterable[str],
    wanted: Callable[[PurePosixPath], bool],
    beside: Iterable[str] = (),
) -> list[tuple[PurePosixPath, Source]]:
    """List the wanted files in `folders`, and the files `beside` them, with their paths in the dataset.

    Names are in lower case. Of an archive all files are listed.

    Raises:
        DatasetError: there is no such dataset, the archive cannot be read, or a name leads out of it.
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
            raise DatasetError(f"{member}: its name leads out of the archive", "pack it again")
    return [(place, member) for place, member in listed if wanted(place)]


def _folders_named(top: Path, name: str) -> list[Path]:
    found = [top]
    for part in name.split("/"):
        found = [p for f in found for p in _listed(f) if p.name.lower() == part and p.is_dir()]
    return sorted(found)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except PermissionError:  # such as a disk's `lost+found`
        return []


def has_suffix(path: Path | PurePosixPath, suffixes: tuple[str, ...]) -> bool:
    """Return whether a visible file's name ends in one of these suffixes, in any case."""
    # macOS puts "._name.jpg" beside name.jpg in archives: no picture.
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def _tar_members(path: Path) -> list[Member]:
    try:
        # "r:" takes plain .tar alone: a compressed one has no offsets to read from.
        with tarfile.open(path, "r:") as archive:
            return [Member(path, m.name, m.size, m.offset_data) for m in archive if m.isreg()]
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
        raise DatasetError(
            f"{path}: not a readable .zip: {exc}", "check that it is complete"
        ) from exc
    for info in infos:
        if info.flag_bits & 1:
            raise DatasetError(f"{path}: {info.filename} is encrypted", "unpack the archive first")
    return [Member(path, i.filename) for i in infos]


def files_under(
    root: Path, found: list[tuple[PurePosixPath, Source]], folders: Iterable[str]
) -> tuple[PurePosixPath, dict[str, Source]] | None:
    """Return the files in the first folder of these names, by their path in it without suffix.

    Args:
        root: the dataset, named in errors.
        found: from `find_files`, without files of other kinds.
        folders: names in lower case, the preferred one first; at the top or in one wrapping folder.

    Returns:
        The folder that holds the named one (`.` or the wrapping folder), and the files; None if there
        are none.

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
                    "give the path of one of them",
                )
            names = [PurePosixPath(*p[below:]).with_suffix("").as_posix() for p, _ in inside]
            name, times = Counter(names).most_common(1)[0]
            if times > 1:
                raise DatasetError(
                    f"{root}: two files are named {name!r} in {folder}", "keep one of them"
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
            f"{source}: can't be read: {exc.strerror}", "check that it is complete"
        ) from exc


def read_bytes(source: Source) -> bytes:
    """Return a file's bytes.

    Raises:
        DatasetError: the file cannot be read, or it has more than `MAX_BYTES`.
    """
    kept = bytearray()
    for block in _blocks(source):
        kept += block
        if len(kept) > MAX_BYTES:
            raise DatasetError(
                f"{source}: can't be read: it has more than {MAX_BYTES:,} bytes",
                "check that it is the right file",
            )
    return bytes(kept)


def file_digest(source: Source) -> str:
    """Return the sha256 hex digest of a file's bytes; raise DatasetError if it cannot be read."""
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
    """Yield a path to a file: its own, or that of a temporary copy of an archive's member.

    Raises:
        DatasetError: the member cannot be read.
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
