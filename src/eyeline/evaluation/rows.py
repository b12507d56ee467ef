"""The rows of an evaluation, kept in a file so that an interrupted run goes on.

A row is what one image scored, or one image or video of a fixation set. A file belongs to one model,
dataset, size and set of versions: a change of any starts another.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from eyeline.digest import sha256_hex
from eyeline.errors import OutputError
from eyeline.evaluation.metrics import CURVES, SCALARS, ImageScore
from eyeline.evaluation.workers import run_in_processes
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

    def to_fields(self) -> dict[str, Any]:
        """Return all of the row, for `from_fields`."""
        curves = {
            k: base64.b64encode(v.astype("<f4").tobytes()).decode()
            for k, v in self.score.curves.items()
        }
        return {"row": self.to_json(), "working_size": self.working_size, "curves": curves}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Make the row that `to_fields` wrote."""
        row = fields["row"]
        values = {k: float("nan") if row[k] is None else float(row[k]) for k in SCALARS}
        curves = {k: np.frombuffer(base64.b64decode(fields["curves"][k]), "<f4") for k in CURVES}
        width, height = fields["working_size"]
        motion = Motion(**row["motion"]) if "motion" in row else None
        score = ImageScore(values, curves)
        return cls(row["name"], row["foreground"], (width, height), score, motion)


class AnyRow(Protocol):
    """A row of any kind: it has a name and becomes JSON values and back."""

    @property
    def name(self) -> str:
        """Name of the image or video, unique in its dataset."""

    def to_fields(self) -> dict[str, Any]:
        """Return all of the row as JSON values."""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Make the row again."""


Kept = TypeVar("Kept", bound=AnyRow)
Job = TypeVar("Job")


@dataclass(frozen=True)
class RowOptions:
    """How rows are made.

    Attributes:
        resume: folder that keeps finished rows; None keeps nothing.
        workers: processes.
    """

    resume: Path | None
    workers: int


def make_rows(
    kind: type[Kept],
    identity: dict[str, Any],
    jobs: Sequence[tuple[str, Job]],
    make: Callable[..., Callable[[Job], Kept]],
    arguments: tuple[Any, ...],
    options: RowOptions,
    report: Callable[[int], None],
) -> list[Kept]:
    """Make the row of every job that an earlier run did not finish.

    Args:
        kind: class of the rows.
        identity: all that the rows depend on, JSON values.
        jobs: name of each row, and what it is made from.
        make: see `run_in_processes`; its result makes a row from a job.
        arguments: of `make`.
        options: where rows are kept, and how many processes make them.
        report: called with the number of finished rows.

    Returns:
        The rows in the order of the jobs.

    Raises:
        OutputError: see `row_store`.
    """
    with row_store(options.resume, identity, kind) as (rows, keep):
        todo = [job for name, job in jobs if name not in rows]
        report(len(rows))
        made: Iterator[Kept]
        if options.workers == 1 or len(todo) < 2:
            made = map(make(*arguments), todo) if todo else iter(())
        else:
            made = run_in_processes(make, arguments, todo, options.workers)
        for row in made:
            keep(row)
            rows[row.name] = row
            report(len(rows))
    return [rows[name] for name, _ in jobs]


@contextlib.contextmanager
def row_store(
    folder: Path | None, identity: dict[str, Any], kind: type[Kept]
) -> Iterator[tuple[dict[str, Kept], Callable[[Kept], None]]]:
    """What an earlier run left, and a way to add to it.

    Args:
        folder: where the file is kept; it is made. None keeps nothing.
        identity: all that the rows depend on, JSON values.
        kind: class of the rows.

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
        rows = _recover(path, head, kind)
        out = path.open("a", encoding="utf-8")
    except OSError as exc:
        raise output_error(path, exc) from exc
    with out:

        def keep(row: Kept) -> None:
            try:
                out.write(json.dumps(row.to_fields(), allow_nan=False) + "\n")
                out.flush()
            except OSError as exc:
                raise output_error(path, exc) from exc

        yield rows, keep


def _recover(path: Path, head: str, kind: type[Kept]) -> dict[str, Kept]:
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
        rows = [kind.from_fields(json.loads(line)) for line in lines]
    except (ValueError, KeyError, TypeError) as exc:
        raise damaged from exc
    return {row.name: row for row in rows}
