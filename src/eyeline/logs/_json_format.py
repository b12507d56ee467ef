"""Logs as JSON in libvmaf's layout (`vmaf_write_output_json` in `libvmaf/src/output.c`).

`frames[]` with `frameNum` and `metrics{}`, `pooled_metrics{}` and `aggregate_metrics{}` are libvmaf's.
eyeline adds `pts_time` to each frame, percentiles to the pooled numbers, and `provenance{}`. A number
that is not finite is `null`, as in libvmaf. libvmaf's `fps` is the speed of its own run; in a log of
eyeline it is the frame rate of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from eyeline._version import __version__
from eyeline.errors import LogError
from eyeline.logs.base import (
    FRAME_NUM,
    MERGED_LOG,
    PTS_TIME,
    Log,
    LogFormat,
    check_unique,
    dump,
    match_frames,
    parse,
    pool,
    read_text,
)


def _emit(document: dict[str, Any], out: BinaryIO) -> None:
    out.writelines(piece.encode() for piece in dump(document))
    out.write(b"\n")


def _pooled(log: Log) -> dict[str, dict[str, float]]:
    return {name: pool(values) for name, values in log.values.items()}


def write(log: Log, out: BinaryIO) -> None:
    """Write `log`, a frame at a time."""
    document = {
        "version": __version__,
        "fps": log.fps,
        "frames": ({FRAME_NUM: n, PTS_TIME: t, "metrics": metrics} for n, t, metrics in log.rows()),
        "pooled_metrics": _pooled(log),
        "aggregate_metrics": {},
        "provenance": log.provenance,
    }
    _emit(document, out)


def _load(path: Path) -> dict[str, Any]:
    """Parse the document at `path` and check its frames."""
    document: dict[str, Any]
    try:
        document = parse(read_text(path))
    except RecursionError as exc:
        raise LogError("the JSON is nested too deeply for a log") from exc
    except ValueError as exc:
        raise LogError(f"the file is not JSON: {exc}") from exc
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list):
        raise LogError("the file has no list of frames")
    for at, frame in enumerate(frames):
        number = frame.get(FRAME_NUM) if isinstance(frame, dict) else None
        if not isinstance(number, int) or isinstance(number, bool):
            raise LogError(f"entry {at} of frames has no whole {FRAME_NUM}")
        metrics = frame.get("metrics")
        if not isinstance(metrics, dict):
            raise LogError(f"frame {number} has no metrics")
        for name, value in {**metrics, PTS_TIME: frame.get(PTS_TIME)}.items():
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise LogError(f"frame {number}: {name} is not a number")
    for key in ("pooled_metrics", "provenance"):
        if not isinstance(document.get(key, {}), dict):
            raise LogError(f"{key} is not an object")
    return document


def _names(document: dict[str, Any]) -> list[str]:
    """Return the metrics of any frame, in the order in which they first appear."""
    return list(dict.fromkeys(name for frame in document["frames"] for name in frame["metrics"]))


def _provenance(document: dict[str, Any]) -> dict[str, Any]:
    provenance: dict[str, Any] = document.get(
        "provenance", {"libvmaf_version": document.get("version")}
    )
    return provenance


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def read(path: Path) -> Log:
    """Read a JSON log; null, and a metric that a frame lacks, become NaN."""
    document = _load(path)
    frames, names, provenance = document["frames"], _names(document), _provenance(document)
    check_unique([frame[FRAME_NUM] for frame in frames])
    fps = None
    if "provenance" in document and MERGED_LOG not in provenance:
        fps = document.get("fps")
    log = Log(names, provenance, None if fps is None else float(fps))
    for frame in frames:
        metrics = {name: _number(frame["metrics"].get(name)) for name in names}
        log.append(frame[FRAME_NUM], _number(frame.get(PTS_TIME)), metrics)
    return log


def merge(log: Log, path: Path, out: BinaryIO) -> None:
    """Write the log at `path` again with the metrics, pooled numbers and provenance of `log` added.

    The existing content is repeated exactly, including a `pts_time`. The existing `provenance` moves
    under `merged_log`.
    """
    document = _load(path)
    frames, pooled = document["frames"], document.get("pooled_metrics", {})
    rows = match_frames(log, [frame[FRAME_NUM] for frame in frames], [*_names(document), *pooled])

    def merged() -> Iterator[dict[str, Any]]:
        for frame, row in zip(frames, rows, strict=True):
            ours = {name: values[row] for name, values in log.values.items()}
            head = {FRAME_NUM: frame[FRAME_NUM], PTS_TIME: log.pts_time[row], "metrics": None}
            yield {**head, **frame, "metrics": {**frame["metrics"], **ours}}

    provenance = {**log.provenance, MERGED_LOG: _provenance(document)}
    added = {"frames": merged(), "pooled_metrics": {**pooled, **_pooled(log)}}
    _emit({**document, **added, "provenance": provenance}, out)


FORMAT = LogFormat(
    name="json",
    suffixes=(".json",),
    begins=lambda head: head.startswith(b"{"),
    write=write,
    read=read,
    merge=merge,
)
