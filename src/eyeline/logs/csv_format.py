"""Logs as CSV in libvmaf's layout (`vmaf_write_output_csv` in `libvmaf/src/output.c`).

A header `Frame,<metric>,...,` and a row per frame, each line ending in a comma, so that readers
see a last column that is always empty. We add `pts_time` behind `Frame`, and put provenance where
it disturbs no reader: into the *name* of that empty column, as `eyeline=` and percent-encoded JSON
(no comma, quote or line break). A comment line would break readers, and a second file would be
lost. Numbers that are not finite read `nan`, `inf` and `-inf`.
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
KEPT = " {}[]():;/+@&=?<>*!'|~"
"""Characters of the provenance that stay readable; the comma, the quotation mark and `%` do not."""


def _line(cells: Iterable[str]) -> bytes:
    return (",".join(cells) + "\n").encode()


def _provenance_cell(provenance: dict[str, Any], fps: float | None) -> str:
    return PROVENANCE + quote(compact({"fps": fps, "provenance": provenance}), safe=KEPT)


def _check_names(names: list[str]) -> None:
    for name in names:
        if name in ("", FRAME, PTS_TIME) or name != name.strip() or set(name) & set(',"\r\n'):
            raise LogError(f"{name!r} can't be the name of a CSV column")


def write(log: Log, out: BinaryIO) -> None:
    """Write `log`, a row at a time.

    Raises:
        LogError: a metric's name can't stand in libvmaf's CSV, which knows no quoting.
    """
    _check_names(log.columns)
    out.write(_line([FRAME, PTS_TIME, *log.columns, _provenance_cell(log.provenance, log.fps)]))
    for number, pts_time, metrics in log.rows():
        out.write(_line([str(number), repr(pts_time), *map(repr, metrics.values()), ""]))


class _Table:
    """The cells of a CSV log as they are spelt.

    Args:
        path: the file.

    Raises:
        LogError: it is not a CSV log.
    """

    def __init__(self, path: Path) -> None:
        rows = csv.reader(io.StringIO(read_text(path)), strict=True)
        try:
            header = next(rows, [])
            if header[:1] != [FRAME]:
                raise LogError(f"{path}: does not begin with {FRAME!r}", "give libvmaf's CSV log")
            self.last = header.pop() if header[-1] == "" or _ours(header[-1]) else None
            self.names = header[1:]
            self.rows: list[list[str]] = []
            self.numbers: list[int] = []
            for row in rows:
                if not row:
                    continue
                cells = row[:-1] if self.last is not None and row[-1] == "" else row
                if len(cells) != len(header):
                    # libvmaf leaves out what it did not compute, and the cells behind move up.
                    raise LogError(
                        f"{path}: line {rows.line_num} has {len(cells)} cells, "
                        f"the header {len(header)}",
                        "the JSON log says which metric a frame lacks",
                    )
                self.numbers.append(int(cells[0]))
                self.rows.append(cells)
                for cell in cells[1:]:
                    float(cell)
        except (csv.Error, ValueError) as exc:
            raise LogError(f"{path}: line {rows.line_num}: {exc}") from exc
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise LogError(f"{path}: the name {twice!r} appears twice")

    def provenance(self, path: Path) -> dict[str, Any]:
        """What the last column's name carries: `fps` and `provenance`, empty if it has none."""
        if not self.last:
            return {"fps": None, "provenance": {}}
        try:
            carried = parse(unquote(self.last.removeprefix(PROVENANCE)))
            return {"fps": carried["fps"], "provenance": dict(carried["provenance"])}
        except (ValueError, TypeError, KeyError) as exc:
            raise LogError(f"{path}: the provenance in the header can't be read") from exc


def _ours(cell: str) -> bool:
    return cell.startswith(PROVENANCE)


def read(path: Path) -> Log:
    """Read libvmaf's or our own CSV.

    Raises:
        LogError: the file is not such a log.
    """
    table = _Table(path)
    check_unique(path, table.numbers)
    carried = table.provenance(path)
    metrics = [name for name in table.names if name != PTS_TIME]
    log = Log(metrics, carried["provenance"], carried["fps"])
    for number, row in zip(table.numbers, table.rows, strict=True):
        cells = dict(zip(table.names, map(float, row[1:]), strict=True))
        log.append(number, cells.get(PTS_TIME, float("nan")), cells)
    return log


def merge(log: Log, path: Path, out: BinaryIO) -> None:
    """Write the log at `path` again with our columns behind its own, whose cells stay as spelt.

    Raises:
        LogError: it is not such a log, or does not match `log`.
    """
    _check_names(log.columns)
    table = _Table(path)
    rows = match_frames(log, path, table.numbers, table.names)
    timed = PTS_TIME in table.names  # its own clock stays
    theirs = table.provenance(path)["provenance"]
    last = _provenance_cell({**log.provenance, MERGED_LOG: theirs}, log.fps)
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
