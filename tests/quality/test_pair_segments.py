"""Segments of a pair, joined, against the single run: the same rows and provenance, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from clips import write_clip
from eyeline.errors import MediaError, QualityError, SeamError, UsageError
from eyeline.logs import read_log, write_log
from eyeline.logs.base import Log, compact
from eyeline.media.index import index_frames
from eyeline.media.types import FrameIndex, VideoOptions
from eyeline.quality.pair_segments import ScoreSegments, may_split, plan_pairs
from eyeline.quality.pairs import PairOptions
from eyeline.quality.score import ScoreOptions, score
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from eyeline.saliency.maps import open_map_sink
from eyeline.saliency.pipeline import ExtractOptions, extract
from eyeline.segments import Segment, join_segments, run_segment
from tiny_models import plane_model

SMALL = ("psnr", "ssim", "sw_vmaf")
SIZE = (64, 48)
VIDEO = VideoOptions(threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(plane_model())
    return Model("tiny", path, IoSpec(multiple=1, working_lines=32))


def shots(count: int, cuts: tuple[int, ...] = (), size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Noise that drifts, and is another at each cut: uint8 (h, w, 3)."""
    rng = np.random.default_rng(1)
    frames = []
    for i in range(count):
        if i == 0 or i in cuts:
            level = np.uint8(rng.integers(0, 120))
            noise = rng.integers(0, 128, (size[1], size[0], 3), np.uint8) + level
        frames.append(np.roll(noise, 2 * i, 1))
    return frames


def run_whole(pair: tuple[Path, Path], model: Model, options: ScoreOptions) -> Log:
    return score(*pair, model=model, options=options, ref_options=VIDEO, dist_options=VIDEO).log


def run_all(pair: tuple[Path, Path], model: Model, options: ScoreOptions, length: int) -> list[Log]:
    """Plan and run; the last segment first, since none may need another. None: not to be split."""
    run = ScoreSegments(*pair, model, options, VIDEO)
    indexes = run.index()
    assert indexes is not None
    plan = run.plan(indexes, length)
    if len(plan) == 1:
        return []
    return [run_segment(run, segment, indexes) for segment in reversed(plan)][::-1]


def assert_equal(joined: Log, whole: Log) -> None:
    assert list(joined.frame_num) == list(whole.frame_num)
    assert joined.columns == whole.columns
    for name, column in {"pts_time": whole.pts_time, **whole.values}.items():
        found = joined.pts_time if name == "pts_time" else joined.values[name]
        assert found.tobytes() == column.tobytes(), name
    assert joined.fps == whole.fps
    assert compact(joined.provenance) == compact(whole.provenance)


# --- the plan

UNFILTERED = IoSpec()


def test_pairs_are_split_where_the_model_has_no_filter(model: Model) -> None:
    index = FrameIndex(np.arange(100), np.arange(0, 100, 10))
    filtered = model.io.model_copy(update={"temporal_ms": 150.0})
    for options, split in (
        (ScoreOptions().for_model(model.io), True),
        (ScoreOptions().for_model(filtered), False),
        (ScoreOptions(extract=ExtractOptions(temporal="none")).for_model(filtered), True),
        (ScoreOptions(), False),  # the filter is not known yet
        (ScoreOptions(weight=0.0), True),  # no model looks
    ):
        assert may_split(options) == split
        assert (len(plan_pairs(index, index, options, 20)) > 1) == split


def test_a_plan_begins_where_decoding_both_costs_least() -> None:
    ref = FrameIndex(np.arange(200), np.array([0, 40, 55, 80, 120, 160]))
    dist = FrameIndex(np.arange(200), np.array([0, 50, 100, 150]))

    def starts(length: int, weight: float, **pairs: int) -> list[int]:
        options = ScoreOptions(weight=weight, pairs=PairOptions(**pairs))
        options = options.for_model(UNFILTERED)
        return [s.start for s in plan_pairs(ref, dist, options, length)]

    # Two pairs behind a keyframe. At 42 the distorted one would be decoded from 0.
    assert starts(42, 0.0) == [0, 52, 102, 152]
    # The scene scores of the reference's maps depend on two frames more.
    assert starts(80, 1.0) == [0, 84]
    assert starts(80, 0.0) == [0, 82]
    # The 55th frames of both are the 45th pair; behind the 50th is the 40th.
    assert starts(42, 0.0, ref_offset=10, dist_offset=10)[1] == 47


