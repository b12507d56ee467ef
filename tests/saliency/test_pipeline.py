"""From a video to maps and numbers: real files, tiny models with known answers."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

import eyeline
from eyeline.cli import main
from eyeline.errors import ContractError, DamagedMediaError, MediaError, UsageError
from eyeline.inference import Session, finish, prepare
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from eyeline.runtime import IMAGENET_MEAN, IMAGENET_STD
from eyeline.saliency.features import FEATURES
from eyeline.saliency.pipeline import LONGEST_STILL, Extraction, ExtractOptions, FrameSaliency
from tiny_models import (
    BLUE,
    GREEN,
    RED,
    conv,
    make_model,
    plane_model,
    plane_weights,
    write_registry,
)

WIDTH, HEIGHT = 96, 64


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    """Lossless RGB, 25 frames a second; frames are uint8 (3, h, w)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames[0].shape[1:]
        stream.pix_fmt = "bgr0"
        for rgb in frames:
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(rgb.transpose(1, 2, 0)), "rgb24"
            )
            container.mux(stream.encode(picture.reformat(format="bgr0")))
        container.mux(stream.encode(None))
    return path


def write_png(path: Path, rgb: np.ndarray) -> Path:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = rgb.shape[1:]
        stream.pix_fmt = "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)), "rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def plain(
    red: int = 0, green: int = 0, blue: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> np.ndarray:
    return np.broadcast_to(np.array([red, green, blue], np.uint8)[:, None, None], (3, *size))


def noise(count: int, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    """Frames that differ a little from one to the next: below the cut threshold."""
    rng = np.random.default_rng(3)
    base = rng.integers(40, 200, (3, height, width))
    return [(base + rng.integers(0, 20, base.shape)).astype(np.uint8) for _ in range(count)]


def disc_frame(
    x0: float, y0: float, radius: float, height: int = HEIGHT, width: int = WIDTH
) -> np.ndarray:
    """A red disc with a soft edge on black; (x0, y0) in pixel coordinates, centres at .5."""
    y, x = np.mgrid[:height, :width] + 0.5
    red = np.clip(radius + 0.5 - np.hypot(x - x0, y - y0), 0, 1)
    return np.stack([red * 255, np.zeros_like(red), np.zeros_like(red)]).round().astype(np.uint8)


def tiny(folder: Path, data: bytes | None = None, **io: Any) -> Model:
    """A model that gives the red plane (or what `data` gives)."""
    path = folder / "tiny.onnx"
    path.write_bytes(plane_model() if data is None else data)
    return Model("tiny", path, IoSpec(**({"multiple": 1} | io)))


def run(video: Any, model: Model, **options: Any) -> list[FrameSaliency]:
    with eyeline.extract(video, model=model, options=ExtractOptions(**options)) as extraction:
        return list(extraction)


def column(frames: list[FrameSaliency], name: str = "saliency_mean") -> list[float]:
    return [f.features[name] for f in frames]


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("eyeline")]


# --- known answers


def test_a_moving_discs_centroid_mean_and_coverage_are_known(tmp_path: Path) -> None:
    places = [(20 + 2.5 * i, 24 + 0.75 * i) for i in range(20)]
    clip = write_video(tmp_path / "disc.mkv", [disc_frame(x, y, 9.0) for x, y in places])
    frames = run(clip, tiny(tmp_path), lines="native")
    assert [f.index for f in frames] == list(range(20))
    for frame, (x, y) in zip(frames, places, strict=True):
        assert frame.features["saliency_cx"] == pytest.approx(x / WIDTH, abs=2e-4)
        assert frame.features["saliency_cy"] == pytest.approx(y / HEIGHT, abs=2e-4)
        area = math.pi * 81 / (WIDTH * HEIGHT)
        assert frame.saliency_mean == pytest.approx(area, rel=0.01)
        assert frame.features["saliency_coverage"] == pytest.approx(area, rel=0.03)


@pytest.mark.parametrize("lines", [64, 90, 135])
def test_a_moving_discs_centroid_survives_h264_and_scaling(tmp_path: Path, lines: int) -> None:
    # White on dark grey: luma only, whatever the chroma subsampling does.
    path = tmp_path / "disc.mp4"
    places = [(80 + 20 * i, 120 + 7 * i) for i in range(16)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        for x, y in places:
            red = disc_frame(x, y, 30.0, 270, 480)[0]
            grey = av.VideoFrame.from_ndarray(np.repeat(red[:, :, None], 3, axis=2), "rgb24")
            container.mux(stream.encode(grey))
        container.mux(stream.encode(None))
    frames = run(path, tiny(tmp_path), lines=lines)
    assert len(frames) == 16
    assert frames[0].map.shape == (lines, round(lines * 16 / 9))
    for frame, (x, y) in zip(frames, places, strict=True):
        assert frame.features["saliency_cx"] == pytest.approx(x / 480, abs=0.006)
        assert frame.features["saliency_cy"] == pytest.approx(y / 270, abs=0.006)


@pytest.mark.parametrize("lines", ["native", 16, 33, 100])
@pytest.mark.parametrize("multiple", [1, 8, 32])
def test_a_plain_picture_has_its_own_mean_at_every_size(
    tmp_path: Path, lines: Any, multiple: int
) -> None:
    clip = write_video(tmp_path / "plain.mkv", [plain(red=51, size=(37, 61))] * 2)
    for frame in run(clip, tiny(tmp_path, multiple=multiple), lines=lines):
        assert frame.saliency_mean == pytest.approx(0.2, abs=1e-6)
        assert frame.features["saliency_std"] < 1e-6
        assert frame.full_map().shape == (37, 61)


def test_the_model_decides_the_working_size(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(1)])
    assert run(clip, tiny(tmp_path, working_lines=32))[0].map.shape == (32, 48)
    assert run(clip, tiny(tmp_path), lines=40)[0].map.shape == (40, 60)


def test_a_model_that_squashes_sees_one_size_unless_lines_are_given(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(1)])
    model = tiny(tmp_path, squash=(64, 32))
    assert run(clip, model)[0].map.shape == (32, 64)
    assert run(clip, model, lines=40)[0].map.shape == (40, 60)


