"""`eyeline batch score`: what a worker does to a pair, whole or by segments."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eyeline.batch.manifest import Title
from eyeline.batch.work import Indexes, OnFrame, Product, Runner, Work, plain, serialise
from eyeline.logs import parquet_format
from eyeline.media.index import index_frames
from eyeline.quality.score import ScoreOptions, score
from eyeline.quality.segment import join_scores, may_split, plan_pairs, score_segment
from eyeline.saliency.pipeline import MACHINE
from eyeline.segments.frames import Segment


@dataclass(frozen=True)
class ScoreWork(Work):
    """`eyeline score` for every pair of titles.

    Attributes:
        score: see `eyeline.quality.score.ScoreOptions`.
    """

    score: ScoreOptions = field(default_factory=ScoreOptions)

    command = "score"
    use = "score"
    pairs = True

    def options(self) -> dict[str, Any]:
        """See `Work`."""
        own = plain(self.score, "workers", "extract")
        return own | {"extract": plain(self.score.extract, *MACHINE)}

    def open(self, threads: int) -> Runner:
        """See `Work`."""
        return _ScoreRunner(self, threads)


class _ScoreRunner(Runner):
    def __init__(self, work: ScoreWork, threads: int) -> None:
        self._model = work.resolve()
        self._options = replace(
            work.score,
            workers=threads,
            extract=replace(work.score.extract, workers=threads),
        ).for_model(self._model.io)
        self._video = replace(work.video, threads=threads)

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
        return Product(serialise(result.log), len(result.log), result.warnings)

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
        return Product(serialise(log), len(log))

    def join(self, pieces: Sequence[tuple[Segment, bytes]], said: dict[str, Any]) -> Product:
        log = join_scores([(s, parquet_format.read(io.BytesIO(data))) for s, data in pieces])
        log.provenance |= said
        return Product(serialise(log), len(log))
