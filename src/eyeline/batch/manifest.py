"""Which titles a batch works on: a manifest, a pattern, or a folder becomes a list of `Title`s.

| given | titles |
|---|---|
| `.csv`, `.jsonl`, `.parquet` | one a row |
| a folder | every video below it, named by its path without the suffix |
| a pattern with `*`, `?` or `[` | every file that it matches |
| one video | that one |

A row has a `path` (or `reference` and `distorted`), and may have a `title` and the layout of raw video
(`width`, `height`, `pix_fmt`, `fps`). Each may be an fsspec URL, such as `s3://bucket/films/*.mp4`.
Paths in a manifest are relative to it.

Where a batch reads and writes: local folders, and anything that fsspec opens by URL.

A file appears whole or not at all: locally by rename (`eyeline.files`), on an object store because
an upload is seen only when it is complete.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

from eyeline.errors import BatchError, EyelineError, MediaError, MissingExtraError, OutputError
from eyeline.files import is_temporary, output_error, write_bytes
from eyeline.media.types import VIDEO_SUFFIXES, VideoOptions


def is_url(path: str) -> bool:
    """Whether a path is an fsspec URL; `file://` is a local path."""
    return "://" in path and not path.startswith("file://")


def local_path(path: str) -> str:
    """A local path without `file://`."""
    return path.removeprefix("file://")


def absolute(path: str) -> str:
    """A local path from the root, since workers may stand elsewhere; a URL as it is."""
    return path if is_url(path) else os.path.abspath(local_path(path))  # noqa: PTH100 - keeps links


def canonical(path: str) -> str:
    """A URL as fsspec's listings spell it, such as `memory:///films` for `memory://films`."""
    if not is_url(path):
        return path
    fs, inside = _filesystem(path)
    return str(fs.unstrip_protocol(inside))


def join(folder: str, name: str) -> str:
    """A path below a folder."""
    return f"{folder.rstrip('/')}/{name}"


def _filesystem(url: str) -> tuple[Any, str]:
    """Fsspec's file system for a URL, and the path in it.

    Raises:
        MissingExtraError: fsspec, or the package of this protocol, is not installed.
        BatchError: no such protocol.
    """
    try:
        import fsspec
    except ModuleNotFoundError as exc:
        raise MissingExtraError("fsspec", "batch") from exc
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as exc:
        raise BatchError(f"{url}: {exc}", "install that package beside eyeline") from exc
    except ValueError as exc:
        raise BatchError(f"{url}: {exc}", "name a protocol that fsspec knows") from exc
    return fs, path


def _why(error: Exception) -> str:
    """What an error says, on one line."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(said.split())


@contextlib.contextmanager
def _reading(path: str, kind: type[EyelineError]) -> Iterator[None]:
    """A failure to read becomes one clear line of this kind; a store's client may raise anything."""
    failures: type[Exception] = Exception if is_url(path) else OSError
    try:
        yield
    except EyelineError:
        raise
    except FileNotFoundError as exc:
        raise kind(f"{path}: can't be read: no such file", "check the path") from exc
    except failures as exc:
        hint = "check its address and your credentials" if is_url(path) else "check the path"
        raise kind(f"{path}: can't be read: {_why(exc)}", hint) from exc


def read_bytes(path: str) -> bytes:
    """A whole file.

    Raises:
        BatchError: it can't be read.
    """
    with _reading(path, BatchError):
        if is_url(path):
            fs, inside = _filesystem(path)
            data: bytes = fs.cat_file(inside)
            return data
        return Path(local_path(path)).read_bytes()


def is_folder(path: str) -> bool:
    """Whether a folder is there.

    Raises:
        BatchError: its store does not answer.
    """
    if is_url(path):
        fs, inside = _filesystem(path)
        with _reading(path, BatchError):
            return bool(fs.isdir(inside))
    return Path(local_path(path)).is_dir()


def expand(pattern: str) -> list[str]:
    """The files that a pattern matches (`**` goes into folders), in order of their names.

    Raises:
        BatchError: the store of a URL does not answer.
    """
    if is_url(pattern):
        fs, inside = _filesystem(pattern)
        with _reading(pattern, BatchError):
            fs.invalidate_cache()  # of what an earlier batch of this process listed
            found = fs.glob(inside)
            return sorted(fs.unstrip_protocol(f) for f in found if fs.isfile(f))
    found = glob.glob(local_path(pattern), recursive=True)  # noqa: PTH207 - absolute patterns, too
    return sorted(f for f in found if not Path(f).is_dir())


def stamp(path: str) -> dict[str, Any]:
    """What tells without reading it that a file is the same as before: size, and time or tag.

    Raises:
        MediaError: it is not there.
    """
    with _reading(path, MediaError):
        if is_url(path):
            fs, inside = _filesystem(path)
            facts = fs.info(inside)
            tag = next(
                (str(facts[k]) for k in ("ETag", "etag", "md5Hash", "mtime") if k in facts), ""
            )
            return {"size": int(facts.get("size") or 0), "tag": tag or str(fs.created(inside))}
        status = Path(local_path(path)).stat()
        return {"size": status.st_size, "tag": str(status.st_mtime_ns)}


