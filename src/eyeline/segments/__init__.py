"""How one title is split into segments, run anywhere, and joined, bit for bit as in a single run.

::

    run = ExtractSegments("film.mkv", session, options, video_options)
    indexes = run.index()                               # None: the title can't be split
    plan = run.plan(indexes, length=1500)
    logs = [run_segment(run, s, indexes) for s in plan]  # anywhere, in any order
    log = join_segments(logs)

Nothing is taken on trust. Neighbours, of which one sought what the other decoded straight on, note
digests of the pictures around their seam. Where these differ, or where a source is damaged, the
title has to be run in one piece (`SeamError`).

`split` holds the plan, the run of one segment and the join; `extract` what the extraction adds.
What `score` adds is in `eyeline.quality.pair_segments`.
"""

from eyeline.segments.split import (
    Indexes,
    Segment,
    SegmentedRun,
    join_segments,
    run_segment,
)

__all__ = ["Indexes", "Segment", "SegmentedRun", "join_segments", "run_segment"]