@given(
    counts=st.tuples(st.integers(2, 400), st.integers(-3, 3)),
    keys=st.tuples(*(st.sets(st.integers(1, 399), max_size=20),) * 2),
    length=st.integers(1, 200),
    offsets=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    frames=st.none() | st.integers(1, 300),
    shortest=st.booleans(),
    weight=st.sampled_from([0.0, 1.0]),
)
def test_a_plan_covers_every_pair_once(
    counts: tuple[int, int],
    keys: tuple[set[int], set[int]],
    length: int,
    offsets: tuple[int, int],
    frames: int | None,
    shortest: bool,
    weight: float,
) -> None:
    lengths = counts[0], max(1, sum(counts))
    ref, dist = (
        FrameIndex(np.arange(n), np.array([0, *sorted(k for k in ks if k < n)]))
        for n, ks in zip(lengths, keys, strict=True)
    )
    pairs = PairOptions(*offsets, shortest=shortest, frames=frames)
    plan = plan_pairs(
        ref, dist, ScoreOptions(weight=weight, pairs=pairs).for_model(UNFILTERED), length
    )
    assert (plan[0].start, plan[-1].stop) == (0, None)
    for left, right in pairwise(plan):
        assert left.stop == right.start
        assert right.start - left.start >= length
    if len(plan) > 1:
        event("split")
        left_over = [n - o for n, o in zip(lengths, offsets, strict=True)]
        total = min(left_over) if frames is None else min(*left_over, frames)
        assert 2 * (total - plan[-1].start) >= length


@pytest.mark.parametrize(
    "options",
    [
        ScoreOptions(pairs=PairOptions(resample=True)),
        ScoreOptions(extract=ExtractOptions(temporal="ema")),
        ScoreOptions(extract=ExtractOptions(stride=2)),
        ScoreOptions(extract=ExtractOptions(still=1.0)),
    ],
)
def test_what_depends_on_more_than_neighbours_is_not_split(options: ScoreOptions) -> None:
    index = FrameIndex(np.arange(100), np.arange(0, 100, 10))
    assert not may_split(options)
    assert plan_pairs(index, index, options, 20) == [Segment(0, None)]
    assert len(plan_pairs(index, index, ScoreOptions().for_model(UNFILTERED), 20)) > 1


def test_lengths_that_differ_are_left_to_the_single_run() -> None:
    ref, dist = (FrameIndex(np.arange(n), np.arange(0, n, 10)) for n in (100, 90))
    assert plan_pairs(ref, dist, ScoreOptions().for_model(UNFILTERED), 20) == [Segment(0, None)]
    for pairs in (PairOptions(shortest=True), PairOptions(frames=90), PairOptions(ref_offset=10)):
        assert len(plan_pairs(ref, dist, ScoreOptions(pairs=pairs).for_model(UNFILTERED), 20)) > 1
    with pytest.raises(UsageError, match="length of 0 frames"):
        plan_pairs(ref, dist, ScoreOptions().for_model(UNFILTERED), 0)


# --- the join

