"""Filters and fills over time: known answers, brute force, and no look across a cut."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyeline.errors import MissingExtraError
from eyeline.media.types import Frame
from eyeline.saliency.temporal import (
    FILTERS,
    MEDIAN_WINDOW,
    TIME_CONSTANT_MS,
    Flow,
    FrameMap,
    TemporalFilter,
    ema,
    fill_skipped,
    median,
    new_share,
)

HEIGHT, WIDTH = 48, 80


def frame(index: int, rgb: np.ndarray | None = None) -> Frame:
    picture = np.zeros((3, 2, 2), np.uint8) if rgb is None else rgb
    return Frame(index, index / 25, picture, 0.0, (picture.shape[2], picture.shape[1]))


def estimates(
    values: list[float | None], cuts: frozenset[int] = frozenset(), start: int = 0
) -> list[FrameMap]:
    """A 1x1 map a frame; None is a frame that was skipped."""
    return [
        FrameMap(frame(start + i), i in cuts, None if v is None else np.array([[v]], np.float32))
        for i, v in enumerate(values)
    ]


def filtered(name: TemporalFilter, items: Iterable[FrameMap]) -> Iterator[FrameMap]:
    return FILTERS[name](items, TIME_CONSTANT_MS, 25.0)


def at_times(values: list[float], seconds: list[float]) -> list[FrameMap]:
    """A 1x1 map at each presentation time."""
    return [
        replace(e, frame=replace(e.frame, pts_time=s))
        for e, s in zip(estimates(list(values)), seconds, strict=True)
    ]


def numbers(result: Iterator[FrameMap]) -> list[float]:
    return [float(e.known_map[0, 0]) for e in result]


def texture(shift: float) -> np.ndarray:
    """A smooth random picture whose content moves to the right by `shift` pixels."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    picture = np.zeros((HEIGHT, WIDTH))
    for _ in range(24):
        fx, fy = rng.uniform(-0.5, 0.5, 2)
        picture += np.sin(fx * (x - shift) + fy * y + rng.uniform(0, 6.3))
    picture = 127.5 + 127.5 * picture / np.abs(picture).max()
    return np.broadcast_to(picture.round().astype(np.uint8), (3, HEIGHT, WIDTH))


