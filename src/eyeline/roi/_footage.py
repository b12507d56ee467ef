"""Read the pictures of a source in coded orientation, each with its levels, which are QP offsets per block.

The saliency maps come from a model, from a running `Extraction`, from files, or from an iterable of arrays.
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
from eyeline.roi.steering import Floats, LevelMapper, Levels, SteerOptions, grid_size, valid_map
from eyeline.saliency.maps import read_maps
from eyeline.saliency.pipeline import Extraction, ExtractOptions, extract
from eyeline.saliency.temporal import CUT_THRESHOLD

MapSource = (
    Extraction
    | str
    | os.PathLike[str]
    | Iterable[npt.NDArray[np.generic] | tuple[int, npt.NDArray[np.generic]]]
)
"""Source of saliency maps: an extraction with `keep_source`, a file or folder that
`eyeline.saliency.maps.read_maps` reads, or arrays in frame order, or pairs of frame number and array."""

SCENE_LINES = 64
"""Height of the downscaled pictures for the detection of scene changes, if no model runs."""


@dataclass(frozen=True)
class Picture:
    """A picture to encode.

    Attributes:
        index: frame number in the source.
        seconds: presentation time.
        frame: the decoded frame.
        levels: QP offset per block of the coded picture, int16 (rows, columns); None if the strength is 0.
    """

    index: int
    seconds: float
    frame: av.VideoFrame
    levels: Levels | None


class Footage:
    """The pictures of a source with their levels; a context manager that can be iterated once.

    If `maps` is None, the model computes the maps.

    Attributes:
        info: properties of the source.
        start, stop: first frame, and the frame after the last one; a `stop` of None means the end.
        steer: the given options, with law and strength filled in if they were None.
        provenance: JSON values that name the model or the maps.

    Raises:
        MediaError: the source cannot be read.
        UsageError: `maps` is an extraction without `keep_source`.
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
        self._block, self._most_levels = block, most_levels
        self._maps: Iterable[Any] | str | os.PathLike[str] = ()
        self._opened: Video | Extraction
        self.provenance: dict[str, Any] = {}
        shows = None
        if steer.strength == 0:
            self._opened = open_video(source, video)
        elif maps is None or isinstance(maps, Extraction):
            if maps is None:
                chosen = resolve_model(model, registry, use="roi")
                o = replace(o, keep_source=True)
                maps = extract(source, model=chosen, video_options=video, options=o)
            elif not maps.options.keep_source:
                raise UsageError(
                    "the extraction does not keep the decoded frames", "set keep_source=True"
                )
            self._opened, o, shows = maps, maps.options, maps.model.task
            self.provenance = {k: v for k, v in maps.provenance.items() if k != "video"}
        else:
            self._maps, self._opened = maps, open_video(source, video)
            if isinstance(maps, str | os.PathLike):
                self.provenance = {"maps": Path(maps).name}
        self.start, self.stop = o.start, o.stop
        self.steer = steer.for_map(shows)
        self.info: VideoInfo = self._opened.info

    def __enter__(self) -> Footage:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[Picture]:
        return self._steered() if self.steer.strength else self._plain()

    def _picture(self, index: int, frame: av.VideoFrame | None) -> av.VideoFrame:
        assert frame is not None  # noqa: S101 - keep_source is set
        i = self.info
        first, now = (i.width, i.height, i.pix_fmt), (frame.width, frame.height, frame.format.name)
        if now != first:
            raise MediaError(
                f"{i.path}: frame {index} is {now[0]}x{now[1]} {now[2]}, but the first frame is "
                f"{first[0]}x{first[1]} {first[2]}",
                "convert the video to one size and pixel format first",
            )
        return frame

    def _plain(self) -> Iterator[Picture]:
        assert isinstance(self._opened, Video)  # noqa: S101 - no model runs
        for d in self._opened.pictures(self.start, self.stop):
            yield Picture(d.index, d.seconds, self._picture(d.index, d.frame), None)

    def _steered(self) -> Iterator[Picture]:
        size = self.info.width, self.info.height
        steering = LevelMapper(self.steer, *size, self._block, self._most_levels)
        frames: Iterator[tuple[Frame, Floats, bool]]
        if isinstance(self._opened, Extraction):
            frames = ((f.frame, f.map, f.cut) for f in self._opened)
        else:
            frames = self._with_maps(self._opened)
        for frame, saliency, cut in frames:
            source = self._picture(frame.index, frame.source)
            levels = steering(saliency, frame.rotation, cut=cut, picture=source)
            yield Picture(frame.index, frame.pts_time, source, levels)

    def _with_maps(self, video: Video) -> Iterator[tuple[Frame, Floats, bool]]:
        path = self.info.path
        name = str(self._maps) if isinstance(self._maps, str | os.PathLike) else "the maps"
        numbered = self._numbered()
        hint = "make maps of exactly the frames that are encoded"
        try:
            for frame in video.frames(_small, self.start, self.stop, keep_source=True):
                index, saliency = next(numbered, (None, None))
                where = f"{name}: frame {frame.index}"
                if saliency is None:
                    raise MediaError(f"{name}: has no map for frame {frame.index} of {path}", hint)
                if index not in (None, frame.index):
                    raise MediaError(
                        f"{name}: expected the map of frame {frame.index} of {path}, found one of "
                        f"frame {index}",
                        hint,
                    )
                values = valid_map(saliency, frame.display_size, where)
                yield frame, values, frame.scene_score >= CUT_THRESHOLD
            if next(numbered, None) is not None:
                raise MediaError(f"{name}: has more maps than {path} has frames", hint)
        finally:
            numbered.close()

    def _numbered(self) -> Generator[tuple[int | None, npt.NDArray[np.generic]]]:
        if isinstance(self._maps, str | os.PathLike):
            yield from read_maps(Path(self._maps))
            return
        for item in self._maps:
            yield item if isinstance(item, tuple) else (None, item)


def _small(width: int, height: int) -> tuple[int, int]:
    lines = min(SCENE_LINES, height)
    return max(1, min(round(width * lines / height), 8 * SCENE_LINES)), lines


class LevelStore:
    """The QP-offset levels of all encoded frames, in a temporary file."""

    def __init__(self, width: int, height: int, block: int) -> None:
        self._shape = grid_size(width, height, block)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the store
        self._frames = 0

    def append(self, levels: Levels) -> None:
        """Append the levels of a frame, int16 (rows, columns), with values that fit into int8."""
        self._file.write(levels.astype(np.int8).tobytes())
        self._frames += 1

    def __iter__(self) -> Iterator[Levels]:
        self._file.seek(0)
        for _ in range(self._frames):
            data = np.frombuffer(self._file.read(self._shape[0] * self._shape[1]), np.int8)
            yield data.reshape(self._shape).astype(np.int16)

    def close(self) -> None:
        """Close and delete the temporary file."""
        self._file.close()