@given(
    hnp.arrays(np.uint8, st.tuples(st.just(3), st.integers(1, 20), st.integers(1, 20))),
    st.integers(1, 9),
)
def test_padding_leaves_no_trace_in_the_map(rgb: np.ndarray, multiple: int) -> None:
    io = IoSpec(multiple=multiple)
    x = prepare(rgb, io)
    assert x.shape[-2] % multiple == x.shape[-1] % multiple == 0
    weights = plane_weights(GREEN)
    y = np.tensordot(weights["w"].reshape(3), x[0], 1) + weights["b"]
    m = finish(y, rgb.shape[1], rgb.shape[2], io)
    np.testing.assert_allclose(m, rgb[1] / 255, rtol=0, atol=1e-6)


# --- I/O specs


@pytest.mark.parametrize("mix", [RED, GREEN, BLUE])
def test_tiled_luma_gives_every_channel_the_same(
    tmp_path: Path, mix: tuple[float, float, float]
) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(200, 100, 50)])
    model = tiny(tmp_path, plane_model(mix), channels="luma_tiled")
    luma = (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255  # ITU-R BT.601-7
    assert run(clip, model)[0].saliency_mean == pytest.approx(luma, abs=1e-6)


def test_scale_max_divides_by_the_frames_own_maximum(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(50, 125, 0), plain(60, 60, 60), plain(0)])
    frames = run(clip, tiny(tmp_path, scale="max"), lines="native")
    assert column(frames) == pytest.approx([0.4, 1, 0], abs=1e-6)


def test_minmax_stretches_each_map_to_the_whole_range(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(60, 110, WIDTH).astype(np.uint8), (3, HEIGHT, WIDTH))
    clip = write_video(tmp_path / "clip.mkv", [ramp, plain(90)])
    first, flat = run(clip, tiny(tmp_path, output="minmax"), lines="native")
    assert (first.map.min(), first.map.max()) == (0, 1)
    np.testing.assert_allclose(first.map[5], (ramp[0, 5] - 60.0) / 50, rtol=0, atol=1e-5)
    assert flat.map.max() <= 1
    assert np.isfinite(flat.map).all()


# --- frames, strides, cuts, filters


