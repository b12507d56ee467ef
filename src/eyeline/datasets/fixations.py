"""Fixation sets: pictures or videos with the recorded gaze of their viewers, and its density.

A fixation set is a folder, a .tar or a .zip that holds `images/` or `videos/` and one table,
`fixations.csv` or `fixations.csv.gz`, at its top or inside one wrapping folder:

| kind | columns | coordinates |
|---|---|---|
| images | image, viewer, x, y, duration_ms | fractions of the picture's width and height |
| videos | video, viewer, onset_ms, duration_ms, x, y | pixels of the video |

The name of an image or video is its path below `images/` or `videos/` without its suffix. Columns may
come in any order. `duration_ms` of images, and `width` and `height` (pixels of the picture that the
viewers saw), may be absent; further columns are ignored.

The density of gaze is the sum of one Gaussian per fixation. The blur stands for the accuracy of an eye
tracker and the size of the fovea. Metrics compare predicted maps with the density, and scores of encodes
weight errors by it.
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
"""Largest table, unpacked, and most rows: more is a mistake, or a bomb."""

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
    """The fixations of all viewers on one image or video, in the order of the table.

    Attributes:
        viewer: int64 (N,), index into `FixationSet.viewers`.
        x: float64 (N,), fraction of the width, 0 <= x < 1, left to right.
        y: float64 (N,), fraction of the height, 0 <= y < 1, top to bottom.
        onset_ms: float64 (N,), milliseconds from the first frame; 0 for images.
        duration_ms: float64 (N,), milliseconds; NaN where the table does not say.
    """

    viewer: Ints
    x: Floats
    y: Floats
    onset_ms: Floats
    duration_ms: Floats

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: npt.NDArray[np.bool_] | Ints) -> Fixations:
        """Return the chosen rows: a bool (N,) mask or int64 (M,) indices."""
        return Fixations(*(getattr(self, f.name)[rows] for f in fields(self)))

    def active_at(self, time_ms: float) -> Fixations:
        """Return the fixations that have begun and not ended, `time_ms` after the first frame."""
        started = self.onset_ms <= time_ms
        return self.select(started & (time_ms < self.onset_ms + self.duration_ms))


@dataclass(frozen=True)
class Stimulus:
    """An image or video that viewers looked at.

    Attributes:
        name: path below `images/` or `videos/` without suffix, unique in its set.
        source: where the file is.
        size: (width, height) as shown, pixels.
        digest: sha256 hex digest of the file's bytes.
        fixations: valid fixations; may be empty.
        fps: average frame rate of a video that states one, else None.
        duration_ms: length of a video that states it, milliseconds, else None.
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
    """One kind of invalid row or file in a set, with its count.

    Attributes:
        kind: such as `outside the picture`.
        count: number of rows, images, videos or viewers.
        examples: the first few, each as `NAME, line 12: x = 1.02`.
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
        name: of its folder or archive, without suffix.
        kind: whether the stimuli are images or videos.
        stimuli: sorted by name.
        viewers: names of the viewers, in the order of their first row.
        digest: sha256 hex digest over the table and the names and digests of all stimuli.
        problems: of invalid rows, which are not in `stimuli`.
    """

    name: str
    kind: Kind
    stimuli: tuple[Stimulus, ...]
    viewers: tuple[str, ...]
    digest: str
    problems: tuple[FixationProblem, ...]


@dataclass(frozen=True)
class Recording:
    """The fixations on one video, read from a table without its set.

    Attributes:
        fixations: valid fixations; at least one.
        viewers: names of the viewers of this video, in the order of their first row.
        digest: sha256 hex digest of the table's unpacked bytes.
        problems: of invalid rows, which are not in `fixations`.
    """

    fixations: Fixations
    viewers: tuple[str, ...]
    digest: str
    problems: tuple[FixationProblem, ...]


def fold_of(digest: str) -> Fold:
    """Return the fold of an image, decided by its content alone: copies share a fold.

    One tenth of the images of a set selects an epoch of a training run, another tenth reports how good
    the model is, and the rest trains it. `digest` is the sha256 hex digest of the image's bytes.
    """
    share = int(digest[:8], 16) / 0x100000000
    return "select" if share < 0.1 else "report" if share < 0.2 else "train"


