"""`extract` in segments: the frames that a segment decodes and infers, and its rows.

Without a stride, a row depends on a few frames before and after it (`temporal.REACH`). Each segment
also processes those frames and drops their rows. With a stride, or with a filter that uses all earlier
frames of a scene, a row may depend on its whole scene. A segment then begins at the first cut in its
range and ends at the first cut after its range. A segment without a cut in its range has no rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from eyeline.inference.session import Session
from eyeline.media.index import index_frames
from eyeline.media.source import VideoPath, open_video
from eyeline.media.types import Frame, FrameIndex, VideoOptions
from eyeline.saliency.pipeline import Extraction, ExtractOptions, FrameRange, open_log, outcome
from eyeline.saliency.temporal import REACH
from eyeline.segments.split import (
    Indexes,
    OnFrame,
    Segment,
    SegmentedRun,
    SegmentRows,
    split_frames,
)

SCORE_REACH = 2
"""Number of earlier frames on which a scene score depends (see `eyeline.media.source.SceneScore`)."""


def reach_of(options: ExtractOptions) -> tuple[int, int] | None:
    """Return how many frames before and after a frame its map depends on; None = its whole scene.

    Args:
        options: the result of `ExtractOptions.for_model`; the filter `model` counts as None.
    """
    return None if options.skips else REACH[options.temporal]


def lead_of(options: ExtractOptions) -> int:
    """Return the number of frames to decode before the first frame of a segment."""
    reach = reach_of(options)
    # Flicker compares a row's map with the previous map, which depends on `reach[0]` more frames.
    return SCORE_REACH + (0 if reach is None else reach[0])


def plan_extract(index: FrameIndex, options: ExtractOptions, length: int) -> list[Segment]:
    """Plan the segments of a video, as `SegmentedRun.plan` describes."""
    end = len(index) if options.stop is None else min(options.stop, len(index))
    places = index.keyframes + lead_of(options)
    return split_frames([places], options.start, end, options.stop, length)


def frames_of(segment: Segment, options: ExtractOptions) -> FrameRange:
    """Return the frames to decode and to infer for the rows of a segment."""
    reach = reach_of(options)
    start = max(options.start, segment.start - lead_of(options))
    if reach is None:
        return FrameRange(
            start, options.stop, segment.start, start_at_cut=True, stop_at_cut_after=segment.stop
        )
    before, after = reach
    stop = segment.stop
    if stop is not None and stop != options.stop:
        stop = stop + after if options.stop is None else min(stop + after, options.stop)
    return FrameRange(start, stop, max(options.start, segment.start - 1 - before))


class ExtractSegments(SegmentedRun):
    """`extract` of one video, in segments."""

    def __init__(
        self,
        path: VideoPath,
        session: Session,
        options: ExtractOptions,
        video_options: VideoOptions,
    ) -> None:
        self._path, self._session, self._video_options = path, session, video_options
        self._options = options.for_model(session.model.io)

    def index(self) -> Indexes | None:
        """Index each source, without decoding."""
        index = index_frames(self._path, self._video_options)
        return None if index is None else (index,)

    def plan(self, indexes: Indexes, length: int) -> list[Segment]:
        """Plan segments that begin shortly after keyframes."""
        return plan_extract(indexes[0], self._options, length)

    def rows(self, segment: Segment, indexes: Indexes, on_frame: OnFrame) -> SegmentRows:
        """Process the segment with a few frames around it, and keep the rows of the segment."""
        o = self._options
        by_scene = reach_of(o) is None
        cuts: list[float] = []
        before: Frame | None = None
        last: Frame | None = None
        video = open_video(self._path, replace(self._video_options, index=indexes[0]))
        with Extraction(video, self._session, o, frames_of(segment, o)) as extraction:
            log = open_log(extraction)
            for frame in extraction:
                if frame.index < segment.start:
                    before = frame.frame
                elif by_scene or segment.stop is None or frame.index < segment.stop:
                    log.append(frame.index, frame.pts_time, frame.features)
                    if frame.cut:
                        cuts.append(frame.pts_time)
                    last = frame.frame
                    on_frame()
        log.provenance |= outcome(log, extraction.report, cuts, True)
        return SegmentRows(
            log,
            head=_digest(before or extraction.frame_before),
            tail=_digest(last),
            ends=not extraction.stopped_at_cut if by_scene else segment.stop == o.stop,
            reports=[(extraction.info.path, extraction.report)],
        )


def _digest(frame: Frame | None) -> str | None:
    """Return a digest of the frame's pixels at the working size."""
    if frame is None:
        return None
    digest = hashlib.blake2b(frame.rgb.tobytes(), digest_size=16)
    return f"{frame.rgb.shape[2]}x{frame.rgb.shape[1]}:{digest.hexdigest()}"
