"""Logs as CSV in libvmaf's layout (`vmaf_write_output_csv` in `libvmaf/src/output.c`).

The layout is a header `Frame,<metric>,...,` and a row per frame. Each line ends in a comma, so readers
see a last column that is always empty. eyeline adds `pts_time` after `Frame`, and puts the provenance
into the *name* of the empty column, as `eyeline=` and percent-encoded JSON without comma, quote or
line break. Comment lines would break other readers, and a second file is easily lost. Numbers
that are not finite are written as `nan`, `inf` and `-inf`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from eyeline.errors import LogError
from eyeline.logs.base import (
    MERGED_LOG,
    PTS_TIME,
    Log,
    LogFormat,
    check_unique,
    compact,
    match_frames,
    parse,
    read_text,
)

FRAME = "Frame"
PROVENANCE = "eyeline="
READABLE = " {}[]():;/+@&=?<>*!'|~"
"""Characters of the provenance that are not percent-encoded, unlike comma, quotation mark and `%`."""


def _line(cells: Iterable[str]) -> bytes:
    return (",".join(cells) + "\n").encode()


def _provenance_cell(provenance: dict[str, Any], fps: float | None) -> str:
    return PROVENANCE + quote(compact({"fps": fps, "provenance": provenance}), safe=READABLE)


def _check_names(names: list[str]) -> None:
    """Reject names that libvmaf's CSV, which has no quoting, cannot hold."""
    for name in names:
        if name in ("", FRAME, PTS_TIME) or name != name.strip() or set(name) & set(',"\r\n'):
            raise LogError(f"{name!r} can't be the name of a CSV column", "write a JSON log")


def write(log: Log, out: BinaryIO) -> None:
    """Write `log`, a row at a time."""
    _check_names(log.columns)
    out.write(_line([FRAME, PTS_TIME, *log.columns, _provenance_cell(log.provenance, log.fps)]))
    for number, pts_time, metrics in log.rows():
        out.write(_line([str(number), repr(pts_time), *map(repr, metrics.values()), ""]))


class _CsvCells:
    """The cells of a CSV log, spelled as in the file, and its provenance."""

    def __init__(self, path: Path) -> None:
        rows = csv.reader(io.StringIO(read_text(path)), strict=True)
        self.provenance: dict[str, Any] = {}
        self.fps: float | None = None
        self.rows: list[list[str]] = []
        self.numbers: list[int] = []
        try:
            header = next(rows, [])
            if header[:1] != [FRAME]:
                raise LogError(
                    f"the file does not begin with {FRAME!r}", "give a CSV log of libvmaf"
                )
            padded = header[-1] == "" or header[-1].startswith(PROVENANCE)
            last = header.pop() if padded else ""
            self.names = header[1:]
            for row in rows:
                if not row:
                    continue
                cells = row[:-1] if padded and row[-1] == "" else row
                if len(cells) != len(header):
                    # libvmaf leaves out values that it did not compute, which shifts the cells after them.
                    raise LogError(
                        f"line {rows.line_num} has {len(cells)} cells, but the header has {len(header)}",
                        "give the JSON log, which says which metric a frame lacks",
                    )
                self.numbers.append(int(cells[0]))
                self.rows.append(cells)
                for cell in cells[1:]:
                    float(cell)
        except (csv.Error, ValueError) as exc:
            raise LogError(f"line {rows.line_num}: {exc}") from exc
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise LogError(f"the name {twice!r} appears twice")
        if last:
            try:
                carried = parse(unquote(last.removeprefix(PROVENANCE)))
                self.fps, self.provenance = carried["fps"], dict(carried["provenance"])
            except (ValueError, TypeError, KeyError) as exc:
                raise LogError("the provenance in the header can't be read") from exc


def read(path: Path) -> Log:
    """Read a CSV log of libvmaf or eyeline."""
    table = _CsvCells(path)
    check_unique(table.numbers)
    log = Log([name for name in table.names if name != PTS_TIME], table.provenance, table.fps)
    for number, row in zip(table.numbers, table.rows, strict=True):
        cells = dict(zip(table.names, map(float, row[1:]), strict=True))
        log.append(number, cells.get(PTS_TIME, float("nan")), cells)
    return log


def merge(log: Log, path: Path, out: BinaryIO) -> None:
    """Write the log at `path` again with unchanged cells, and append the columns of `log`."""
    _check_names(log.columns)
    table = _CsvCells(path)
    rows = match_frames(log, table.numbers, table.names)
    timed = PTS_TIME in table.names  # the existing log keeps its times
    last = _provenance_cell({**log.provenance, MERGED_LOG: table.provenance}, log.fps)
    out.write(_line([FRAME, *table.names, *([] if timed else [PTS_TIME]), *log.columns, last]))
    for cells, row in zip(table.rows, rows, strict=True):
        ours = [] if timed else [repr(log.pts_time[row])]
        ours += [repr(values[row]) for values in log.values.values()]
        out.write(_line([*cells, *ours, ""]))


FORMAT = LogFormat(
    name="csv",
    suffixes=(".csv",),
    begins=lambda head: head.startswith(FRAME.encode()),
    write=write,
    read=read,
    merge=merge,
)
