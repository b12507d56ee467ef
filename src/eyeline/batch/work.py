"""What a batch can do to a title: to add a kind, add a `Work` here and a command in `cli/batch.py`.

A `Work` is options that pickle; in each worker it becomes a `Runner`, which holds the loaded model.
"""

from __future__ import annotations

import io
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import eyeline
from eyeline.batch.manifest import Title
from eyeline.errors import VerificationError
from eyeline.logs import parquet_format
from eyeline.logs.record import Log
from eyeline.media import open_video
from eyeline.media.index import FrameIndex, index_frames
from eyeline.media.types import VideoOptions
from eyeline.models.registry import Model, resolve_model
from eyeline.quality.score import ScoreOptions, score
from eyeline.quality.segment import join_scores, may_split, plan_pairs, score_segment
from eyeline.roi.mapfile import MapFormat
from eyeline.roi.mapping import write_map_file
from eyeline.roi.steer import SteerOptions
from eyeline.saliency.pipeline import MACHINE, Extraction, ExtractOptions
from eyeline.saliency.run import Outputs, run_extraction
from eyeline.saliency.segment import (
    Segment,
    SegmentRun,
    join_segments,
    plan_segments,
    run_segment,
)
from eyeline.saliency.session import Session

OnFrame = Callable[[], None]
Indexes = tuple[FrameIndex, ...]
"""One a source."""


@dataclass
class Product:
    """What a title, or a segment of it, came to.

    Attributes:
        data: the file.
        frames: its rows.
        warnings: lines worth showing.
    """

    data: bytes
    frames: int
    warnings: list[str] = field(default_factory=list)


class Runner(ABC):
    """A `Work` within a worker, its model loaded."""

    @abstractmethod
    def whole(
        self, title: Title, paths: Sequence[str], said: dict[str, Any], on_frame: OnFrame
    ) -> Product:
        """Do a title in one go.

        Args:
            title: which one.
            paths: local paths of its source, and of what is compared with it.
            said: provenance to carry.
            on_frame: called after each frame.

        Raises:
            EyelineError: the title can't be done, or only in part.
        """

    def plan(
        self, title: Title, paths: Sequence[str], length: int
    ) -> tuple[Sequence[Segment], Indexes]:
        """How to split a title into pieces of about `length` frames; one piece = not at all.

        Returns:
            The pieces; where the frames of each source are.
        """
        return (), ()

    def segment(
        self,
        title: Title,
        paths: Sequence[str],
        indexes: Indexes,
        segment: Segment,
        on_frame: OnFrame,
    ) -> Product:
        """Do a piece.

        Raises:
            SeamError, SeekError: the title must be done in one go.
            EyelineError: it can't be done.
        """
        raise NotImplementedError

    def join(self, pieces: Sequence[tuple[Segment, bytes]], said: dict[str, Any]) -> Product:
        """Make the whole from its pieces.

        Raises:
            SeamError: they don't fit together.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Work(ABC):
    """What is done to every title, as options.

    Attributes:
        model: id or path of the saliency model; the registry's default when None.
        registry: the user's own registry folder.
        model_sha256: the model that the batch began with; another one is refused.
        video: how to read videos.
    """

    model: str | None = None
    registry: str | None = None
    model_sha256: str = ""
    video: VideoOptions = field(default_factory=VideoOptions)

    command = ""
    pairs = False

    @property
    def file(self) -> str:
        """Name of a title's part."""
        return "part-0.parquet"

    def resolve(self) -> Model:
        """The model, as it was when the batch began.

        Raises:
            ModelError: it can't be used, or has changed since.
        """
        model = resolve_model(self.model, Path(self.registry) if self.registry else None)
        if self.model_sha256 and model.sha256 != self.model_sha256:
            raise VerificationError(
                f"{model.id}: is another file than when the batch began", "start the batch again"
            )
        return model

    def facts(self) -> dict[str, Any]:
        """All that decides the rows, JSON values."""
        model = self.resolve()
        return {
            "eyeline": eyeline.__version__,
            "model": model.id,
            "model_sha256": model.sha256,
            "io": model.io.model_dump(),
            "video": _plain(self.video, "threads", "index"),
            "options": self.options(),
        }

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The command's own options, JSON values."""

    @abstractmethod
    def open(self, threads: int) -> Runner:
        """Load what a worker needs."""


def _plain(options: Any, *without: str) -> dict[str, Any]:
    """A dataclass as JSON values."""
    values = {k: v for k, v in asdict(options).items() if k not in without}
    return {k: str(v) if type(v).__name__ == "Fraction" else v for k, v in values.items()}


def _serialise(log: Log) -> bytes:
    out = io.BytesIO()
    parquet_format.write(log, out)
    return out.getvalue()


@dataclass(frozen=True)
class ExtractWork(Work):
    """`eyeline extract` for every title.

    Attributes:
        extract: see `eyeline.saliency.pipeline.ExtractOptions`.
    """

    extract: ExtractOptions = field(default_factory=ExtractOptions)

    command = "extract"

    def options(self) -> dict[str, Any]:
        """See `Work`."""
        return _plain(self.extract, *MACHINE)

    def open(self, threads: int) -> Runner:
        """See `Work`."""
        return _ExtractRunner(self, threads)


