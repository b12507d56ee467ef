"""Logs as libvmaf's XML (`vmaf_write_output_xml` in `libvmaf/src/output.c`), its default format.

`<VMAF version>` holds `<fyi fps>`, `<frames>` with a `<frame frameNum metric="value">` each, and
`<pooled_metrics>` with a `<metric name min max mean harmonic_mean>` each. eyeline adds `pts_time` to
each frame, percentiles, and `<provenance>` with JSON as its text. A document type declaration, which
could define hostile entities, is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

from eyeline._version import __version__
from eyeline.errors import LogError
from eyeline.logs.base import (
    FRAME_NUM,
    MERGED_LOG,
    PTS_TIME,
    Log,
    LogFormat,
    check_unique,
    compact,
    match_frames,
    parse,
    pool,
    read_text,
)

Attributes = dict[str, str]

ROOT, PROVENANCE = "VMAF", "provenance"
_SIZE = ("qualityWidth", "qualityHeight")


class _XmlLog:
    """The content of an XML log, with the attributes spelled as in the file."""

    def __init__(self, path: Path) -> None:
        text = read_text(path)
        if (
            "<!DOCTYPE" in text
        ):  # without a document type there are no entities, which could be hostile
            raise LogError("the file declares a document type")
        try:
            root = ET.fromstring(text)  # noqa: S314 - see above
        except ET.ParseError as exc:
            raise LogError(f"the file is not XML: {exc}") from exc
        if root.tag != ROOT:
            raise LogError(f"the file is XML, but not libvmaf's log: its root is {root.tag!r}")
        self.root = root.attrib
        self.params, self.fyi, self.aggregate, self.pooled = (
            [element.attrib for element in root.iter(name)]
            for name in ("params", "fyi", "aggregate_metrics", "metric")
        )
        self.frames = [element.attrib for element in root.iterfind("frames/frame")]
        self.numbers: list[int] = []
        for frame in self.frames:
            try:
                self.numbers.append(int(frame.get(FRAME_NUM, "")))
            except ValueError as exc:
                raise LogError(f"a frame has no whole {FRAME_NUM}") from exc
            for name, value in frame.items():
                _number(self.numbers[-1], name, value)
        seen = dict.fromkeys(name for frame in self.frames for name in frame)
        self.names = [name for name in seen if name not in (FRAME_NUM, PTS_TIME)]
        written = root.findtext(PROVENANCE)
        self.ours = bool(written)  # whether eyeline wrote the log
        try:
            self.provenance = dict(parse(written)) if written else self._facts()
        except (ValueError, TypeError) as exc:
            raise LogError("the log's provenance can't be read") from exc

    def _facts(self) -> dict[str, Any]:
        """Return what libvmaf states about its run: its version and the picture size."""
        stated: dict[str, Any] = {"libvmaf_version": self.root.get("version")}
        size = [a.get(k, "") for a in self.params for k in _SIZE]
        if len(size) == len(_SIZE) and all(n.isdecimal() and len(n) < 10 for n in size):
            stated["compared_size"] = [int(n) for n in size]
        return stated


def _number(frame: int, name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as exc:
        raise LogError(f"frame {frame}: {name} is not a number") from exc


def _check_names(names: list[str]) -> None:
    for name in names:
        if not (name.isidentifier() and name.isascii()) or name in (FRAME_NUM, PTS_TIME):
            raise LogError(f"{name!r} can't be the name of an XML attribute", "write a JSON log")


def _emit(
    out: BinaryIO,
    root: Attributes,
    elements: list[tuple[str, list[Attributes]]],
    provenance: dict[str, Any],
) -> None:
    """Write a document; an element named `parent/child` is written inside `parent`."""

    def line(indent: int, text: str) -> None:
        out.write((" " * indent + text + "\n").encode())

    def element(indent: int, name: str, attributes: Attributes) -> None:
        cells = "".join(f"{key}={quoteattr(value)} " for key, value in attributes.items())
        line(indent, f"<{name} {cells}/>")

    line(0, f"<{ROOT}{''.join(f' {k}={quoteattr(v)}' for k, v in root.items())}>")
    for name, rows in elements:
        parent, _, child = name.rpartition("/")
        if parent:
            line(2, f"<{parent}>")
        for attributes in rows:
            element(4 if parent else 2, child, attributes)
        if parent:
            line(2, f"</{parent}>")
    line(2, f"<{PROVENANCE}>{escape(compact(provenance))}</{PROVENANCE}>")
    line(0, f"</{ROOT}>")


def _pooled(log: Log) -> list[Attributes]:
    return [
        {"name": name, **{key: str(value) for key, value in pool(values).items()}}
        for name, values in log.values.items()
    ]


def write(log: Log, out: BinaryIO) -> None:
    """Write `log`."""
    _check_names(log.columns)
    frames = [
        {FRAME_NUM: str(n), PTS_TIME: str(t)} | {k: str(v) for k, v in metrics.items()}
        for n, t, metrics in log.rows()
    ]
    elements: list[tuple[str, list[Attributes]]] = [
        ("fyi", [] if log.fps is None else [{"fps": str(float(log.fps))}]),
        ("frames/frame", frames),
        ("pooled_metrics/metric", _pooled(log)),
        ("aggregate_metrics", [{}]),
    ]
    _emit(out, {"version": __version__}, elements, log.provenance)


def read(path: Path) -> Log:
    """Read an XML log; a metric that a frame lacks becomes NaN."""
    document = _XmlLog(path)
    check_unique(document.numbers)
    fps = None
    if document.ours and MERGED_LOG not in document.provenance and document.fyi:
        fps = _number(0, "fps", document.fyi[0].get("fps", "nan"))
    log = Log(document.names, document.provenance, fps)
    for number, frame in zip(document.numbers, document.frames, strict=True):
        metrics = {name: float(frame.get(name, "nan")) for name in log.columns}
        log.append(number, float(frame.get(PTS_TIME, "nan")), metrics)
    return log


def merge(log: Log, path: Path, out: BinaryIO) -> None:
    """Write the log at `path` again with the metrics, pooled numbers and provenance of `log` added."""
    _check_names(log.columns)
    document = _XmlLog(path)
    pooled = [metric.get("name", "") for metric in document.pooled]
    rows = match_frames(log, document.numbers, [*document.names, *pooled])
    frames = [
        {**frame, PTS_TIME: frame.get(PTS_TIME, str(log.pts_time[row]))}
        | {name: str(values[row]) for name, values in log.values.items()}
        for frame, row in zip(document.frames, rows, strict=True)
    ]
    elements = [
        ("params", document.params),
        ("fyi", document.fyi),
        ("frames/frame", frames),
        ("pooled_metrics/metric", [*document.pooled, *_pooled(log)]),
        ("aggregate_metrics", document.aggregate),
    ]
    _emit(out, document.root, elements, {**log.provenance, MERGED_LOG: document.provenance})


FORMAT = LogFormat(
    name="xml",
    suffixes=(".xml",),
    begins=lambda head: head.startswith(b"<"),
    write=write,
    read=read,
    merge=merge,
)
