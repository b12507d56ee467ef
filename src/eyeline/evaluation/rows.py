"""Compute the rows of an evaluation, and store them so that an interrupted run can continue.

A row holds the scores of one image or video. A file of rows belongs to one model, dataset, size and set
of software versions; if any of these changes, a new file is started.

To compute the row of an image with a mask, `ScorePair` scales the image, runs the model, scales the map
back to the size of the image, and scores the map at that size.
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

SCHEMA = 2  # increase this number when a row's content or computation changes


@dataclass(frozen=True)
class FrameChange:
    """Mean absolute difference, 0 to 1, of the maps and of the masks of two successive frames."""

    saliency: float
    truth: float


@dataclass(frozen=True)
class ImageRow:
    """The row of one image of a dataset with masks.

    Attributes:
        name: name of the pair of image and mask.
        foreground: share of foreground in the mask, 0 to 1.
        working_size: (width, height) of the model's input in pixels, before padding.
        score: scores of the model's map.
        motion: change from the previous frame; None for a still image or the first frame of a video.
    """

    name: str
    foreground: float
    working_size: tuple[int, int]
    score: ImageScore
    motion: FrameChange | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the scalar values for a report as JSON, with None in place of NaN."""
        values = {k: v if math.isfinite(v) else None for k, v in self.score.values.items()}
        motion = {"motion": asdict(self.motion)} if self.motion else {}
        return {"name": self.name, "foreground": self.foreground} | values | motion

    def to_fields(self) -> dict[str, Any]:
        """Return the complete row as JSON values."""
        curves = {
            k: base64.b64encode(v.astype("<f4").tobytes()).decode()
            for k, v in self.score.curves.items()
        }
        return {"row": self.to_json(), "working_size": self.working_size, "curves": curves}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Create a row from the result of `to_fields`."""
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
    """Return the versions of the software on which the scores depend."""
    found = {"eyeline": __version__} | {n: metadata.version(n) for n in libraries}
    return found | {"onnxruntime": session.runtime_version}


class AnyRow(Protocol):
    """A row that can be stored; its name must be unique in the dataset."""

    @property
    def name(self) -> str:
        """Name of the image or video."""

    def to_fields(self) -> dict[str, Any]:
        """Return the complete row as JSON values."""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Create a row from the result of `to_fields`."""


Kept = TypeVar("Kept", bound=AnyRow)
Job = TypeVar("Job")


@dataclass(frozen=True)
class RowOptions:
    """The folder that stores finished rows (None = do not store), and the number of processes."""

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
    """Return the row of every job; read stored rows of an earlier run and compute the others.

    Args:
        kind: class of the rows.
        identity: everything on which the rows depend, as JSON values.
        jobs: name and job of each row.
        make: factory of a function from a job to its row, called once per process.
        arguments: arguments of `make`.
        options: where to store rows, and the number of processes.
        report: called with the number of finished rows.

    Returns:
        The rows in the order of the jobs.

    Raises:
        OutputError: the folder or file cannot be written, or the stored rows are damaged.
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
    """Yield the stored rows of an earlier run by name, and a function that stores one more row.

    Once that second function returns, its row survives even if the process is killed.
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
    """Read the rows of a file, and remove an incomplete last line that a killed process left."""
    if not path.exists() or b"\n" not in (data := path.read_bytes()):
        path.write_text(head + "\n", encoding="utf-8")
        return {}
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as f:
            f.truncate(whole)
    first, *lines = data[:whole].decode(errors="replace").splitlines()
    damaged = OutputError(
        f"{path}: the rows of an earlier run are damaged", "remove the file to compute them again"
    )
    if first != head:
        raise damaged
    try:
        rows = [kind.from_fields(json.loads(line)) for line in lines]
    except (ValueError, KeyError, TypeError) as exc:
        raise damaged from exc
    return {row.name: row for row in rows}


Size = int | tuple[int, int] | Literal["native"] | None
"""Size of the model's input: lines of the short side (keeps the aspect ratio), an exact (width, height),
"native" for the size of the image, or None for the size in the model's I/O spec."""

Resample = Literal["area", "bilinear"]
"""How images are scaled down: by area averaging as for video, or by bilinear interpolation without a
low-pass filter, as in the evaluation code of U-2-Net and related models."""


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
        The input, float32 (1, 3, H, W), normalised and padded, and its (width, height) before padding.
    """
    w, h = scaled_size(*image.size, size, model)
    return prepare(_scaled(image, w, h, resample), model.io), (w, h)


def working_map(
    session: Session, image: Image.Image, size: Size = None, resample: Resample = "area"
) -> Map:
    """Return the map of an 8-bit RGB image at the model's input size, float32 (h, w) in [0, 1].

    Raises:
        ModelError: the model fails at this size, or its output violates the tensor contract (tensor
            names, shapes and value ranges).
    """
    x, (w, h) = image_input(image, session.model, size, resample)
    return finish(session.run(x), h, w, session.model.io)


def predict(
    session: Session, image: Image.Image, size: Size = None, resample: Resample = "area"
) -> Map:
    """Return the map of an image at the size of the image, float32 (H, W); see `working_map`."""
    return upscale(working_map(session, image, size, resample), *image.size)


def _scaled(image: Image.Image, w: int, h: int, how: Resample) -> npt.NDArray[np.uint8]:
    """Scale an image and return its planes, uint8 (3, h, w)."""
    if how == "bilinear":
        planes = np.asarray(image, np.float32).transpose(2, 0, 1)
        return np.round(np.stack([upscale(p, w, h) for p in planes])).astype(np.uint8)
    smaller = w <= image.width and h <= image.height
    # BOX averages areas as for video, but it would repeat pixels if the image is enlarged.
    filter_ = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.ascontiguousarray(np.asarray(image.resize((w, h), filter_)).transpose(2, 0, 1))


@dataclass(frozen=True)
class _ScoredFrame:
    """The map and the mask of a frame, kept to compare them with the next frame."""

    name: str
    size: tuple[int, int]
    saliency: Map
    truth: npt.NDArray[np.bool_]


class ScorePair:
    """Compute the row of a pair of image and mask; each process creates one instance."""

    def __init__(self, model: Model, size: Size, resample: Resample) -> None:
        self._session = Session(model, "cpu")
        self._size, self._resample = size, resample
        self._last: _ScoredFrame | None = None

    def __call__(self, job: tuple[Pair, Pair | None]) -> ImageRow:
        """Return the row of a pair; `job` is the pair and the pair of the previous frame (see `jobs`).

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
    """Yield every pair and the pair of the previous frame of its video, or None for a first frame."""
    before: Pair | None = None
    for pair in pairs:
        video = video_of(pair.name)
        yield pair, before if before and video and video_of(before.name) == video else None
        before = pair


def video_of(name: str) -> str:
    """Return the folder of a pair, which identifies its video; an empty string for a still image."""
    return name.rpartition("/")[0]