class _ExtractRunner(Runner):
    def __init__(self, work: ExtractWork, threads: int) -> None:
        self._options = replace(work.extract, workers=threads)
        self._video = replace(work.video, threads=threads)
        self._session = Session(work.resolve(), self._options.device)

    def whole(
        self, title: Title, paths: Sequence[str], said: dict[str, Any], on_frame: OnFrame
    ) -> Product:
        video = open_video(paths[0], title.video_options(self._video))
        extraction = Extraction(video, self._session, self._options)
        result = run_extraction(extraction, Outputs(), lambda frame: on_frame())
        if result.stopped is not None:
            raise result.stopped
        return self._product(result.log, said)

    def plan(
        self, title: Title, paths: Sequence[str], length: int
    ) -> tuple[Sequence[Segment], Indexes]:
        index = index_frames(paths[0], title.video_options(self._video))
        if index is None:
            return (), ()
        return plan_segments(index, self._options, length), (index,)

    def segment(
        self,
        title: Title,
        paths: Sequence[str],
        indexes: Indexes,
        segment: Segment,
        on_frame: OnFrame,
    ) -> Product:
        options = replace(title.video_options(self._video), index=indexes[0])
        run = run_segment(
            paths[0],
            self._session,
            segment,
            options=self._options,
            video_options=options,
            on_frame=lambda frame: on_frame(),
        )
        return Product(_serialise(run.log), len(run.log))

    def join(self, pieces: Sequence[tuple[Segment, bytes]], said: dict[str, Any]) -> Product:
        runs = [SegmentRun(s, parquet_format.read(io.BytesIO(data))) for s, data in pieces]
        return self._product(join_segments(runs), said)

    def _product(self, log: Log, said: dict[str, Any]) -> Product:
        log.provenance |= said
        corrupt = log.provenance["corrupt_frames"]
        warnings = [f"{corrupt} corrupt frames"] if corrupt else []
        return Product(_serialise(log), len(log), warnings)


@dataclass(frozen=True)
class ScoreWork(Work):
    """`eyeline score` for every pair of titles.

    Attributes:
        score: see `eyeline.quality.score.ScoreOptions`.
    """

    score: ScoreOptions = field(default_factory=ScoreOptions)

    command = "score"
    pairs = True

    def options(self) -> dict[str, Any]:
        """See `Work`."""
        plain = _plain(self.score, "workers", "extract")
        return plain | {"extract": _plain(self.score.extract, *MACHINE)}

    def open(self, threads: int) -> Runner:
        """See `Work`."""
        return _ScoreRunner(self, threads)


class _ScoreRunner(Runner):
    def __init__(self, work: ScoreWork, threads: int) -> None:
        self._options = replace(
            work.score,
            workers=threads,
            extract=replace(work.score.extract, workers=threads),
        )
        self._video = replace(work.video, threads=threads)
        self._model = work.resolve()

    def whole(
        self, title: Title, paths: Sequence[str], said: dict[str, Any], on_frame: OnFrame
    ) -> Product:
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
        result.log.provenance |= said
        return Product(_serialise(result.log), len(result.log), result.warnings)

    def plan(
        self, title: Title, paths: Sequence[str], length: int
    ) -> tuple[Sequence[Segment], Indexes]:
        if not may_split(self._options):
            return (), ()
        video = title.video_options(self._video)
        # In the order in which `score` opens them, for the same error.
        dist = index_frames(paths[1], video)
        ref = index_frames(paths[0], video)
        if ref is None or dist is None:
            return (), ()
        return plan_pairs(ref, dist, self._options, length), (ref, dist)

    def segment(
        self,
        title: Title,
        paths: Sequence[str],
        indexes: Indexes,
        segment: Segment,
        on_frame: OnFrame,
    ) -> Product:
        video = title.video_options(self._video)
        log = score_segment(
            paths[0],
            paths[1],
            segment,
            (indexes[0], indexes[1]),
            model=self._model,
            options=self._options,
            ref_options=video,
            dist_options=video,
            on_frame=on_frame,
        )
        return Product(_serialise(log), len(log))

    def join(self, pieces: Sequence[tuple[Segment, bytes]], said: dict[str, Any]) -> Product:
        log = join_scores([(s, parquet_format.read(io.BytesIO(data))) for s, data in pieces])
        log.provenance |= said
        return Product(_serialise(log), len(log))


@dataclass(frozen=True)
class RoiMapWork(Work):
    """`eyeline roi map` for every title.

    Attributes:
        kind: format of the map files.
        steer: see `eyeline.roi.steer.SteerOptions`.
        extract: how the model looks.
        block: side of a cell, pixels, where the format takes any.
    """

    kind: MapFormat = "json"
    steer: SteerOptions = field(default_factory=SteerOptions)
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    block: int | None = None

    command = "roi-map"

    @property
    def file(self) -> str:
        """See `Work`."""
        suffix = {"kvazaar": "txt", "kvazaar-binary": "bin", "svtav1": "txt"}.get(
            self.kind, self.kind
        )
        return f"map.{suffix}"

    def options(self) -> dict[str, Any]:
        """See `Work`."""
        said = {"kind": self.kind, "block": self.block, "steer": asdict(self.steer)}
        return said | {"extract": _plain(self.extract, *MACHINE)}

    def open(self, threads: int) -> Runner:
        """See `Work`."""
        return _RoiMapRunner(self, threads)


class _RoiMapRunner(Runner):
    def __init__(self, work: RoiMapWork, threads: int) -> None:
        self._work = work
        self._extract = replace(work.extract, workers=threads)
        self._video = replace(work.video, threads=threads)
        self._model = work.resolve()

    def whole(
        self, title: Title, paths: Sequence[str], said: dict[str, Any], on_frame: OnFrame
    ) -> Product:
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
