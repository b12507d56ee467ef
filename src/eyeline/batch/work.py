"""The work that a batch does for each title: `extract`, `score` or `roi map`.

A `Work` is a record of options that can be pickled. Each worker process makes a `Runner` from the `Work`;
the runner holds the loaded model. To add a kind of work, add a `Work` and a `Runner` here, and a command to
`cli/batch.py`.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from eyeline._version import __version__
from eyeline.batch.manifest import Title
from eyeline.errors import VerificationError
from eyeline.inference.session import Session
from eyeline.logs.base import Log
from eyeline.media import open_video
from eyeline.media.types import VideoOptions
from eyeline.quality.pair_segments import ScoreSegments
from eyeline.quality.score import ScoreOptions, score
from eyeline.registry.records import Task
from eyeline.registry.registry import Model, Use, resolve_model
from eyeline.roi.maps import MapFormat, write_map_file
from eyeline.roi.steering import SteerOptions
from eyeline.saliency.pipeline import MACHINE, Extraction, ExtractOptions, Outputs, run_extraction
from eyeline.segments.split import ExtractSegments, SegmentedRun

OnFrame = Callable[[], None]


@dataclass
class Product:
    """The result of one title.

    Attributes:
        content: a log, or the bytes of a map file.
        frames: number of frames in the content.
        warnings: lines to show to the user.
    """

    content: Log | bytes
    frames: int
    warnings: list[str] = field(default_factory=list)


class Runner(ABC):
    """Processes titles in a worker process with the options of a `Work`; holds the loaded model."""

    def __init__(self, work: Any, threads: int) -> None:
        self._video = replace(work.video, threads=threads)

    @abstractmethod
    def whole(self, title: Title, paths: Sequence[str], on_frame: OnFrame) -> Product:
        """Process a title in one piece; `paths` are local copies of its videos.

        Raises:
            EyelineError: the title can't be processed completely.
        """

    def segmented(self, title: Title, paths: Sequence[str]) -> SegmentedRun | None:
        """Return the segmented run of a title; None if this kind of work can't be split."""
        return None


@dataclass(frozen=True)
class Work(ABC):
    """The options of the work; they can be pickled.

    Attributes:
        model: id or path of the saliency model; None = the default model of the registry.
        registry: path of a registry folder of the user.
        task: use the production model of this task (`eyeline.registry.registry.resolve_model`).
        model_sha256: SHA-256 of the model file when the batch began; another file is an error. Empty =
            not checked.
        video: how to read the videos.
    """

    model: str | None = None
    registry: str | None = None
    task: Task | None = None
    model_sha256: str = ""
    video: VideoOptions = field(default_factory=VideoOptions)

    command: ClassVar[str]
    runner: ClassVar[type[Runner]]
    use: ClassVar[Use] = "extract"
    pairs: ClassVar[bool] = False

    @property
    def file(self) -> str:
        """Return the file name of the result of a title."""
        return "part-0.parquet"

    def resolve(self) -> Model:
        """Return the model, after a check that its file has not changed since the batch began.

        Raises:
            ModelError: the model can't be used, or its file has changed.
        """
        model = resolve_model(self.model, self.registry or None, task=self.task, use=self.use)
        if self.model_sha256 and model.sha256 != self.model_sha256:
            raise VerificationError(
                f"{model.id}: the file has changed since the batch began", "run the batch again"
            )
        return model

    def facts(self) -> dict[str, Any]:
        """Return the versions, model and options that affect the results, as JSON values."""
        model = self.resolve()
        return {
            "eyeline": __version__,
            "model": model.id,
            "model_sha256": model.sha256,
            "io": model.io.model_dump(),
            "video": _plain(self.video, "threads", "index"),
            "options": self.options(),
        }

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return the options that affect the results, as JSON values."""

    def open(self, threads: int) -> Runner:
        """Load the model in a worker process."""
        return self.runner(self, threads)


def _plain(options: Any, *without: str) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values, without the fields in `without`."""
    values = {k: v for k, v in asdict(options).items() if k not in without}
    return {k: str(v) if type(v).__name__ == "Fraction" else v for k, v in values.items()}


