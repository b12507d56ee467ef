"""Video in and out: probe, decode, colour, write. The only YUV to RGB is `graph`'s."""

from __future__ import annotations

from eyeline.media.colour import upright_rgb
from eyeline.media.source import Video, open_video

__all__ = ["Video", "open_video", "upright_rgb"]
