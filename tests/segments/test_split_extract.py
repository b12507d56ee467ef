"""Segments of a video, joined, against the single run: the same rows and provenance, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from clips import picture, planes_of, write_clip
from eyeline.errors import MediaError, SeamError, UsageError
from eyeline.inference.session import Session
from eyeline.logs import read_log, write_log
from eyeline.logs.base import Log, compact
from eyeline.media import open_video
from eyeline.media.index import index_frames
from eyeline.media.types import FrameIndex, VideoOptions
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from eyeline.saliency.pipeline import (
    Extraction,
    ExtractOptions,
    Outputs,
    run_extraction,
)
from eyeline.saliency.temporal import Fill, TemporalFilter
from eyeline.segments import Segment, join_segments, run_segment
from eyeline.segments.split import ExtractSegments, plan_extract
from tiny_models import plane_model


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(plane_model())
    return Session(Model("tiny", path, IoSpec(multiple=1, working_lines=32)))


def scenes(count: int, cuts: tuple[int, ...], seed: int = 1) -> list[np.ndarray]:
    """Noise that drifts, and is another at each cut: uint8 (48, 64, 3)."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(count):
        if i == 0 or i in cuts:
            noise = rng.integers(0, 128, (48, 64, 3), np.uint8) + np.uint8(rng.integers(0, 120))
        frames.append(np.roll(noise, 2 * i, 1))
    return frames


def run_whole(
    path: Path, session: Session, options: ExtractOptions, video: VideoOptions | None = None
) -> Log:
    extraction = Extraction(open_video(path, video), session, options)
    return run_extraction(extraction, Outputs()).log


def run_all(
    path: Path | list[Path],
    session: Session,
    options: ExtractOptions,
    length: int,
    on_frame: Callable[[], None] = lambda: None,
    video: VideoOptions | None = None,
) -> list[Log]:
    """Plan and run; the last segment first, since none may need another. None: not to be split."""
    run = ExtractSegments(path, session, options, video or VideoOptions())
    indexes = run.index()
    plan = run.plan(indexes, length) if indexes else []
    if len(plan) < 2:
        return []
    return [run_segment(run, segment, indexes, on_frame) for segment in reversed(plan)][::-1]


def run_one(
    path: Path, session: Session, options: ExtractOptions, index: FrameIndex, segment: Segment
) -> Log:
    """Run one segment by an index of the test's own."""
    return run_segment(ExtractSegments(path, session, options, VideoOptions()), segment, (index,))


def ranges(logs: list[Log]) -> list[tuple[int, int | None]]:
    """Ranges of the segments that the logs are of."""
    return [tuple(log.provenance["seam"]["segment"]) for log in logs]


def rows(log: Log) -> list[bytes]:
    return [column.tobytes() for column in (log.frame_num, log.pts_time, *log.values.values())]


def assert_equal(joined: Log, whole: Log) -> None:
    assert list(joined.frame_num) == list(whole.frame_num)
    assert joined.pts_time.tobytes() == whole.pts_time.tobytes()
    assert joined.columns == whole.columns
    for name, column in whole.values.items():
        assert joined.values[name].tobytes() == column.tobytes(), name
    assert joined.fps == whole.fps
    assert compact(joined.provenance) == compact(whole.provenance)


# --- the plan


def test_a_plan_begins_where_decoding_may_and_needs_least_before() -> None:
    index = FrameIndex(np.arange(100), np.array([0, 30, 33, 60, 90]))
    starts = {
        options: [s.start for s in plan_extract(index, options, 25)]
        for options in (
            ExtractOptions(),
            ExtractOptions(temporal="median"),
            ExtractOptions(temporal="ema"),
            ExtractOptions(stride=2),
        )
    }
    # Behind a keyframe by the frames whose scene scores and maps the first row depends on.
    assert list(starts.values()) == [[0, 32, 62], [0, 34, 64], [0, 32, 62], [0, 32, 62]]


