"""Folders and lists of still images as a video: natural order, one frame each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error

from eyeline.errors import MediaError
from eyeline.media.colour import Tags
from eyeline.media.opening import open_container, shorter_than_stated
from eyeline.media.reader import (
    DEFAULT_FPS,
    IMAGE_SUFFIXES,
    Decoded,
    Facts,
    Reader,
    check_size,
)
from eyeline.media.types import DecodeReport


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p]


def list_images(folder: Path) -> list[str]:
    """The images of a folder, in natural order of their names.

    Raises:
        MediaError: there are none, or the folder can't be read.
    """
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    except OSError as exc:
        raise MediaError(
            f"{folder}: can't be read: {exc.strerror}", "check its permissions"
        ) from exc
    if not found:
        known = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise MediaError(f"{folder}: a folder without images", f"one of {known}")
    return [str(p) for p in sorted(found, key=lambda p: natural_order(p.name))]


class ImagesReader(Reader):
    """Still images, one frame each; one that can't be decoded is counted and left out.

    Args:
        path: named in errors: the folder, or the first image.
        report: where damage is counted.
        images: paths, in order.
        fps: frame rate; 25 when None.

    Raises:
        MediaError: the list is empty, or names what is not a file.
    """

    def __init__(
        self,
        path: str,
        report: DecodeReport,
        images: Sequence[str | os.PathLike[str]],
        fps: Fraction | None,
    ) -> None:
        super().__init__(path, report)
        self._images = [os.fspath(p) for p in images]
        self._fps = fps or DEFAULT_FPS
        self._next = 0
        self._codec = ""
        if not self._images:
            raise MediaError("the list of images is empty", "name at least one")
        for image in self._images:
            if not Path(image).is_file():
                raise MediaError(f"{image}: no such file", "check the list of images")

    @property
    def facts(self) -> Facts:
        """See `Reader`."""
        count = len(self._images)
        return Facts(self._codec, self._fps, count, float(count / self._fps), Tags())

    def read(self) -> Iterator[Decoded]:
        """See `Reader`."""
        found = False
        while self._next < len(self._images):
            index = self._next
            self._next += 1
            try:
                frame, aspect = self._decode(self._images[index])
            except MediaError:
                self.count_damage(index)
                if not found and self._next == len(self._images):
                    raise
                continue
            # FFmpeg fills the rest of a JPEG that was cut off with grey, without a word.
            if frame.is_corrupt or shorter_than_stated(self._images[index]):
                self.count_damage(index)
            found = True
            yield Decoded(index, float(index / self._fps), frame, aspect)

    def _decode(self, image: str) -> tuple[av.VideoFrame, Fraction]:
        with open_container(image, image=True) as container:
            if not container.streams.video:
                raise MediaError(f"{image}: not an image", "replace or remove it")
            stream = container.streams.video[0]
            check_size(image, stream.width, stream.height)
            try:
                for frame in container.decode(stream):
                    self._codec = self._codec or stream.codec_context.name
                    return frame, stream.sample_aspect_ratio or Fraction(1)
            except av.error.FFmpegError as exc:
                raise MediaError(
                    f"{image}: not a readable image: {exc.strerror}", "replace or remove it"
                ) from exc
        raise MediaError(f"{image}: holds no picture", "replace or remove it")

    def seek(self, index: int) -> None:
        """See `Reader`."""
        self._next = index

    def ended_early(self) -> str:
        """See `Reader`: a list has no end but its own."""
        return ""

    def close(self) -> None:
        """See `Reader`: each image is closed when it is decoded."""
