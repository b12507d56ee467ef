"""Convert published gaze recordings to fixation sets.

A layout describes how a dataset is published: the folder of its images or videos, its MATLAB file and a
function that reads the MATLAB file. To add a layout, write such a function, and add an entry to `LAYOUTS`
and to `catalogue.toml`.
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
"""Exceptions that SciPy, h5py and the functions below raise for a file in another format."""


class RawFixations(NamedTuple):
    """Fixations of one viewer on one image or video, as the authors recorded them.

    Attributes:
        name: name of the image or video, without suffix; empty if the file has no name.
        viewer: number of the viewer in the MATLAB file, from 1.
        x, y: float64 (N,), pixels from the upper left corner.
        onset_ms: float64 (N,), start of each fixation, milliseconds.
        duration_ms: float64 (N,), duration of each fixation, milliseconds.
    """

    name: str
    viewer: int
    x: Floats
    y: Floats
    onset_ms: Floats
    duration_ms: Floats


class GazeLayout(NamedTuple):
    """The files of a published dataset.

    Attributes:
        kind: whether the dataset has images or videos.
        stimuli: folder of the images or videos, in lower case.
        table: path of the MATLAB file, in lower case.
        read: function of the bytes of the MATLAB file and the sorted names of the images or videos.
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
    """Convert the published files of a dataset to a folder that `load_fixation_set` reads.

    The images or videos are copied unchanged. All recorded fixations are kept; x and y of images
    become fractions of the width and height. Equal input gives the same bytes of the table.

    Args:
        layout: a key of `LAYOUTS`.
        source: folder, .tar or .zip with the published files.
        target: folder to write; it is created only if the conversion succeeds.
        on_progress: called with `copy` or `check`, the number of files done, and the total.

    Returns:
        The written set, with the problems of its rows.

    Raises:
        DatasetError: the layout is unknown, or the files in `source` do not have this layout.
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
            f"{table}: is not a MATLAB file of the layout {layout!r}: {exc}",
            "give the file as its authors published it",
        ) from exc
    missing = sorted({g.name for g in recorded if g.name} - stimuli.keys())
    if missing:
        raise DatasetError(
            f"{source}: {len(missing)} {form.kind} with fixations are missing in "
            f"{form.stimuli}/, the first is {missing[0]!r}",
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
    """Return a layout by name; raise DatasetError for an unknown name."""
    if name not in LAYOUTS:
        raise DatasetError(
            f"{name!r} is not a known layout", f"choose one of: {', '.join(LAYOUTS)}"
        )
    return LAYOUTS[name]


def _find(form: GazeLayout, source: Path) -> tuple[dict[str, Source], Source]:
    """Return the images or videos, by name without spaces, and the MATLAB file."""
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
            f"{source}: does not contain {form.table} and {form.kind} in {form.stimuli}/",
            "give the folder or archive that the authors published",
        )
    # The MATLAB file of the HEVC set names "Basketball Drive.avi" BasketballDrive.
    return {name.replace(" ", ""): s for name, s in under[1].items()}, tables[0]


def _write_table(
    target: Path, kind: Kind, recorded: Sequence[RawFixations], files: dict[str, Path]
) -> None:
    sizes = {}
    if kind == "images":
        sizes = {name: probe_stimulus(kind, name, path).size for name, path in files.items()}
    with (
        target.open("wb") as raw,
        # The gzip header stores no file name and no time, so that equal input gives equal bytes.
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
    """Raise a ValueError if the variables of a MATLAB file unpack to more than `MAX_BYTES`.

    The file has a header of 128 bytes, then elements that begin with a type and a length of 4 bytes each
    (MathWorks, MAT-File Format, "Level 5 MAT-File Format").
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
            raise ValueError(f"the file unpacks to more than the allowed {MAX_BYTES:,} bytes")


def _read_structs(data: bytes, names: Sequence[str]) -> Iterator[RawFixations]:
    """Read the MATLAB file of OSIE or Crowd.

    The file has one cell per image with a struct (img, subjects), and one struct per subject: fix_x and
    fix_y in pixels from the upper left corner, and fix_duration in milliseconds.
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
    """Read the MATLAB file of Scene.

    The file has an array of cells (images, viewers), with the images sorted by name. A row of a cell is
    y, x (pixels), onset, duration (seconds).
    """
    cells = _matlab_cells(data)
    if len(cells) != len(names):
        raise ValueError(f"the file has {len(cells)} images, but the folder has {len(names)}")
    for name, row in zip(names, cells, strict=True):
        for number, cell in enumerate(row, 1):
            if cell.size:
                y, x, onset, duration = np.asarray(cell, np.float64).T
                yield RawFixations(name, number, x, y, 1000 * onset, 1000 * duration)


def _read_hevc(data: bytes, names: Sequence[str]) -> Iterator[RawFixations]:
    """Read the MATLAB 7.3 file, which is HDF5, of the HEVC sequences.

    `fixdata` is stored transposed and has one row per fixation: subject, video (from 1), onset and
    duration (milliseconds), x, y (pixels).
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
            raise ValueError(f"fixdata has the shape {rows.shape[::-1]}, expected (rows, 6)")
        videos = ["".join(map(chr, file[ref][()].flat)) for ref in listed[()].flat]
        fixations = np.asarray(rows[()], np.float64).T
    for viewer, video, *values in fixations:
        known = 1 <= video <= len(videos)  # one published row has no valid video number
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
"""Layouts by the id of the dataset in the catalogue."""
