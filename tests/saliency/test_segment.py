"""Segments of a video, joined, against the single run: the same rows and provenance, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clips import write_clip
from eyeline.logs.record import Log
from eyeline.logs.text import compact
from eyeline.media import open_video
from eyeline.media.index import index_frames
from eyeline.media.types import VideoOptions
from eyeline.models.records import IoSpec
from eyeline.models.registry import Model
from eyeline.saliency.pipeline import Extraction, ExtractOptions
from eyeline.saliency.run import Outputs, run_extraction
from eyeline.saliency.segment import Segment, SegmentRun, join_segments, plan_segments, run_segment
from eyeline.saliency.session import Session
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


def run_whole(path: Path, session: Session, options: ExtractOptions) -> Log:
    extraction = Extraction(open_video(path), session, options)
    return run_extraction(extraction, Outputs()).log


def run_all(
    path: Path, session: Session, options: ExtractOptions, length: int
) -> tuple[list[Segment], list[SegmentRun]]:
    index = index_frames(path)
    plan = plan_segments(index, options, length)
    video = VideoOptions(index=index)
    return plan, [
        run_segment(path, session, segment, options=options, video_options=video)
        for segment in plan
    ]


def assert_equal(joined: Log, whole: Log) -> None:
    assert list(joined.frame_num) == list(whole.frame_num)
    assert joined.pts_time.tobytes() == whole.pts_time.tobytes()
    assert joined.columns == whole.columns
    for name, column in whole.values.items():
        assert joined.values[name].tobytes() == column.tobytes(), name
    assert joined.fps == whole.fps
    assert compact(joined.provenance) == compact(whole.provenance)


@pytest.mark.parametrize(
    "options",
    [
        ExtractOptions(),
        ExtractOptions(temporal="median"),
        ExtractOptions(temporal="ema"),
        ExtractOptions(stride=3),
        ExtractOptions(start=7, stop=53, temporal="median"),
    ],
    ids=lambda o: f"{o.temporal}-{o.stride}-{o.start}",
)
def test_joined_segments_are_the_single_run(
    tmp_path: Path, session: Session, options: ExtractOptions
) -> None:
    frames = scenes(60, (14, 33))
    clip = write_clip(tmp_path / "clip.mkv", frames, codec_options={"g": "8"})
    plan, runs = run_all(clip, session, options, 12)
    assert len(plan) > 2
    assert_equal(join_segments(runs), run_whole(clip, session, options))