def test_what_cannot_be_split_is_one_segment() -> None:
    options = ExtractOptions(start=5, stop=9)
    index = FrameIndex(np.arange(100), np.array([0, 30]))
    assert plan_extract(index, options, 1) == [Segment(5, 9)]
    assert plan_extract(index, ExtractOptions(), 1000) == [Segment(0, None)]
    with pytest.raises(UsageError, match="length of 0 frames"):
        plan_extract(index, options, 0)


@given(
    count=st.integers(2, 400),
    keys=st.sets(st.integers(1, 399)),
    length=st.integers(1, 200),
    start=st.integers(0, 50),
    span=st.none() | st.integers(1, 300),
    temporal=st.sampled_from(["none", "ema", "median"]),
)
def test_a_plan_covers_every_frame_once(
    count: int,
    keys: set[int],
    length: int,
    start: int,
    span: int | None,
    temporal: TemporalFilter,
) -> None:
    stop = None if span is None else start + span
    options = ExtractOptions(start=start, stop=stop, temporal=temporal)
    keyframes = np.array([0, *sorted(k for k in keys if k < count)])
    plan = plan_extract(FrameIndex(np.arange(count), keyframes), options, length)
    assert (plan[0].start, plan[-1].stop) == (start, stop)
    for left, right in pairwise(plan):
        assert left.stop == right.start
        assert right.start - left.start >= length
    if len(plan) > 1:
        end = count if stop is None else min(stop, count)
        assert 2 * (end - plan[-1].start) >= length


# --- the join


@pytest.mark.parametrize(
    "options",
    [
        ExtractOptions(),
        ExtractOptions(workers=3),
        ExtractOptions(temporal="median"),
        ExtractOptions(temporal="ema"),
        ExtractOptions(stride=3),
        ExtractOptions(start=7, stop=53, temporal="median"),
        ExtractOptions(start=15, stop=1000, stride=2, fill="hold"),
    ],
    ids=lambda o: f"{o.temporal}-{o.stride}-{o.start}",
)
def test_joined_segments_are_the_single_run(
    tmp_path: Path, session: Session, options: ExtractOptions
) -> None:
    frames = scenes(60, (14, 33))
    clip = write_clip(tmp_path / "clip.mkv", frames, codec_options={"g": "8"})
    logs = run_all(clip, session, options, 12)
    assert len(logs) > 2
    assert_equal(join_segments(logs), run_whole(clip, session, options))


def test_segments_of_a_model_with_its_own_filter_are_the_single_run(
    tmp_path: Path, session: Session
) -> None:
    model = replace(session.model, io=session.model.io.model_copy(update={"temporal_ms": 150.0}))
    own = Session(model)
    frames = scenes(60, (14, 33))
    clip = write_clip(tmp_path / "clip.mkv", frames, codec_options={"g": "8"})
    logs = run_all(clip, own, ExtractOptions(), 12)
    assert len(logs) > 2
    joined = join_segments(logs)
    assert_equal(joined, run_whole(clip, own, ExtractOptions()))
    named = run_whole(clip, session, ExtractOptions(temporal="ema", temporal_ms=150.0))
    assert rows(joined) == rows(named)


FORMATS = {
    "mkv": ("libx264", {"x264-params": "scenecut=0"}),
    "mp4": ("libx264", {"x264-params": "open-gop=1:bframes=3:b-pyramid=normal"}),
    "ts": ("mpeg2video", {"bf": "2"}),
}


