"""Logs: a row per frame, in the formats that people's tools already read.

::

    log = Log(["saliency_mean"], provenance={"model": "..."}, fps=25.0)
    log.append(0, 0.0, {"saliency_mean": 0.125})
    write_log(log, "clip.json")                       # libvmaf's layout
    write_log(log, "both.json", with_log="vmaf.json")  # our columns in libvmaf's own log
    read_log("clip.json").values["saliency_mean"][0]

To add a format, add a module with a `LogFormat` and a row to `FORMATS`.
"""

from __future__ import annotations

from pathlib import Path

from eyeline.errors import LogError, OutputError
from eyeline.files import open_output
from eyeline.logs import csv_format, json_format, parquet_format, xml_format
from eyeline.logs.base import Log, LogFormat, harmonic_mean, pool

__all__ = ["FORMATS", "Log", "format_for", "harmonic_mean", "pool", "read_log", "write_log"]

FORMATS: tuple[LogFormat, ...] = (
    json_format.FORMAT,
    csv_format.FORMAT,
    xml_format.FORMAT,
    parquet_format.FORMAT,
)


def format_for(path: str | Path, name: str | None = None) -> LogFormat:
    """The format that `path` will be written in; call it before a long run, to refuse early.

    Args:
        path: its suffix chooses; `-` (stdout) is JSON.
        name: the format's name, which wins over the suffix.

    Raises:
        OutputError: no format has this name or suffix.
    """
    for form in FORMATS:
        if name == form.name or (name is None and Path(path).suffix.lower() in form.suffixes):
            return form
    if name is None and str(path) == "-":
        return json_format.FORMAT
    known = ", ".join(suffix for form in FORMATS for suffix in form.suffixes)
    names = ", ".join(form.name for form in FORMATS)
    what = f"{path}: no log format has this suffix" if name is None else f"no log format {name!r}"
    raise OutputError(what, f"use {known}, or name one of {names}")


def _format_of(path: Path) -> LogFormat:
    """The format of an existing log, by its first bytes: libvmaf writes to any name it is given."""
    try:
        with path.open("rb") as f:
            head = f.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as exc:
        raise LogError(f"{path}: can't be read: {exc.strerror or exc}") from exc
    for form in FORMATS:
        if form.begins(head):
            return form
    raise LogError(
        f"{path}: is no log", "give a JSON, CSV, XML or Parquet log of libvmaf or eyeline"
    )


def write_log(
    log: Log,
    path: str | Path,
    *,
    with_log: str | Path | None = None,
    format: str | None = None,
) -> None:
    """Write a log that appears whole or not at all.

    Args:
        log: rows and provenance.
        path: the file, whose suffix chooses the format; `-` is stdout, in JSON.
        with_log: a libvmaf log in JSON, CSV or XML to which our columns are added. Its layout and all
            it holds are kept, and frames are matched by number. May be `path` itself.
        format: name of a format, in place of the suffix's.

    Raises:
        OutputError: unknown suffix, or the file can't be written.
        LogError: `with_log` is no such log, holds other frames, or already has our metrics.
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
            f"{existing}: a {kept.name} log can't be merged into", "give JSON, CSV or XML"
        )
    if form is not kept:
        raise OutputError(
            f"{path}: is {form.name}, but merging keeps the layout of {existing}, {kept.name}",
            f"name a {kept.suffixes[0]} file",
        )
    with open_output(path) as out:
        kept.merge(log, existing, out)


def read_log(path: str | Path) -> Log:
    """Read a log of eyeline or libvmaf: JSON, CSV, XML or Parquet, told apart by content.

    A time or metric that the log does not hold is NaN. `fps` is None unless eyeline wrote it.

    Raises:
        LogError: the file can't be read, or is no such log, or holds a frame twice.
        MissingExtraError: Parquet without pyarrow.
    """
    return _format_of(Path(path)).read(Path(path))
