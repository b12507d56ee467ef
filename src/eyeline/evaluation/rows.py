"""The rows of an evaluation, and a file that keeps them, so that an interrupted run can continue.

A row holds the scores of one image, or of one image or video of a fixation set. A file belongs to one
model, dataset, size and set of versions; any change starts another file.

`ScorePair` makes the row of an image of a dataset with masks: it scales the image, runs the model, and
scales the map back to the image's size, where it is scored.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from eyeline._version import __version__
from eyeline.datasets.pairs import Pair, read_image, read_mask
from eyeline.digests import sha256_hex
from eyeline.errors import OutputError
from eyeline.evaluation.metrics import CURVES, SCALARS, ImageScore, Map, score_image
from eyeline.files import output_error
from eyeline.inference import Session, finish, input_size, prepare, upscale
from eyeline.parallel import map_in_processes
from eyeline.registry.registry import Model

SCHEMA = 2  # increase it with any change to the content of a row or to how it is computed


@dataclass(frozen=True)
class FrameChange:
    """Mean absolute difference, 0 to 1, of a video frame's map and mask from those of the frame before."""

    saliency: float
    truth: float


@dataclass(frozen=True)
class ImageRow:
    """One image of a dataset with masks.

    Attributes:
        name: name of its pair.
        foreground: share of foreground in the mask, 0 to 1.
        working_size: (width, height) of the model's input, pixels, before padding.
        score: the scores of the model's map.
        motion: None for a still, and for a video's first frame.
    """

    name: str
    foreground: float
    working_size: tuple[int, int]
    score: ImageScore
    motion: FrameChange | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the scalars for a report, with None in place of NaN."""
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
        motion = FrameChange(**row["motion"]) if "motion" in row else None
        score = ImageScore(values, curves)
        return cls(row["name"], row["foreground"], (width, height), score, motion)


MASK_LIBRARIES = ("pysodmetrics", "numpy", "scipy", "pillow")
GAZE_LIBRARIES = ("numpy", "pillow", "av")


def versions(libraries: Iterable[str], session: Session) -> dict[str, str]:
    """Return the versions of the software that the numbers depend on."""
    found = {"eyeline": __version__} | {n: metadata.version(n) for n in libraries}
    return found | {"onnxruntime": session.runtime_version}


class AnyRow(Protocol):
    """A row that can be kept: its name is unique in its dataset, and it converts to JSON values."""

    @property
    def name(self) -> str:
        """Name of the image or video."""

    def to_fields(self) -> dict[str, Any]:
        """Return all of the row as JSON values."""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Make the row that `to_fields` wrote."""


Kept = TypeVar("Kept", bound=AnyRow)
Job = TypeVar("Job")


@dataclass(frozen=True)
class RowOptions:
    """The folder that keeps finished rows (None keeps none), and the number of processes."""

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
        identity: everything that the rows depend on, JSON values.
        jobs: the name and the job of each row.
        make: see `map_in_processes`; its result makes a row from a job.
        arguments: arguments of `make`.
        options: where rows are kept, and how many processes make them.
        report: called with the number of finished rows.

    Returns:
        The rows in the order of the jobs.

    Raises:
        OutputError: a folder or file that cannot be written, or a file with damage before its end.
    """
    with _row_store(options.resume, identity, kind) as (rows, keep):
        todo = [job for name, job in jobs if name not in rows]
        report(len(rows))
        made: Iterator[Kept]
        if options.workers == 1 or len(todo) < 2:
            made = map(make(*arguments), todo) if todo else iter(())
        else:
            made = map_in_processes(make, arguments, todo, options.workers)
        for row in made:
            keep(row)
            rows[row.name] = row
            report(len(rows))
    return [rows[name] for name, _ in jobs]


@contextlib.contextmanager
def _row_store(
    folder: Path | None, identity: dict[str, Any], kind: type[Kept]
) -> Iterator[tuple[dict[str, Kept], Callable[[Kept], None]]]:
    """Yield the rows of an earlier run by name, and a function that keeps one more row.

    Once that function returns, killing the process does not lose the row.
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
    """Read the complete rows of a file; remove an incomplete last line, which a kill leaves."""
    if not path.exists() or b"\n" not in (data := path.read_bytes()):
        path.write_text(head + "\n", encoding="utf-8")
        return {}
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as f:
            f.truncate(whole)
    first, *lines = data[:whole].decode(errors="replace").splitlines()
    damaged = OutputError(f"{path}: the rows of an earlier run are damaged", "remove the file")
    if first != head:
        raise damaged
    try:
        rows = [kind.from_fields(json.loads(line)) for line in lines]
    except (ValueError, KeyError, TypeError) as exc:
        raise damaged from exc
    return {row.name: row for row in rows}


