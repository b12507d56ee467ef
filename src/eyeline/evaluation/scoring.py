"""An image of a dataset to its row: scaled, run, brought back to its own size, scored there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from eyeline.datasets.pairs import Pair, read_image, read_mask
from eyeline.evaluation.metrics import Map, score_image
from eyeline.evaluation.rows import Motion, Row
from eyeline.models.registry import Model
from eyeline.saliency.preprocess import finish, input_size, prepare
from eyeline.saliency.resize import upscale
from eyeline.saliency.session import Session

Size = int | tuple[int, int] | Literal["native"] | None
"""Lines of the short side (the aspect is kept), an exact (width, height) to squash to, the
image's own size, or what the model's I/O spec says."""


Resample = Literal["area", "bilinear"]
"""How an image shrinks: by area, as video is scaled, or by plain bilinear interpolation without
a low-pass, as the evaluation code of the U-2-Net line does."""


def scaled_size(width: int, height: int, size: Size, model: Model) -> tuple[int, int]:
    """(width, height) at which a model sees an image, before padding."""
    if isinstance(size, tuple):
        return size
    return input_size(width, height, model.io, size)


def image_input(
    image: Image.Image, model: Model, size: Size = None, resample: Resample = "area"
) -> tuple[Map, tuple[int, int]]:
    """A still image as a model's input.

    Args:
        image: 8-bit RGB.
        model: whose I/O spec says the rest.
        size: see `Size`.
        resample: see `Resample`.

    Returns:
        float32 (1, 3, H, W), normalised and padded, and (width, height) before padding.
    """
    w, h = scaled_size(*image.size, size, model)
    return prepare(_scaled(image, w, h, resample), model.io), (w, h)


def working_map(
    session: Session, image: Image.Image, size: Size = None, resample: Resample = "area"
) -> Map:
    """The map of a still image at the size that the model sees.

    Args:
        session: the model.
        image: 8-bit RGB.
        size: see `Size`.
        resample: see `Resample`.

    Returns:
        float32 (h, w) in [0, 1].

    Raises:
        ModelError: the model fails at this size, or breaks the contract.
    """
    x, (w, h) = image_input(image, session.model, size, resample)
    return finish(session.run(x), h, w, session.model.io)


def predict(
    session: Session, image: Image.Image, size: Size = None, resample: Resample = "area"
) -> Map:
    """The map of a still image at its own size, float32 (H, W); see `working_map`."""
    return upscale(working_map(session, image, size, resample), *image.size)


def _scaled(image: Image.Image, w: int, h: int, how: Resample) -> npt.NDArray[np.uint8]:
    """uint8 (3, h, w) planes of an image."""
    if how == "bilinear":
        planes = np.asarray(image, np.float32).transpose(2, 0, 1)
        return np.round(np.stack([upscale(p, w, h) for p in planes])).astype(np.uint8)
    smaller = w <= image.width and h <= image.height
    # A box filter averages areas, as video is scaled; enlarging, it would repeat pixels.
    filter_ = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.ascontiguousarray(np.asarray(image.resize((w, h), filter_)).transpose(2, 0, 1))


@dataclass(frozen=True)
class _Seen:
    """A frame as it was scored, kept for the one after it."""

    name: str
    size: tuple[int, int]
    saliency: Map
    truth: npt.NDArray[np.bool_]


class ScorePair:
    """A pair, and the frame before it, to its row; made anew in each process."""

    def __init__(self, model: Model, size: Size, resample: Resample) -> None:
        self._session = Session(model, "cpu")
        self._size, self._resample = size, resample
        self._last: _Seen | None = None

    def __call__(self, job: tuple[Pair, Pair | None]) -> Row:
        """The row of a pair; see `jobs`.

        Raises:
            DatasetError: an unreadable image or mask.
            ModelError: see `predict`.
        """
        pair, before = job
        earlier = self._look(before) if before else None
        now = self._last = self._look(pair)
        motion = None
        if earlier is not None and earlier.truth.shape == now.truth.shape:
            motion = Motion(
                float(np.abs(now.saliency - earlier.saliency).mean()),
                float(np.mean(now.truth != earlier.truth)),
            )
        score = score_image(now.saliency, now.truth)
        return Row(pair.name, float(now.truth.mean()), now.size, score, motion)

    def _look(self, pair: Pair) -> _Seen:
        if self._last is not None and self._last.name == pair.name:
            return self._last
        image, mask = read_image(pair.image), read_mask(pair.mask)
        saliency = predict(self._session, image, self._size, self._resample)
        seen = scaled_size(*image.size, self._size, self._session.model)
        return _Seen(pair.name, seen, saliency, np.asarray(mask) > 0)


def jobs(pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Pair | None]]:
    """Every pair with the frame before it in its video, if it has one."""
    before: Pair | None = None
    for pair in pairs:
        video = video_of(pair.name)
        yield pair, before if before and video and video_of(before.name) == video else None
        before = pair


def video_of(name: str) -> str:
    """The folder that makes a pair a frame of a video; empty for a still."""
    return name.rpartition("/")[0]