@contextlib.contextmanager
def as_local(path: str) -> Iterator[str]:
    """A local path of a file, or a folder of images: a URL is copied to a temporary file first.

    Raises:
        MediaError: it can't be read.
    """
    if not is_url(path):
        yield local_path(path)
        return
    fs, inside = _filesystem(path)
    with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
        copy = Path(folder) / PurePosixPath(inside).name
        with _reading(path, MediaError):
            fs.get_file(inside, str(copy))
        yield str(copy)


class Place(ABC):
    """A folder of results."""

    url: str

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file that appears whole.

        Raises:
            OutputError: it can't be written; nothing appears.
        """

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A file's bytes; None when there is none."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a file is there."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted; none when there is no such folder."""

    @abstractmethod
    def remove(self, folder: str) -> None:
        """Remove a folder and all in it, or a file; nothing when there is none."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove what writers that were killed left unfinished; only while nobody writes."""


class LocalPlace(Place):
    """A folder of this machine, or one that every node of a cluster mounts."""

    def __init__(self, path: str) -> None:
        self.url = local_path(path)
        self.root = Path(self.url)

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        target = self.root / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise output_error(target, exc) from exc
        write_bytes(target, data)

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """See `Place`."""
        return (self.root / name).is_file()

    def names(self, folder: str) -> list[str]:
        """See `Place`."""
        try:
            found = [f.name for f in (self.root / folder).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if not name.startswith("."))

    def remove(self, folder: str) -> None:
        """See `Place`."""
        target = self.root / folder
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def sweep(self) -> None:
        """See `Place`."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                if is_temporary(name):
                    (Path(folder) / name).unlink(missing_ok=True)


class RemotePlace(Place):
    """A folder behind an fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, self._root = _filesystem(self.url)

    @contextlib.contextmanager
    def _asking(self, name: str, what: str) -> Iterator[None]:
        """A failure of the store becomes one clear line; that a file is absent is none."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as exc:
            raise OutputError(
                f"{self.url}/{name}: can't be {what}: {_why(exc)}",
                "check its address and your credentials; rerun to go on",
            ) from exc

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        target = join(self._root, name)
        try:
            with self._asking(name, "written"):
                self._put(target, data)
        except FileNotFoundError as exc:
            raise OutputError(
                f"{self.url}/{name}: can't be written: no such bucket or folder", "create it"
            ) from exc

    def _put(self, target: str, data: bytes) -> None:
        """Upload; folders are made where there are such things, buckets never."""
        try:
            self._fs.pipe_file(target, data)
        except FileNotFoundError:
            top = target[: target.find("/", 1)]
            if not self._fs.isdir(top):
                raise
            self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(target, data)

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        try:
            with self._asking(name, "read"):
                data: bytes = self._fs.cat_file(join(self._root, name))
        except FileNotFoundError:
            return None
        return data

    def exists(self, name: str) -> bool:
        """See `Place`."""
        try:
            with self._asking(name, "read"):
                return bool(self._fs.info(join(self._root, name))["type"] == "file")
        except FileNotFoundError:
            return False

    def names(self, folder: str) -> list[str]:
        """See `Place`."""
        self._fs.invalidate_cache()
        try:
            with self._asking(folder, "read"):
                found = self._fs.ls(join(self._root, folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(f).name for f in found)

    def remove(self, folder: str) -> None:
        """See `Place`."""
        with contextlib.suppress(FileNotFoundError), self._asking(folder, "removed"):
            self._fs.rm(join(self._root, folder), recursive=True)

    def sweep(self) -> None:
        """See `Place`: an upload that broke off was never seen."""


def open_place(url: str) -> Place:
    """The place that a path or URL names."""
    return RemotePlace(url) if is_url(url) else LocalPlace(url)


MANIFEST_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet", ".pq")
COLUMNS = ("title", "path", "reference", "distorted", "width", "height", "pix_fmt", "fps")


@dataclass(frozen=True)
class Title:
    """One piece of work.

    Attributes:
        name: unique in the batch.
        source: path or URL of the video; the reference, where two are compared.
        distorted: path or URL of the video that is compared with it.
        width, height, pix_fmt, fps: layout of raw video.
    """

    name: str
    source: str
    distorted: str | None = None
    width: int | None = None
    height: int | None = None
    pix_fmt: str | None = None
    fps: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The source, and what is compared with it."""
        return (self.source, self.distorted) if self.distorted else (self.source,)

    def stamp(self) -> dict[str, Any]:
        """What tells without reading them that its sources are unchanged: JSON values.

        Raises:
            MediaError: one is not there.
        """
        marks = [stamp(source) for source in self.sources]
        return marks[0] if len(marks) == 1 else {"pair": marks}

    def video_options(self, options: VideoOptions) -> VideoOptions:
        """`options` with this title's layout of raw video."""
        return replace(
            options,
            width=self.width or options.width,
            height=self.height or options.height,
            pix_fmt=self.pix_fmt or options.pix_fmt,
            fps=Fraction(self.fps) if self.fps else options.fps,
        )


