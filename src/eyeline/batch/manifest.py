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
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

from eyeline.batch.places import (
    absolute,
    canonical,
    expand,
    is_folder,
    is_url,
    join,
    read_bytes,
    stamp,
)
from eyeline.errors import BatchError, MissingExtraError
from eyeline.media.reader import VIDEO_SUFFIXES
from eyeline.media.types import VideoOptions

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
