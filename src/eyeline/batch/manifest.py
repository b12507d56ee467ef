"""Read the list of titles of a batch from a manifest, a folder, a pattern or a video path.

| given | titles |
|---|---|
| `.csv`, `.jsonl`, `.parquet` | one per row |
| a folder | every video below the folder, named by its path without the suffix |
| a pattern with `*`, `?` or `[` | every file that matches the pattern |
| one video | that video |

A row of a manifest has a `path` (or `reference` and `distorted`), and may have a `title` and the layout
of raw video (`width`, `height`, `pix_fmt`, `fps`). Relative paths are relative to the folder of the
manifest. Each path may be an fsspec URL, such as `s3://bucket/a.mp4`.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

from eyeline.errors import BatchError, EyelineError, MediaError, MissingExtraError
from eyeline.media.types import VIDEO_SUFFIXES, VideoOptions


def is_url(path: str) -> bool:
    """Return whether a path is an fsspec URL; a path with `file://` counts as local."""
    return "://" in path and not path.startswith("file://")


def local_path(path: str) -> str:
    """Remove `file://` from a local path."""
    return path.removeprefix("file://")


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL or local path, and the path within that file system.

    Raises:
        MissingExtraError: fsspec is not installed.
        BatchError: the protocol is unknown, or its package is not installed.
    """
    try:
        import fsspec
    except ModuleNotFoundError as exc:
        raise MissingExtraError("fsspec", "batch") from exc
    if not is_url(url):  # `url_to_fs` would read `::` in a name as a chain of file systems
        return fsspec.filesystem("file"), os.path.abspath(url)  # noqa: PTH100 - keeps links
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as exc:
        raise BatchError(
            f"{url}: the package for this protocol can't be imported: {exc}", "install the package"
        ) from exc
    except ValueError as exc:
        raise BatchError(
            f"{url}: is not a valid URL: {exc}",
            "use a protocol that fsspec supports, such as s3://",
        ) from exc
    return fs, path


def reason_of(error: Exception) -> str:
    """Return the text of an error on one line."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(said.split())


@contextlib.contextmanager
def _reading(path: str, kind: type[EyelineError]) -> Iterator[None]:
    """Turn a read failure into an error of class `kind`. A client of an object store may raise anything."""
    failures: type[Exception] = Exception if is_url(path) else OSError
    try:
        yield
    except EyelineError:
        raise
    except FileNotFoundError as exc:
        raise kind(f"{path}: can't be read: no such file", "check the path") from exc
    except failures as exc:
        hint = "check its address and your credentials" if is_url(path) else "check the path"
        raise kind(f"{path}: can't be read: {reason_of(exc)}", hint) from exc


def read_bytes(path: str) -> bytes:
    """Read a whole file.

    Raises:
        BatchError: the file can't be read.
    """
    with _reading(path, BatchError):
        if is_url(path):
            fs, inside = filesystem(path)
            data: bytes = fs.cat_file(inside)
            return data
        return Path(local_path(path)).read_bytes()


def _is_folder(path: str) -> bool:
    if is_url(path):
        fs, inside = filesystem(path)
        with _reading(path, BatchError):
            return bool(fs.isdir(inside))
    return Path(local_path(path)).is_dir()


def _expand(pattern: str) -> list[str]:
    if is_url(pattern):
        fs, inside = filesystem(pattern)
        with _reading(pattern, BatchError):
            fs.invalidate_cache()  # drops folder listings that an earlier batch cached
            found = fs.glob(inside)
            return sorted(fs.unstrip_protocol(f) for f in found if fs.isfile(f))
    found = glob.glob(local_path(pattern), recursive=True)  # noqa: PTH207 - Path.glob rejects absolute patterns
    return sorted(f for f in found if not Path(f).is_dir())


def stamp(path: str) -> dict[str, Any]:
    """Return size and modification time (or ETag) of a file, to detect changes without reading it.

    Raises:
        MediaError: the file is missing.
    """
    with _reading(path, MediaError):
        if is_url(path):
            fs, inside = filesystem(path)
            facts = fs.info(inside)
            tag = next(
                (str(facts[k]) for k in ("ETag", "etag", "md5Hash", "mtime") if k in facts), ""
            )
            return {"size": int(facts.get("size") or 0), "tag": tag or str(fs.created(inside))}
        status = Path(local_path(path)).stat()
        return {"size": status.st_size, "tag": str(status.st_mtime_ns)}


@contextlib.contextmanager
def as_local(path: str) -> Iterator[str]:
    """Yield a local path for a file or a folder of images; a URL is copied to a temporary file.

    Raises:
        MediaError: the URL can't be read.
    """
    if not is_url(path):
        yield local_path(path)
        return
    fs, inside = filesystem(path)
    with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
        copy = Path(folder) / PurePosixPath(inside).name
        with _reading(path, MediaError):
            fs.get_file(inside, str(copy))
        yield str(copy)


MANIFEST_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet", ".pq")
COLUMNS = ("title", "path", "reference", "distorted", "width", "height", "pix_fmt", "fps")


@dataclass(frozen=True)
class Title:
    """One video, or a pair of videos to compare.

    Attributes:
        name: name of the title, unique in the batch.
        source: path or URL of the video; for a pair, of the reference.
        distorted: path or URL of the distorted video of a pair; None for one video.
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
        """Return the paths or URLs of all videos of the title."""
        return (self.source, self.distorted) if self.distorted else (self.source,)

    def stamp(self) -> dict[str, Any]:
        """Return the result of the function `stamp` for each source of the title, as JSON values.

        Raises:
            MediaError: a source is missing.
        """
        marks = [stamp(source) for source in self.sources]
        return marks[0] if len(marks) == 1 else {"pair": marks}

    def video_options(self, options: VideoOptions) -> VideoOptions:
        """Return `options` with the layout of raw video of this title."""
        return replace(
            options,
            width=self.width or options.width,
            height=self.height or options.height,
            pix_fmt=self.pix_fmt or options.pix_fmt,
            fps=Fraction(self.fps) if self.fps else options.fps,
        )