def blob(x0: float, y0: float = 24.0) -> np.ndarray:
    """A Gaussian of 5 pixels around (x0, y0)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    return np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 50).astype(np.float32)


def moving(count: int, speed: float) -> list[FrameMap]:
    """A blob that moves with the texture under it, `speed` pixels a frame to the right."""
    return [
        FrameMap(frame(i, texture(speed * i)), False, blob(20 + speed * i)) for i in range(count)
    ]


def centre_x(m: np.ndarray) -> float:
    return float((m.sum(0, dtype=np.float64) @ np.arange(m.shape[1])) / m.sum(dtype=np.float64))


def test_none_passes_the_same_maps() -> None:
    given_ = estimates([0.1, 0.9, 0.3])
    assert list(filtered("none", given_)) == given_


def test_ema_of_an_impulse_decays() -> None:
    got = numbers(ema(estimates([0, 1, 0, 0]), 80.0))
    rest = math.exp(-40 / 80)  # 25 frames per second
    new = 1 - rest
    assert got == pytest.approx([0, new, new * rest, new * rest**2], abs=1e-7)


@pytest.mark.parametrize("fps", [24, 25, 50, 60])
@pytest.mark.parametrize("tau_ms", [20.0, 80.0, 250.0])
def test_a_time_constant_means_the_same_at_every_frame_rate(fps: int, tau_ms: float) -> None:
    seconds = [i / fps for i in range(fps + 1)]
    got = numbers(ema(at_times([0.0] + [1.0] * fps, seconds), tau_ms, fps=1.0))
    expected = [1 - math.exp(-1000 * s / tau_ms) for s in seconds]
    assert got == pytest.approx(expected, abs=1e-6)


@given(
    st.lists(st.floats(1e-3, 0.5), min_size=1, max_size=12),
    st.floats(1, 2000),
)
def test_frames_between_change_nothing_while_the_map_stands_still(
    steps: list[float], tau_ms: float
) -> None:
    ends = [0.0, *np.cumsum(steps).tolist()]
    fine = numbers(ema(at_times([0.0] + [1.0] * len(steps), ends), tau_ms))
    (_, coarse) = numbers(ema(at_times([0.0, 1.0], [0.0, ends[-1]]), tau_ms))
    assert fine[-1] == pytest.approx(coarse, abs=1e-5)


@pytest.mark.parametrize(
    "second", [1.0, 0.5, -3.0, math.nan], ids=["equal", "earlier", "negative", "missing"]
)
def test_a_time_that_does_not_grow_counts_as_one_frame(second: float) -> None:
    items = at_times([0.0, 1.0], [1.0, second])
    assert numbers(ema(items, 80.0, fps=50.0)) == pytest.approx([0, new_share(1 / 50, 80.0)])


def test_the_default_time_constant_keeps_three_fifths_at_25_frames_per_second() -> None:
    assert new_share(1 / 25, TIME_CONSTANT_MS) == pytest.approx(0.4, abs=0.01)


def test_ema_starts_again_at_a_cut() -> None:
    assert numbers(ema(estimates([1, 1, 0, 0], frozenset({2})))) == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("values", "smooth"),
    [
        ([0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]),  # a flash of one frame
        ([0, 0, 0, 1, 1, 0, 0, 0], [0] * 8),  # of two
        ([0, 0, 1, 1, 1, 0, 0], [0, 0.5, 1, 1, 1, 0.5, 0]),  # three stay
        ([0.25], [0.25]),
        ([0, 1], [0.5, 0.5]),  # the window is shortened at both ends
        ([0, 0.25, 1], [0.25, 0.25, 0.25]),
    ],
)
def test_median_of_known_sequences(values: list[float], smooth: list[float]) -> None:
    assert numbers(median(estimates(values))) == smooth


def test_median_does_not_look_across_a_cut() -> None:
    assert numbers(median(estimates([0, 0, 0, 1, 1, 1], frozenset({3})))) == [0, 0, 0, 1, 1, 1]


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=24),
    st.sampled_from([1, 3, MEDIAN_WINDOW, 7]),
)
def test_median_equals_brute_force(items: list[tuple[float, bool]], window: int) -> None:
    values = [v for v, _ in items]
    cuts = frozenset(i for i, (_, c) in enumerate(items) if c)
    scene, scenes = 0, []
    for i in range(len(values)):
        scene += i in cuts
        scenes.append(scene)
    half = window // 2
    expected = [
        float(
            np.median(
                [
                    np.float32(values[j])
                    for j in range(max(0, i - half), min(len(values), i + half + 1))
                    if scenes[j] == scenes[i]
                ]
            )
        )
        for i in range(len(values))
    ]
    assert numbers(median(estimates(values, cuts), window)) == pytest.approx(expected, abs=1e-7)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=20))
def test_ema_equals_brute_force(items: list[tuple[float, bool]]) -> None:
    expected: list[float] = []
    new = 1 - math.exp(-0.5)  # 40 ms of 80
    for value, cut in items:
        fresh = cut or not expected
        expected.append(value if fresh else new * value + (1 - new) * expected[-1])
    cuts = frozenset(i for i, (_, c) in enumerate(items) if c)
    assert numbers(ema(estimates([v for v, _ in items], cuts), 80.0)) == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize("name", list(FILTERS))
def test_scenes_are_filtered_as_if_they_were_alone(name: str) -> None:
    first, second = moving(4, 2.0), moving(5, -1.0)
    joined = [*first, FrameMap(second[0].frame, True, second[0].map), *second[1:]]
    alone = [*filtered(name, first), *filtered(name, second)]
    together = list(filtered(name, joined))
    assert len(together) == 9
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.known_map, b.known_map)


@pytest.mark.parametrize("name", list(FILTERS))
def test_a_map_of_another_size_starts_a_scene(name: str) -> None:
    small, big = np.full((20, 24), 0.5, np.float32), np.full((24, 20), 1, np.float32)
    items = [
        FrameMap(frame(i, np.zeros((3, *m.shape), np.uint8)), False, m)
        for i, m in enumerate([small, small, big, big, small])
    ]
    got = [e.known_map for e in filtered(name, items)]
    assert [m.shape for m in got] == [(20, 24)] * 2 + [(24, 20)] * 2 + [(20, 24)]
    assert [float(m.mean()) for m in got] == [0.5, 0.5, 1, 1, 0.5]


@pytest.mark.parametrize(("name", "ahead"), [("none", 0), ("ema", 0), ("motion", 0), ("median", 2)])
def test_filters_are_lazy(name: str, ahead: int) -> None:
    taken: list[int] = []

    def source() -> Iterator[FrameMap]:
        for e in moving(8, 1.0):
            taken.append(e.frame.index)
            yield e

    result = filtered(name, source())
    for i in range(5):
        assert next(result).frame.index == i
        assert len(taken) == i + 1 + ahead


def test_linear_fill_blends_by_distance() -> None:
    got = list(fill_skipped(estimates([0, None, None, None, 1], start=40), "linear"))
    assert numbers(iter(got)) == [0, 0.25, 0.5, 0.75, 1]
    assert [e.filled for e in got] == [False, True, True, True, False]
    assert [e.frame.index for e in got] == [40, 41, 42, 43, 44]


def test_hold_repeats_the_earlier_map() -> None:
    assert numbers(fill_skipped(estimates([0, None, None, 1, None]), "hold")) == [0, 0, 0, 1, 1]


def test_after_the_last_inferred_frame_there_is_only_the_earlier() -> None:
    assert numbers(fill_skipped(estimates([0, None, 1, None, None]), "linear")) == [0, 0.5, 1, 1, 1]


def test_fill_does_not_look_across_a_cut() -> None:
    items = estimates([0.25, None, None, 1, None, 0.5], frozenset({3}))
    assert numbers(fill_skipped(items, "linear")) == [0.25, 0.25, 0.25, 1, 0.75, 0.5]


def test_fill_across_a_change_of_size_holds() -> None:
    left, right = np.full((2, 3), 0.2, np.float32), np.full((3, 2), 0.8, np.float32)
    items = [
        FrameMap(frame(0), False, left),
        FrameMap(frame(1), False, None),
        FrameMap(frame(2), False, right),
    ]
    np.testing.assert_array_equal(list(fill_skipped(items, "linear"))[1].known_map, left)


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32), st.integers(1, 9))
def test_linear_fill_stays_between_its_ends(a: float, b: float, gap: int) -> None:
    got = numbers(fill_skipped(estimates([a, *[None] * gap, b]), "linear"))
    assert len(got) == gap + 2
    assert min(a, b) <= min(got)
    assert max(got) <= max(a, b)


def test_flow_carries_a_map_with_the_picture() -> None:
    pytest.importorskip("cv2")
    moved = Flow().warp(blob(30), frame(0, texture(0)), frame(1, texture(4)))
    assert centre_x(moved) == pytest.approx(34, abs=0.5)
    assert np.abs(moved - blob(34)).mean() < 0.2 * np.abs(blob(30) - blob(34)).mean()


def test_flow_leaves_a_still_picture_alone() -> None:
    pytest.importorskip("cv2")
    m = blob(30)
    moved = Flow().warp(m, frame(0, texture(0)), frame(1, texture(0)))
    np.testing.assert_allclose(moved, m, rtol=0, atol=2e-3)


def test_flow_leaves_a_picture_alone_that_is_too_small_for_it() -> None:
    pytest.importorskip("cv2")
    m = np.random.default_rng(0).random((15, 40), np.float32)
    tiny = np.zeros((3, 15, 40), np.uint8)
    assert Flow().warp(m, frame(0, tiny), frame(1, tiny)) is m


def test_motion_fill_follows_what_linear_smears() -> None:
    pytest.importorskip("cv2")
    truth = moving(5, 3.0)
    sparse = [FrameMap(e.frame, False, e.map if i in (0, 4) else None) for i, e in enumerate(truth)]

    def error(how: str) -> float:
        filled = list(fill_skipped(sparse, how))
        return float(
            np.mean([np.abs(a.known_map - b.known_map) for a, b in zip(filled, truth, strict=True)])
        )

    assert error("motion") < 0.4 * min(error("linear"), error("hold"))


def test_motion_average_does_not_lag_behind() -> None:
    pytest.importorskip("cv2")
    truth = moving(8, 3.0)
    last = truth[-1].known_map

    def lag(name: str) -> float:
        return abs(centre_x(list(filtered(name, truth))[-1].known_map) - centre_x(last))

    assert lag("ema") > 3  # .6 / .4 frames of 3 pixels
    assert lag("motion") < 0.5


@pytest.mark.parametrize(
    "use", ["FILTERS['motion']([], 80.0, 25.0)", "list(fill_skipped([], 'motion'))", "Flow()"]
)
def test_without_opencv_the_extra_is_named(use: str) -> None:
    program = (
        "import sys\n"
        "sys.modules['cv2'] = None  # Python's own way to make an import fail\n"
        "from eyeline.errors import MissingExtraError\n"
        "from eyeline.saliency.temporal import *\n"
        "from eyeline.saliency.temporal import FILTERS, Flow, fill_skipped\n"
        "list(FILTERS['median']([], 80.0, 25.0))  # the others work\n"
        f"try: {use}\n"
        "except MissingExtraError as exc: print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{MissingExtraError('OpenCV', 'motion')}\n", done.stderr
    assert "pip install 'eyeline[motion]'" in done.stdout
