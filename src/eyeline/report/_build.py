"""Build the page: check the inputs, collect the data, and fill the template.

Everything that comes from outside (titles, file names, columns, provenance) enters the page as JSON
in a block that browsers do not run, and from there as text nodes: it is never parsed as HTML. The
page's Content Security Policy forbids network access.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from eyeline._version import __version__
from eyeline.errors import UsageError
from eyeline.files import write_bytes
from eyeline.report._pictures import MediaOptions, make_media
from eyeline.report._series import (
    DRAWS,
    LEAST_FRAMES,
    LogRows,
    panels_of,
    pick_worst,
    pooled_table,
    read_rows,
)

SCRIPTS = ("chart.js", "state.js", "stage.js", "page.js")
"""The scripts of the page, in the order in which they run."""

MOST_LOGS = 8
"""Largest number of logs in one page; with more logs, line colours would be too similar."""

_ESCAPES = {c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class PageOptions:
    """Content of the page."""

    title: str | None = None  # None: the name of the clip or the log
    worst: int = 6  # largest number of worst frames
    worst_by: str | None = None  # column that ranks frames, see `eyeline.report._series.pick_worst`
    media: MediaOptions | None = None  # clips to show


@dataclass(frozen=True)
class PageFacts:
    """Summary of a page that was written."""

    size: int  # size of the page, bytes
    frames: int  # number of frames of the longest log
    pictures: int = 0  # number of frames with a picture
    every: int = 0  # every n-th frame has a picture; 0 without pictures
    width: int = 0  # width of a picture, pixels
    height: int = 0
    megabytes: float = 0.0  # size of all pictures in the page


def write_report(
    logs: list[str],
    output: str,
    options: PageOptions | None = None,
    on_frame: Callable[[], None] = lambda: None,
    on_start: Callable[[int], None] = lambda frames: None,
) -> PageFacts:
    """Write a page that opens from disk and fetches nothing.

    Args:
        logs: paths of eyeline's or libvmaf's logs (JSON, CSV, XML, Parquet); pictures are of the first log.
        output: path of the page, or `-` for stdout.
        options: content of the page.
        on_frame: called for each frame that is read.
        on_start: called with the number of frames to read, before the first frame.

    Raises:
        LogError: a log cannot be read, is empty, or belongs to another clip.
        MediaError: a clip cannot be read.
        ModelError: the log's model cannot be used.
        UsageError: there are too many logs, or the output is an input.
        OutputError: the page cannot be written.
    """
    o = options or PageOptions()
    _check(logs, output, o)
    rows = read_rows(logs)
    worst = pick_worst(rows, o.worst, o.worst_by)
    media: dict[str, Any] | None = None
    if o.media is not None:
        on_start(len(rows[0].numbers))
        keep = worst.frames if worst is not None else ()
        inside = {int(n) for n in rows[0].numbers}
        media = make_media(o.media, rows[0], tuple(n for n in keep if n in inside), on_frame)
    panels = panels_of(list(dict.fromkeys(name for log in rows for name in log.values)))
    title = o.title or _title(rows, o.media)
    data = {
        "title": title,
        "eyeline": __version__,
        "logs": [log.to_json() for log in rows],
        "panels": [asdict(panel) for panel in panels],
        "pooled": pooled_table(rows, panels),
        "bootstrap": {"draws": DRAWS, "least": LEAST_FRAMES},
        "worst": asdict(worst) if worst is not None else None,
        "media": media,
    }
    page = _render(title, data)
    write_bytes(output, page)
    most = max(len(log.numbers) for log in rows)
    if media is None:
        return PageFacts(len(page), most)
    shown = {name: media[name] for name in ("every", "width", "height", "megabytes")}
    return PageFacts(len(page), most, len(media["frames"]), **shown)


def _check(logs: list[str], output: str, options: PageOptions) -> None:
    if not logs:
        raise UsageError("no log to report on", "name one or more logs")
    if len(logs) > MOST_LOGS:
        raise UsageError(f"{len(logs)} logs are too many for one page", f"name at most {MOST_LOGS}")
    media = options.media
    inputs = [*logs, *([media.video, media.distorted, media.maps] if media else [])]
    places = {Path(p).resolve() for p in inputs if p is not None}
    if output != "-" and Path(output).resolve() in places:
        raise UsageError(f"{output}: the output is also an input", "give the page another name")


def _title(rows: list[LogRows], media: MediaOptions | None) -> str:
    if media is not None:
        return Path(media.distorted or media.video).name
    return " · ".join(log.name for log in rows[:3]) + (" …" if len(rows) > 3 else "")


def _render(title: str, data: dict[str, Any]) -> bytes:
    folder = files("eyeline.report")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    script = "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    template = Template(folder.joinpath("page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        policy=policy,
        title=html.escape(title),
        style=style,
        script=script,
        data=_embedded_json(data),
    )
    return page.encode("utf-8", "replace")


def _hash(text: str) -> str:
    """Return the source expression of a Content Security Policy that allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded_json(value: Any) -> str:
    """Return JSON that is safe inside a `<script>` element, since it contains no `<`."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    # UTF-8 cannot encode a lone surrogate, so it becomes a JSON escape.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite by None."""
    if isinstance(value, float):
        return float(value) if abs(value) < float("inf") else None  # None for NaN, too
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
