"""What a comparison keeps between runs: maps, and the names of files by all that they depend on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from eyeline._version import __version__
from eyeline.datasets.fixations import CentreGaussian
from eyeline.digests import sha256_hex
from eyeline.errors import DatasetError, MediaError, QualityError
from eyeline.files import output_error
from eyeline.media import open_video
from eyeline.media.source import list_images
from eyeline.media.types import DEFAULT_FPS, VideoInfo
from eyeline.quality.weights import RecordedGaze, from_masks, read_gaze, resample
from eyeline.registry.records import Task
from eyeline.registry.registry import Model, resolve_model
from eyeline.roi.compare._records import CompareOptions
from eyeline.roi.steering import ASPECT_TOLERANCE, valid_map
from eyeline.saliency.maps import GreyVideo
from eyeline.saliency.pipeline import extract

Map = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, the frames of it done so far, and its frames in all."""

CENTRE = CentreGaussian(0.5, 0.5, 0.25, 0.25)
"""What steers by the picture's centre: a standard deviation of a quarter of each side."""

MAP_COLUMNS = 160

SCHEMA = 3  # rises with any change to what is computed


class WorkFolder:
    """The folder of one comparison; what is finished in it is not done again.

    Args:
        folder: made if it is missing.
        source: the clip.
        info: facts of it.
        options: see `CompareOptions`.
        model: of steering; the registry's default when None.
        registry: the user's own registry folder.
        progress: told of maps that are made.

    Raises:
        MediaError: the source can't be read.
        OutputError: the folder can't be made.
    """

    def __init__(
        self,
        folder: Path,
        source: Path,
        info: VideoInfo,
        options: CompareOptions,
        model: str | Model | None,
        registry: Path | None,
        progress: Counter,
    ) -> None:
        self.folder, self.source, self.info, self.o = folder, source, info, options
        self.model, self.registry, self.progress = model, registry, progress
        self.key = [SCHEMA, __version__, fingerprint(source), repr(options.video)]
        self.key += [options.extract.start, options.extract.stop]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise output_error(folder, exc) from exc

    def named(self, prefix: str, suffix: str, *depends: object) -> Path:
        """A file of the work folder, named by all that its content depends on."""
        text = json.dumps([*self.key, *map(repr, depends)])
        return self.folder / f"{prefix}-{sha256_hex(text.encode())[:12]}{suffix}"

    def steering_maps(self) -> tuple[Path, str, Task | None]:
        """The maps that steer, whose they are, and what they show where that is known."""
        if self.o.maps is not None:
            return Path(self.o.maps), f"maps {Path(self.o.maps).name}", None
        if self.o.steer_by == "recorded":
            return *self.gaze_maps(), "gaze"
        if self.o.steer_by == "centre":
            path = self.named("centre", ".mkv")
            if not path.exists():
                self.keep(path, self.centre(), 16)
            return path, "the centre of the picture", None
        return self.model_maps(self.model)

    def judging_maps(self, steering: Path, steered_by: str) -> tuple[Path, str, bool]:
        """The maps that judge, whose they are, and whether they are those that steer."""
        o = self.o
        if o.judge_masks is not None:
            path = self.named("masks", ".mkv", fingerprint(Path(o.judge_masks)))
            if not path.exists():
                self.keep(path, self.masks(o.judge_masks), 8)
            return path, f"ground truth {Path(o.judge_masks).name}", False
        if o.judge_fixations is not None:
            path, name = self.gaze_maps()
            return path, name, path == steering
        if o.judge_model is not None:
            path, name, _ = self.model_maps(o.judge_model)
            return path, name, path == steering
        return steering, steered_by, True

    def masks(self, folder: str) -> Iterator[tuple[int, Map]]:
        """Ground truth of the frames that are encoded.

        Raises:
            QualityError: a frame has no mask, or there are more masks than frames.
        """
        count = len(list_images(Path(folder)))
        start, stop = self.o.extract.start, self.o.extract.stop
        last = -1
        with open_video(self.source, self.o.video) as video:
            for seen in from_masks(video, folder, start):
                if stop is not None and seen.index >= stop:
                    return
                last = seen.index
                display = self.info.display_width, self.info.display_height
                yield seen.index, valid_map(seen.map, display, f"{folder}: mask {seen.index}")
        if stop is None and count > last + 1:
            raise QualityError(
                f"{folder}: {count} masks for {last + 1} frames", "are they this clip's?"
            )

    def centre(self) -> Iterator[tuple[int, Map]]:
        """A Gaussian around the centre of every frame that is encoded."""
        i, o = self.info, self.o.extract
        columns = min(MAP_COLUMNS, i.display_width)
        rows = max(1, round(columns * i.display_height / i.display_width))
        m = CENTRE.density(columns, rows)
        m = (m / m.max()).astype(np.float32)
        with open_video(self.source, self.o.video) as video:
            for decoded in video.pictures(o.start, o.stop):
                yield decoded.index, m

    def gaze_maps(self) -> tuple[Path, str]:
        """The density of recorded gaze at every frame that is encoded, its peak 1, and whose it is.

        A frame at which no fixation is active has a map of zeros.

        Raises:
            DatasetError: fixations that can't be read, are not of this source, or are not active at
                any frame that is encoded.
        """
        o = self.o
        assert o.judge_fixations is not None  # noqa: S101 - CompareOptions checks it
        gaze = read_gaze(Path(o.judge_fixations), self.info, o.pixels_per_degree)
        path = self.named("gaze", ".mkv", gaze.digest, gaze.sigma)
        if not path.exists():
            self.keep(path, self.densities(gaze), 16)
        viewers = len(np.unique(gaze.fixations.viewer))
        return path, f"the recorded gaze of {viewers} viewers ({gaze.name})"

    def densities(self, gaze: RecordedGaze) -> Iterator[tuple[int, Map]]:
        """Yield frame number and density of recorded gaze, float32 (h, w), of every encoded frame."""
        nothing = np.zeros(gaze.size[::-1], np.float32)
        o, count = self.o.extract, 0
        with open_video(self.source, self.o.video) as video:
            for decoded in video.pictures(o.start, o.stop):
                count += 1
                density = gaze.density(decoded.index, decoded.seconds)
                yield decoded.index, nothing if density is None else density / density.max()
        if count == len(gaze.empty):
            raise DatasetError(
                f"{gaze.name}: no fixation is active at any of the {count} frames that are compared",
                "choose other frames with --frames, or judge by masks or a model",
            )

    def model_maps(self, name: str | Model | None) -> tuple[Path, str, Task | None]:
        """A model's maps of the frames that are encoded, inferred once."""
        chosen = resolve_model(name, self.registry, use="roi")
        depends = replace(self.o.extract, workers=0, device="auto", keep_source=False)
        path = self.named("maps", ".mkv", chosen.sha256, chosen.io, depends)
        if not path.exists():
            with extract(
                self.source, model=chosen, video_options=self.o.video, options=self.o.extract
            ) as extraction:
                self.keep(path, ((f.index, self.shaped(f.map)) for f in extraction), 16)
        return path, chosen.label, chosen.task

    def shaped(self, m: Map) -> Map:
        """A map in the picture's aspect; that of a model which squashes has another."""
        h, w = m.shape
        wanted = h * self.info.display_width / self.info.display_height
        if abs(w / wanted - 1) < ASPECT_TOLERANCE:
            return m
        return np.clip(resample(m, max(1, round(wanted)), h), 0, 1)

    def keep(self, path: Path, maps: Iterable[tuple[int, Map]], depth: Literal[8, 16]) -> None:
        """Write maps whole or not at all."""
        start, stop = self.o.extract.start, self.o.extract.stop
        total = self.info.expected_frames
        stop = min(s for s in (stop, total, 1 << 62) if s is not None)
        part = path.name.split("-")[0]
        self.progress.expect(part, max(1, stop - start) if stop < 1 << 62 else 0)
        sink = GreyVideo(path, depth, self.info.fps)
        try:
            for index, m in maps:
                sink.write(index, (index - start) / float(self.info.fps or DEFAULT_FPS), m)
                self.progress.advance(part)
        except BaseException:
            sink.discard()  # also after damage: half of the maps would pass for all of them
            raise
        sink.commit()


class Counter:
    """Frames done of each part, told from several threads."""

    def __init__(self, tell: Progress) -> None:
        self._tell, self._lock = tell, threading.Lock()
        self._parts: dict[str, list[int]] = {}
        self._stopped = False

    def expect(self, part: str, total: int) -> None:
        """A part begins."""
        with self._lock:
            self._parts[part] = [0, total]
            self._tell(part, 0, total)

    def advance(self, part: str, frames: int = 1) -> None:
        """Frames of a part are done.

        Raises:
            KeyboardInterrupt: the run was stopped; ends the encodes that are under way.
        """
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            count = self._parts[part]
            count[0] += frames
            count[1] = max(count)
            self._tell(part, *count)

    def stop(self) -> None:
        """No further frames."""
        with self._lock:
            self._stopped = True


def fingerprint(path: Path) -> str:
    """What tells a file or a folder of files from an edited one: names, sizes, times.

    Raises:
        MediaError: it can't be read.
    """
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        lines = [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    except OSError as exc:
        raise MediaError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    return sha256_hex("\n".join([str(path.resolve()), *lines]).encode())


def read_note(path: Path) -> dict[str, Any] | None:
    """What an earlier run noted, or None."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return found
