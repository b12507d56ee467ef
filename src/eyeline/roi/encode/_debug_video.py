"""A look at the map: block offsets and the decoder's own QPs, drawn over the encoded picture.

The encoded picture is tinted by what was asked: warm where bits were added, cool where they were
taken. Beside it, where the decoder tells its QPs (H.264), they are shown in grey: dark is coarse.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from eyeline.errors import MediaError
from eyeline.media.source import open_video
from eyeline.media.types import VideoOptions
from eyeline.media.write import H264, VideoWriter
from eyeline.roi._footage import LevelStore
from eyeline.roi.encode._regions import find_side_data

Levels = npt.NDArray[np.int16]

WARM = np.array([255, 120, 0], np.float32)
COOL = np.array([0, 120, 255], np.float32)
OPACITY = 0.55
"""Of the strongest tint."""


def tint(rgb: npt.NDArray[np.uint8], levels: Levels, block: int, span: int) -> None:
    """Colour a picture by offsets, in place, with a line around every change of level.

    Args:
        rgb: uint8 (H, W, 3), coded orientation.
        levels: int16 (rows, columns), QP.
        block: side of a block, pixels.
        span: the offset that is drawn strongest, QP.
    """
    height, width = rgb.shape[:2]
    full = np.repeat(np.repeat(levels, block, 0), block, 1)[:height, :width]
    weight = np.clip(np.abs(full) / max(1, span), 0, 1)[..., None] * OPACITY
    colour = np.where((full < 0)[..., None], WARM, COOL)
    rgb[:] = (rgb * (1 - weight) + colour * weight + 0.5).astype(np.uint8)
    edge = np.zeros((height, width), bool)
    edge[:, 1:] |= full[:, 1:] != full[:, :-1]
    edge[1:] |= full[1:] != full[:-1]
    rgb[edge] = 255


def grey_qps(qps: npt.NDArray[np.integer], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Block QPs as a picture: white is QP 10 or less, black 50 or more.

    Args:
        qps: (rows, columns) of 16-pixel macroblocks.
        width: of the picture, pixels.
        height: of the picture, pixels.

    Returns:
        uint8 (height, width, 3).
    """
    grey = np.clip((50 - qps.astype(np.float32)) / 40 * 255 + 0.5, 0, 255).astype(np.uint8)
    full = np.repeat(np.repeat(grey, 16, 0), 16, 1)[:height, :width]
    return np.repeat(full[..., None], 3, 2)


def decoded_qps(path: str | os.PathLike[str]) -> Iterator[npt.NDArray[np.int32] | None]:
    """QPs of every frame's macroblocks as the H.264 decoder used them; None where it does not tell."""
    with av.open(os.fspath(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"export_side_data": "venc_params"}
        for frame in container.decode(stream):
            found = find_side_data(frame, "VIDEO_ENC_PARAMS")
            qp_map = getattr(found, "qp_map", None)
            yield None if qp_map is None else np.asarray(qp_map(), np.int32)


def write_debug_video(
    encoded: str | os.PathLike[str],
    out: str | Path,
    levels: LevelStore,
    block: int,
    span: float,
) -> int:
    """Draw over every picture of an encoded file; frames written.

    Args:
        encoded: what `encode` wrote.
        out: `.mp4` or `.mkv`; offsets on the left, the decoder's QPs on the right (H.264).
        levels: what was asked, a grid a frame.
        block: side of a block, pixels.
        span: the offset that is drawn strongest, QP.

    Raises:
        MediaError: the file holds another number of pictures than there are grids.
        OutputError: it can't be written.
    """
    asked = iter(levels)
    qps = decoded_qps(encoded)
    with open_video(encoded, VideoOptions()) as video:
        i = video.info
        side_by_side = i.codec == "h264"
        width = i.width * (2 if side_by_side else 1)
        with VideoWriter(out, width, i.height, fps=i.fps, encoding=H264) as writer:
            # Coded size, so that blocks are where they were asked: no aspect, no rotation.
            for frame in video.frames(lambda w, h: (w, h), keep_source=True):
                grid = next(asked, None)
                if grid is None or frame.source is None:
                    raise MediaError(f"{encoded}: has more pictures than were steered")
                upright = np.moveaxis(frame.rgb, 0, 2)
                rgb = np.ascontiguousarray(np.rot90(upright, frame.rotation // 90))
                if rgb.shape[:2] != (i.height, i.width):
                    columns = np.arange(i.width) * rgb.shape[1] // i.width
                    rows = np.arange(i.height) * rgb.shape[0] // i.height
                    rgb = np.ascontiguousarray(rgb[rows][:, columns])
                tint(rgb, grid, block, round(span))
                if side_by_side:
                    found = next(qps, None)
                    right = (
                        np.zeros_like(rgb) if found is None else grey_qps(found, i.width, i.height)
                    )
                    rgb = np.concatenate([rgb, right], 1)
                writer.write(rgb, frame.pts_time)
            return writer.frames
