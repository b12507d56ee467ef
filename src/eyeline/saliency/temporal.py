"""Maps over time: scene cuts, filling skipped frames, and smoothing, as one iterator over another.

Every function takes `Estimate`s in frame order and yields them in frame order; none looks across
a cut. Optical flow (OpenCV's DIS) is an extra: `motion`.

The averages `ema` and `motion` forget by time, not by frame: after dt seconds the past keeps the
share exp(-dt / tau), so that tau means the same at every frame rate. The first map of a scene is
taken as it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from eyeline.errors import MissingExtraError
from eyeline.media.types import DEFAULT_FPS, Frame

Map = npt.NDArray[np.float32]
TemporalFilter = Literal["model", "none", "ema", "median", "motion"]
"""`model` is the filter that the model's I/O spec names: `ema` of its time constant, or `none`."""

Fill = Literal["linear", "motion", "hold"]

CUT_THRESHOLD = 10.0
"""Scene score (0..100) from which a frame starts a new scene: the default of FFmpeg's `scdet`."""

TIME_CONSTANT_MS = 80.0
"""Time constant of the averages where neither the user nor the model names one, milliseconds: the
new map's share is 0.39 at 25 frames per second."""

MAX_TIME_CONSTANT_MS = 2000.0
MEDIAN_WINDOW = 5  # frames, centred: removes flashes of up to two frames


@dataclass(frozen=True)
class Estimate:
    """A frame and its map.

    Attributes:
        frame: the decoded frame.
        cut: whether a scene starts here.
        map: float32 (h, w) in [0, 1]; None while a skipped frame waits to be filled.
        filled: whether the map was interpolated rather than inferred.
    """

    frame: Frame
    cut: bool
    map: Map | None
    filled: bool = False

    @property
    def known_map(self) -> Map:
        """The map, where it must be there."""
        assert self.map is not None  # noqa: S101 - an invariant of the pipeline's order
        return self.map