def test_frames_are_those_of_the_whole_run(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(12))
    model = tiny(tmp_path)
    whole, part = run(clip, model), run(clip, model, start=4, stop=9)
    assert [f.index for f in part] == [4, 5, 6, 7, 8]
    assert [f.pts_time for f in part] == pytest.approx([i / 25 for i in range(4, 9)], abs=1e-3)
    for a, b in zip(whole[4:9], part, strict=True):
        assert a.map.tobytes() == b.map.tobytes()
    assert part[0].features["saliency_flicker"] == 0
    assert column(part[1:], "saliency_flicker") == column(whole[5:9], "saliency_flicker")


def test_a_range_after_the_end_is_refused(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(3))
    with pytest.raises(UsageError, match="the video has 3") as caught:
        run(clip, tiny(tmp_path), start=3)
    assert "\n" not in str(caught.value)
    assert our_threads() == []


def test_stride_infers_every_nth_frame_and_fills_between(tmp_path: Path) -> None:
    levels = [100 + 2 * i for i in range(11)]
    clip = write_video(tmp_path / "clip.mkv", [plain(v) for v in levels])
    frames = run(clip, tiny(tmp_path), stride=4)
    assert [f.filled for f in frames] == [i % 4 != 0 for i in range(11)]
    linear = [*levels[:9], levels[8], levels[8]]  # after the last inferred frame: held
    assert column(frames) == pytest.approx([v / 255 for v in linear], abs=1e-6)
    held = run(clip, tiny(tmp_path), stride=4, fill="hold")
    assert column(held) == pytest.approx([levels[i // 4 * 4] / 255 for i in range(11)], abs=1e-6)


def test_still_pictures_are_filled_until_they_have_drifted(tmp_path: Path) -> None:
    levels = [100] * 5 + [101, 102, 103, 104, 105] + [105] * 3  # one code is .39 percent
    clip = write_video(tmp_path / "clip.mkv", [plain(v, v, v) for v in levels])
    frames = run(clip, tiny(tmp_path), still=1.0, fill="hold")
    assert [f.index for f in frames if not f.filled] == [0, 7]
    assert column(frames)[6] == pytest.approx(100 / 255, abs=1e-6)
    assert column(frames)[12] == pytest.approx(103 / 255, abs=1e-6)
    assert [f.filled for f in run(clip, tiny(tmp_path))] == [False] * 13


def test_a_still_picture_is_inferred_again_after_a_while(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(100)] * 120)
    frames = run(clip, tiny(tmp_path), still=1.0)
    assert [f.index for f in frames if not f.filled] == [0, LONGEST_STILL, 2 * LONGEST_STILL]
    assert column(frames) == pytest.approx([100 / 255] * 120, abs=1e-6)


def test_a_cut_is_marked_inferred_and_without_flicker(tmp_path: Path) -> None:
    pictures = [plain(40, 40, 40)] * 5 + [plain(200, 200, 200)] * 5
    clip = write_video(tmp_path / "clip.mkv", pictures)
    frames = run(clip, tiny(tmp_path), stride=4)
    assert [f.index for f in frames if f.cut] == [5]
    assert [f.index for f in frames if not f.filled] == [0, 4, 5, 9]
    assert column(frames) == pytest.approx([40 / 255] * 5 + [200 / 255] * 5, abs=1e-6)
    assert max(column(frames, "saliency_flicker")) < 1e-6


def test_flicker_is_the_change_to_the_frame_before(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(100), plain(110), plain(110), plain(95)])
    got = column(run(clip, tiny(tmp_path)), "saliency_flicker")
    assert got == pytest.approx([0, 10 / 255, 0, 15 / 255], abs=1e-6)


REST = math.exp(-0.5)


@pytest.mark.parametrize(
    ("temporal", "expected"),
    [
        ("none", [100, 120, 100, 100, 100]),
        # 40 of 80 ms: the past keeps exp(-0.5).
        ("ema", [100, *(100 + 20 * (1 - REST) * REST**i for i in range(4))]),
        ("median", [100, 100, 100, 100, 100]),
    ],
)
def test_filters_act_on_the_maps(tmp_path: Path, temporal: str, expected: list[float]) -> None:
    levels = [100, 120, 100, 100, 100]
    clip = write_video(tmp_path / "clip.mkv", [plain(v) for v in levels])
    frames = run(clip, tiny(tmp_path), temporal=temporal)
    assert column(frames) == pytest.approx([v / 255 for v in expected], abs=1e-6)


def test_the_filter_of_the_model_is_the_default(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(v) for v in (100, 120, 100, 110)])
    model = tiny(tmp_path, temporal_ms=150)
    own, named, other = (
        column(run(clip, model, **how))
        for how in ({}, {"temporal": "ema", "temporal_ms": 150.0}, {"temporal": "none"})
    )
    assert own == named
    assert other == pytest.approx([v / 255 for v in (100, 120, 100, 110)], abs=1e-6)
    assert own[1] == pytest.approx((120 - 20 * math.exp(-40 / 150)) / 255, abs=1e-6)
    assert column(run(clip, model, temporal="ema")) == own  # its time constant is the default