@settings(max_examples=25)
@given(
    suffix=st.sampled_from(sorted(FORMATS)),
    count=st.integers(20, 60),
    cuts=st.sets(st.integers(1, 59), max_size=6),
    gop=st.integers(1, 12),
    length=st.integers(1, 25),
    temporal=st.sampled_from(["none", "ema", "median", "motion"]),
    stride=st.integers(1, 4),
    still=st.sampled_from([0.0, 0.0, 2.0, 30.0]),
    fill=st.sampled_from(["linear", "hold", "motion"]),
    start=st.integers(0, 12),
    spared=st.integers(-3, 5),
    seed=st.integers(0, 9),
)
def test_joined_segments_are_the_single_run_whatever_the_video(
    tmp_path: Path,
    session: Session,
    suffix: str,
    count: int,
    cuts: set[int],
    gop: int,
    length: int,
    temporal: TemporalFilter,
    stride: int,
    still: float,
    fill: Fill,
    start: int,
    spared: int,
    seed: int,
) -> None:
    if "motion" in (temporal, fill):
        pytest.importorskip("cv2", reason="the extra motion is not installed")
    codec, encoder = FORMATS[suffix]
    clip = write_clip(
        tmp_path / f"clip.{suffix}",
        scenes(count, tuple(cuts), seed),
        codec,
        codec_options={"g": str(gop), **encoder},
    )
    options = ExtractOptions(
        stride=stride,
        still=still,
        fill=fill,
        temporal=temporal,
        start=start,
        stop=count - spared if spared else None,
    )
    logs = run_all(clip, session, options, length)
    event(f"{min(len(logs), 4)} segments or more")
    if logs:
        assert_equal(join_segments(logs), run_whole(clip, session, options))


def test_real_video_joins_too(shared_data: Path, session: Session) -> None:
    clip = shared_data / "video" / "bikes.mp4"
    for options in (ExtractOptions(), ExtractOptions(stride=2, temporal="ema")):
        logs = run_all(clip, session, options, 60)
        assert len(logs) > 2
        assert_equal(join_segments(logs), run_whole(clip, session, options))


def test_scenes_are_not_split_by_a_filter_that_remembers_them(
    tmp_path: Path, session: Session
) -> None:
    clip = write_clip(tmp_path / "a.mkv", scenes(60, (41,)), codec_options={"g": "8"})
    seen: list[None] = []
    logs = run_all(clip, session, ExtractOptions(temporal="ema"), 12, lambda: seen.append(None))
    rows = [(log.frame_num[0], log.frame_num[-1]) if len(log) else None for log in logs]
    owner = max(i for i, (start, _) in enumerate(ranges(logs)) if start <= 41)
    assert rows == [(0, 40), *([None] * (owner - 1)), (41, 59), *([None] * (len(logs) - owner - 1))]
    assert len(seen) == 60


def test_frames_before_the_first_scene_are_not_inferred(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "a.mkv", scenes(60, (45,)), codec_options={"g": "8"})
    index = index_frames(clip)
    inferred: list[int] = []
    run = session.run
    monkeypatch.setattr(session, "run", lambda x: (inferred.append(1), run(x))[1])
    for options, start, count in (
        (ExtractOptions(stride=1, temporal="ema"), 34, 60 - 45),
        (ExtractOptions(), 34, 60 - 34 + 1),  # one for the first row's flicker
    ):
        inferred.clear()
        run_one(clip, session, options, index, Segment(start, None))
        assert len(inferred) == count


