"""Logs: one row of numbers per frame, in the formats of libvmaf and in Parquet.

::

    log = Log(["saliency_mean"], provenance={"model": "..."}, fps=25.0)
    log.append(0, 0.0, {"saliency_mean": 0.125})
    write_log(log, "clip.json")                       # libvmaf's layout
    write_log(log, "both.json", with_log="vmaf.json")  # libvmaf's own log with our columns added
    read_log("clip.json").values["saliency_mean"][0]

`base` holds `Log`, pooling over frames, and the rules that all formats share. Each format is a module
with a `LogFormat`. To add a format, add a module and a row to `FORMATS`.
"""

from __future__ import annotations

from pathlib import Path

from eyeline.errors import LogError, OutputError
from eyeline.files import open_output
from eyeline.logs import _csv_format, _json_format, _xml_format, parquet_format
from eyeline.logs.base import Log, LogFormat, harmonic_mean, pool

__all__ = ["FORMATS", "Log", "format_for", "harmonic_mean", "pool", "read_log", "write_log"]

FORMATS: tuple[LogFormat, ...] = (
    _json_format.FORMAT,
    _csv_format.FORMAT,
    _xml_format.FORMAT,
    parquet_format.FORMAT,
)


def format_for(path: str | Path, name: str | None = None) -> LogFormat:
    """Return the format for `path`; call it before a long run to find a wrong name early.

    Args:
        path: its suffix chooses; `-` (stdout) is JSON.
        name: the format's name, which overrides the suffix.

    Raises:
        OutputError: no format has this name or suffix.
    """
    for form in FORMATS:
        if name == form.name or (name is None and Path(path).suffix.lower() in form.suffixes):
            return form
    if name is None and str(path) == "-":
        return _json_format.FORMAT
    known = ", ".join(suffix for form in FORMATS for suffix in form.suffixes)
    names = ", ".join(form.name for form in FORMATS)
    if name is None:
        raise OutputError(f"{path}: no log format has this suffix", f"use one of {known}")
    raise OutputError(f"{name!r} is not a log format", f"use one of {names}")


def _format_of(path: Path) -> LogFormat:
    """Detect the format of a log by its first bytes, because libvmaf writes to any file name."""
    try:
        with path.open("rb") as f:
            head = f.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as exc:
        raise LogError(f"{path}: can't be read: {exc.strerror or exc}", "check the path") from exc
    for form in FORMATS:
        if form.begins(head):
            return form
    raise LogError(
        f"{path}: the file is not a log",
        "give a JSON, CSV, XML or Parquet log of libvmaf or eyeline",
    )


def write_log(
    log: Log,
    path: str | Path,
    *,
    with_log: str | Path | None = None,
    format: str | None = None,
) -> None:
    """Write a log; the file appears whole or not at all.

    Args:
        log: rows and provenance.
        path: the file, whose suffix chooses the format; `-` is stdout, in JSON.
        with_log: a libvmaf log in JSON, CSV or XML to which the columns are added. Its layout and
            content are kept, and frames are matched by number. It may be the same file as `path`.
        format: name of a format, which overrides the suffix.

    Raises:
        OutputError: the suffix is unknown, or the file cannot be written.
        LogError: `with_log` is not such a log, holds other frames, or already has the metrics.
        MissingExtraError: Parquet without pyarrow.
    """
    if with_log is None:
        form = format_for(path, format)
        with open_output(path) as out:
            form.write(log, out)
        return
    existing = Path(with_log)
    kept = _format_of(existing)
    form = kept if format is None and str(path) == "-" else format_for(path, format)
    if kept.merge is None:
        raise LogError(
            f"{existing}: columns can't be added to a {kept.name} log",
            "give a JSON, CSV or XML log",
        )
    if form is not kept:
        raise OutputError(
            f"{path}: the suffix says {form.name}, but merging keeps the format of {existing}, "
            f"which is {kept.name}",
            f"name a {kept.suffixes[0]} file",
        )
    with open_output(path) as out:
        try:
            kept.merge(log, existing, out)
        except LogError as exc:
            raise _named(existing, exc) from exc


def read_log(path: str | Path) -> Log:
    """Read a log of eyeline or libvmaf: JSON, CSV, XML or Parquet, detected by content.

    A time or metric that the log does not hold is NaN. `fps` is None if another program wrote the log.

    Raises:
        LogError: the file cannot be read, is not such a log, or holds a frame twice.
        MissingExtraError: Parquet without pyarrow.
    """
    form = _format_of(Path(path))
    try:
        return form.read(Path(path))
    except LogError as exc:
        raise _named(path, exc) from exc


def _named(path: str | Path, exc: LogError) -> LogError:
    return LogError(f"{path}: {exc.message}", exc.hint or "give a log of libvmaf or eyeline")
