"""Draw frames beside their gaze maps and objects maps: the picture of docs/gaze.md.

    python benchmarks/gaze_picture.py clip.mp4:40 other.mp4:100 -o docs/images/gaze_or_objects.jpg

Each argument is a video and the number of a frame. The maps come from the production models.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

import eyeline

WIDTH, GAP, LINE = 400, 8, 22


def picture(video: str, index: int, task: str) -> tuple[Image.Image, Image.Image, float]:
    """Return the frame, the frame with its map in colour, and the mean of the map."""
    options = eyeline.ExtractOptions(start=0, stop=index + 1, keep_source=True)
    model = eyeline.resolve_model(task=task)  # type: ignore[arg-type]
    with eyeline.extract(video, model=model, options=options) as extraction:
        for shown in extraction:
            last = shown
    source = last.frame.source
    assert source is not None
    frame = Image.fromarray(source.to_ndarray(format="rgb24"))
    full = last.full_map()
    frame = frame.resize(full.shape[::-1])  # pixels may not be square
    heat = colormaps["inferno"](full)[..., :3]
    mixed = 0.35 * np.asarray(frame) / 255 + 0.65 * heat
    return frame, Image.fromarray((mixed * 255).astype(np.uint8)), last.saliency_mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", nargs="+")
    parser.add_argument("-o", type=Path, required=True)
    a = parser.parse_args()
    rows = []
    for text in a.frames:
        video, _, index = text.rpartition(":")
        gaze = picture(video, int(index), "gaze")
        objects = picture(video, int(index), "objects")
        means = f"gaze, mean {gaze[2]:.3f}", f"objects, mean {objects[2]:.3f}"
        rows.append(list(zip((gaze[0], gaze[1], objects[1]), ("frame", *means), strict=True)))
    heights = [round(WIDTH * r[0][0].height / r[0][0].width) + LINE + GAP for r in rows]
    sheet = Image.new("RGB", (3 * (WIDTH + GAP) + GAP, sum(heights) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for i, (shown, label) in enumerate(row):
            left = GAP + i * (WIDTH + GAP)
            draw.text((left, top), label, fill="black", font_size=15)
            sheet.paste(shown.resize((WIDTH, height - LINE - GAP)), (left, top + LINE))
        top += height
    sheet.save(a.o, quality=86)


if __name__ == "__main__":
    main()
