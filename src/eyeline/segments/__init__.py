"""Split a video into segments, process them in any order, and join the logs.

The joined log is bit-identical to the log of a single run.

::

    run = ExtractSegments("film.mkv", session, options, video_options)
    indexes = run.index()                               # None: the video can't be split
    plan = run.plan(indexes, length=1500)
    logs = [run_segment(run, s, indexes) for s in plan]  # anywhere, in any order
    log = join_segments(logs)

A segment begins with a seek, while the previous segment decodes up to its end without a seek. To verify
that the seek found the right frames, each segment stores digests of the pictures at its two ends. If
the digests of neighbouring segments differ, or a source is damaged, `SeamError` says that the video
must be processed in one piece.

`split` plans, runs and joins segments, and implements the segments of `eyeline extract`.
`eyeline.quality.pair_segments` implements the segments of `eyeline score`.
"""

from eyeline.segments.split import (
    Indexes,
    Segment,
    SegmentedRun,
    join_segments,
    run_segment,
)

__all__ = ["Indexes", "Segment", "SegmentedRun", "join_segments", "run_segment"]
