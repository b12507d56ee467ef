"""The work folder of a comparison: its maps, and file names that depend on all options."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

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
from eyeline.roi.steering import ASPECT_TOLERANCE, Floats, valid_map
from eyeline.saliency.maps import GreyVideo
from eyeline.saliency.pipeline import extract

CompareProgress = Callable[[str, int, int], None]
"""Function that is called with the name of a part, its number of frames done, and its total."""

CENTRE = CentreGaussian(0.5, 0.5, 0.25, 0.25)
"""The centre map, whose standard deviations are a quarter of the width and of the height."""

MAP_COLUMNS = 160

SCHEMA = 3  # version of the files' content, increased with each change


class WorkFolder:
    """The folder with the files of a comparison; later runs reuse finished files.

    Raises:
        MediaError: the source cannot be read.
        OutputError: the folder cannot be created.
    """

    def __init__(
        self,
        folder: Path,
        source: Path,
        info: VideoInfo,
        options: CompareOptions,
        model: str | Model | None,
        registry: Path | None,
        progress: ProgressCounter,
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
        """Return a path whose name has a hash of `depends`, the source and the options for reading it."""
        text = json.dumps([*self.key, *map(repr, depends)])
        return self.folder / f"{prefix}-{sha256_hex(text.encode())[:12]}{suffix}"

    def steering_maps(self) -> tuple[Path, str, Task | None]:
        """Return path, description and task of the steering maps; the task is None if it is not known."""
        if self.o.maps is not None:
            return Path(self.o.maps), f"maps {Path(self.o.maps).name}", None
        if self.o.steer_by == "recorded":
            return *self._gaze_maps(), "gaze"
        if self.o.steer_by == "centre":
            path = self.named("centre", ".mkv")
            if not path.exists():
                self._keep(path, self._centre(), 16)
            return path, "the centre of the picture", None
        return self._model_maps(self.model)

    def judging_maps(self, steering: Path, steered_by: str) -> tuple[Path, str, bool]:
        """Return path and description of the judging maps, and whether they are also the steering maps."""
        o = self.o
        if o.judge_masks is not None:
            path = self.named("masks", ".mkv", fingerprint(Path(o.judge_masks)))
            if not path.exists():
                self._keep(path, self._masks(o.judge_masks), 8)
            return path, f"ground truth {Path(o.judge_masks).name}", False
        if o.judge_fixations is not None:
            path, name = self._gaze_maps()
            return path, name, path == steering
        if o.judge_model is not None:
            path, name, _ = self._model_maps(o.judge_model)
            return path, name, path == steering
        return steering, steered_by, True

    def _masks(self, folder: str) -> Iterator[tuple[int, Floats]]:
        count = len(list_images(Path(folder)))
        start, stop = self.o.extract.start, self.o.extract.stop
        display = self.info.display_width, self.info.display_height
        frames = 0
        with open_video(self.source, self.o.video) as video:
            for seen in from_masks(video, folder, start):
                if stop is not None and seen.index >= stop:
                    return
                frames = seen.index + 1
                yield seen.index, valid_map(seen.map, display, f"{folder}: mask {seen.index}")
        if stop is None and count > frames:
            raise QualityError(
                f"{folder}: has {count} masks, but the clip has {frames} frames",
                "give the masks of this clip",
            )

    def _centre(self) -> Iterator[tuple[int, Floats]]:
        i, o = self.info, self.o.extract
        columns = min(MAP_COLUMNS, i.display_width)
        m = CENTRE.density(columns, max(1, round(columns * i.display_height / i.display_width)))
        scaled = (m / m.max()).astype(np.float32)
        with open_video(self.source, self.o.video) as video:
            for decoded in video.pictures(o.start, o.stop):
                yield decoded.index, scaled

    def _gaze_maps(self) -> tuple[Path, str]:
        o = self.o
        assert o.judge_fixations is not None  # noqa: S101 - CompareOptions checks it
        gaze = read_gaze(Path(o.judge_fixations), self.info, o.pixels_per_degree)
        path = self.named("gaze", ".mkv", gaze.digest, gaze.sigma)
        if not path.exists():
            self._keep(path, self._densities(gaze), 16)
        viewers = len(np.unique(gaze.fixations.viewer))
        return path, f"the recorded gaze of {viewers} viewers ({gaze.name})"

    def _densities(self, gaze: RecordedGaze) -> Iterator[tuple[int, Floats]]:
        """Yield the gaze density of each frame, scaled to a peak of 1; zeros if no fixation is active."""
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
                "choose other frames with --frames, or give --judge-masks or --judge-model",
            )

    def _model_maps(self, name: str | Model | None) -> tuple[Path, str, Task | None]:
        chosen = resolve_model(name, self.registry, use="roi")
        depends = replace(self.o.extract, workers=0, device="auto", keep_source=False)
        path = self.named("maps", ".mkv", chosen.sha256, chosen.io, depends)
        if not path.exists():
            with extract(
                self.source, model=chosen, video_options=self.o.video, options=self.o.extract
            ) as extraction:
                self._keep(path, ((f.index, self._in_aspect(f.map)) for f in extraction), 16)
        return path, chosen.label, chosen.task

    def _in_aspect(self, m: Floats) -> Floats:
        """Resample a map to the aspect ratio of the picture, which some models don't keep."""
        h, w = m.shape
        wanted = h * self.info.display_width / self.info.display_height
        if abs(w / wanted - 1) < ASPECT_TOLERANCE:
            return m
        return np.clip(resample(m, max(1, round(wanted)), h), 0, 1)

    def _keep(self, path: Path, maps: Iterable[tuple[int, Floats]], depth: Literal[8, 16]) -> None:
        """Write maps to a file, which is created only if all maps are written."""
        start = self.o.extract.start
        ends = [s for s in (self.o.extract.stop, self.info.expected_frames) if s is not None]
        part = path.name.split("-")[0]
        self.progress.expect(part, max(1, min(ends) - start) if ends else 0)
        sink = GreyVideo(path, depth, self.info.fps)
        try:
            for index, m in maps:
                sink.write(index, (index - start) / float(self.info.fps or DEFAULT_FPS), m)
                self.progress.advance(part)
        except BaseException:
            sink.discard()  # later runs must not reuse a file with a part of the maps
            raise
        sink.commit()


class ProgressCounter:
    """Thread-safe counter of the frames done per part."""

    def __init__(self, report: CompareProgress) -> None:
        self._report, self._lock = report, threading.Lock()
        self._parts: dict[str, list[int]] = {}
        self._stopped = False

    def expect(self, part: str, total: int) -> None:
        """Start a part of `total` frames."""
        with self._lock:
            self._parts[part] = [0, total]
            self._report(part, 0, total)

    def advance(self, part: str, frames: int = 1) -> None:
        """Count frames as done; after `stop`, raise KeyboardInterrupt to end the caller's encode."""
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            count = self._parts[part]
            count[0] += frames
            count[1] = max(count)
            self._report(part, *count)

    def stop(self) -> None:
        """Make every later call of `advance` raise KeyboardInterrupt."""
        with self._lock:
            self._stopped = True


def fingerprint(path: Path) -> str:
    """Return a digest of the names, sizes and modification times of a file or of the files in a folder.

    Raises:
        MediaError: the path cannot be read.
    """
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        lines = [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    except OSError as exc:
        raise MediaError(f"{path}: can't be read: {exc.strerror}", "check the path") from exc
    return sha256_hex("\n".join([str(path.resolve()), *lines]).encode())


def read_note(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None if the file does not exist."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return found
