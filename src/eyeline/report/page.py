"""Fills the template: data that can't break out of its place, and a policy that admits no network.

Everything that comes from outside (titles, file names, columns, provenance) enters the page as
JSON in a block that browsers don't run, and from there as text nodes: it is never parsed as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from string import Template
from typing import Any

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
