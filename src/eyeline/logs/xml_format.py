"""Logs as libvmaf's XML (`vmaf_write_output_xml` in `libvmaf/src/output.c`), its default format.

`<VMAF version>` holds `<fyi fps>`, `<frames>` with a `<frame frameNum metric="value">` each, and
`<pooled_metrics>` with a `<metric name min max mean harmonic_mean>` each. Beside those we write
`pts_time` in each frame, percentiles, and `<provenance>` with JSON as its text. Document type
declarations are refused, and with them entities, external ones too.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers import expat
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
_KEPT = ("params", "fyi", "metric", "aggregate_metrics")


class _Document:
    """A log's frames and what stands around them, attributes as they are spelt.

    Args:
        path: the file.

    Raises:
        LogError: it is not libvmaf's XML log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.root: Attributes = {}
        self.frames: list[Attributes] = []
        self.others: dict[str, list[Attributes]] = {name: [] for name in _KEPT}
        self._open: list[str] = []
        self._text: list[str] = []
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(read_text(path), True)
        except expat.ExpatError as exc:
            raise LogError(f"{path}: is not XML: {exc}") from exc
        self.numbers = [self._whole(frame) for frame in self.frames]
        for number, frame in zip(self.numbers, self.frames, strict=True):
            for name, value in frame.items():
                _number(path, number, name, value)

    def _refuse(self, *_: object) -> None:
        raise LogError(
            f"{self._path}: declares a document type or entities", "libvmaf's logs have none"
        )

    def _start(self, name: str, attributes: Attributes) -> None:
        if not self._open and name != ROOT:
            raise LogError(f"{self._path}: is XML, but not libvmaf's log", f"its root is {name!r}")
        inside = self._open[1:]
        self._open.append(name)
        if len(self._open) == 1:
            self.root = attributes
        elif name == "frame" and inside == ["frames"]:
            self.frames.append(attributes)
        elif name in self.others:
            self.others[name].append(attributes)

    def _end(self, name: str) -> None:
        self._open.pop()

    def _characters(self, text: str) -> None:
        if self._open[1:] == [PROVENANCE]:
            self._text.append(text)

    def _whole(self, frame: Attributes) -> int:
        try:
            return int(frame.get(FRAME_NUM, ""))
        except ValueError as exc:
            raise LogError(f"{self._path}: a frame has no whole {FRAME_NUM}") from exc

    @property
    def names(self) -> list[str]:
        """Metrics of any frame, in the order in which they first appear."""
        seen = dict.fromkeys(name for frame in self.frames for name in frame)
        return [name for name in seen if name not in (FRAME_NUM, PTS_TIME)]

    @property
    def libvmaf(self) -> dict[str, Any]:
        """What libvmaf says of its run: its version, and the size that it compared."""
        said: dict[str, Any] = {"libvmaf_version": self.root.get("version")}
        size = [a.get(k, "") for a in self.others["params"] for k in _SIZE]
        if len(size) == len(_SIZE) and all(n.isdecimal() and len(n) < 10 for n in size):
            said["compared_size"] = [int(n) for n in size]
        return said

    @property
    def provenance(self) -> dict[str, Any] | None:
        """What eyeline wrote, or None."""
        if not self._text:
            return None
        try:
            return dict(parse("".join(self._text)))
        except (ValueError, TypeError) as exc:
            raise LogError(f"{self._path}: its provenance can't be read") from exc


