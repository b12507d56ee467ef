"""Logs as Parquet: `frameNum` int64, `pts_time` and metrics float64.

This format needs the extra `parquet` (pyarrow). The schema's metadata holds `eyeline`: JSON with `fps`
and `provenance`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from eyeline.errors import LogError, MissingExtraError
from eyeline.logs.base import FRAME_NUM, PTS_TIME, Log, LogFormat, check_unique, compact, parse

METADATA = b"eyeline"
ROWS_PER_GROUP = 65536


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as exc:
        raise MissingExtraError("pyarrow", "parquet") from exc
    return pyarrow, pyarrow.parquet


def write(log: Log, out: BinaryIO) -> None:
    """Write `log`."""
    pa, pq = _pyarrow()
    if clash := {FRAME_NUM, PTS_TIME} & set(log.columns):
        raise LogError(f"{clash.pop()!r} can't be the name of a metric", "rename the metric")
    fields = [(FRAME_NUM, pa.int64()), (PTS_TIME, pa.float64())]
    fields += [(name, pa.float64()) for name in log.columns]
    carried = compact({"fps": log.fps, "provenance": log.provenance}).encode()
    schema = pa.schema(fields, metadata={METADATA: carried})
    columns = [
        np.frombuffer(log.frame_num, np.int64),
        *(np.frombuffer(column) for column in (log.pts_time, *log.values.values())),
    ]
    with pq.ParquetWriter(out, schema) as writer:
        for start in range(0, len(log), ROWS_PER_GROUP):
            arrays = [pa.array(column[start : start + ROWS_PER_GROUP]) for column in columns]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def read(path: Path | BinaryIO) -> Log:
    """Read a log of eyeline, or any Parquet with `frameNum` and numeric columns."""
    pa, pq = _pyarrow()
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as exc:
        raise LogError(f"the file is not Parquet: {exc}") from exc
    names: list[str] = table.column_names
    if FRAME_NUM not in names or len(set(names)) != len(names):
        raise LogError(f"a log needs one column {FRAME_NUM} and no duplicate column names")
    try:
        numbers = table[FRAME_NUM].cast(pa.int64()).to_numpy().tolist()
        columns = {
            name: table[name].cast(pa.float64()).to_numpy() for name in names if name != FRAME_NUM
        }
        carried = parse((table.schema.metadata or {}).get(METADATA, b"{}").decode())
        metrics = [name for name in columns if name != PTS_TIME]
        log = Log(metrics, carried.get("provenance", {}), carried.get("fps"))
    except (pa.ArrowException, ValueError, AttributeError) as exc:
        raise LogError(f"the file is not a log: {exc}") from exc
    check_unique(numbers)
    log.frame_num.extend(numbers)
    log.pts_time.extend(columns.get(PTS_TIME, np.full(len(numbers), np.nan)).tolist())
    for name, values in log.values.items():
        values.extend(columns[name].tolist())
    return log


FORMAT = LogFormat(
    name="parquet",
    suffixes=(".parquet", ".pq"),
    begins=lambda head: head.startswith(b"PAR1"),
    write=write,
    read=read,
)
