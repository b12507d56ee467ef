"""Convert published gaze recordings from their authors' layouts to fixation sets.

A layout is a row of `LAYOUTS`: the places of its images or videos and of its MATLAB file, and a function
that reads that file. To add one, write such a function and a row, and a row of `catalogue.toml`.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from eyeline.datasets.files import (
    MAX_BYTES,
    Source,
    copy_file,
    files_under,
    find_files,
    has_suffix,
    read_bytes,
)
from eyeline.datasets.fixations import (
    COLUMNS,
    MAX_ROWS,
    NUMBERS,
    SUFFIXES,
    FixationSet,
    Kind,
    load_fixation_set,
    probe_stimulus,
)
from eyeline.errors import DatasetError, MissingExtraError
from eyeline.files import whole_folder

Floats = npt.NDArray[np.float64]

_EXTRA = "datasets"

_DAMAGED = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, MemoryError),
    zlib.error,
)
"""Errors of SciPy, h5py and the readers below for files of another form."""


class RawFixations(NamedTuple):
    """Fixations of one viewer on one image or video, as the authors recorded them.

    Attributes:
        name: of the image or video, without suffix; empty if the file gives none.
        viewer: the viewer's number in the authors' file, from 1.
        x, y: float64 (N,), pixels.
        onset_ms: float64 (N,), milliseconds.
        duration_ms: float64 (N,), milliseconds.
    """

    name: str
    viewer: int
    x: Floats
    y: Floats
    onset_ms: Floats
    duration_ms: Floats


class GazeLayout(NamedTuple):
    """How a set is published.

    Attributes:
        kind: of its stimuli.
        stimuli: folder of the images or videos, lower case.
        table: the MATLAB file, lower case.
        read: reads the MATLAB file, given the sorted names of the stimuli.
    """

    kind: Kind
    stimuli: str
    table: str
    read: Callable[[bytes, Sequence[str]], Iterator[RawFixations]]


def import_set(
    layout: str,
    source: Path,
    target: Path,
    on_progress: Callable[[str, int, int], None] = lambda part, done, total: None,
) -> FixationSet:
    """Write a fixation set from its authors' files: a folder that `load_fixation_set` reads.

    The images or videos are copied as they are. All recorded rows are kept; x and y of images
    become fractions of the width and height. The table's bytes depend on the input alone.

    Args:
        layout: a key of `LAYOUTS`.
        source: folder, .tar or .zip with the authors' files.
        target: the folder to write; it appears whole or not at all.
        on_progress: called with the part's name, files done, and files in all.

    Returns:
        The written set, with its problems.

    Raises:
        DatasetError: the layout is unknown, or the source has another one.
        OutputError: the target exists, or it cannot be written.
        MissingExtraError: the extra `datasets` is not installed.
    """
    form = find_layout(layout)
    stimuli, table = _find(form, source)
    data = read_bytes(table)
    try:
        recorded = list(form.read(data, sorted(stimuli)))
    except _DAMAGED as exc:
        raise DatasetError(
            f"{table}: does not hold fixations in the layout {layout!r}: {exc}",
            "give the file as its authors publish it",
        ) from exc
    missing = sorted({g.name for g in recorded if g.name} - stimuli.keys())
    if missing:
        raise DatasetError(
            f"{source}: {len(missing)} {form.kind} with fixations are not in "
            f"{form.stimuli}, first {missing[0]!r}",
            "check that the copy is complete",
        )
    with whole_folder(target) as folder:
        copies = {}
        for done, (name, stimulus) in enumerate(sorted(stimuli.items())):
            on_progress("copy", done, len(stimuli))
            suffix = PurePosixPath(stimulus.name).suffix.lower()
            copies[name] = folder / form.kind / f"{name}{suffix}"
            copies[name].parent.mkdir(parents=True, exist_ok=True)
            copy_file(stimulus, copies[name])
        on_progress("copy", len(stimuli), len(stimuli))
        _write_table(folder / "fixations.csv.gz", form.kind, recorded, copies)
        made = load_fixation_set(folder, lambda done, total: on_progress("check", done, total))
    moved = (replace(s, source=target / copies[s.name].relative_to(folder)) for s in made.stimuli)
    return replace(made, name=target.resolve().name, stimuli=tuple(moved))


def find_layout(name: str) -> GazeLayout:
    """Return a row of `LAYOUTS`; raise DatasetError for an unknown name."""
    if name not in LAYOUTS:
        raise DatasetError(
            f"{name!r} is not a known layout", f"choose one of: {', '.join(LAYOUTS)}"
        )
    return LAYOUTS[name]


def _find(form: GazeLayout, source: Path) -> tuple[dict[str, Source], Source]:
    """Return the stimuli by name, without spaces, and the MATLAB file."""
    table = PurePosixPath(form.table)
    found = find_files(
        source,
        (form.stimuli, table.parent.as_posix()),
        lambda path: has_suffix(path, (*SUFFIXES[form.kind], table.suffix)),
        (form.table,),
    )
    under = files_under(
        source, [f for f in found if has_suffix(f[0], SUFFIXES[form.kind])], (form.stimuli,)
    )
    place = under and (under[0] / table).as_posix().lower()
    tables = [s for path, s in found if path.as_posix().lower() == place]
    if under is None or not tables:
        raise DatasetError(
            f"{source}: has no {form.kind} in {form.stimuli}/ beside {form.table}",
            "give the folder or archive that the authors publish",
        )
    # The HEVC set has "Basketball Drive.avi" for BasketballDrive.
    return {name.replace(" ", ""): s for name, s in under[1].items()}, tables[0]


def _write_table(
    target: Path, kind: Kind, recorded: Sequence[RawFixations], files: dict[str, Path]
) -> None:
    sizes = {}
    if kind == "images":
        sizes = {name: probe_stimulus(kind, name, path).size for name, path in files.items()}
    with (
        target.open("wb") as raw,
        # Neither a name nor a time, so that equal input gives equal bytes.
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, "utf-8", newline="") as text,
    ):
        writer = csv.DictWriter(text, COLUMNS[kind], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for gaze in recorded:
            width, height = sizes.get(gaze.name, (1, 1))
            cells = {kind[:-1]: gaze.name, "viewer": gaze.viewer}
            columns = (gaze.x / width, gaze.y / height, gaze.onset_ms, gaze.duration_ms)
            for row in zip(*(column.tolist() for column in columns), strict=True):
                numbers = (f"{value:.7g}" for value in row)
                writer.writerow(cells | dict(zip(NUMBERS, numbers, strict=True)))


def _matlab_cells(data: bytes) -> npt.NDArray[Any]:
    """Return the cell array `fixations` of a MATLAB file of version 5 to 7.2."""
    try:
        from scipy.io import loadmat
    except ImportError as exc:
        raise MissingExtraError("scipy", _EXTRA) from exc
    _check_unpacked(data)
    cells: npt.NDArray[Any] = loadmat(io.BytesIO(data), variable_names=["fixations"])["fixations"]
    return cells


def _check_unpacked(data: bytes) -> None:
    """Refuse a MATLAB file whose variables have more than `MAX_BYTES` when they are unpacked.

    MathWorks, MAT-File Format, "Level 5 MAT-File Format": a header of 128 bytes, then elements that
    begin with a type and a length of 4 bytes each.
    """
    order: Literal["little", "big"] = "little" if data[126:128] == b"IM" else "big"
    at, total = 128, 0
    while at + 8 <= len(data):
        kind, length = (int.from_bytes(data[at + i : at + i + 4], order) for i in (0, 4))
        body, at = data[at + 8 : at + 8 + length], at + 8 + length
        if kind != 15:  # miCOMPRESSED
            continue
        unpack = zlib.decompressobj()
        while body and total <= MAX_BYTES:
            total += len(unpack.decompress(body, 1 << 20))
            body = unpack.unconsumed_tail
        if total > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes unpacked")


def _read_structs(data: bytes, names: Sequence[str]) -> Iterator[RawFixations]:
    """Read OSIE and Crowd: a cell per image with a struct (img, subjects), a struct per subject.

    fix_x and fix_y are pixels from the upper left corner, fix_duration milliseconds.
    """
    for cell in _matlab_cells(data).flat:
        image = cell[0, 0]
        name = PurePosixPath(str(image["img"].item())).stem
        for number, viewer in enumerate(image["subjects"].flat, 1):
            if not viewer.size:
                continue
            x, y, duration = (
                np.ravel(viewer[0, 0][f"fix_{part}"]).astype(np.float64)
                for part in ("x", "y", "duration")
            )
            if not len(x) == len(y) == len(duration):
                raise ValueError(
                    f"viewer {number} of {name!r} has different counts of x, y and duration"
                )
            yield RawFixations(name, number, x, y, np.zeros_like(x), duration)


def _read_matrices(data: bytes, names: Sequence[str]) -> Iterator[RawFixations]:
    """Read Scene: cells (images, viewers) in the order of the images' names.

    A row of a cell is y, x (pixels), onset, duration (seconds).
    """
    cells = _matlab_cells(data)
    if len(cells) != len(names):
        raise ValueError(f"it has {len(cells)} images, the folder {len(names)}")
    for name, row in zip(names, cells, strict=True):
        for number, cell in enumerate(row, 1):
            if cell.size:
                y, x, onset, duration = np.asarray(cell, np.float64).T
                yield RawFixations(name, number, x, y, 1000 * onset, 1000 * duration)


def _read_hevc(data: bytes, names: Sequence[str]) -> Iterator[RawFixations]:
    """Read the HEVC sequences: MATLAB 7.3, which is HDF5; a row per fixation, stored transposed.

    Its columns are subject, video (from 1), onset and duration (milliseconds), x, y (pixels).
    """
    try:
        import h5py
    except ImportError as exc:
        raise MissingExtraError("h5py", _EXTRA) from exc
    with h5py.File(io.BytesIO(data), "r") as file:
        root = file["video_database"]
        listed = root["video_names_list"]
        rows = root["fixdata"]
        if rows.ndim != 2 or len(rows) != 6 or rows.size > 6 * MAX_ROWS or listed.size > MAX_ROWS:
            raise ValueError(f"fixdata has the shape {rows.shape[::-1]}, not (rows, 6)")
        videos = ["".join(map(chr, file[ref][()].flat)) for ref in listed[()].flat]
        fixations = np.asarray(rows[()], np.float64).T
    for viewer, video, *values in fixations:
        known = 1 <= video <= len(videos)  # one published row has no video
        onset, duration, x, y = (np.array([value]) for value in values)
        yield RawFixations(
            videos[int(video) - 1] if known else "", int(viewer), x, y, onset, duration
        )


LAYOUTS = {
    "osie": GazeLayout("images", "data/stimuli", "data/eye/fixations.mat", _read_structs),
    "crowd": GazeLayout("images", "data/stimuli", "data/eye/fixations.mat", _read_structs),
    "scene": GazeLayout("images", "data/stimuli", "data/tidy/fixations.mat", _read_matrices),
    "hevc": GazeLayout("videos", "videos", "video_database.mat", _read_hevc),
}
"""By the id of the set in the catalogue."""