def test_the_log_says_which_filter_it_was(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(1))
    for io, want in (({}, ("none", None)), ({"temporal_ms": 150}, ("ema", 150.0))):
        with eyeline.extract(clip, model=tiny(tmp_path, **io)) as extraction:
            options = extraction.provenance["options"]
        assert (options["temporal"], options["temporal_ms"]) == want


def test_a_stride_leaves_the_time_constant_alone(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(100), *[plain(110)] * 6])
    every, third = (
        column(run(clip, tiny(tmp_path), temporal="ema", stride=stride, fill="hold"))
        for stride in (1, 3)
    )
    # The first two frames after the step are filled with the frame before it.
    assert third[5:] == pytest.approx(every[3:5], abs=1e-6)


def test_a_change_of_size_is_a_new_scene_at_a_new_working_size(tmp_path: Path) -> None:
    images = [
        write_png(tmp_path / f"{i}.png", plain(100, size=size))
        for i, size in enumerate([(48, 64), (48, 64), (64, 48)])
    ]
    frames = run([str(p) for p in images], tiny(tmp_path), lines=24, temporal="ema")
    assert [f.map.shape for f in frames] == [(24, 32), (24, 32), (32, 24)]
    assert [f.cut for f in frames] == [False, False, True]
    assert [f.full_map().shape for f in frames] == [(48, 64), (48, 64), (64, 48)]
    assert column(frames) == pytest.approx([100 / 255] * 3, abs=1e-6)


