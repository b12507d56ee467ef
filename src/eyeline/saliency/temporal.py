"""Saliency maps over time: interpolate the maps of skipped frames, and smooth maps within a scene.

The functions are iterators that can be chained. Each takes and yields `FrameMap` records in frame order
and never combines maps across a cut. Optical flow (OpenCV's DIS) needs the extra `motion`.

The filters `ema` and `motion` weigh the past maps by time, not by frames: after dt seconds their weight
is exp(-dt / tau), so the time constant tau has the same effect at every frame rate. The first map of a
scene is not changed.
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
"""`model` is the filter that the model's I/O spec names: `ema` with its time constant, or `none`."""

Fill = Literal["linear", "motion", "hold"]

CUT_THRESHOLD = 10.0
"""A frame with at least this scene score (0..100) starts a new scene; the default of FFmpeg's `scdet`."""

TIME_CONSTANT_MS = 80.0
"""Default time constant of `ema` and `motion`, milliseconds. At 25 frames per second, the new map then
has a weight of 0.39."""

MAX_TIME_CONSTANT_MS = 2000.0
MEDIAN_WINDOW = 5  # frames, centred: removes flashes of up to two frames


@dataclass(frozen=True)
class FrameMap:
    """A frame and its map.

    Attributes:
        frame: the decoded frame.
        cut: whether a scene starts here.
        map: float32 (h, w) in [0, 1]; None for a skipped frame before `fill_skipped`.
        filled: whether the map was interpolated rather than inferred.
    """

    frame: Frame
    cut: bool
    map: Map | None
    filled: bool = False

    @property
    def known_map(self) -> Map:
        """Return the map, which must not be None."""
        assert self.map is not None  # noqa: S101 - the filters run after `fill_skipped`
        return self.map


class Flow:
    """Warp maps by dense optical flow (DIS: Kroeger et al., ECCV 2016).

    Raises:
        MissingExtraError: OpenCV is not installed.
    """

    def __init__(self) -> None:
        try:
            import cv2  # OpenCV's type stubs lack the DIS class
        except ModuleNotFoundError as exc:
            raise MissingExtraError("OpenCV", "motion") from exc
        self._cv2: Any = cv2

    def warp(self, m: Map, from_frame: Frame, to_frame: Frame) -> Map:
        """Return the map of `from_frame`, warped to the positions of the content in `to_frame`."""
        grey_to, grey_from = to_frame.rgb[1], from_frame.rgb[1]  # green has the largest luma weight
        if min(grey_to.shape) < 16:  # too small for the patch pyramid of DIS
            return m
        cv2 = self._cv2
        # Create one object per pair of frames, since its result depends on earlier calls.
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        flow = dis.calc(np.ascontiguousarray(grey_to), np.ascontiguousarray(grey_from), None)
        h, w = m.shape
        grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
        moved: Map = cv2.remap(
            m, grid + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return moved


def fill_skipped(frames: Iterable[FrameMap], how: Fill) -> Iterator[FrameMap]:
    """Give every skipped frame a map, made from the inferred maps before and after it.

    `linear` interpolates between the two maps. `motion` first warps each of them by optical flow.
    `hold` repeats the earlier map. After the last inferred frame of a scene, only the earlier map is
    used.
    """
    flow = Flow() if how == "motion" else None
    left: FrameMap | None = None
    waiting: list[FrameMap] = []
    for e in frames:
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
    e: FrameMap, left: FrameMap | None, right: FrameMap | None, flow: Flow | None, how: Fill
) -> FrameMap:
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


def _same_scene(previous: FrameMap | None, e: FrameMap) -> bool:
    return previous is not None and not e.cut and previous.known_map.shape == e.known_map.shape


def ema(
    frames: Iterable[FrameMap],
    tau_ms: float = TIME_CONSTANT_MS,
    fps: float = float(DEFAULT_FPS),
    flow: Flow | None = None,
) -> Iterator[FrameMap]:
    """Average the maps of a scene exponentially over time.

    Args:
        frames: frames in order, each with a map.
        tau_ms: time constant, milliseconds, above 0.
        fps: nominal frame rate. A frame whose timestamp does not increase is given the duration
            1 / fps.
        flow: optical flow by which the past map is warped first; None = no warping.
    """
    previous: FrameMap | None = None
    for e in frames:
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
    """Return the weight of a new map `seconds` after the previous map: 1 - exp(-seconds / tau)."""
    return -math.expm1(-1000 * seconds / tau_ms)


def median(frames: Iterable[FrameMap], window: int = MEDIAN_WINDOW) -> Iterator[FrameMap]:
    """Replace each map by the median per pixel over a centred window, shorter at the ends of a scene.

    Args:
        frames: frames in order, each with a map.
        window: odd number of frames.
    """
    half = window // 2
    scene: deque[FrameMap] = deque()
    done = 0  # number of frames in `scene` that were yielded

    def settle(last: bool) -> Iterator[FrameMap]:
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

    for e in frames:
        if scene and not _same_scene(scene[-1], e):
            yield from settle(last=True)
            scene.clear()
            done = 0
        scene.append(e)
        yield from settle(last=False)
    yield from settle(last=True)


FILTERS: dict[TemporalFilter, Callable[[Iterable[FrameMap], float, float], Iterator[FrameMap]]] = {
    "none": lambda frames, tau_ms, fps: iter(frames),
    "ema": ema,
    "median": lambda frames, tau_ms, fps: median(frames),
    "motion": lambda frames, tau_ms, fps: ema(frames, tau_ms, fps, Flow()),
}
"""Temporal filters by name: functions of the frames, the time constant in milliseconds and the
nominal frame rate. To add a filter, add a function, and a row to `FILTERS` and to `REACH`."""

REACH: dict[TemporalFilter, tuple[int, int] | None] = {
    "model": None,  # the filter is not resolved yet, so assume the largest reach
    "none": (0, 0),
    "ema": None,
    "median": (MEDIAN_WINDOW // 2, MEDIAN_WINDOW // 2),
    "motion": None,
}
"""Numbers of frames before and after a frame on which its filtered map depends; None = all earlier
frames of its scene."""
