"""From a source to a map file, in one pass: what `roi map` calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyeline.errors import DamagedMediaError, MediaError, OutputError, UsageError
from eyeline.media.types import VideoOptions
from eyeline.output import open_output
from eyeline.roi.footage import Footage, MapSource
from eyeline.roi.mapfile import SVT_MOST_VALUES, MapFormat, PngMaps, block_of, open_writer
from eyeline.roi.smooth import level_step
from eyeline.roi.steer import SteerOptions
from eyeline.saliency.pipeline import ExtractOptions


@dataclass(frozen=True)
class MapResult:
    """What was written.

    Attributes:
        frames: maps.
        grid: (rows, columns) of cells.
        block: side of a cell, pixels.
    """

    frames: int
    grid: tuple[int, int]
    block: int


def write_map_file(
    source: Any,
    out: str | os.PathLike[str],
    kind: MapFormat,
    steer: SteerOptions | None = None,
    maps: MapSource | None = None,
    *,
    block: int | None = None,
    video: VideoOptions | None = None,
    extract_options: ExtractOptions | None = None,
    model: Any = None,
    registry: str | os.PathLike[str] | None = None,
    force: bool = True,
    on_frame: Callable[[int], None] | None = None,
) -> MapResult:
    """Write the QP offsets of a video's frames to a file.

    Args:
        source: path of a video, or what `eyeline.media.open_video` takes.
        out: the file, or a folder for `png`.
        kind: see `eyeline.roi.mapfile`.
        steer: how maps become offsets.
        maps: see `eyeline.roi.footage.MapSource`; None asks the model.
        block: side of a cell, pixels, where the format takes any.
        video: how the source is read.
        extract_options: how the model is run, and which frames.
        model: registry id, path or `Model`.
        registry: the user's own registry folder.
        force: replace a file of that name.
        on_frame: called with the frames done.

    Raises:
        UsageError: strength 0, which steers nothing.
        OutputError: the file exists and `force` is False, or can't be written.
        MediaError: the source or the maps can't be read, or do not belong together.
        DamagedMediaError: the source ends early; what came before is kept.
    """
    o = steer or SteerOptions()
    if o.strength == 0:
        raise UsageError("strength 0 makes no map", "give QPs, such as 4")
    if str(out) != "-" and Path(out).exists() and not force:
        raise OutputError(f"{out}: exists", "add --force to replace it")
    size = block_of(kind, block)
    if size < 8 or size > 256 or size % 8:
        raise UsageError(f"block is {size}", "give a multiple of 8, 8..256")
    most = SVT_MOST_VALUES if kind == "svtav1" else None
    footage = Footage(
        source, maps, o, size, most,
        video=video, extract_options=extract_options, model=model, registry=registry,
    )  # fmt: skip
    advance = on_frame or (lambda done: None)
    with footage:
        i, o = footage.info, footage.steer
        step = level_step(o.span, min(o.levels, most or o.levels))
        lowest = round(o.lowest / step) * step
        if kind == "png":
            folder = PngMaps(Path(out))
            try:
                done = _fill(footage, folder, advance)
            except BaseException:
                folder.discard()
                raise
            folder.commit()
        else:
            with open_output(os.fspath(out)) as stream:
                writer = open_writer(kind, stream, i.width, i.height, size, lowest)
                done = _fill(footage, writer, advance)
                writer.finish()
    frames, grid, damage = done
    if damage is not None:
        raise damage
    return MapResult(frames, grid, size)


def _fill(
    footage: Footage, writer: Any, advance: Callable[[int], None]
) -> tuple[int, tuple[int, int], DamagedMediaError | None]:
    frames, grid, damage = 0, (0, 0), None
    try:
        for p in footage:
            assert p.levels is not None  # noqa: S101 - strength is not 0
            grid = p.levels.shape[0], p.levels.shape[1]
            writer.write(p.index - footage.start, p.levels)
            frames += 1
            advance(frames)
    except DamagedMediaError as exc:
        if not frames:
            raise
        damage = exc
    if not frames:
        raise MediaError(f"{footage.info.path}: no frames in the range asked for", "check --frames")
    return frames, grid, damage
