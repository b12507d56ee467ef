"""A source's pictures as they are coded, each with the levels that steer it.

Maps come from the model, from a running `Extraction`, from files, or from any iterable; whatever
they come from, one that is missing, left over or of another shape is an error.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from eyeline.errors import MediaError, UsageError
from eyeline.media import Video, open_video
from eyeline.media.types import Frame, VideoInfo, VideoOptions
from eyeline.registry.registry import resolve_model
from eyeline.roi.steering import Steering, SteerOptions, grid_size, valid_map
from eyeline.saliency.maps import read_maps
from eyeline.saliency.pipeline import Extraction, ExtractOptions, extract
from eyeline.saliency.temporal import CUT_THRESHOLD

Levels = npt.NDArray[np.int16]
MapSource = (
    Extraction
    | str
    | os.PathLike[str]
    | Iterable[npt.NDArray[np.generic] | tuple[int, npt.NDArray[np.generic]]]
)
"""Where maps come from: an extraction that keeps its sources, a file or folder that
`eyeline.saliency.maps.read_maps` reads, or arrays in frame order, alone or with their index."""

SCENE_LINES = 64
"""Lines at which scene changes are looked for when the model does not look anyway."""


@dataclass(frozen=True)
class Picture:
    """A picture to encode.

    Attributes:
        index: position in the source.
        seconds: presentation time.
        frame: as decoded.
        levels: int16 (rows, columns) of the coded picture, QP; None in a plain encode.
    """

    index: int
    seconds: float
    frame: av.VideoFrame
    levels: Levels | None


class Footage:
    """Pictures with their levels; iterate once. A context manager.

    Args:
        source: path of a video, or what `open_video` takes.
        maps: see `MapSource`; None asks the model, unless the strength is 0.
        steer: how maps become levels.
        block: side of a block, pixels.
        most_levels: distinct levels that the encoder holds.
        video: how to read the source.
        extract_options: how the model is run.
        model: registry id, path or `Model`; the default when None.
        registry: the user's own registry folder.

    Attributes:
        steer: with the law and strength that suit the maps where `steer` left them open.

    Raises:
        MediaError: the source can't be read.
        UsageError: an extraction without its sources.
    """

    def __init__(
        self,
        source: Any,
        maps: MapSource | None,
        steer: SteerOptions,
        block: int,
        most_levels: int | None = None,
        *,
        video: VideoOptions | None = None,
        extract_options: ExtractOptions | None = None,
        model: Any = None,
        registry: str | os.PathLike[str] | None = None,
    ) -> None:
        o = extract_options or ExtractOptions()
        self.start, self.stop = o.start, o.stop
        self._block, self._most_levels = block, most_levels
        self._maps: MapSource | None = None
        self._video: Video | None = None
        self._extraction: Extraction | None = None
        self.provenance: dict[str, Any] = {}
        if steer.strength == 0:
            self._video = open_video(source, video)
        elif maps is None or isinstance(maps, Extraction):
            if isinstance(maps, Extraction):
                if not maps.options.keep_source:
                    raise UsageError("the extraction keeps no sources", "set keep_source=True")
                self._extraction = maps
                self.start, self.stop = maps.options.start, maps.options.stop
            else:
                self._extraction = extract(
                    source,
                    model=resolve_model(model, registry, use="roi"),
                    video_options=video,
                    options=replace(o, keep_source=True),
                )
            self.provenance = {k: v for k, v in self._extraction.provenance.items() if k != "video"}
        else:
            self._maps = maps
            self._video = open_video(source, video)
            if isinstance(maps, str | os.PathLike):
                self.provenance = {"maps": Path(maps).name}
        shows = None if self._extraction is None else self._extraction.model.task
        self.steer = steer.for_map(shows)
        opened = self._extraction or self._video
        assert opened is not None  # noqa: S101 - one of the branches opened it
        self.info: VideoInfo = opened.info
        self.report = opened.report

    def __enter__(self) -> Footage:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close the source; safe to call twice."""
        if self._extraction is not None:
            self._extraction.close()
        if self._video is not None:
            self._video.close()

    def __iter__(self) -> Iterator[Picture]:
        pictures = self._steered() if self.steer.strength else self._plain()
        size = self.info.width, self.info.height, self.info.pix_fmt
        for p in pictures:
            now = p.frame.width, p.frame.height, p.frame.format.name
            if now != size:
                raise MediaError(
                    f"{self.info.path}: frame {p.index} is {now[0]}x{now[1]} {now[2]}, the first "
                    f"{size[0]}x{size[1]} {size[2]}",
                    "scale it to one size first",
                )
            yield p

    def _plain(self) -> Iterator[Picture]:
        assert self._video is not None  # noqa: S101
        for d in self._video.pictures(self.start, self.stop):
            yield Picture(d.index, d.seconds, d.frame, None)

    def _steered(self) -> Iterator[Picture]:
        i = self.info
        steering = Steering(self.steer, i.width, i.height, self._block, self._most_levels)
        if self._extraction is not None:
            frames: Iterator[tuple[Frame, npt.NDArray[np.float32], bool]] = (
                (f.frame, f.map, f.cut) for f in self._extraction
            )
        else:
            frames = self._with_maps()
        for frame, saliency, cut in frames:
            source = frame.source
            assert source is not None  # noqa: S101 - asked for
            levels = steering(saliency, frame.rotation, cut=cut, picture=source)
            yield Picture(frame.index, frame.pts_time, source, levels)

    def _with_maps(self) -> Iterator[tuple[Frame, npt.NDArray[np.float32], bool]]:
        """Frames beside maps that were given.

        Raises:
            MediaError: maps that end early, are left over, or have another index or shape.
        """
        assert self._video is not None  # noqa: S101
        path = self.info.path
        name = str(self._maps) if isinstance(self._maps, str | os.PathLike) else "the maps"
        numbered = self._numbered()
        try:
            for frame in self._video.frames(_small, self.start, self.stop, keep_source=True):
                index, saliency = next(numbered, (None, None))
                if saliency is None:
                    raise MediaError(
                        f"{name}: no map for frame {frame.index} of {path}",
                        "make maps of this video",
                    )
                if index is not None and index != frame.index:
                    raise MediaError(
                        f"{name}: a map of frame {index} where frame {frame.index} of {path} comes",
                        "make maps of these frames",
                    )
                where = f"{name}: frame {frame.index}"
                values = valid_map(saliency, frame.display_size, where)
                yield frame, values, frame.scene_score >= CUT_THRESHOLD
            if next(numbered, None) is not None:
                raise MediaError(
                    f"{name}: more maps than {path} has frames", "make maps of this video"
                )
        finally:
            numbered.close()

    def _numbered(self) -> Generator[tuple[int | None, npt.NDArray[np.generic]]]:
        maps = self._maps
        assert maps is not None  # noqa: S101
        assert not isinstance(maps, Extraction)  # noqa: S101 - those are iterated as they are
        if isinstance(maps, str | os.PathLike):
            yield from read_maps(Path(maps))
            return
        for item in maps:
            yield item if isinstance(item, tuple) else (None, item)


def _small(width: int, height: int) -> tuple[int, int]:
    lines = min(SCENE_LINES, height)
    return max(1, min(round(width * lines / height), 8 * SCENE_LINES)), lines


class LevelStore:
    """Levels of a first pass, kept in a temporary file for the second.

    Args:
        width, height: of the coded picture, pixels.
        block: side of a block, pixels.
    """

    def __init__(self, width: int, height: int, block: int) -> None:
        self._shape = grid_size(width, height, block)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the store
        self.frames = 0

    def append(self, levels: Levels) -> None:
        """Keep a frame's levels: int16 (rows, columns), within an int8's range."""
        self._file.write(levels.astype(np.int8).tobytes())
        self.frames += 1

    def __iter__(self) -> Iterator[Levels]:
        self._file.seek(0)
        size = self._shape[0] * self._shape[1]
        for _ in range(self.frames):
            data = np.frombuffer(self._file.read(size), np.int8)
            yield data.reshape(self._shape).astype(np.int16)

    def close(self) -> None:
        """Free the file."""
        self._file.close()