def is_fixation_set(root: Path) -> bool:
    """Return whether a folder or archive holds a fixation table beside `images/` or `videos/`.

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

    Rows that cannot be used are left out, counted in `FixationSet.problems` and named there.

    Args:
        root: folder, .tar or .zip.
        on_progress: called with images or videos checked and in all.

    Raises:
        DatasetError: the set has no table, no stimuli, a missing column, or no valid fixation; two
            files have one name; or an image, a video or the table cannot be read.
        MissingExtraError: the set holds images, and Pillow is not installed.
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
    """Read and check the fixations on one video from a table alone.

    Args:
        table: a .csv or .csv.gz with the columns of a set of videos; without the column `video`,
            all rows belong to this video.
        video: the video's name, as in the column `video`: its file name without suffix.
        size: (width, height) of the video as shown, pixels; x and y are divided by them.
        duration_ms: length of the video, milliseconds, where it is known.

    Raises:
        DatasetError: the table cannot be read, lacks a column, has no row for this video, or no
            valid one.
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
    """Return the set's kind, the folder that holds it, and its images or videos by name."""
    held = {kind: under for kind in SUFFIXES if (under := files_under(root, found, (kind,)))}
    if not held:
        raise DatasetError(
            f"{root}: has no images in images/ and no videos in videos/",
            f"supported suffixes: {', '.join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))}",
        )
    if len(held) > 1:
        raise DatasetError(
            f"{root}: holds images/ and videos/", "keep each kind in a set of its own"
        )
    ((kind, (base, sources)),) = held.items()
    return kind, base, sources