def read_titles(given: str, *, pairs: bool = False) -> list[Title]:
    """The titles that a manifest, pattern, folder or single video names, in its order.

    Args:
        given: see the module's table.
        pairs: each title needs `reference` and `distorted`, so that only a manifest will do.

    Raises:
        BatchError: nothing is there, a row lacks a column or names an unknown one, or two titles
            have one name.
        MissingExtraError: a Parquet manifest without pyarrow.
    """
    suffix = PurePosixPath(given).suffix.lower()
    if suffix in MANIFEST_SUFFIXES and not any(c in given for c in "*?["):
        titles = _from_rows(given, _rows(given, suffix), pairs)
    elif pairs:
        raise BatchError(
            f"{given}: is no manifest",
            "give a .csv, .jsonl or .parquet with reference and distorted",
        )
    else:
        titles = _from_files(given)
    if not titles:
        raise BatchError(f"{given}: names no videos", "see `eyeline batch extract --help`")
    seen: dict[str, Title] = {}
    for title in titles:
        twin = seen.setdefault(title.name, title)
        if twin is not title:
            raise BatchError(
                f"{given}: two titles are named {title.name!r}: {twin.source} and {title.source}",
                "give them names in a column `title`",
            )
    return [
        replace(t, source=absolute(t.source), distorted=t.distorted and absolute(t.distorted))
        for t in titles
    ]


def _from_files(given: str) -> list[Title]:
    if is_folder(given):
        root = canonical(given.rstrip("/"))
        found = [f for f in expand(f"{root}/**") if _is_video(f)]
    else:
        found = expand(given)
        root = _common_folder(found)
    return [Title(_name(path, root), path) for path in sorted(found)]


def _is_video(path: str) -> bool:
    parts = PurePosixPath(path)
    return parts.suffix.lower() in VIDEO_SUFFIXES and not parts.name.startswith(".")


def _common_folder(paths: list[str]) -> str:
    if not paths:
        return ""
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    shared = []
    for a, b in zip(first, last, strict=False):
        if a != b:
            break
        shared.append(a)
    return "/".join(shared)


def _name(path: str, root: str) -> str:
    inside = path[len(root) :].lstrip("/") if root and path.startswith(root) else path
    return str(PurePosixPath(inside).with_suffix(""))


def _rows(path: str, suffix: str) -> Iterable[Mapping[str, Any]]:
    data = read_bytes(path)
    if suffix in (".parquet", ".pq"):
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as exc:
            raise MissingExtraError("pyarrow", "batch") from exc
        try:
            return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()  # type: ignore[no-any-return]
        except pyarrow.ArrowException as exc:
            raise BatchError(f"{path}: is not Parquet: {exc}", "is it whole?") from exc
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BatchError(
            f"{path}: is not text (byte {exc.start} is not UTF-8)", "save it as UTF-8"
        ) from exc
    if suffix == ".csv":
        return csv.DictReader(io.StringIO(text))
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise BatchError(
                f"{path}: line {number} is not JSON: {exc}", "one object a line"
            ) from exc
        if not isinstance(row, dict):
            raise BatchError(f"{path}: line {number} is not an object", "one object a line")
        rows.append(row)
    return rows


def _from_rows(path: str, rows: Iterable[Mapping[str, Any]], pairs: bool) -> list[Title]:
    folder = path.rsplit("/", 1)[0] if "/" in path else ""
    titles = []
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        unknown = [str(k) for k in row if k not in COLUMNS]
        if unknown:
            raise BatchError(f"{where}: unknown column {unknown[0]!r}", f"use {', '.join(COLUMNS)}")
        values = {k: v for k, v in row.items() if v not in (None, "")}
        source = values.get("reference" if pairs else "path") or values.get("path")
        distorted = values.get("distorted")
        if not source or (pairs and not distorted):
            needed = "reference and distorted" if pairs else "path"
            raise BatchError(f"{where}: no {needed}", f"give each row {needed}")
        try:
            if "fps" in values:
                Fraction(str(values["fps"]))
            titles.append(
                Title(
                    name=str(values.get("title") or _name(str(distorted or source), folder)),
                    source=_beside(folder, str(source)),
                    distorted=_beside(folder, str(distorted)) if pairs else None,
                    width=int(values["width"]) if "width" in values else None,
                    height=int(values["height"]) if "height" in values else None,
                    pix_fmt=str(values["pix_fmt"]) if "pix_fmt" in values else None,
                    fps=str(values["fps"]) if "fps" in values else None,
                )
            )
        except (ValueError, ZeroDivisionError) as exc:
            raise BatchError(
                f"{where}: {exc}", "width and height are pixels, fps as 25 or 30000/1001"
            ) from exc
    return titles


def _beside(folder: str, path: str) -> str:
    if is_url(path) or path.startswith("/") or not folder:
        return path
    return join(folder, path)