class _ExtractRunner(Runner):
    def __init__(self, work: ExtractWork, threads: int) -> None:
        self._session = Session(work.resolve(), work.extract.device)
        self._options = replace(work.extract, workers=threads)
        super().__init__(work, threads)

    def whole(self, title: Title, paths: Sequence[str], on_frame: OnFrame) -> Product:
        video = open_video(paths[0], title.video_options(self._video))
        extraction = Extraction(video, self._session, self._options)
        result = run_extraction(extraction, Outputs(), lambda frame: on_frame())
        if result.stopped is not None:
            raise result.stopped
        corrupt = extraction.report.corrupt
        warnings = [f"{corrupt} corrupt frames"] if corrupt else []
        return Product(result.log, len(result.log), warnings)

    def segmented(self, title: Title, paths: Sequence[str]) -> SegmentedRun:
        video = title.video_options(self._video)
        return ExtractSegments(paths[0], self._session, self._options, video)


@dataclass(frozen=True)
class ExtractWork(Work):
    """`eyeline extract` for every title."""

    extract: ExtractOptions = field(default_factory=ExtractOptions)

    command = "extract"
    runner = _ExtractRunner

    def options(self) -> dict[str, Any]:
        """Return the options that affect the results, as JSON values."""
        return _plain(self.extract, *MACHINE)


class _ScoreRunner(Runner):
    def __init__(self, work: ScoreWork, threads: int) -> None:
        self._model = work.resolve()
        extract = replace(work.score.extract, workers=threads)
        self._options = replace(work.score, workers=threads, extract=extract).for_model(
            self._model.io
        )
        super().__init__(work, threads)

    def whole(self, title: Title, paths: Sequence[str], on_frame: OnFrame) -> Product:
        video = title.video_options(self._video)
        result = score(
            paths[0],
            paths[1],
            model=self._model,
            options=self._options,
            ref_options=video,
            dist_options=video,
            on_frame=on_frame,
        )
        if result.stopped is not None:
            raise result.stopped
        return Product(result.log, len(result.log), result.warnings)

    def segmented(self, title: Title, paths: Sequence[str]) -> SegmentedRun:
        video = title.video_options(self._video)
        return ScoreSegments(paths[0], paths[1], self._model, self._options, video)


@dataclass(frozen=True)
class ScoreWork(Work):
    """`eyeline score` for every title, which is a pair of videos."""

    score: ScoreOptions = field(default_factory=ScoreOptions)

    command = "score"
    runner = _ScoreRunner
    use = "score"
    pairs = True

    def options(self) -> dict[str, Any]:
        """Return the options that affect the results, as JSON values."""
        own = _plain(self.score, "workers", "extract")
        return own | {"extract": _plain(self.score.extract, *MACHINE)}


class _RoiMapRunner(Runner):
    def __init__(self, work: RoiMapWork, threads: int) -> None:
        self._work = work
        self._extract = replace(work.extract, workers=threads)
        super().__init__(work, threads)
        self._model = work.resolve()

    def whole(self, title: Title, paths: Sequence[str], on_frame: OnFrame) -> Product:
        w = self._work
        with tempfile.TemporaryDirectory(prefix="eyeline-") as folder:
            out = Path(folder) / w.file
            result = write_map_file(
                paths[0],
                out,
                w.kind,
                w.steer,
                block=w.block,
                video=title.video_options(self._video),
                extract_options=self._extract,
                model=self._model,
                on_frame=lambda done: on_frame(),
            )
            return Product(out.read_bytes(), result.frames)


@dataclass(frozen=True)
class RoiMapWork(Work):
    """`eyeline roi map` for every title.

    Attributes:
        kind: format of the map files.
        steer: how saliency is turned into QP offsets.
        extract: options of the extraction of the saliency maps.
        block: side of a block, pixels; None = the default of the format.
    """

    kind: MapFormat = "json"
    steer: SteerOptions = field(default_factory=SteerOptions)
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    block: int | None = None

    command = "roi-map"
    runner = _RoiMapRunner
    use = "roi"

    @property
    def file(self) -> str:
        """Return the file name of the map file of a title."""
        suffixes = {"kvazaar": "txt", "kvazaar-binary": "bin", "svtav1": "txt"}
        return f"map.{suffixes.get(self.kind, self.kind)}"

    def options(self) -> dict[str, Any]:
        """Return the options that affect the results, as JSON values."""
        said = {"kind": self.kind, "block": self.block, "steer": asdict(self.steer)}
        return said | {"extract": _plain(self.extract, *MACHINE)}
