"""What a batch can do to a title; to add a kind, see `extract_work.py` and add a command to `cli/batch.py`.

A `Work` is options that pickle; in each worker it becomes a `Runner`, which holds the loaded model.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from eyeline._version import __version__
from eyeline.batch.manifest import Title
from eyeline.errors import VerificationError
from eyeline.logs import parquet_format
from eyeline.logs.base import Log
from eyeline.media.types import FrameIndex, VideoOptions
from eyeline.registry.records import Task
from eyeline.registry.registry import Model, Use, resolve_model
from eyeline.segments.frames import Segment

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
        task: take the production model of this task; see `eyeline.registry.registry.resolve_model`.
        model_sha256: the model that the batch began with; another one is refused.
        video: how to read videos.
    """

    model: str | None = None
    registry: str | None = None
    task: Task | None = None
    model_sha256: str = ""
    video: VideoOptions = field(default_factory=VideoOptions)

    command = ""
    use: ClassVar[Use] = "extract"
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
        model = resolve_model(self.model, self.registry or None, task=self.task, use=self.use)
        if self.model_sha256 and model.sha256 != self.model_sha256:
            raise VerificationError(
                f"{model.id}: is another file than when the batch began", "start the batch again"
            )
        return model

    def facts(self) -> dict[str, Any]:
        """All that decides the rows, JSON values."""
        model = self.resolve()
        return {
            "eyeline": __version__,
            "model": model.id,
            "model_sha256": model.sha256,
            "io": model.io.model_dump(),
            "video": plain(self.video, "threads", "index"),
            "options": self.options(),
        }

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The command's own options, JSON values."""

    @abstractmethod
    def open(self, threads: int) -> Runner:
        """Load what a worker needs."""


def plain(options: Any, *without: str) -> dict[str, Any]:
    """A dataclass as JSON values, but for the fields named."""
    values = {k: v for k, v in asdict(options).items() if k not in without}
    return {k: str(v) if type(v).__name__ == "Fraction" else v for k, v in values.items()}


def serialise(log: Log) -> bytes:
    """A log as Parquet."""
    out = io.BytesIO()
    parquet_format.write(log, out)
    return out.getvalue()
