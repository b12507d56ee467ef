"""Where a reference's weights come from: a model, maps, masks, recorded gaze, or nothing.

Each source hands out the reference's frames with their maps, in one decode of the reference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt

from eyeline.errors import MissingExtraError, QualityError
from eyeline.media import Video
from eyeline.media.images import list_images
from eyeline.saliency.maps import read_maps

if TYPE_CHECKING:
    from eyeline.quality.gaze import RecordedGaze
    from eyeline.saliency.pipeline import Extraction

Map = npt.NDArray[np.float32]

UNIFORM: Map = np.ones((1, 1), np.float32)
"""A map that weighs all alike, at any size."""


@dataclass(frozen=True)
class Seen:
    """A frame of the reference and where viewers look in it.

    Attributes:
        index: position in the reference, from 0.
        seconds: presentation time.
        frame: as decoded.
        map: float32 (h, w), upright, any size with the frame's aspect.
    """

    index: int
    seconds: float
    frame: av.VideoFrame
    map: Map


def from_model(extraction: Extraction, start: int) -> Iterator[Seen]:
    """Frames and the maps that a model gives; the extraction keeps its sources."""
    for f in extraction:
        if f.index < start:
            continue
        if f.frame.source is None:
            raise QualityError("the extraction keeps no frames", "set keep_source")
        yield Seen(f.index, f.pts_time, f.frame.source, f.map)


def from_files(
    video: Video, path: str | os.PathLike[str], start: int, stop: int | None = None
) -> Iterator[Seen]:
    """Frames and ready maps, matched by frame number (see `saliency.maps.read_maps`).

    Raises:
        MediaError: the maps can't be read.
        QualityError: a frame has no map.
    """
    maps = read_maps(Path(path))
    number, found = -1, UNIFORM
    for decoded in video.pictures(start, stop):
        while number < decoded.index:
            given = next(maps, None)
            if given is None:
                raise _missing(path, decoded.index, number)
            number, found = given
        if number != decoded.index:
            raise _missing(path, decoded.index, number)
        yield Seen(decoded.index, decoded.seconds, decoded.frame, found)


def from_masks(
    video: Video, folder: str | os.PathLike[str], start: int, stop: int | None = None
) -> Iterator[Seen]:
    """Frames and ground-truth masks: the n-th picture of the folder, by name, for frame n.

    Raises:
        MediaError: the folder holds no pictures.
        DatasetError: a picture can't be read.
        QualityError: a frame has no mask.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from eyeline.datasets.pairs import read_mask
    except ImportError as exc:
        raise MissingExtraError("pillow", "eval") from exc
    masks = list_images(Path(folder))
    for decoded in video.pictures(start, stop):
        if decoded.index >= len(masks):
            raise _missing(folder, decoded.index, len(masks) - 1)
        m = np.asarray(read_mask(Path(masks[decoded.index])), np.float32) / np.float32(255)
        yield Seen(decoded.index, decoded.seconds, decoded.frame, m)


def from_gaze(
    video: Video, gaze: RecordedGaze, start: int, stop: int | None = None
) -> Iterator[Seen]:
    """Frames and the density of recorded gaze; a uniform map where no fixation is active."""
    for decoded in video.pictures(start, stop):
        density = gaze.density(decoded.index, decoded.seconds)
        m = UNIFORM if density is None else density
        yield Seen(decoded.index, decoded.seconds, decoded.frame, m)


def from_nothing(video: Video, start: int, stop: int | None = None) -> Iterator[Seen]:
    """Frames with a uniform map."""
    for decoded in video.pictures(start, stop):
        yield Seen(decoded.index, decoded.seconds, decoded.frame, UNIFORM)


def as_coded(m: Map, rotation: int) -> Map:
    """An upright map turned to how the frame is coded.

    Args:
        m: float32 (h, w).
        rotation: clockwise degrees that make the frame upright.
    """
    return np.ascontiguousarray(np.rot90(m, rotation // 90)) if rotation else m


def describe(kind: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Provenance of maps that were given."""
    return {"map": kind, "map_path": Path(path).name}


def _missing(path: str | os.PathLike[str], index: int, last: int) -> QualityError:
    return QualityError(
        f"{path}: holds no map for frame {index} of the reference (the last read is {last})",
        "every frame of the reference needs one; are they this clip's?",
    )
