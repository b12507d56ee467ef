"""Draw a demo clip: `python benchmarks/demo_clip.py OUT.mp4`.

A ball bounces over a meadow; after a cut, a second ball bounces over sand. The clip has a moving
subject whose position is known, and texture around it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

import eyeline
from eyeline.saliency.pipeline import ExtractOptions, Outputs, run_extraction

Colour = tuple[int, int, int]
Image = npt.NDArray[np.float32]

WIDTH, HEIGHT, FPS, SECONDS = 1280, 720, 25, 4
SCENES = (
    # sky top, sky bottom, ground, ball
    ((90, 140, 200), (205, 220, 230), (70, 110, 50), (215, 60, 40)),
    ((150, 120, 110), (235, 205, 170), (190, 160, 115), (45, 80, 190)),
)


def background(sky_top: Colour, sky_bottom: Colour, ground: Colour, seed: int) -> Image:
    """Draw sky and textured ground, float32 (H, W, 3) in 0..255."""
    rng = np.random.default_rng(seed)
    horizon = int(HEIGHT * 0.45)
    t = np.linspace(0, 1, horizon, dtype=np.float32)[:, None, None]
    top, bottom = (np.array(c, np.float32) for c in (sky_top, sky_bottom))
    sky = np.broadcast_to(top + (bottom - top) * t, (horizon, WIDTH, 3))
    rows = HEIGHT - horizon
    texture = np.zeros((rows, WIDTH), np.float32)
    for cell, strength in ((2, 10), (5, 8), (16, 8), (64, 10)):
        noise = rng.standard_normal((rows // cell + 2, WIDTH // cell + 2)).astype(np.float32)
        texture += strength * noise.repeat(cell, 0).repeat(cell, 1)[:rows, :WIDTH]
    shade = np.linspace(0.85, 1.1, rows, dtype=np.float32)[:, None, None]
    field = (np.array(ground, np.float32) + texture[:, :, None]) * shade
    return np.concatenate([sky, field]).clip(0, 255)


def draw_ball(picture: Image, x: float, y: float, radius: float, colour: Colour) -> Image:
    """Draw a shaded ball and its shadow on the ground."""
    yy, xx = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    ground = HEIGHT * 0.86
    shadow = ((xx - x) / (radius * 1.1)) ** 2 + ((yy - ground) / (radius * 0.22)) ** 2
    out = picture * (1 - 0.45 * np.clip(1.3 - shadow, 0, 1))[..., None]
    dx, dy = (xx - x) / radius, (yy - y) / radius
    inside = np.clip((1 - np.hypot(dx, dy)) * radius, 0, 1)[..., None]  # an anti-aliased edge
    depth = np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1))
    light = np.clip(-0.45 * dx - 0.6 * dy + 0.65 * depth, 0.12, 1)[..., None]
    stripe = np.where(np.abs(dx + 0.3 * dy) < 0.22, 1.0, 0.0)[..., None]
    skin = np.array(colour, np.float32) * (1 - stripe) + np.array((245, 240, 225)) * stripe
    gloss = 120 * np.clip(light - 0.88, 0, 1) * 4
    return out * (1 - inside) + np.clip(skin * (0.35 + 0.75 * light) + gloss, 0, 255) * inside


def frames() -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frames of the clip, uint8 (H, W, 3), in order."""
    for scene, (top, bottom, ground, colour) in enumerate(SCENES):
        stage = background(top, bottom, ground, seed=scene)
        count = FPS * SECONDS // len(SCENES)
        for i in range(count):
            t = i / count
            radius = 70 + 25 * scene
            x = WIDTH * (0.2 + 0.55 * t if scene == 0 else 0.75 - 0.4 * t)
            y = HEIGHT * 0.84 - radius - abs(np.sin(t * 2.5 * np.pi)) * HEIGHT * 0.38
            yield draw_ball(stage, x, y, radius, colour).astype(np.uint8)


def write_clip(path: str) -> None:
    """Encode the clip as H.264, tagged BT.709."""
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "20", "preset": "fast"}
        for i, picture in enumerate(frames()):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def write_picture(clip: str, path: str) -> None:
    """Write three frames, and their heat maps below them, as one JPEG that is 1280 pixels wide."""
    heat = str(Path(clip).with_suffix(".heat.mp4"))
    outputs = Outputs(overlay=heat)
    run_extraction(eyeline.extract(clip, options=ExtractOptions(keep_source=True)), outputs)
    rows = []
    for video in (clip, heat):
        with av.open(video) as container:
            shown = [f for i, f in enumerate(container.decode(video=0)) if i in (8, 33, 80)]
        rows.append(np.hstack([f.reformat(426, 240).to_ndarray(format="rgb24") for f in shown]))
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.vstack(rows)), "rgb24")
    with av.open(path, "w", format="image2", options={"update": "1"}) as out:
        stream = out.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuvj444p"
        stream.options = {"qmin": "3", "qmax": "3"}
        out.mux(stream.encode(frame.reformat(format="yuvj444p")))
        out.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="path of the clip")
    parser.add_argument("--picture", help="also write frames and heat maps to this JPEG")
    arguments = parser.parse_args()
    write_clip(arguments.out)
    if arguments.picture:
        write_picture(arguments.out, arguments.picture)


if __name__ == "__main__":
    main()
