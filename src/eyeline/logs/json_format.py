"""Logs as JSON in libvmaf's layout (`vmaf_write_output_json` in `libvmaf/src/output.c`).

`frames[]` with `frameNum` and `metrics{}`, `pooled_metrics{}` and `aggregate_metrics{}` as
libvmaf writes them; beside those, `pts_time` in each frame, percentiles in the pooled numbers,
and `provenance{}`. A number that is not finite is `null`, as in libvmaf. libvmaf's `fps` is the
speed of its own run; in our logs it is the frame rate of the video.
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

NAN = float("nan")


def _emit(document: dict[str, Any], out: BinaryIO) -> None:
    out.writelines(piece.encode() for piece in dump(document))
    out.write(b"\n")


def _frames(log: Log) -> Iterator[dict[str, Any]]:
    for number, pts_time, metrics in log.rows():
        yield {FRAME_NUM: number, PTS_TIME: pts_time, "metrics": metrics}


def _pooled(log: Log) -> dict[str, dict[str, float]]:
    return {name: pool(values) for name, values in log.values.items()}


def write(log: Log, out: BinaryIO) -> None:
    """Write `log`, a frame at a time."""
    document = {
        "version": __version__,
        "fps": log.fps,
        "frames": _frames(log),
        "pooled_metrics": _pooled(log),
        "aggregate_metrics": {},
        "provenance": log.provenance,
    }
    _emit(document, out)


def _load(path: Path) -> dict[str, Any]:
    """The document at `path`, with its frames checked."""
    document: dict[str, Any]
    try:
        document = parse(read_text(path))
    except LogError as exc:
        raise LogError(f"{path}: {exc.message}") from exc
    except RecursionError as exc:
        raise LogError(f"{path}: is nested too deeply for a log") from exc
    except ValueError as exc:
        raise LogError(f"{path}: is not JSON: {exc}") from exc
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list):
        raise LogError(f"{path}: has no list of frames", "give libvmaf's or eyeline's JSON log")
    for at, frame in enumerate(frames):
        number = frame.get(FRAME_NUM) if isinstance(frame, dict) else None
        if not isinstance(number, int) or isinstance(number, bool):
            raise LogError(f"{path}: entry {at} of frames has no whole {FRAME_NUM}")
        metrics = frame.get("metrics")
        if not isinstance(metrics, dict):
            raise LogError(f"{path}: frame {number} has no metrics")
        numbers = {**metrics, PTS_TIME: frame.get(PTS_TIME)}
        for name, value in numbers.items():
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float)
            ):
                raise LogError(f"{path}: frame {number}: {name} is not a number")
    for key in ("pooled_metrics", "provenance"):
        if not isinstance(document.get(key, {}), dict):
            raise LogError(f"{path}: {key} is not an object")
    return document


def _names(document: dict[str, Any]) -> list[str]:
    """Metrics of any frame, in the order in which they first appear."""
    return list(dict.fromkeys(name for frame in document["frames"] for name in frame["metrics"]))


def _provenance(document: dict[str, Any]) -> dict[str, Any]:
    """Where the document comes from; libvmaf says no more than its version."""
    provenance: dict[str, Any] = document.get(
        "provenance", {"libvmaf_version": document.get("version")}
    )
    return provenance


def _number(value: float | None) -> float:
    return NAN if value is None else float(value)


def read(path: Path) -> Log:
    """Read libvmaf's or our own JSON; a metric that a frame lacks, and null, become NaN.

    Raises:
        LogError: the file is not such a log.
    """
    document = _load(path)
    frames = document["frames"]
    check_unique(path, [frame[FRAME_NUM] for frame in frames])
    provenance = _provenance(document)
    ours = "provenance" in document and MERGED_LOG not in provenance
    fps = document.get("fps") if ours else None
    names = _names(document)
    log = Log(names, provenance, None if fps is None else float(fps))
    for frame in frames:
        metrics = {name: _number(frame["metrics"].get(name)) for name in names}
        log.append(frame[FRAME_NUM], _number(frame.get(PTS_TIME)), metrics)
    return log


def merge(log: Log, path: Path, out: BinaryIO) -> None:
    """Write the log at `path` again with our metrics, pooled numbers and provenance added.

    What it held is repeated to the letter, a `pts_time` and a `provenance` included: the latter
    moves into ours under `merged_log`.

    Raises:
        LogError: it is not such a log, or does not match `log`.
    """
    document = _load(path)
    frames = document["frames"]
    pooled = document.get("pooled_metrics", {})
    rows = match_frames(
        log, path, [frame[FRAME_NUM] for frame in frames], [*_names(document), *pooled]
    )

    def merged() -> Iterator[dict[str, Any]]:
        for frame, row in zip(frames, rows, strict=True):
            ours = {name: values[row] for name, values in log.values.items()}
            added = {PTS_TIME: log.pts_time[row], "metrics": {**frame["metrics"], **ours}}
            yield {FRAME_NUM: frame[FRAME_NUM], **added, **_without(frame, FRAME_NUM, "metrics")}

    provenance = {**log.provenance, MERGED_LOG: _provenance(document)}
    added = {"frames": merged(), "pooled_metrics": {**pooled, **_pooled(log)}}
    _emit({**document, **added, "provenance": provenance}, out)


def _without(frame: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in frame.items() if key not in keys}


FORMAT = LogFormat(
    name="json",
    suffixes=(".json",),
    begins=lambda head: head.startswith(b"{"),
    write=write,
    read=read,
    merge=merge,
)