def read_titles(given: str, *, pairs: bool = False) -> list[Title]:
    """Read titles from a manifest, pattern, folder or single video.

    Args:
        given: path or URL of a manifest, folder or video, or a pattern (see the module's docstring).
        pairs: each title has a `reference` and a `distorted` video; `given` must be a manifest then.

    Raises:
        BatchError: no video is found, a row lacks a column or has an unknown column, or two titles
            have the same name.
        MissingExtraError: the manifest is Parquet, and pyarrow is not installed.
    """
    suffix = PurePosixPath(given).suffix.lower()
    if suffix in MANIFEST_SUFFIXES and not any(c in given for c in "*?["):
        titles = _from_rows(given, _rows(given, suffix), pairs)
    elif pairs:
        raise BatchError(
            f"{given}: is not a manifest, which a batch of video pairs needs",
            "give a .csv, .jsonl or .parquet with the columns reference and distorted",
        )
    else:
        titles = _from_files(given)
    if not titles:
        raise BatchError(
            f"{given}: names no videos",
            "give a manifest with rows, a folder of videos or a pattern",
        )
    seen: dict[str, Title] = {}
    for title in titles:
        twin = seen.setdefault(title.name, title)
        if twin is not title:
            raise BatchError(
                f"{given}: two titles are named {title.name!r}: {twin.source} and {title.source}",
                "give them different names in a manifest with the column `title`",
            )
    return [
        replace(t, source=_absolute(t.source), distorted=t.distorted and _absolute(t.distorted))
        for t in titles
    ]


def _absolute(path: str) -> str:
    """Make a local path absolute, since workers may have another working directory; keep a URL."""
    return path if is_url(path) else os.path.abspath(local_path(path))  # noqa: PTH100 - keeps links


def _from_files(given: str) -> list[Title]:
    if _is_folder(given):
        root = given.rstrip("/")
        if is_url(root):
            fs, inside = filesystem(root)
            # A listing returns URLs in this form, such as `memory:///films` for `memory://films`.
            root = str(fs.unstrip_protocol(inside))
        found = [f for f in _expand(f"{root}/**") if _is_video(f)]
    else:
        found = _expand(given)
        # `os.path.commonpath` would turn the `//` of a URL into `/`.
        folders = [f.rpartition("/")[0] + "/" for f in found]
        root = os.path.commonprefix(folders).rpartition("/")[0]  # noqa: RUF071
    return [Title(_name(path, root), path) for path in sorted(found)]


def _is_video(path: str) -> bool:
    parts = PurePosixPath(path)
    return parts.suffix.lower() in VIDEO_SUFFIXES and not parts.name.startswith(".")


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
            raise BatchError(
                f"{path}: is not valid Parquet: {exc}", "check that the file is complete"
            ) from exc
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BatchError(
            f"{path}: is not UTF-8 text: byte {exc.start} is invalid", "save the file as UTF-8"
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
                f"{path}: line {number} is not JSON: {exc}", "write one JSON object per line"
            ) from exc
        if not isinstance(row, dict):
            raise BatchError(
                f"{path}: line {number} is not a JSON object", "write one JSON object per line"
            )
        rows.append(row)
    return rows


def _from_rows(path: str, rows: Iterable[Mapping[str, Any]], pairs: bool) -> list[Title]:
    folder = path.rsplit("/", 1)[0] if "/" in path else ""
    titles = []
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        unknown = [str(k) for k in row if k not in COLUMNS]
        if unknown:
            raise BatchError(
                f"{where}: unknown column {unknown[0]!r}", f"use only {', '.join(COLUMNS)}"
            )
        values = {k: v for k, v in row.items() if v not in (None, "")}
        source = values.get("reference" if pairs else "path") or values.get("path")
        distorted = values.get("distorted")
        if not source or (pairs and not distorted):
            needed = "reference and distorted" if pairs else "path"
            raise BatchError(f"{where}: has no {needed}", f"give {needed} in every row")
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
                f"{where}: has an invalid number: {exc}",
                "give width and height in pixels, and fps as 25 or 30000/1001",
            ) from exc
    return titles


def _beside(folder: str, path: str) -> str:
    return path if is_url(path) or path.startswith("/") or not folder else f"{folder}/{path}"