Size = int | tuple[int, int] | Literal["native"] | None
"""Lines of the short side (the aspect is kept), an exact (width, height), the image's own size, or None
for the size of the model's I/O spec."""

Resample = Literal["area", "bilinear"]
"""How an image shrinks: by area averages, as video is scaled, or by plain bilinear interpolation
without a low-pass, as in the evaluation code of the U-2-Net line."""


def scaled_size(width: int, height: int, size: Size, model: Model) -> tuple[int, int]:
    """Return the (width, height) of a model's input for an image, before padding."""
    if isinstance(size, tuple):
        return size
    return input_size(width, height, model.io, size)


def image_input(
    image: Image.Image, model: Model, size: Size = None, resample: Resample = "area"
) -> tuple[Map, tuple[int, int]]:
    """Convert an 8-bit RGB image to a model's input.

    Returns:
        float32 (1, 3, H, W), normalised and padded, and (width, height) before padding.
    """
    w, h = scaled_size(*image.size, size, model)
    return prepare(_scaled(image, w, h, resample), model.io), (w, h)


def working_map(
    session: Session, image: Image.Image, size: Size = None, resample: Resample = "area"
) -> Map:
    """Return the map of an 8-bit RGB image at the model's input size, float32 (h, w) in [0, 1].

    Raises:
        ModelError: the model fails at this size, or breaks the contract.
    """
    x, (w, h) = image_input(image, session.model, size, resample)
    return finish(session.run(x), h, w, session.model.io)


def predict(
    session: Session, image: Image.Image, size: Size = None, resample: Resample = "area"
) -> Map:
    """Return the map of an image at the image's size, float32 (H, W); see `working_map`."""
    return upscale(working_map(session, image, size, resample), *image.size)


def _scaled(image: Image.Image, w: int, h: int, how: Resample) -> npt.NDArray[np.uint8]:
    """Return the uint8 (3, h, w) planes of an image."""
    if how == "bilinear":
        planes = np.asarray(image, np.float32).transpose(2, 0, 1)
        return np.round(np.stack([upscale(p, w, h) for p in planes])).astype(np.uint8)
    smaller = w <= image.width and h <= image.height
    # A box filter averages areas, as video is scaled; but enlarging with it would repeat pixels.
    filter_ = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.ascontiguousarray(np.asarray(image.resize((w, h), filter_)).transpose(2, 0, 1))


@dataclass(frozen=True)
class _ScoredFrame:
    """A frame with its map and mask, kept for the frame after it."""

    name: str
    size: tuple[int, int]
    saliency: Map
    truth: npt.NDArray[np.bool_]


class ScorePair:
    """Make the row of a pair from it and the frame before it; each process has its own."""

    def __init__(self, model: Model, size: Size, resample: Resample) -> None:
        self._session = Session(model, "cpu")
        self._size, self._resample = size, resample
        self._last: _ScoredFrame | None = None

    def __call__(self, job: tuple[Pair, Pair | None]) -> ImageRow:
        """Return the row of a pair; see `jobs`.

        Raises:
            DatasetError: an image or mask cannot be read.
            ModelError: see `predict`.
        """
        pair, before = job
        earlier = self._map_of(before) if before else None
        now = self._last = self._map_of(pair)
        motion = None
        if earlier is not None and earlier.truth.shape == now.truth.shape:
            motion = FrameChange(
                float(np.abs(now.saliency - earlier.saliency).mean()),
                float(np.mean(now.truth != earlier.truth)),
            )
        score = score_image(now.saliency, now.truth)
        return ImageRow(pair.name, float(now.truth.mean()), now.size, score, motion)

    def _map_of(self, pair: Pair) -> _ScoredFrame:
        if self._last is not None and self._last.name == pair.name:
            return self._last
        image, mask = read_image(pair.image), read_mask(pair.mask)
        saliency = predict(self._session, image, self._size, self._resample)
        size = scaled_size(*image.size, self._size, self._session.model)
        return _ScoredFrame(pair.name, size, saliency, np.asarray(mask) > 0)


def jobs(pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Pair | None]]:
    """Yield every pair with the frame before it in its video, if it has one."""
    before: Pair | None = None
    for pair in pairs:
        video = video_of(pair.name)
        yield pair, before if before and video and video_of(before.name) == video else None
        before = pair


def video_of(name: str) -> str:
    """Return the folder of a pair that is a frame of a video; empty for a still."""
    return name.rpartition("/")[0]
