"""The rows of an evaluation, one an image, kept in a file so that an interrupted run goes on.

A file belongs to one model, dataset, size and set of versions: a change of any starts another.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eyeline.digest import sha256_hex
from eyeline.errors import OutputError
from eyeline.evaluation.metrics import CURVES, SCALARS, ImageScore
from eyeline.output import output_error

SCHEMA = 2  # rises with any change to what a row holds or how it is computed


@dataclass(frozen=True)
class Motion:
    """How much a frame of a video differs from the one before it.

    Attributes:
        saliency: mean absolute difference of the two maps.
        truth: mean absolute difference of the two masks, 0..1: what the scene itself moved.
    """

    saliency: float
    truth: float


@dataclass(frozen=True)
class Row:
    """One image of a dataset.

    Attributes:
        name: of its pair.
        foreground: share of the mask's pixels, 0..1.
        working_size: (width, height) that the model saw, pixels, before padding.
        score: what the model's map scored.
        motion: see `Motion`; None for a still, and for a video's first frame.
    """

    name: str
    foreground: float
    working_size: tuple[int, int]
    score: ImageScore
    motion: Motion | None = None

    def to_json(self) -> dict[str, Any]:
        """Its scalars, for a report; None for a value that there is none of."""
        values = {k: v if math.isfinite(v) else None for k, v in self.score.values.items()}
        motion = {"motion": asdict(self.motion)} if self.motion else {}
        return {"name": self.name, "foreground": self.foreground} | values | motion


def _to_line(row: Row) -> str:
    curves = {
        k: base64.b64encode(v.astype("<f4").tobytes()).decode() for k, v in row.score.curves.items()
    }
    fields = {"row": row.to_json(), "working_size": row.working_size, "curves": curves}
    return json.dumps(fields, allow_nan=False) + "\n"


def _from_line(line: str) -> Row:
    fields = json.loads(line)
    row = fields["row"]
    values = {k: float("nan") if row[k] is None else float(row[k]) for k in SCALARS}
    curves = {k: np.frombuffer(base64.b64decode(fields["curves"][k]), "<f4") for k in CURVES}
    width, height = fields["working_size"]
    motion = Motion(**row["motion"]) if "motion" in row else None
    return Row(row["name"], row["foreground"], (width, height), ImageScore(values, curves), motion)


@contextlib.contextmanager
def row_store(
    folder: Path | None, identity: dict[str, Any]
) -> Iterator[tuple[dict[str, Row], Callable[[Row], None]]]:
    """What an earlier run left, and a way to add to it.

    Args:
        folder: where the file is kept; it is made. None keeps nothing.
        identity: all that the rows depend on, JSON values.

    Yields:
        The rows by name, and a function that keeps one more: once it returns, a kill can't take
        the row away.

    Raises:
        OutputError: a folder or file that can't be written, or a file with damage in its middle.
    """
    if folder is None:
        yield {}, lambda row: None
        return
    head = json.dumps({"schema": SCHEMA, **identity}, sort_keys=True)
    path = folder / f"{sha256_hex(head.encode())[:24]}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows = _recover(path, head)
        out = path.open("a", encoding="utf-8")
    except OSError as exc:
        raise output_error(path, exc) from exc
    with out:

        def keep(row: Row) -> None:
            try:
                out.write(_to_line(row))
                out.flush()
            except OSError as exc:
                raise output_error(path, exc) from exc

        yield rows, keep


def _recover(path: Path, head: str) -> dict[str, Row]:
    """The whole rows of a file; a line that a kill cut short is cut off the file."""
    if not path.exists() or b"\n" not in (data := path.read_bytes()):
        path.write_text(head + "\n", encoding="utf-8")
        return {}
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as f:
            f.truncate(whole)
    first, *lines = data[:whole].decode(errors="replace").splitlines()
    damaged = OutputError(f"{path}: damaged rows of an earlier run", "remove the file")
    if first != head:
        raise damaged
    try:
        rows = [_from_line(line) for line in lines]
    except (ValueError, KeyError, TypeError) as exc:
        raise damaged from exc
    return {row.name: row for row in rows}