def _table_of(root: Path, found: list[tuple[PurePosixPath, Source]], base: PurePosixPath) -> Source:
    tables = [s for path, s in found if path.name.lower() in TABLES and path.parent == base]
    if len(tables) != 1:
        what = "two fixation tables" if tables else "no fixation table"
        raise DatasetError(
            f"{root}: has {what} beside its images or videos",
            f"keep one of {' and '.join(TABLES)}",
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
    """Problems, counted by their kind in the order in which they were found."""

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
    """Valid rows of a table.

    Attributes:
        digest: sha256 hex digest of the unpacked bytes.
        viewers: index of each viewer who has a valid fixation.
        by_stimulus: viewer, x, y, onset_ms and duration_ms of the valid rows of each stimulus.
        problems: of the other rows.
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
    """Read and check all rows of a table.

    Args:
        table: where the table is.
        kind: of its stimuli.
        stimuli: by name.
        only: the one video whose rows count; rows of others are no problem then.
    """
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
                raise DatasetError(f"{table}: has more than {MAX_ROWS:,} lines", "split the set")
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
                        "wrong number of cells", f"{len(cells)} in place of {len(columns)}"
                    )
                viewer = cells[columns["viewer"]].strip()
                if not viewer:
                    raise _InvalidRowError("no viewer", "the cell is empty")  # noqa: TRY301
                seen[viewer] = None
                numbers = _valid_row(stimuli.get(name), name, cells, columns, kind)
            except _InvalidRowError as exc:
                what, detail = exc.args
                rows.problems.add(what, f"{name or 'no name'}, line {line}: {detail}"[:200])
                continue
            rows.add(name, viewer, numbers)
    except csv.Error as exc:
        raise DatasetError(
            f"{table}: line {reader.line_num} is not CSV: {exc}", "save the table as CSV"
        ) from exc
    rows.digest = digest.hexdigest()
    for viewer in seen:
        if viewer not in rows.viewers:
            rows.problems.add("viewer without valid fixations", viewer)
    if not rows.by_stimulus:
        if only is not None and not rows.problems.all():
            names = ", ".join(repr(name) for name in sorted(others)) or "nothing"
            raise DatasetError(
                f"{table}: has no fixations on video {only!r}; it names {names}",
                "name the video's file, without its suffix, as in the column `video`",
            )
        worst = max(rows.problems.all(), key=lambda p: p.count, default=None)
        why = f": {worst}" if worst else ""
        raise DatasetError(
            f"{table}: holds no valid fixation{why}",
            "see docs/datasets.md for the columns and their units",
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
            f"a set of {kind} has the columns {', '.join(needed)}",
        )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DatasetError(f"{table}: has two columns {twice[0]}", "keep one of them")
    return {name: at for at, name in enumerate(names)}


class _InvalidRowError(Exception):
    """The first problem of a row: its kind, and the detail of this row."""


def _valid_row(
    stimulus: Stimulus | None,
    name: str,
    cells: Sequence[str],
    columns: Mapping[str, int],
    kind: Kind,
) -> list[float]:
    """Return the `NUMBERS` of a row with its viewer; x and y as fractions."""
    if stimulus is None:
        raise _InvalidRowError(f"unknown {kind[:-1]}", f"there is no {name!r}")
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
                f"{side} differs from the {kind[:-1]}'s", f"{value:g}, the file has {pixels}"
            )
    limits = stimulus.size if kind == "videos" else (1, 1)
    for axis, limit in zip(("x", "y"), limits, strict=True):
        if not 0 <= values[axis] < limit:
            raise _InvalidRowError("outside the picture", f"{axis} = {values[axis]:g}")
        values[axis] /= limit
    for column in ("onset_ms", "duration_ms"):
        if values[column] < 0:
            raise _InvalidRowError(f"negative {column}", f"{values[column]:g}")
    onset, end = values["onset_ms"], stimulus.duration_ms
    if end is not None and onset >= end:
        raise _InvalidRowError(
            "after the end of the video", f"onset_ms = {onset:g}, the video ends at {end:.0f}"
        )
    return [values[column] for column in NUMBERS]


def _lines(table: Source, digest: hashlib._Hash) -> Iterator[str]:
    """Yield the lines of a table, and feed their bytes to `digest`."""
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
                    f"{table}: line {number} has more than {_MAX_LINE:,} bytes",
                    "give a table in CSV",
                )
            if total > MAX_TABLE_BYTES:
                raise DatasetError(
                    f"{table}: has more than {MAX_TABLE_BYTES:,} bytes unpacked", "split the set"
                )
            digest.update(line)
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as exc:
        raise DatasetError(
            f"{table}: line {number} is not UTF-8", "save the table as UTF-8"
        ) from exc
    except (OSError, EOFError, zlib.error) as exc:
        raise DatasetError(
            f"{table}: can't be unpacked: {exc}", "check that it is complete"
        ) from exc


DEFAULT_SIGMA = 0.03
"""Standard deviation as a share of the picture's width where the viewing distance is not known. One
degree of visual angle is the field's choice (Le Meur & Baccino, "Methods for comparing scanpaths and
saliency maps", Behavior Research Methods 45, 2013); a screen is some 30 to 40 degrees wide."""

PIXELS_PER_DEGREE = (1.0, 1000.0)
"""Least and most pixels per degree of visual angle: beyond them a density is a point, or flat."""

NARROWEST = 0.5
"""Least standard deviation, samples: a narrower Gaussian falls between the samples, so that fixations
would count by their distance from the middle of one."""


def check_pixels_per_degree(pixels_per_degree: float | None) -> None:
    """Raise a UsageError for a number out of `PIXELS_PER_DEGREE`."""
    least, most = PIXELS_PER_DEGREE
    if pixels_per_degree is not None and not least <= pixels_per_degree <= most:
        raise UsageError(
            f"--pixels-per-degree is {pixels_per_degree:g}; it must be between {least:g} and {most:g}",
            "a screen of 1920 pixels that is 40 degrees wide has 48",
        )


def sigma_of(width: int, pixels_per_degree: float | None) -> float:
    """Return the standard deviation of the density as a share of the picture's width (pixels).

    It is one degree of visual angle if `pixels_per_degree` is known, else `DEFAULT_SIGMA`.
    """
    return DEFAULT_SIGMA if pixels_per_degree is None else pixels_per_degree / width


def gaze_density(
    fixations: Fixations, width: int, height: int, sigma: float = DEFAULT_SIGMA
) -> npt.NDArray[np.float32]:
    """Return the density of gaze over a picture; every fixation counts the same.

    Positions are not rounded to samples. Gaussians are cut off at the edges of the picture.

    Args:
        fixations: at least one.
        width: columns of the result, which has the aspect of the picture as shown.
        height: rows of the result.
        sigma: standard deviation of the Gaussian, share of the width; at least `NARROWEST` samples.

    Returns:
        float32 (height, width), positive or zero, sum 1.

    Raises:
        ValueError: there is no fixation.
    """
    if not len(fixations):
        raise ValueError("no fixation, so there is no density")
    narrowest = max(sigma * width, NARROWEST)
    across = _gaussians(fixations.x * width, width, narrowest)
    down = _gaussians(fixations.y * height, height, narrowest)
    # No matrix product: BLAS would wake a thread per core for a millisecond's work.
    total = np.einsum("nh,nw->hw", down, across)
    density: npt.NDArray[np.float32] = (total / total.sum()).astype(np.float32)
    return density


@dataclass(frozen=True)
class CentreGaussian:
    """A Gaussian over the picture with independent axes.

    Attributes:
        x, y: mean, fractions of the width and height.
        std_x, std_y: standard deviations, fractions of the width and height.
    """

    x: float
    y: float
    std_x: float
    std_y: float

    def density(self, width: int, height: int) -> npt.NDArray[np.float64]:
        """Return the density at the pixel centres as float64 (height, width), sum 1."""
        stds = max(self.std_x * width, NARROWEST), max(self.std_y * height, NARROWEST)
        across = _gaussians(np.array([self.x * width]), width, stds[0])[0]
        down = _gaussians(np.array([self.y * height]), height, stds[1])[0]
        density = np.outer(down, across)
        scaled: npt.NDArray[np.float64] = density / density.sum()
        return scaled


def _gaussians(
    centres: npt.NDArray[np.float64], samples: int, sigma: float
) -> npt.NDArray[np.float64]:
    """Return float64 (fixations, samples): each Gaussian at the samples' centres."""
    distance = np.arange(samples) + 0.5 - centres[:, None]
    return np.exp(-0.5 * np.square(distance / sigma))
