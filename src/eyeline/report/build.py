"""One page from logs and clips: the only door of this package.

Fills the template: data that can't break out of its place, and a policy that admits no network.

Everything that comes from outside (titles, file names, columns, provenance) enters the page as
JSON in a block that browsers don't run, and from there as text nodes: it is never parsed as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from eyeline._version import __version__
from eyeline.errors import UsageError
from eyeline.files import write_bytes
from eyeline.report.pictures import MediaOptions, make_media
from eyeline.report.series import (
    DRAWS,
    LEAST_FRAMES,
    Rows,
    panels_of,
    pick_worst,
    pooled_table,
    read_rows,
)

SCRIPTS = ("chart.js", "state.js", "stage.js", "page.js")
"""In the order in which they run."""

_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def embedded_json(value: Any) -> str:
    """JSON that is safe inside a `<script>` element: no `<` survives, so neither does `</script>`.

    Args:
        value: JSON values; a number that is not finite becomes null.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    # A lone surrogate, which JSON can spell, has no UTF-8.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if abs(value) < float("inf") else None  # NaN is not less either
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def _hash(text: str) -> str:
    """A source of the Content Security Policy that admits this very text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render(title: str, data: dict[str, Any]) -> bytes:
    """The page.

    Args:
        title: for the window.
        data: what the scripts draw; JSON values.

    Returns:
        HTML, UTF-8.
    """
    room = files("eyeline.report")
    style = room.joinpath("page.css").read_text(encoding="utf-8")
    script = "\n".join(room.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    template = Template(room.joinpath("page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        policy=policy,
        title=html.escape(title),
        style=style,
        script=script,
        data=embedded_json(data),
    )
    return page.encode("utf-8", "replace")


MOST_LOGS = 8
"""Logs in one page: more lines than these can't be told apart by colour."""


@dataclass(frozen=True)
class PageOptions:
    """What the page shows.

    Attributes:
        title: its heading; made from the clip's or the log's name when None.
        worst: frames to pick out, at most.
        worst_by: column to pick by; see `eyeline.report.series`.
        media: clips to show, or None.
    """

    title: str | None = None
    worst: int = 6
    worst_by: str | None = None
    media: MediaOptions | None = None


@dataclass(frozen=True)
class PageFacts:
    """What was written.

    Attributes:
        size: bytes of the page.
        frames: frames of the longest log.
        pictures: frames that have a picture.
        every: pictures are of every n-th frame; 0 without pictures.
        width, height: size of a picture, pixels.
        megabytes: what the pictures take.
    """

    size: int
    frames: int
    pictures: int = 0
    every: int = 0
    width: int = 0
    height: int = 0
    megabytes: float = 0.0


def write_report(
    logs: list[str],
    output: str,
    options: PageOptions | None = None,
    on_frame: Callable[[], None] = lambda: None,
    on_start: Callable[[int], None] = lambda frames: None,
) -> PageFacts:
    """Write a page that opens from disk and fetches nothing.

    Args:
        logs: of eyeline or libvmaf: JSON, CSV, Parquet. Pictures belong to the first.
        output: the page, or `-` for stdout.
        options: see there.
        on_frame: called for each frame that is looked at.
        on_start: called once with the number of frames to look at, before the first.

    Raises:
        LogError: a log can't be read, is empty, or belongs to another clip.
        MediaError: a clip can't be read.
        ModelError: the log's model can't be used.
        UsageError: too many logs, or an output that is an input.
        OutputError: the page can't be written.
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
        "panels": [panel.to_json() for panel in panels],
        "pooled": pooled_table(rows, panels),
        "bootstrap": {"draws": DRAWS, "least": LEAST_FRAMES},
        "worst": worst.to_json() if worst is not None else None,
        "media": media,
    }
    page = render(title, data)
    write_bytes(output, page)
    most = max(len(log.numbers) for log in rows)
    if media is None:
        return PageFacts(len(page), most)
    return PageFacts(
        len(page), most, len(media["frames"]), media["every"], media["width"], media["height"],
        media["megabytes"],
    )  # fmt: skip


def _check(logs: list[str], output: str, options: PageOptions) -> None:
    if not logs:
        raise UsageError("no log to report on", "name one or more")
    if len(logs) > MOST_LOGS:
        raise UsageError(f"{len(logs)} logs in one page", f"at most {MOST_LOGS}")
    media = options.media
    inputs = [*logs, *([media.video, media.distorted, media.maps] if media else [])]
    places = {Path(p).resolve() for p in inputs if p is not None}
    if output != "-" and Path(output).resolve() in places:
        raise UsageError(f"{output}: is an input", "give the page another name")


def _title(rows: list[Rows], media: MediaOptions | None) -> str:
    if media is not None:
        return Path(media.distorted or media.video).name
    return " · ".join(log.name for log in rows[:3]) + (" …" if len(rows) > 3 else "")
