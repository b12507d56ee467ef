"""Write saliency maps to files, and read them: one PNG per frame, an `.npz`, or a lossless grey video.

| path | content | largest error |
|---|---|---|
| a folder | `000123.png`, grey, 8 or 16 bits (big-endian, as PNG has it) | 1/510 or 1/131070 |
| `.npz` | float32 arrays named `000123`, not compressed | 0 |
| `.mkv` | FFV1, `gray` or `gray16le`, full range | 1/510 or 1/131070 |

Integers are `floor(map * max + 0.5)`, where max is 255 or 65535; a reader divides by max. The name of
a PNG or of an array is its frame number. The tag `eyeline_first_index` of a video holds the number of
its first frame. Memory does not grow with the length of the video.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
import numpy.typing as npt

from eyeline.arrays import read_member
from eyeline.errors import MediaError, OutputError
from eyeline.files import PendingFile, Sink, output_error, whole_file
from eyeline.media.write import FFV1_GRAY8, FFV1_GRAY16, TIME_BASE, VideoWriter

Map = npt.NDArray[np.float32]
Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Depth = Literal[8, 16]

FIRST_INDEX = "eyeline_first_index"

# Measured on 1080p maps: the PNG filter `sub` with zlib level 1 takes 9 ms per map (8 bits) or 34 ms
# (16 bits). Level 6 takes 47 ms or 106 ms, and its files are one third or one fifth smaller.
PNG_OPTIONS = {"compression_level": "1", "pred": "sub"}

_NUMBERED = re.compile(r"^\d{6,}\.png$")


def quantise(saliency: Map, depth: Depth) -> Samples:
    """Round a map to integers: `floor(map * (2**depth - 1) + 0.5)`, clipped to the range.

    Args:
        saliency: float32 (H, W) in [0, 1], finite.
        depth: bits per sample.

    Returns:
        uint8 or uint16 (H, W).
    """
    top = (1 << depth) - 1
    scaled = np.multiply(saliency, top, dtype=np.float32 if depth == 8 else np.float64)
    scaled += 0.5
    np.clip(scaled, 0, top, out=scaled)
    # astype truncates, which equals floor for numbers that are not negative.
    return scaled.astype(np.uint8) if depth == 8 else scaled.astype(np.uint16)


class MapSink(Sink):
    """A file or folder that takes the maps of a video one by one; `commit` completes it."""

    def write(self, index: int, pts_time: float, saliency: Map) -> None:
        """Add the map of frame number `index`, float32 (H, W) in [0, 1]; `pts_time` is in seconds.

        Raises:
            OutputError: the map can't be written.
        """
        raise NotImplementedError


class PngFolder(MapSink):
    """A folder with one PNG per frame; each PNG is written to a temporary file and renamed.

    Args:
        path: the folder; it is created if its parent exists. A folder that holds numbered PNGs is an
            error, because the maps of two runs would mix.
        depth: bits per sample.

    Raises:
        OutputError: the folder can't be created, or already holds maps.
    """

    def __init__(self, path: str | Path, depth: Depth) -> None:
        self.path = Path(path)
        self.depth: Depth = depth
        self._written: list[Path] = []
        self._encoder: tuple[tuple[int, ...], av.VideoCodecContext] | None = None
        self._made = not self.path.exists()
        try:
            self.path.mkdir(exist_ok=True)
            taken = next((f for f in self.path.iterdir() if _NUMBERED.match(f.name)), None)
        except OSError as exc:
            raise output_error(path, exc) from exc
        if taken is not None:
            raise OutputError(
                f"{path}: already holds maps, such as {taken.name}", "give another folder"
            )

    def write(self, index: int, pts_time: float, saliency: Map) -> None:
        """Write `<index>.png`."""
        target = self.path / f"{index:06d}.png"
        data = self._png(quantise(saliency, self.depth))
        with whole_file(target) as temporary:
            temporary.write_bytes(data)
        self._written.append(target)

    def _png(self, samples: Samples) -> bytes:
        pix_fmt = "gray" if self.depth == 8 else "gray16be"
        if self._encoder is None or self._encoder[0] != samples.shape:
            codec = av.VideoCodecContext.create("png", "w")
            codec.height, codec.width = samples.shape
            codec.pix_fmt = pix_fmt
            codec.time_base = TIME_BASE
            codec.options = PNG_OPTIONS
            codec.thread_count = 1  # with several threads, the encoder returns frames late
            self._encoder = samples.shape, codec
        frame = av.VideoFrame.from_ndarray(samples, format=pix_fmt)
        frame.pts = None
        return b"".join(map(bytes, self._encoder[1].encode(frame)))

    def commit(self) -> None:
        """Keep the files, which are complete already."""
        self._written.clear()
        self._made = False

    def discard(self) -> None:
        """Remove the files of this sink, and the folder if the sink made it."""
        for target in self._written:
            target.unlink(missing_ok=True)
        if self._made and not any(self.path.iterdir()):
            self.path.rmdir()
        self.commit()


class NpzFile(MapSink):
    """A `.npz` file with the exact float32 values of each map, written one map at a time.

    float16 would have an error of up to 2.4e-4, more than 16-bit PNG or FFV1. The file is not
    compressed, since float mantissas hardly shrink.

    Raises:
        OutputError: the file can't be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._pending: PendingFile | None = PendingFile(path)
        self._zip = zipfile.ZipFile(self._pending.temporary, "w", zipfile.ZIP_STORED)

    def write(self, index: int, pts_time: float, saliency: Map) -> None:
        """Add an array named by the frame number."""
        # ZipInfo sets the date to 1980, so the same maps give the same bytes.
        member = zipfile.ZipInfo(f"{index:06d}.npy")
        try:
            with self._zip.open(member, "w", force_zip64=True) as f:
                array = np.ascontiguousarray(saliency, np.float32)
                np.lib.format.write_array(f, array, allow_pickle=False)  # type: ignore[no-untyped-call]
        except OSError as exc:
            raise output_error(self.path, exc) from exc

    def commit(self) -> None:
        """Write the zip directory and rename the temporary file to its final name."""
        if self._pending is None:
            return
        try:
            self._zip.close()
        except OSError as exc:
            self.discard()
            raise output_error(self.path, exc) from exc
        pending, self._pending = self._pending, None
        pending.commit()

    def discard(self) -> None:
        """Remove the file."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        if self._zip.fp is not None:
            self._zip.fp.close()
            self._zip.fp = None  # stops the destructor from writing the zip directory
        pending.discard()


class GreyVideo(MapSink):
    """FFV1 video in Matroska. All maps must have one size, and their frame numbers must have no gap.

    Raises:
        OutputError: the file can't be written.
    """

    def __init__(self, path: str | Path, depth: Depth, fps: Fraction | float | None) -> None:
        self.path = path
        self.depth: Depth = depth
        self.fps = fps
        self._writer: VideoWriter | None = None
        self._next = 0
        PendingFile(path).discard()  # an unwritable path fails here, not at the first frame

    def write(self, index: int, pts_time: float, saliency: Map) -> None:
        """Add a map; raise `OutputError` after a gap in the frame numbers or a change of size."""
        if self._writer is None:
            self._next = index
            self._writer = VideoWriter(
                self.path,
                saliency.shape[1],
                saliency.shape[0],
                fps=self.fps,
                encoding=FFV1_GRAY8 if self.depth == 8 else FFV1_GRAY16,
                metadata={FIRST_INDEX: str(index)},
            )
        if index != self._next:
            raise OutputError(
                f"{self.path}: frame {index} follows frame {self._next - 1}, but a video can't have gaps",
                "write the maps to a folder or an .npz",
            )
        if saliency.shape != (self._writer.height, self._writer.width):
            raise OutputError(
                f"{self.path}: the map of frame {index} differs in size from the maps before it",
                "write the maps to a folder or an .npz",
            )
        self._writer.write(quantise(saliency, self.depth), pts_time)
        self._next += 1

    def commit(self) -> None:
        """Finish the file; without a frame, write none."""
        if self._writer is not None:
            self._writer.commit()

    def discard(self) -> None:
        """Remove the file."""
        if self._writer is not None:
            self._writer.discard()


def open_map_sink(
    path: str | Path, *, depth: Depth = 8, fps: Fraction | float | None = None
) -> MapSink:
    """Open a file or folder to write maps to.

    Args:
        path: an `.npz` file, an `.mkv` file or a folder. A path that is a folder, ends in a slash or
            has no suffix is taken as a folder.
        depth: bits per sample of PNG and video; `.npz` is always float32.
        fps: average frame rate, used for `.mkv`; None = not known.

    Raises:
        OutputError: the suffix is unknown, or the path can't be written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if str(path).endswith("/") or not suffix or target.is_dir():
        return PngFolder(target, depth)
    if suffix == ".npz":
        return NpzFile(target)
    if suffix == ".mkv":
        return GreyVideo(target, depth, fps)
    raise OutputError(
        f"{path}: maps can't be written as {suffix}", "give a folder, an .npz or an .mkv"
    )


