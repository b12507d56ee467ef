"""Folders and lists of still images as a video: natural order, one frame each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import av

from eyeline.errors import MediaError

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".exr", ".dpx"}
)


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Sort key under which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts if p]


def list_images(folder: Path) -> list[Path]:
    """The images of a folder, in natural order of their names.

    Raises:
        MediaError: there are none.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if not found:
        raise MediaError(f"{folder}: a folder without images", f"read: {sorted(IMAGE_SUFFIXES)}")
    return sorted(found, key=lambda p: natural_order(p.name))


def read_image(path: Path) -> av.VideoFrame:
    """Decode one still image.

    Raises:
        MediaError: missing or unreadable.
    """
    try:
        # pattern_type: a '%' in a name is a character, not a sequence.
        options = {"protocol_whitelist": "file", "pattern_type": "none"}
        with av.open(str(path), format="image2", options=options) as container:
            for frame in container.decode(video=0):
                return frame
    except (OSError, ValueError) as exc:
        raise MediaError(f"{path}: not a readable image: {exc}", "replace or remove it") from exc
    raise MediaError(f"{path}: holds no picture", "replace or remove it")


def decode_images(paths: Sequence[Path]) -> Iterator[av.VideoFrame]:
    """Each image's frame, in order.

    Raises:
        MediaError: see `read_image`.
    """
    for path in paths:
        yield read_image(path)