def _number(path: Path, frame: int, name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as exc:
        raise LogError(f"{path}: frame {frame}: {name} is not a number") from exc


def _element(name: str, attributes: Attributes) -> str:
    cells = "".join(f"{key}={quoteattr(value)} " for key, value in attributes.items())
    return f"<{name} {cells}/>\n"


def _spelt(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else str(float(value))


def _check_names(names: list[str]) -> None:
    for name in names:
        if not (name.isidentifier() and name.isascii()) or name in (FRAME_NUM, PTS_TIME):
            raise LogError(f"{name!r} can't be the name of an XML attribute")


def _emit(
    out: BinaryIO,
    root: Attributes,
    before: list[tuple[str, Attributes]],
    frames: list[Attributes],
    pooled: list[Attributes],
    after: list[tuple[str, Attributes]],
    provenance: dict[str, Any],
) -> None:
    def line(text: str) -> None:
        out.write(text.encode())

    line(f"<{ROOT}{''.join(f' {k}={quoteattr(v)}' for k, v in root.items())}>\n")
    for name, attributes in before:
        line("  " + _element(name, attributes))
    line("  <frames>\n")
    for frame in frames:
        line("    " + _element("frame", frame))
    line("  </frames>\n  <pooled_metrics>\n")
    for metric in pooled:
        line("    " + _element("metric", metric))
    line("  </pooled_metrics>\n")
    for name, attributes in after:
        line("  " + _element(name, attributes))
    line(f"  <{PROVENANCE}>{escape(compact(provenance))}</{PROVENANCE}>\n</{ROOT}>\n")


def _pooled(log: Log) -> list[Attributes]:
    return [
        {"name": name, **{key: _spelt(value) for key, value in pool(values).items()}}
        for name, values in log.values.items()
    ]


def write(log: Log, out: BinaryIO) -> None:
    """Write `log`.

    Raises:
        LogError: a metric's name can't be an attribute's.
    """
    _check_names(log.columns)
    frames = [
        {FRAME_NUM: str(n), PTS_TIME: _spelt(t)} | {k: _spelt(v) for k, v in metrics.items()}
        for n, t, metrics in log.rows()
    ]
    before = [] if log.fps is None else [("fyi", {"fps": _spelt(log.fps)})]
    after: list[tuple[str, Attributes]] = [("aggregate_metrics", {})]
    _emit(out, {"version": __version__}, before, frames, _pooled(log), after, log.provenance)


def read(path: Path) -> Log:
    """Read libvmaf's or our own XML; a metric that a frame lacks becomes NaN.

    Raises:
        LogError: the file is not such a log.
    """
    document = _Document(path)
    check_unique(path, document.numbers)
    provenance = document.provenance
    fps = None
    if provenance is not None and MERGED_LOG not in provenance and document.others["fyi"]:
        fps = _number(path, 0, "fps", document.others["fyi"][0].get("fps", "nan"))
    log = Log(document.names, document.libvmaf if provenance is None else provenance, fps)
    for number, frame in zip(document.numbers, document.frames, strict=True):
        metrics = {name: float(frame.get(name, "nan")) for name in log.columns}
        log.append(number, float(frame.get(PTS_TIME, "nan")), metrics)
    return log


def merge(log: Log, path: Path, out: BinaryIO) -> None:
    """Write the log at `path` again with our metrics, pooled numbers and provenance added.

    Raises:
        LogError: it is not such a log, or does not match `log`.
    """
    _check_names(log.columns)
    document = _Document(path)
    pooled = [metric.get("name", "") for metric in document.others["metric"]]
    rows = match_frames(log, path, document.numbers, [*document.names, *pooled])
    frames = [
        {**frame, PTS_TIME: frame.get(PTS_TIME, _spelt(log.pts_time[row]))}
        | {name: _spelt(values[row]) for name, values in log.values.items()}
        for frame, row in zip(document.frames, rows, strict=True)
    ]
    theirs = document.provenance
    merged = document.libvmaf if theirs is None else theirs
    others = document.others
    _emit(
        out,
        document.root,
        [(name, a) for name in ("params", "fyi") for a in others[name]],
        frames,
        [*others["metric"], *_pooled(log)],
        [("aggregate_metrics", a) for a in others["aggregate_metrics"]],
        {**log.provenance, MERGED_LOG: merged},
    )


FORMAT = LogFormat(
    name="xml",
    suffixes=(".xml",),
    begins=lambda head: head.startswith(b"<"),
    write=write,
    read=read,
    merge=merge,
)