def _from_frame(frame: av.VideoFrame) -> Map:
    name = frame.format.name
    if not name.startswith("gray"):
        raise MediaError(
            f"the pixel format is {name}, not grey", "give maps that `eyeline extract` wrote"
        )
    top = np.float32((1 << frame.format.components[0].bits) - 1)
    return frame.to_ndarray().astype(np.float32) / top


def _read_video(path: Path, first: int | None = None) -> Iterator[tuple[int, Map]]:
    with av.open(str(path)) as container:
        if first is None:
            tags = {key.lower(): value for key, value in container.metadata.items()}
            first = int(tags.get(FIRST_INDEX, "0"))
        for index, frame in enumerate(container.decode(video=0), first):
            yield index, _from_frame(frame)


def _read_folder(path: Path) -> Iterator[tuple[int, Map]]:
    numbered = {int(f.stem): f for f in path.iterdir() if _NUMBERED.match(f.name)}
    if not numbered:
        raise MediaError(f"{path}: holds no maps", "name each map by its frame, such as 000123.png")
    for index in sorted(numbered):
        yield from _read_video(numbered[index], index)


def _read_npz(path: Path) -> Iterator[tuple[int, Map]]:
    with np.load(path, allow_pickle=False) as members:
        for name in sorted(members.files, key=int):
            yield int(name), np.asarray(read_member(members, name), np.float32)


def read_maps(path: str | Path) -> Iterator[tuple[int, Map]]:
    """Read maps that a `MapSink` wrote, in the order of their frames.

    Args:
        path: a folder of PNGs, an `.npz` or an `.mkv`.

    Yields:
        The frame number and the map, float32 (H, W) in [0, 1].

    Raises:
        MediaError: the path can't be read, or holds no maps.
    """
    source = Path(path)
    try:
        if source.is_dir():
            yield from _read_folder(source)
        elif source.suffix.lower() == ".npz":
            yield from _read_npz(source)
        else:
            yield from _read_video(source)
    except (OSError, ValueError, IndexError, zipfile.BadZipFile, av.error.FFmpegError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise MediaError(
            f"{path}: can't be read as maps: {reason}", "give a folder of PNGs, an .npz or an .mkv"
        ) from exc