# --- determinism


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 3, "temporal": "median"},
        {"stride": 2, "fill": "motion", "temporal": "motion"},
    ],
    ids=["plain", "stride median", "motion"],
)
def test_results_are_bit_identical_for_any_number_of_workers(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    if "motion" in options.values():
        pytest.importorskip("cv2")
    clip = write_video(tmp_path / "clip.mkv", noise(14, 72, 128))

    def results(workers: int) -> list[tuple[bytes, dict[str, float], bool]]:
        o = ExtractOptions(lines=64, workers=workers, **options)
        with eyeline.extract(clip, options=o) as extraction:
            return [(f.map.tobytes(), f.features, f.cut) for f in extraction]

    one = results(1)
    assert len(one) == 14
    assert results(2) == one
    assert results(5) == one


# --- the life of an extraction


def test_a_whole_run_leaves_no_thread_and_no_open_file(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(5))
    extraction = eyeline.extract(clip, model=tiny(tmp_path))
    assert len(list(extraction)) == 5
    assert our_threads() == []
    assert clip not in {p.resolve() for p in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_closing_early_leaves_no_thread(tmp_path: Path, taken: int) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(60))
    extraction = eyeline.extract(clip, model=tiny(tmp_path), options=ExtractOptions(workers=3))
    assert len(list(itertools.islice(extraction, taken))) == taken
    extraction.close()
    assert our_threads() == []
    extraction.close()
    assert list(extraction) == []


def test_leaving_the_loop_leaves_no_thread(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(60))
    for _ in eyeline.extract(clip, model=tiny(tmp_path)):
        break
    assert our_threads() == []


def test_an_error_of_the_consumer_leaves_no_thread(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(60))
    with pytest.raises(ZeroDivisionError), eyeline.extract(clip, model=tiny(tmp_path)) as frames:
        for _ in frames:
            raise ZeroDivisionError
    assert our_threads() == []


def test_the_decoder_does_not_run_ahead_of_a_slow_consumer(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(60))
    with eyeline.extract(
        clip, model=tiny(tmp_path), options=ExtractOptions(workers=2)
    ) as extraction:
        next(iter(extraction))
        time.sleep(0.3)
        assert extraction.report.delivered <= 2 * 2 + 2 + 3


def test_a_model_that_breaks_the_contract_stops_at_that_frame(tmp_path: Path) -> None:
    pictures = [plain(200)] * 6 + [plain(100)] * 3
    clip = write_video(tmp_path / "clip.mkv", pictures)
    root = make_model(
        [conv(target="plane"), helper.make_node("Sqrt", ["plane"], ["saliency_map"])],
        plane_weights(RED, 1, -0.5),  # NaN where red is below a half
    )
    got: list[int] = []
    with (
        eyeline.extract(clip, model=tiny(tmp_path, root)) as extraction,
        pytest.raises(ContractError, match="nan"),
    ):
        for frame in extraction:
            got.append(frame.index)
    assert got == [0, 1, 2, 3, 4, 5]
    assert our_threads() == []


@pytest.mark.parametrize(
    "options",
    [{}, {"temporal": "median"}, {"stride": 8}, {"stride": 3, "temporal": "median"}],
    ids=["plain", "median", "stride", "both"],
)
def test_a_cut_off_file_gives_every_frame_it_has(tmp_path: Path, options: dict[str, Any]) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(30))
    data = clip.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    got: list[int] = []
    o = ExtractOptions(**options)
    with (
        pytest.raises(DamagedMediaError) as caught,
        eyeline.extract(tmp_path / "cut.mkv", model=tiny(tmp_path), options=o) as extraction,
    ):
        for frame in extraction:
            got.append(frame.index)
    assert 5 < len(got) < 25
    assert got == list(range(caught.value.frames))
    assert "\n" not in str(caught.value)


def test_a_missing_video_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file") as caught:
        eyeline.extract(tmp_path / "none.mp4", model=tiny(tmp_path))
    assert "\n" not in str(caught.value)


# --- options and results


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 0},
        {"lines": 15},
        {"lines": 4321},
        {"start": -1},
        {"start": 5, "stop": 5},
        {"workers": -1},
        {"temporal": "mean"},
        {"temporal_ms": 100.0},
        {"temporal": "none", "temporal_ms": 100.0},
        {"temporal": "median", "temporal_ms": 100.0},
        {"temporal": "ema", "temporal_ms": 0.0},
        {"temporal": "ema", "temporal_ms": 2001.0},
        {"temporal": "ema", "temporal_ms": math.nan},
    ],
    ids=str,
)
def test_options_that_can_not_be_honoured_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        ExtractOptions(**options)
    assert "\n" not in str(caught.value)


def test_provenance_is_json_and_names_model_and_options(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(1))
    folder = write_registry(
        tmp_path / "own", {"mine": plane_model()}, schema_version=3, task="gaze"
    )
    options = ExtractOptions(lines=32, stride=2, workers=3)
    with eyeline.extract(clip, model="mine", registry=folder, options=options) as extraction:
        p = extraction.provenance
    assert json.loads(json.dumps(p)) == json.loads(json.dumps(p, sort_keys=True))
    assert (p["model"], p["smoke"], p["eyeline"]) == ("mine", False, eyeline.__version__)
    assert p["model_sha256"] == eyeline.resolve_model("mine", folder).sha256
    assert p["task"] == "gaze"
    assert p["working_size"] == [48, 32]
    assert (p["options"]["lines"], p["options"]["stride"]) == (32, 2)
    assert "workers" not in p["options"]  # it changes no number


def test_a_frame_has_every_feature_and_a_map_that_can_not_be_changed(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(2))
    frame = run(clip, tiny(tmp_path))[1]
    assert list(frame.features) == list(FEATURES)
    assert frame.saliency_mean == frame.features["saliency_mean"]
    with pytest.raises(ValueError, match="read-only"):
        frame.map[0, 0] = 1
    full = frame.full_map()
    assert (full.shape, full.dtype) == ((HEIGHT, WIDTH), np.float32)
    assert 0 <= full.min() <= full.max() <= 1


