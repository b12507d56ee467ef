"""Write a debug video, which shows the QP offsets over an encoded video.

Blocks with a negative offset (more bits) are tinted orange, blocks with a positive offset blue. For H.264,
the right half shows the QPs that the decoder reports in grey; a higher QP is darker.
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
from eyeline.media.write import H264, VideoWriter
from eyeline.roi._footage import LevelStore
from eyeline.roi.encode._regions import find_side_data
from eyeline.roi.steering import Levels

Rgb = npt.NDArray[np.uint8]

WARM = np.array([255, 120, 0], np.float32)
COOL = np.array([0, 120, 255], np.float32)
OPACITY = 0.55
"""Opacity of the tint at the largest offset."""

MACROBLOCK = 16


def _enlarged(blocks: npt.NDArray[np.generic], side: int, height: int, width: int) -> npt.NDArray:  # type: ignore[type-arg]
    return np.repeat(np.repeat(blocks, side, 0), side, 1)[:height, :width]


def _tint(rgb: Rgb, levels: Levels, block: int, span: int) -> None:
    """Tint a picture in place by its QP offsets, with white lines between blocks of different offsets."""
    height, width = rgb.shape[:2]
    full = _enlarged(levels, block, height, width)
    weight = np.clip(np.abs(full) / max(1, span), 0, 1)[..., None] * OPACITY
    colour = np.where((full < 0)[..., None], WARM, COOL)
    rgb[:] = (rgb * (1 - weight) + colour * weight + 0.5).astype(np.uint8)
    edge = np.zeros((height, width), bool)
    edge[:, 1:] |= full[:, 1:] != full[:, :-1]
    edge[1:] |= full[1:] != full[:-1]
    rgb[edge] = 255


def _grey_qps(qps: npt.NDArray[np.integer], width: int, height: int) -> Rgb:
    """Draw the QP of each macroblock in grey: QP 10 or less is white, QP 50 or more is black."""
    grey = np.clip((50 - qps.astype(np.float32)) / 40 * 255 + 0.5, 0, 255).astype(np.uint8)
    full = _enlarged(grey, MACROBLOCK, height, width)
    return np.repeat(full[..., None], 3, 2)


def decoded_qps(path: str | os.PathLike[str]) -> Iterator[npt.NDArray[np.int32] | None]:
    """Yield the QPs of the macroblocks of each frame from the H.264 decoder; None if it reports no QPs."""
    with av.open(os.fspath(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"export_side_data": "venc_params"}
        for frame in container.decode(stream):
            found = find_side_data(frame, "VIDEO_ENC_PARAMS")
            qp_map = getattr(found, "qp_map", None)
            yield None if qp_map is None else np.asarray(qp_map(), np.int32)


def write_debug_video(
    encoded: str | os.PathLike[str], out: Path, levels: LevelStore, block: int, span: float
) -> None:
    """Write the debug video of an encoded file; an offset of `span` QP gets the strongest tint.

    Raises:
        MediaError: the file has more pictures than `levels` has frames.
        OutputError: the debug video cannot be written.
    """
    asked, qps = iter(levels), decoded_qps(encoded)
    with open_video(encoded) as video:
        i = video.info
        side_by_side = i.codec == "h264"
        width = i.width * (2 if side_by_side else 1)
        with VideoWriter(out, width, i.height, fps=i.fps, encoding=H264) as writer:
            # Frames keep their coded size, so that the blocks align with the blocks of the encoder.
            for frame in video.frames(lambda w, h: (w, h)):
                grid = next(asked, None)
                if grid is None:
                    raise MediaError(
                        f"{encoded}: has more pictures than the encoder was given",
                        "encode the video again",
                    )
                upright = np.moveaxis(frame.rgb, 0, 2)
                rgb = np.ascontiguousarray(np.rot90(upright, frame.rotation // 90))
                if rgb.shape[:2] != (i.height, i.width):
                    columns = np.arange(i.width) * rgb.shape[1] // i.width
                    rows = np.arange(i.height) * rgb.shape[0] // i.height
                    rgb = np.ascontiguousarray(rgb[rows][:, columns])
                _tint(rgb, grid, block, round(span))
                if side_by_side:
                    found = next(qps, None)
                    right = np.zeros_like(rgb)
                    if found is not None:
                        right = _grey_qps(found, i.width, i.height)
                    rgb = np.concatenate([rgb, right], 1)
                writer.write(rgb, frame.pts_time)