@pytest.mark.parametrize("suffix", ["json", "parquet"])
@pytest.mark.parametrize("temporal", ["none", "ema"])
def test_segments_may_be_written_and_read_before(
    tmp_path: Path, session: Session, suffix: str, temporal: TemporalFilter
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    options = ExtractOptions(temporal=temporal)
    clip = write_clip(tmp_path / "a.mkv", scenes(40, (9, 22)), codec_options={"g": "8"})
    logs = run_all(clip, session, options, 9)
    again = []
    for i, log in enumerate(logs):
        write_log(log, tmp_path / f"{i}.{suffix}")
        again.append(read_log(tmp_path / f"{i}.{suffix}"))
    write_log(join_segments(again), tmp_path / f"joined.{suffix}")
    write_log(run_whole(clip, session, options), tmp_path / f"whole.{suffix}")
    joined, whole = ((tmp_path / f"{n}.{suffix}").read_bytes() for n in ("joined", "whole"))
    assert len(logs) > 2
    assert joined == whole


def test_raw_video_and_images_join(tmp_path: Path, session: Session) -> None:
    frames = scenes(20, (8,))
    raw = tmp_path / "a.yuv"
    raw.write_bytes(b"".join(planes_of(picture(rgb).reformat(format="yuv420p")) for rgb in frames))
    video = VideoOptions(64, 48, "yuv420p")
    options = ExtractOptions(temporal="median")
    logs = run_all(raw, session, options, 6, video=video)
    assert len(logs) == 3
    assert_equal(join_segments(logs), run_whole(raw, session, options, video))


def test_a_damaged_video_is_not_split(tmp_path: Path, session: Session) -> None:
    clip = write_clip(tmp_path / "a.mkv", scenes(40, ()), codec_options={"g": "8"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    assert ExtractSegments(clip, session, ExtractOptions(), VideoOptions()).index() is None


# --- what does not join


def test_a_picture_that_a_seek_changes_is_noticed(tmp_path: Path, session: Session) -> None:
    """A file and an index that let a decoder begin inside a group of pictures."""
    source = write_clip(tmp_path / "a.mp4", scenes(40, ()), "mpeg4", codec_options={"g": "8"})
    clip = tmp_path / "marked.mp4"
    with av.open(str(source)) as old, av.open(str(clip), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream, packet.is_keyframe = stream, True
                new.mux(packet)
    index = index_frames(clip)
    assert index is not None
    lying = FrameIndex(index.pts, np.array([0, 12]))
    plan = plan_extract(lying, ExtractOptions(), 10)
    assert len(plan) == 2
    logs = [run_one(clip, session, ExtractOptions(), lying, s) for s in plan]
    with pytest.raises(SeamError, match="pictures at frame"):
        join_segments(logs)


def test_a_change_of_size_is_run_in_one_piece(tmp_path: Path, session: Session) -> None:
    pictures = []
    for i in range(12):
        w, h = (64, 48) if i < 7 else (96, 64)
        pictures.append(tmp_path / f"{i}.ppm")
        pictures[-1].write_bytes(b"P6\n%d %d\n255\n" % (w, h) + bytes([i]) * (3 * w * h))
    with pytest.raises(SeamError, match="changes its size"):
        run_all(pictures, session, ExtractOptions(), 4)


def test_another_file_under_the_index_is_noticed(tmp_path: Path, session: Session) -> None:
    clip = write_clip(tmp_path / "a.mkv", scenes(40, ()), codec_options={"g": "8"})
    index = index_frames(clip)
    assert index is not None
    write_clip(clip, scenes(40, ()), fps=24, codec_options={"g": "8"})
    with pytest.raises(SeamError, match="not where the index says"):
        run_one(clip, session, ExtractOptions(), index, Segment(10, 20))


@settings(max_examples=60)
@given(
    suffix=st.sampled_from(sorted(FORMATS)),
    at=st.floats(0.02, 0.98),
    junk=st.binary(min_size=1, max_size=60),
    temporal=st.sampled_from(["none", "ema", "median"]),
)
def test_damage_never_gives_other_rows(
    tmp_path: Path,
    session: Session,
    suffix: str,
    at: float,
    junk: bytes,
    temporal: TemporalFilter,
) -> None:
    source = tmp_path / f"whole.{suffix}"
    if not source.exists():
        codec, encoder = FORMATS[suffix]
        write_clip(source, scenes(50, (19, 31)), codec, codec_options={"g": "8", **encoder})
    data = bytearray(source.read_bytes())
    place = int(at * len(data))
    data[place : place + len(junk)] = junk
    clip = tmp_path / f"damaged.{suffix}"
    clip.write_bytes(data[: source.stat().st_size])
    options = ExtractOptions(temporal=temporal)
    try:
        logs = run_all(clip, session, options, 10)
        if not logs:
            event("in one piece")
            return
        joined = join_segments(logs)
    except SeamError:
        event("does not join")
        return
    except MediaError:
        event("can't be read")
        with pytest.raises(MediaError):
            run_whole(clip, session, options)
        return
    event("split")
    whole = run_whole(clip, session, options)
    if rows(joined) != rows(whole):
        # Decoders conceal some damage without a word, by what is left in memory.
        other = (run_whole(clip, session, options, VideoOptions(threads=n)) for n in (1, 2, 3))
        assume(all(rows(log) == rows(whole) for log in other))
    assert_equal(joined, whole)
