"""eyeline: where viewers look in a video.

::

    import eyeline

    with eyeline.extract("clip.mp4") as extraction:
        print(extraction.info.display_width, extraction.provenance["model"])
        for frame in extraction:
            print(frame.index, frame.pts_time, frame.features["saliency_mean"])
            heat = frame.full_map()  # float32 (H, W) in [0, 1]

`extract` decodes, scales, infers and yields one `FrameSaliency` a frame, in order, with constant
memory. Errors are those of `eyeline.errors`; names below load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eyeline._version import __version__

_HOMES = {
    "extract": "eyeline.saliency.pipeline",
    "Extraction": "eyeline.saliency.pipeline",
    "ExtractOptions": "eyeline.saliency.pipeline",
    "FrameSaliency": "eyeline.saliency.pipeline",
    "score": "eyeline.quality.score",
    "ScoreOptions": "eyeline.quality.score",
    "VideoOptions": "eyeline.media.types",
    "VideoInfo": "eyeline.media.types",
    "open_video": "eyeline.media",
    "Log": "eyeline.logs.base",
    "read_log": "eyeline.logs",
    "write_log": "eyeline.logs",
    "Registry": "eyeline.registry.registry",
    "resolve_model": "eyeline.registry.registry",
    "EyelineError": "eyeline.errors",
}

__all__ = [
    "ExtractOptions",
    "Extraction",
    "EyelineError",
    "FrameSaliency",
    "Log",
    "Registry",
    "ScoreOptions",
    "VideoInfo",
    "VideoOptions",
    "__version__",
    "extract",
    "open_video",
    "read_log",
    "resolve_model",
    "score",
    "write_log",
]

if TYPE_CHECKING:
    from eyeline.errors import EyelineError
    from eyeline.logs import read_log, write_log
    from eyeline.logs.base import Log
    from eyeline.media import open_video
    from eyeline.media.types import VideoInfo, VideoOptions
    from eyeline.quality.score import ScoreOptions, score
    from eyeline.registry.registry import Registry, resolve_model
    from eyeline.saliency.pipeline import Extraction, ExtractOptions, FrameSaliency, extract


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'eyeline' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