def test_the_source_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", noise(1))
    assert run(clip, tiny(tmp_path))[0].frame.source is None
    source = run(clip, tiny(tmp_path), keep_source=True)[0].frame.source
    assert source is not None
    assert (source.width, source.height) == (WIDTH, HEIGHT)


def test_a_session_and_a_video_can_be_brought_along(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(51)] * 2)
    session = Session(tiny(tmp_path), "cpu")
    for _ in range(2):  # one session, many videos
        with Extraction(eyeline.open_video(str(clip)), session, ExtractOptions()) as extraction:
            assert column(list(extraction)) == pytest.approx([0.2, 0.2], abs=1e-6)


# --- the command and a model that can't be used

Maker = Callable[[Path], list[str]]


def file_of(data: bytes) -> Maker:
    def make(folder: Path) -> list[str]:
        (folder / "bad.onnx").write_bytes(data)
        return ["-m", str(folder / "bad.onnx")]

    return make


def fifo(folder: Path) -> list[str]:
    os.mkfifo(folder / "bad.onnx")
    return ["-m", str(folder / "bad.onnx")]


def tampered(folder: Path) -> list[str]:
    write_registry(folder, {"mine": plane_model()})
    data = bytearray((folder / "mine.onnx").read_bytes())
    data[100] ^= 1
    (folder / "mine.onnx").write_bytes(data)
    return ["-m", "mine", "--registry", str(folder)]


BAD_MODELS: dict[str, tuple[Maker, str]] = {
    "missing": (lambda folder: ["-m", str(folder / "none.onnx")], "can't be read"),
    "unknown id": (lambda folder: ["-m", "nothing"], "no model 'nothing'"),
    "folder": (lambda folder: ["-m", str(folder)], "not a regular file"),
    "fifo": (fifo, "not a regular file"),
    "empty": (file_of(b""), "the file is empty"),
    "text": (file_of(b"no model"), "can't load the model"),
    "tampered": (tampered, "but the registry has"),
    "wrong names": (
        file_of(
            make_model(
                [conv(target="y")], plane_weights(RED), outputs={"y": (1, ["N", 1, "H", "W"])}
            )
        ),
        "output tensors are 'y'",
    ),
    "outside [0, 1]": (file_of(plane_model(RED, 3, 2)), "the map has values in"),
    "nan": (
        file_of(
            make_model(
                [conv(target="y"), helper.make_node("Sqrt", ["y"], ["saliency_map"])],
                plane_weights(RED, 1, -2),
            )
        ),
        "nan",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_extract_with_a_bad_model_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    make, words = BAD_MODELS[case]
    for name in ("model", "out"):
        (tmp_path / name).mkdir()
    clip = write_video(tmp_path / "clip.mkv", noise(3))
    out = tmp_path / "out"
    arguments = [str(clip), "-o", f"{out}/a.json", "--overlay", f"{out}/a.mp4"]
    arguments += ["--maps", f"{out}/a.npz", *make(tmp_path / "model")]
    monkeypatch.setattr(sys, "argv", ["eyeline", "extract", *arguments])
    with pytest.raises(SystemExit) as caught:  # in this process: seconds less for each case
        main()
    said, err = capfd.readouterr()
    assert caught.value.code == 2, err
    assert said == ""
    assert words in err.splitlines()[0]
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 2  # what is wrong; what to do
    assert list(out.iterdir()) == []


def test_extract_with_the_placeholder_says_that_its_numbers_mean_nothing(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", [plain(80, 80, 80)] * 3)
    done = subprocess.run(
        [sys.executable, "-m", "eyeline", "extract", str(clip), "-m", "placeholder", "-o", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "numbers mean nothing" in done.stderr
    log = json.loads(done.stdout)
    grey = [(80 / 255 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    value = 1 / (1 + math.exp(-(0.25 * grey[0] + 0.5 * grey[1] + 0.25 * grey[2])))
    means = [f["metrics"]["saliency_mean"] for f in log["frames"]]
    assert means == pytest.approx([value] * 3, abs=2e-6)
