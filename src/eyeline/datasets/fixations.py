"""Read fixation sets, which are pictures or videos with recorded gaze, and compute gaze densities.

A fixation set is a folder, a .tar or a .zip with a subfolder `images/` or `videos/` and one table,
`fixations.csv` or `fixations.csv.gz`, at the top level or inside a single top-level folder:

| kind | columns | coordinates |
|---|---|---|
| images | image, viewer, x, y, duration_ms | fractions of the picture's width and height |
| videos | video, viewer, onset_ms, duration_ms, x, y | pixels of the video |

The name of an image or video is its path below `images/` or `videos/` without the suffix. Columns may
come in any order. Three columns are optional: `duration_ms` of images, and `width` and `height`, the size
in pixels at which the viewers saw the picture. Further columns are ignored.

The gaze density is the sum of one Gaussian per fixation. The width of the Gaussian models the accuracy of
an eye tracker and the size of the fovea. Saliency metrics compare predicted maps with the gaze density, and
`eyeline score` weights the errors of an encode by it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import numpy as np
import numpy.typing as npt

from eyeline.datasets.files import (
    IMAGE_SUFFIXES,
    Source,
    file_digest,
    files_under,
    find_files,
    has_suffix,
    local_path,
    read_bytes,
)
from eyeline.digests import sha256_hex
from eyeline.errors import DatasetError, EyelineError, MissingExtraError, UsageError
from eyeline.media import open_video
from eyeline.media.types import VIDEO_SUFFIXES

TABLES = ("fixations.csv", "fixations.csv.gz")
MAX_TABLE_BYTES = 2**30
MAX_ROWS = 20_000_000
"""Limits of an unpacked table; a larger table is taken for an error."""

_MAX_LINE = 2**16
_EXAMPLES = 5
_NAMES = 40

Kind = Literal["images", "videos"]
Fold = Literal["train", "select", "report"]
SUFFIXES: dict[Kind, tuple[str, ...]] = {"images": IMAGE_SUFFIXES, "videos": VIDEO_SUFFIXES}
NUMBERS = ("x", "y", "onset_ms", "duration_ms")
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "images": ("image", "viewer", "x", "y", "duration_ms"),
    "videos": ("video", "viewer", "onset_ms", "duration_ms", "x", "y"),
}
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fixations:
    """The fixations of all viewers on one image or video, in the row order of the table.

    Attributes:
        viewer: int64 (N,), index into `FixationSet.viewers` or `Recording.viewers`.
        x: float64 (N,), fraction of the width, 0 <= x < 1, from the left edge.
        y: float64 (N,), fraction of the height, 0 <= y < 1, from the top edge.
        onset_ms: float64 (N,), start of the fixation, milliseconds after the first frame; 0 for images.
        duration_ms: float64 (N,), milliseconds; NaN if the table has no durations.
    """

    viewer: Ints
    x: Floats
    y: Floats
    onset_ms: Floats
    duration_ms: Floats

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: npt.NDArray[np.bool_] | Ints) -> Fixations:
        """Return the fixations that `rows`, a bool (N,) mask or int64 (M,) indices, selects."""
        return Fixations(*(getattr(self, f.name)[rows] for f in fields(self)))

    def active_at(self, time_ms: float) -> Fixations:
        """Return the fixations in progress at `time_ms`, milliseconds after the first frame."""
        started = self.onset_ms <= time_ms
        return self.select(started & (time_ms < self.onset_ms + self.duration_ms))


@dataclass(frozen=True)
class Stimulus:
    """An image or video that viewers looked at.

    Attributes:
        name: path below `images/` or `videos/` without suffix, unique in its set.
        source: location of the file.
        size: (width, height) in pixels, after rotation and at square pixels.
        digest: SHA-256 hex digest of the file.
        fixations: valid fixations; may be empty.
        fps: average frame rate of a video; None if it is not known, and for an image.
        duration_ms: length of a video in milliseconds; None if it is not known, and for an image.
    """

    name: str
    source: Source
    size: tuple[int, int]
    digest: str
    fixations: Fixations
    fps: Fraction | None = None
    duration_ms: float | None = None


@dataclass(frozen=True)
class FixationProblem:
    """A kind of invalid row or file in a fixation set, and how often it occurs.

    Attributes:
        kind: kind of the problem, for example `outside the picture`.
        count: number of rows, images, videos or viewers with this problem.
        examples: the first few cases, each in the form `NAME, line 12: x = 1.02`.
    """

    kind: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = "; ..." if self.count > len(self.examples) else ""
        return f"{self.count:,} x {self.kind}: {'; '.join(self.examples)}{more}"


@dataclass(frozen=True)
class FixationSet:
    """A checked fixation set.

    Attributes:
        name: name of the folder, or of the archive without suffix.
        kind: whether the stimuli are images or videos.
        stimuli: the images or videos, sorted by name.
        viewers: names of the viewers with a valid row, in the order of their first valid row.
        digest: SHA-256 hex digest of the table and of the names and digests of all stimuli.
        problems: problems of the rows that were left out.
    """

    name: str
    kind: Kind
    stimuli: tuple[Stimulus, ...]
    viewers: tuple[str, ...]
    digest: str
    problems: tuple[FixationProblem, ...]


@dataclass(frozen=True)
class Recording:
    """The fixations on one video, read from a table without a fixation set.

    Attributes:
        fixations: valid fixations; at least one.
        viewers: names of the viewers with a valid row, in the order of their first valid row.
        digest: SHA-256 hex digest of the unpacked table.
        problems: problems of the rows that were left out.
    """

    fixations: Fixations
    viewers: tuple[str, ...]
    digest: str
    problems: tuple[FixationProblem, ...]


def fold_of(digest: str) -> Fold:
    """Return the data split (fold) of an image; identical files always get the same fold.

    `train` (80 % of the images) trains a model, `select` (10 %) selects the best epoch, and `report` (10 %)
    measures the finished model. `digest` is the SHA-256 hex digest of the image file.
    """
    share = int(digest[:8], 16) / 0x100000000
    return "select" if share < 0.1 else "report" if share < 0.2 else "train"


def is_fixation_set(root: Path) -> bool:
    """Return whether a folder or archive contains a fixation table and `images/` or `videos/`.

    Raises:
        DatasetError: there is no such folder or archive, or it cannot be read.
    """
    found = _find(root)
    return any(files_under(root, found, (kind,)) for kind in SUFFIXES) and any(
        path.name.lower() in TABLES for path, _ in found
    )


def load_fixation_set(
    root: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> FixationSet:
    """Read and check a fixation set.

    Invalid rows are left out; `FixationSet.problems` counts them and gives examples.

    Args:
        root: folder, .tar or .zip with the fixation set.
        on_progress: called with the number of images or videos checked and the total.

    Raises:
        DatasetError: the set has no table, no stimuli, a missing column, or no valid fixation; two
            files have the same name; or an image, a video or the table cannot be read.
        MissingExtraError: the set contains images, and Pillow is not installed.
    """
    found = _find(root)
    kind, base, sources = _stimuli_of(root, found)
    table = _table_of(root, found, base)
    stimuli = {}
    for done, name in enumerate(sorted(sources)):
        on_progress(done, len(sources))
        stimuli[name] = probe_stimulus(kind, name, sources[name])
    on_progress(len(sources), len(sources))
    rows = _read_table(table, kind, stimuli)
    for name in stimuli:
        if name not in rows.by_stimulus:
            rows.problems.add(f"{kind[:-1]} without valid fixations", name)
    filled = tuple(replace(s, fixations=rows.fixations(s.name)) for s in stimuli.values())
    parts = (rows.digest, *(f"{s.name}\0{s.digest}" for s in filled))
    return FixationSet(
        name=root.resolve().name if root.is_dir() else root.stem,
        kind=kind,
        stimuli=filled,
        viewers=tuple(rows.viewers),
        digest=sha256_hex("\n".join(parts).encode()),
        problems=rows.problems.all(),
    )


def read_fixations(
    table: Path, video: str, size: tuple[int, int], duration_ms: float | None = None
) -> Recording:
    """Read and check the fixations on one video from a table without a fixation set.

    Args:
        table: a .csv or .csv.gz with the columns of a set of videos; the column `video` is optional, and
            without it all rows belong to this video.
        video: name of the video in the column `video`, which is its file name without suffix.
        size: (width, height) of the video in pixels, after rotation and at square pixels; x and y of the
            table are divided by it.
        duration_ms: length of the video in milliseconds, if it is known.

    Raises:
        DatasetError: the table cannot be read, lacks a column, or has no valid row for this video.
    """
    stimulus = Stimulus(video, table, size, "", _no_fixations(), None, duration_ms)
    rows = _read_table(table, "videos", {video: stimulus}, only=video)
    return Recording(rows.fixations(video), tuple(rows.viewers), rows.digest, rows.problems.all())


def _find(root: Path) -> list[tuple[PurePosixPath, Source]]:
    def wanted(path: PurePosixPath) -> bool:
        if path.name.lower() in TABLES:
            return len(path.parts) <= 2
        folders = [part.lower() for part in path.parts[:2]]
        return any(k in folders and has_suffix(path, s) for k, s in SUFFIXES.items())

    return find_files(root, SUFFIXES, wanted, TABLES)


def _stimuli_of(
    root: Path, found: list[tuple[PurePosixPath, Source]]
) -> tuple[Kind, PurePosixPath, dict[str, Source]]:
    """Return the kind of the set, the parent of `images/` or `videos/`, and the files by name."""
    held = {kind: under for kind in SUFFIXES if (under := files_under(root, found, (kind,)))}
    if not held:
        raise DatasetError(
            f"{root}: has no images in images/ and no videos in videos/",
            f"give files with one of the suffixes {', '.join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))}",
        )
    if len(held) > 1:
        raise DatasetError(
            f"{root}: contains both images/ and videos/", "make one set of images and one of videos"
        )
    ((kind, (base, sources)),) = held.items()
    return kind, base, sources


def _table_of(root: Path, found: list[tuple[PurePosixPath, Source]], base: PurePosixPath) -> Source:
    tables = [s for path, s in found if path.name.lower() in TABLES and path.parent == base]
    if len(tables) != 1:
        what = "two fixation tables" if tables else "no fixation table"
        raise DatasetError(
            f"{root}: has {what} next to images/ or videos/",
            f"give one table there, {' or '.join(TABLES)}",
        )
    return tables[0]


def probe_stimulus(kind: Kind, name: str, source: Source) -> Stimulus:
    """Return the size, digest, frame rate and length of an image or video, without fixations.

    Raises:
        DatasetError: the file cannot be read.
        MissingExtraError: the file is an image, and Pillow is not installed.
    """
    if kind == "images":
        try:
            from eyeline.datasets.pairs import upright_size
        except ImportError as exc:
            raise MissingExtraError("pillow", "eval") from exc
        return Stimulus(name, source, upright_size(source), file_digest(source), _no_fixations())
    with local_path(source) as path:
        try:
            with open_video(path) as video:
                info = video.info
        except EyelineError as exc:
            raise DatasetError(f"{source}: unreadable video: {exc.message}", exc.hint) from exc
        digest = file_digest(path)
    seconds = info.duration
    if seconds is None and info.frames and info.fps:
        seconds = float(info.frames / info.fps)
    size = info.display_width, info.display_height
    length = None if seconds is None else 1000 * seconds
    return Stimulus(name, source, size, digest, _no_fixations(), info.fps, length)


def _no_fixations() -> Fixations:
    return Fixations(np.empty(0, np.int64), *(np.empty(0) for _ in range(4)))


class _Problems:
    """Counts and examples of problems by kind, in the order of the first problem of each kind."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, example: str) -> None:
        self._count[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(example)

    def all(self) -> tuple[FixationProblem, ...]:
        return tuple(
            FixationProblem(kind, self._count[kind], tuple(examples))
            for kind, examples in self._examples.items()
        )


@dataclass
class _Rows:
    """The valid rows of a table.

    Attributes:
        digest: SHA-256 hex digest of the unpacked table.
        viewers: index of each viewer with a valid row, by name.
        by_stimulus: the viewer indices of the valid rows per stimulus, and their `NUMBERS` in one array.
        problems: problems of the invalid rows.
    """

    digest: str = ""
    viewers: dict[str, int] = field(default_factory=dict)
    by_stimulus: dict[str, tuple[array[int], array[float]]] = field(default_factory=dict)
    problems: _Problems = field(default_factory=_Problems)

    def add(self, name: str, viewer: str, numbers: Sequence[float]) -> None:
        viewers, values = self.by_stimulus.setdefault(name, (array("q"), array("d")))
        viewers.append(self.viewers.setdefault(viewer, len(self.viewers)))
        values.extend(numbers)

    def fixations(self, name: str) -> Fixations:
        if name not in self.by_stimulus:
            return _no_fixations()
        viewer, numbers = self.by_stimulus[name]
        x, y, onset, duration = np.array(numbers).reshape(-1, len(NUMBERS)).T.copy()
        return Fixations(np.array(viewer, np.int64), x, y, onset, duration)


def _read_table(
    table: Source, kind: Kind, stimuli: Mapping[str, Stimulus], only: str | None = None
) -> _Rows:
    """Read and check all rows of a table; if `only` is given, rows of other videos are skipped."""
    rows, digest = _Rows(), hashlib.sha256()
    reader = csv.reader(_lines(table, digest))
    try:
        columns = _columns(table, next(reader, []), kind, optional=only is not None)
        seen: dict[str, None] = {}  # viewers with or without a valid row
        others: dict[str, None] = {}
        place = columns.get(kind[:-1])
        for cells in reader:
            if not cells:
                continue
            line = reader.line_num
            if line > MAX_ROWS:
                raise DatasetError(
                    f"{table}: has more than the allowed {MAX_ROWS:,} lines", "split the set"
                )
            name = only or ""
            if place is not None:
                name = cells[place].strip() if place < len(cells) else ""
            if only is not None and name != only:
                if len(others) < _NAMES:
                    others.setdefault(name)
                continue
            try:
                if len(cells) != len(columns):
                    raise _InvalidRowError(  # noqa: TRY301 - caught with those of the cells
                        "wrong number of cells", f"{len(cells)} cells, expected {len(columns)}"
                    )
                viewer = cells[columns["viewer"]].strip()
                if not viewer:
                    raise _InvalidRowError("no viewer", "the cell viewer is empty")  # noqa: TRY301
                seen[viewer] = None
                numbers = _valid_row(stimuli.get(name), name, cells, columns, kind)
            except _InvalidRowError as exc:
                what, detail = exc.args
                rows.problems.add(what, f"{name or 'no name'}, line {line}: {detail}"[:200])
                continue
            rows.add(name, viewer, numbers)
    except csv.Error as exc:
        raise DatasetError(
            f"{table}: line {reader.line_num} is not valid CSV: {exc}", "save the table as CSV"
        ) from exc
    rows.digest = digest.hexdigest()
    for viewer in seen:
        if viewer not in rows.viewers:
            rows.problems.add("viewer without valid fixations", viewer)
    if not rows.by_stimulus:
        if only is not None and not rows.problems.all():
            names = ", ".join(repr(name) for name in sorted(others)) or "none"
            raise DatasetError(
                f"{table}: has no fixations on the video {only!r}; its column video names {names}",
                "rename the video file to one of these names, or correct the column video",
            )
        worst = max(rows.problems.all(), key=lambda p: p.count, default=None)
        why = f": {worst}" if worst else ""
        raise DatasetError(
            f"{table}: has no valid fixation{why}",
            "correct the table; docs/datasets.md lists the columns and their units",
        )
    return rows


def _columns(table: Source, header: Sequence[str], kind: Kind, *, optional: bool) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    absent = {"duration_ms"} if kind == "images" else set()
    absent |= {kind[:-1]} if optional else set()
    needed = [name for name in COLUMNS[kind] if name not in absent]
    missing = [name for name in needed if name not in names]
    if missing:
        raise DatasetError(
            f"{table}: has no column {' or '.join(missing)}; its first line is "
            f"{','.join(header)[:100]!r}",
            f"a table for {kind} needs the columns {', '.join(needed)}",
        )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DatasetError(f"{table}: has two columns named {twice[0]}", "remove one of them")
    return {name: at for at, name in enumerate(names)}


class _InvalidRowError(Exception):
    """The first problem of an invalid row; the arguments are its kind and a detail of the row."""


def _valid_row(
    stimulus: Stimulus | None,
    name: str,
    cells: Sequence[str],
    columns: Mapping[str, int],
    kind: Kind,
) -> list[float]:
    """Return the `NUMBERS` of a row, with x and y as fractions of the width and height."""
    if stimulus is None:
        raise _InvalidRowError(f"unknown {kind[:-1]}", f"the set has no {kind[:-1]} {name!r}")
    values = {"onset_ms": 0.0, "duration_ms": math.nan}
    for column in (*NUMBERS, "width", "height"):
        if column not in columns:
            continue
        cell = cells[columns[column]]
        try:
            values[column] = float(cell)
        except ValueError as exc:
            raise _InvalidRowError("not a number", f"{column} = {cell!r}") from exc
        if not math.isfinite(values[column]):
            raise _InvalidRowError("not a finite number", f"{column} = {cell}")
    for side, pixels in zip(("width", "height"), stimulus.size, strict=True):
        if (value := values.get(side, pixels)) != pixels:
            raise _InvalidRowError(
                f"{side} differs from the {kind[:-1]}'s",
                f"{value:g} in the table, {pixels} in the file",
            )
    limits = stimulus.size if kind == "videos" else (1, 1)
    for axis, limit in zip(("x", "y"), limits, strict=True):
        if not 0 <= values[axis] < limit:
            raise _InvalidRowError("outside the picture", f"{axis} = {values[axis]:g}")
        values[axis] /= limit
    for column in ("onset_ms", "duration_ms"):
        if values[column] < 0:
            raise _InvalidRowError(f"negative {column}", f"{column} = {values[column]:g}")
    onset, end = values["onset_ms"], stimulus.duration_ms
    if end is not None and onset >= end:
        raise _InvalidRowError(
            "after the end of the video",
            f"onset_ms = {onset:g}, but the video ends at {end:.0f} ms",
        )
    return [values[column] for column in NUMBERS]


def _lines(table: Source, digest: hashlib._Hash) -> Iterator[str]:
    """Yield the lines of a table, unpacked if it is gzip, and update `digest` with their bytes."""
    packed = read_bytes(table)
    plain: IO[bytes] = io.BytesIO(packed)
    if packed.startswith(b"\x1f\x8b"):
        plain = io.BufferedReader(gzip.GzipFile(fileobj=plain))
    total = number = 0
    try:
        while line := plain.readline(_MAX_LINE + 1):
            number += 1
            total += len(line)
            if len(line) > _MAX_LINE:
                raise DatasetError(
                    f"{table}: line {number} has more than the allowed {_MAX_LINE:,} bytes",
                    "check that the table is CSV",
                )
            if total > MAX_TABLE_BYTES:
                raise DatasetError(
                    f"{table}: has more than the allowed {MAX_TABLE_BYTES:,} bytes after unpacking",
                    "split the set",
                )
            digest.update(line)
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as exc:
        raise DatasetError(
            f"{table}: line {number} is not UTF-8", "save the table as UTF-8"
        ) from exc
    except (OSError, EOFError, zlib.error) as exc:
        raise DatasetError(
            f"{table}: can't be unpacked: {exc}", "check that the file is complete"
        ) from exc


DEFAULT_SIGMA = 0.03
"""Standard deviation of the Gaussian, as a fraction of the picture's width, if the viewing distance is not
known. 0.03 is about one degree of visual angle, the usual choice (Le Meur & Baccino, "Methods for comparing
scanpaths and saliency maps", Behavior Research Methods 45, 2013), on a screen 30 to 40 degrees wide."""

PIXELS_PER_DEGREE = (1.0, 1000.0)
"""Allowed range of pixels per degree of visual angle; outside it, a gaze density is a point or flat."""

NARROWEST = 0.5
"""Smallest standard deviation in samples. The sum of a narrower Gaussian over the samples depends on how
far the fixation is from the centre of a sample, so fixations would not count equally."""


def check_pixels_per_degree(pixels_per_degree: float | None) -> None:
    """Raise a UsageError for a number outside `PIXELS_PER_DEGREE`."""
    least, most = PIXELS_PER_DEGREE
    if pixels_per_degree is not None and not least <= pixels_per_degree <= most:
        raise UsageError(
            f"--pixels-per-degree is {pixels_per_degree:g}; it must be between {least:g} and {most:g}",
            "divide the screen's width in pixels by its visual angle: 1920 pixels at 40 degrees are 48",
        )


def sigma_of(width: int, pixels_per_degree: float | None) -> float:
    """Return the standard deviation of the gaze density as a fraction of the picture's width in pixels.

    The result is one degree of visual angle if `pixels_per_degree` is known, else `DEFAULT_SIGMA`.
    """
    return DEFAULT_SIGMA if pixels_per_degree is None else pixels_per_degree / width


def gaze_density(
    fixations: Fixations, width: int, height: int, sigma: float = DEFAULT_SIGMA
) -> npt.NDArray[np.float32]:
    """Return the gaze density over a picture, in which every fixation has the same weight.

    Positions are not rounded to samples. The Gaussians are cut off at the edges of the picture.

    Args:
        fixations: fixations on the picture; at least one.
        width: number of columns of the result.
        height: number of rows of the result; `width` / `height` is the picture's display aspect ratio.
        sigma: standard deviation of the Gaussian, fraction of the width; raised to `NARROWEST` samples
            if it is smaller.

    Returns:
        float32 (height, width), positive or zero, sum 1.

    Raises:
        ValueError: `fixations` is empty.
    """
    if not len(fixations):
        raise ValueError("fixations is empty; a gaze density needs at least one fixation")
    narrowest = max(sigma * width, NARROWEST)
    across = _gaussians(fixations.x * width, width, narrowest)
    down = _gaussians(fixations.y * height, height, narrowest)
    # einsum, not a matrix product: BLAS would start one thread per core for 1 ms of work.
    total = np.einsum("nh,nw->hw", down, across)
    density: npt.NDArray[np.float32] = (total / total.sum()).astype(np.float32)
    return density


@dataclass(frozen=True)
class CentreGaussian:
    """A Gaussian over the picture without correlation between x and y.

    Attributes:
        x, y: mean, fractions of the width and height.
        std_x, std_y: standard deviations, fractions of the width and height.
    """

    x: float
    y: float
    std_x: float
    std_y: float

    def density(self, width: int, height: int) -> npt.NDArray[np.float64]:
        """Return the density at the sample centres as float64 (height, width), sum 1."""
        stds = max(self.std_x * width, NARROWEST), max(self.std_y * height, NARROWEST)
        across = _gaussians(np.array([self.x * width]), width, stds[0])[0]
        down = _gaussians(np.array([self.y * height]), height, stds[1])[0]
        density = np.outer(down, across)
        scaled: npt.NDArray[np.float64] = density / density.sum()
        return scaled


def _gaussians(
    centres: npt.NDArray[np.float64], samples: int, sigma: float
) -> npt.NDArray[np.float64]:
    """Return the values of each Gaussian at the sample centres, float64 (centres, samples)."""
    distance = np.arange(samples) + 0.5 - centres[:, None]
    return np.exp(-0.5 * np.square(distance / sigma))