class Flow:
    """Dense motion between two frames, and maps carried along it (Kroeger et al., ECCV 2016: DIS).

    Raises:
        MissingExtraError: OpenCV is not installed.
    """

    def __init__(self) -> None:
        try:
            import cv2  # its stubs lack the DIS class
        except ModuleNotFoundError as exc:
            raise MissingExtraError("OpenCV", "motion") from exc
        self._cv2: Any = cv2

    def warp(self, m: Map, from_frame: Frame, to_frame: Frame) -> Map:
        """Move a map of `from_frame` to where its content is in `to_frame`."""
        grey_to, grey_from = to_frame.rgb[1], from_frame.rgb[1]  # green: most of luma
        if min(grey_to.shape) < 16:  # DIS needs a patch pyramid
            return m
        cv2 = self._cv2
        # A new object for each pair: a used one remembers, and the result would depend on its past.
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        flow = dis.calc(np.ascontiguousarray(grey_to), np.ascontiguousarray(grey_from), None)
        h, w = m.shape
        grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
        moved: Map = cv2.remap(
            m, grid + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return moved


def fill_skipped(estimates: Iterable[Estimate], how: Fill) -> Iterator[Estimate]:
    """Give every skipped frame a map, from the inferred ones on its two sides.

    `linear` blends them by distance; `motion` carries each along the optical flow first; `hold`
    repeats the earlier one. After the last inferred frame of a scene there is only the earlier.
    """
    flow = Flow() if how == "motion" else None
    left: Estimate | None = None
    waiting: list[Estimate] = []
    for e in estimates:
        if e.map is None:
            waiting.append(e)
            continue
        right = None if e.cut else e
        yield from (_filled(w, left, right, flow, how) for w in waiting)
        waiting.clear()
        left = e
        yield e
    yield from (_filled(w, left, None, flow, how) for w in waiting)


def _filled(
    e: Estimate, left: Estimate | None, right: Estimate | None, flow: Flow | None, how: Fill
) -> Estimate:
    assert left is not None  # noqa: S101 - the first frame and every cut are inferred
    maps = [left.known_map]
    sources = [left]
    if right is not None and how != "hold" and right.known_map.shape == maps[0].shape:
        maps.append(right.known_map)
        sources.append(right)
    if flow is not None:
        maps = [flow.warp(m, s.frame, e.frame) for m, s in zip(maps, sources, strict=True)]
    if len(maps) == 1:
        return replace(e, map=maps[0], filled=True)
    span = sources[1].frame.index - sources[0].frame.index
    t = np.float32((e.frame.index - sources[0].frame.index) / span)
    return replace(e, map=maps[0] + (maps[1] - maps[0]) * t, filled=True)


def _same_scene(previous: Estimate | None, e: Estimate) -> bool:
    return previous is not None and not e.cut and previous.known_map.shape == e.known_map.shape


def ema(
    estimates: Iterable[Estimate],
    tau_ms: float = TIME_CONSTANT_MS,
    fps: float = float(DEFAULT_FPS),
    flow: Flow | None = None,
) -> Iterator[Estimate]:
    """Average the maps of a scene exponentially over time.

    Args:
        estimates: in frame order.
        tau_ms: time constant, milliseconds, above 0.
        fps: nominal frame rate. A frame whose presentation time is not after that of the frame
            before it counts as one frame at this rate.
        flow: carries the past along the motion of the picture first.
    """
    previous: Estimate | None = None
    for e in estimates:
        smooth = e
        if previous is not None and _same_scene(previous, e):
            past = previous.known_map
            if flow is not None:
                past = flow.warp(past, previous.frame, e.frame)
            seconds = e.frame.pts_time - previous.frame.pts_time
            share = new_share(seconds if seconds > 0 else 1 / fps, tau_ms)
            smooth = replace(e, map=past + (e.known_map - past) * np.float32(share))
        previous = smooth
        yield smooth


def new_share(seconds: float, tau_ms: float) -> float:
    """Share of the new map in an average that `seconds` passed since: 1 - exp(-seconds / tau)."""
    return -math.expm1(-1000 * seconds / tau_ms)


def median(estimates: Iterable[Estimate], window: int = MEDIAN_WINDOW) -> Iterator[Estimate]:
    """Per-pixel median of a centred window, shortened at the ends of a scene.

    Args:
        estimates: in frame order.
        window: frames, odd.
    """
    half = window // 2
    scene: deque[Estimate] = deque()
    done = 0  # how many of the frames in `scene` were yielded

    def settle(last: bool) -> Iterator[Estimate]:
        nonlocal done
        while done < len(scene) and (last or len(scene) - done > half):
            around = [
                scene[i].known_map
                for i in range(max(0, done - half), min(len(scene), done + half + 1))
            ]
            yield replace(scene[done], map=np.median(np.stack(around), axis=0).astype(np.float32))
            done += 1
        while done > half and not last:
            scene.popleft()
            done -= 1

    for e in estimates:
        if scene and not _same_scene(scene[-1], e):
            yield from settle(last=True)
            scene.clear()
            done = 0
        scene.append(e)
        yield from settle(last=False)
    yield from settle(last=True)


FILTERS: dict[TemporalFilter, Callable[[Iterable[Estimate], float, float], Iterator[Estimate]]] = {
    "none": lambda estimates, tau_ms, fps: iter(estimates),
    "ema": ema,
    "median": lambda estimates, tau_ms, fps: median(estimates),
    "motion": lambda estimates, tau_ms, fps: ema(estimates, tau_ms, fps, Flow()),
}
"""Name of a temporal filter to a function of the estimates, the time constant in milliseconds and
the nominal frame rate; to add one, add a function and a row here and below."""

REACH: dict[TemporalFilter, tuple[int, int] | None] = {
    "model": None,  # not known before `ExtractOptions.for_model`: the widest that it may be
    "none": (0, 0),
    "ema": None,
    "median": (MEDIAN_WINDOW // 2, MEDIAN_WINDOW // 2),
    "motion": None,
}
"""Frames before and after one whose maps and cuts its filtered map depends on; None = all of the
scene before it."""
