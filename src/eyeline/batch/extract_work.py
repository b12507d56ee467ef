"""`eyeline batch extract`: what a worker does to a title, whole or by segments."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eyeline.batch.manifest import Title
from eyeline.batch.work import Indexes, OnFrame, Product, Runner, Work, plain, serialise
from eyeline.inference.session import Session
from eyeline.logs import parquet_format
from eyeline.logs.base import Log
from eyeline.media import open_video
from eyeline.media.index import index_frames
from eyeline.saliency.pipeline import MACHINE, Extraction, ExtractOptions, Outputs, run_extraction
from eyeline.segments.frames import Segment, SegmentRun, join_segments, plan_segments, run_segment


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
        return plain(self.extract, *MACHINE)

    def open(self, threads: int) -> Runner:
        """See `Work`."""
        return _ExtractRunner(self, threads)


class _ExtractRunner(Runner):
    def __init__(self, work: ExtractWork, threads: int) -> None:
        self._session = Session(work.resolve(), work.extract.device)
        self._options = replace(work.extract, workers=threads).for_model(self._session.model.io)
        self._video = replace(work.video, threads=threads)

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
        return Product(serialise(run.log), len(run.log))

    def join(self, pieces: Sequence[tuple[Segment, bytes]], said: dict[str, Any]) -> Product:
        runs = [SegmentRun(s, parquet_format.read(io.BytesIO(data))) for s, data in pieces]
        return self._product(join_segments(runs), said)

    def _product(self, log: Log, said: dict[str, Any]) -> Product:
        log.provenance |= said
        corrupt = log.provenance["corrupt_frames"]
        warnings = [f"{corrupt} corrupt frames"] if corrupt else []
        return Product(serialise(log), len(log), warnings)