FORMATS = {
    "h264": ("mkv", "libx264", "yuv420p", {"x264-params": "scenecut=0", "preset": "ultrafast"}),
    "h264-open": ("mp4", "libx264", "yuv420p", {"x264-params": "open-gop=1:bframes=3:b-pyramid=normal"}),
    "h264-10": ("mp4", "libx264", "yuv420p10le", {"preset": "veryfast"}),
    "vp9": ("webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "b": "300k"}),
    "mpeg2": ("ts", "mpeg2video", "yuv420p", {"bf": "2"}),
    "ffv1": ("mkv", "ffv1", "yuv420p", {}),
}  # fmt: skip


def make_pair(
    folder: Path, kinds: tuple[str, str], frames: list[np.ndarray], gops: tuple[int, int]
) -> tuple[Path, Path]:
    """The same frames by two encoders, the second at a lower rate where it has one."""
    paths = []
    for name, kind, gop in zip(("ref", "dist"), kinds, gops, strict=True):
        suffix, codec, pix_fmt, how = FORMATS[kind]
        how = {**how, "g": str(gop)}
        if name == "dist" and codec == "libx264":
            how["crf"] = "38"
        path = folder / f"{name}.{suffix}"
        paths.append(write_clip(path, frames, codec, pix_fmt=pix_fmt, codec_options=how))
    return paths[0], paths[1]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.tuples(*(st.sampled_from(sorted(FORMATS)),) * 2),
    count=st.integers(16, 41),
    cuts=st.sets(st.integers(1, 40), max_size=3),
    gops=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    length=st.integers(1, 15),
    temporal=st.sampled_from(["none", "median"]),
    weight=st.sampled_from([0.0, 0.5, 1.0]),
    offsets=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    frames=st.none() | st.integers(10, 40),
    crop=st.sampled_from([None, (48, 36, 10, 4)]),
    workers=st.integers(1, 3),
)
def test_joined_segments_are_the_single_run_whatever_the_pair(
    tmp_path: Path,
    model: Model,
    kinds: tuple[str, str],
    count: int,
    cuts: set[int],
    gops: tuple[int, int],
    length: int,
    temporal: str,
    weight: float,
    offsets: tuple[int, int],
    frames: int | None,
    crop: tuple[int, int, int, int] | None,
    workers: int,
) -> None:
    pair = make_pair(tmp_path, kinds, shots(count, tuple(cuts)), gops)
    options = ScoreOptions(
        metrics=SMALL,
        weight=weight,
        pairs=PairOptions(*offsets, shortest=True, frames=frames, crop=crop),
        extract=ExtractOptions(temporal=temporal, workers=1),
        workers=1,
    )
    ref, dist = (index_frames(path, VIDEO) for path in pair)
    if ref is None or dist is None:  # a single keyframe
        event("no index")
        return
    pieces = run_all(pair, model, options, length)
    event(f"{min(len(pieces), 4)} segments or more")
    if pieces:
        whole = run_whole(pair, model, replace(options, workers=workers))
        assert_equal(join_segments(pieces), whole)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 192 x 176, which is enough for every metric."""
    folder = tmp_path_factory.mktemp("pair")
    frames = shots(37, (14,), (192, 176))
    return make_pair(folder, ("h264", "h264-open"), frames, (8, 11))


@pytest.mark.parametrize("method", [None, "crop"])
def test_libvmaf_joins_too(
    pair: tuple[Path, Path], model: Model, tmp_path: Path, method: str | None
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    options = ScoreOptions(method=method, workers=1)  # every metric there is
    pieces = run_all(pair, model, options, 10)
    assert len(pieces) == 3
    whole = run_whole(pair, model, options)
    assert {"vmaf", "sw_vmaf", "sw_ms_ssim"} <= set(whole.columns)
    assert_equal(join_segments(pieces), whole)


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_segments_may_be_written_and_read_before(
    pair: tuple[Path, Path], model: Model, tmp_path: Path, suffix: str
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    options = ScoreOptions(metrics=("psnr",), workers=1)
    again = []
    for i, log in enumerate(run_all(pair, model, options, 10)):
        write_log(log, tmp_path / f"{i}.{suffix}")
        again.append(read_log(tmp_path / f"{i}.{suffix}"))
    write_log(join_segments(again), tmp_path / f"joined.{suffix}")
    write_log(run_whole(pair, model, options), tmp_path / f"whole.{suffix}")
    joined, whole = ((tmp_path / f"{n}.{suffix}").read_bytes() for n in ("joined", "whole"))
    assert joined == whole


@pytest.mark.parametrize("suffix", ["npz", "mkv"])
def test_ready_maps_join_too(
    pair: tuple[Path, Path], model: Model, tmp_path: Path, suffix: str
) -> None:
    maps = tmp_path / f"maps.{suffix}"
    with extract(pair[0], model=model) as extraction, open_map_sink(maps) as sink:
        for frame in extraction:
            sink.write(frame.index, frame.pts_time, frame.map)
    options = ScoreOptions(metrics=("psnr",), maps=str(maps), workers=1)
    pieces = run_all(pair, model, options, 10)
    assert_equal(join_segments(pieces), run_whole(pair, model, options))


def test_scaled_pairs_join_too(model: Model, tmp_path: Path) -> None:
    frames = shots(30)
    ref, _ = make_pair(tmp_path, ("h264", "h264"), frames, (8, 8))
    small = [f[::2, ::2] for f in frames]
    how = {"g": "7", "preset": "ultrafast"}
    pair = ref, write_clip(tmp_path / "small.mp4", small, codec_options=how)
    options = ScoreOptions(metrics=SMALL, pairs=PairOptions(scale="ref"), workers=1)
    pieces = run_all(pair, model, options, 9)
    assert len(pieces) > 1
    assert_equal(join_segments(pieces), run_whole(pair, model, options))


def test_real_video_joins_too(shared_data: Path, model: Model, tmp_path: Path) -> None:
    ref = shared_data / "video" / "bikes.mp4"
    with extract(ref, model=model, options=ExtractOptions(stop=60, keep_source=True)) as extraction:
        frames = [f.frame.source.reformat(format="yuv420p") for f in extraction]  # type: ignore[union-attr]
    for frame in frames:
        frame.pts = None
    how = {"g": "21", "crf": "40", "bf": "3"}
    pair = ref, write_clip(tmp_path / "dist.mkv", frames, codec_options=how)
    pairs = PairOptions(shortest=True)
    options = ScoreOptions(metrics=("psnr", "ms_ssim", "sw_vmaf"), pairs=pairs, workers=1)
    pieces = run_all(pair, model, options, 15)
    assert len(pieces) > 1
    assert_equal(join_segments(pieces), run_whole(pair, model, options))


# --- what does not join


@pytest.mark.parametrize("side", [0, 1])
def test_a_picture_that_a_seek_changes_is_noticed(tmp_path: Path, model: Model, side: int) -> None:
    """A file and an index that let a decoder begin inside a group of pictures."""
    import av

    source = write_clip(tmp_path / "a.mp4", shots(40), "mpeg4", codec_options={"g": "8"})
    marked = tmp_path / "marked.mp4"
    with av.open(str(source)) as old, av.open(str(marked), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream, packet.is_keyframe = stream, True
                new.mux(packet)
    pair = [source, source]
    pair[side] = marked
    indexes = [index_frames(path, VIDEO) for path in pair]
    true = indexes[side]
    assert true is not None
    indexes[side] = FrameIndex(true.pts, np.array([0, 10]))  # the group is that of 8 to 15
    options = ScoreOptions(metrics=("psnr",), workers=1)
    ref, dist = indexes
    assert ref is not None and dist is not None
    plan = [Segment(0, 15), Segment(15, None)]
    run = ScoreSegments(pair[0], pair[1], model, options, VIDEO)
    logs = [run_segment(run, s, (ref, dist)) for s in plan]
    with pytest.raises(SeamError, match="pictures at frame 15 differ"):
        join_segments(logs)


@pytest.mark.parametrize("side", [0, 1])
def test_another_file_under_the_index_is_noticed(tmp_path: Path, model: Model, side: int) -> None:
    pair = make_pair(tmp_path, ("h264", "h264"), shots(30), (8, 8))
    ref, dist = (index_frames(path, VIDEO) for path in pair)
    assert ref is not None and dist is not None
    write_clip(pair[side], shots(28), fps=25, codec_options={"g": "8"})
    options = ScoreOptions(metrics=("psnr",), pairs=PairOptions(shortest=True), workers=1)
    with pytest.raises(SeamError, match="not where the index says"):
        run_segment(ScoreSegments(*pair, model, options, VIDEO), Segment(20, None), (ref, dist))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    side=st.sampled_from([0, 1]),
    kind=st.sampled_from(["h264", "h264-open", "mpeg2"]),
    at=st.floats(0.02, 0.98),
    junk=st.binary(min_size=1, max_size=60),
)
def test_damage_never_gives_other_rows(
    tmp_path: Path, model: Model, side: int, kind: str, at: float, junk: bytes
) -> None:
    folder = tmp_path / kind
    if not folder.exists():
        folder.mkdir()
        make_pair(folder, (kind, kind), shots(40, (19,)), (8, 8))
    ref, dist = sorted(folder.glob("ref.*"))[0], sorted(folder.glob("dist.*"))[0]
    pair = [ref, dist]
    data = bytearray(pair[side].read_bytes())
    place = int(at * len(data))
    data[place : place + len(junk)] = junk
    damaged = tmp_path / f"damaged{pair[side].suffix}"
    damaged.write_bytes(data)
    pair[side] = damaged
    options = ScoreOptions(metrics=("psnr",), workers=1)
    try:
        indexes = [index_frames(path, VIDEO) for path in pair]
    except MediaError:
        event("can't be read")
        return
    if None in indexes:
        event("in one piece")
        return
    try:
        logs = run_all((pair[0], pair[1]), model, options, 10)
        if not logs:
            event("in one piece")
            return
        joined = join_segments(logs)
    except SeamError:
        event("does not join")
        return
    except (MediaError, QualityError):
        event("can't be compared")
        with pytest.raises((MediaError, QualityError)):
            run_whole((pair[0], pair[1]), model, options)
        return
    event("split")
    whole = run_whole((pair[0], pair[1]), model, options)
    # Decoders conceal some damage without a word, by what is left in memory: see
    # tests/segments/test_extract.py. Where a single run repeats itself, the joined one is it.
    if compact(list(whole.values["psnr_y"])) == compact(
        list(run_whole((pair[0], pair[1]), model, options).values["psnr_y"])
    ):
        assert_equal(joined, whole)
