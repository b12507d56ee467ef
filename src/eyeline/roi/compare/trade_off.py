"""Compare several maps at several strengths: gain where viewers look, and loss of the whole frame.

A comparison at one strength is one point. A higher strength gains more and costs more, so maps are
compared by the curves through their strengths: the better map gains more at the same cost.

::

    steers = [steer_map("gaze"), steer_map("centre"), steer_map("recorded")]
    found = compare_maps("clip.mp4", "work", options, steers, multiples=(0.5, 1, 2))
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from eyeline.errors import UsageError
from eyeline.registry.records import Task
from eyeline.registry.registry import Model, resolve_model
from eyeline.roi.compare.compare import compare
from eyeline.roi.compare.records import CompareOptions, Comparison, SteerBy
from eyeline.roi.compare.work import Progress
from eyeline.roi.steering.levels import SteerOptions

COSTS = ("vmaf", "psnr_whole")
"""Metrics that measure the loss of the whole frame."""

FIXED: dict[str, SteerBy] = {"centre": "centre", "recorded": "recorded"}
"""Names of maps that no model makes."""


@dataclass(frozen=True)
class SteerMap:
    """A map that steers.

    Attributes:
        name: label of the map in tables and plots.
        by: kind of the map, see `CompareOptions.steer_by`.
        model: the model that makes the map if `by` is `model`; None if `CompareOptions.maps` steer.
    """

    name: str
    by: SteerBy
    model: Model | None = None

    @property
    def shows(self) -> str | None:
        """`gaze` or `objects`; None where that is not known, and for the wide map of the centre."""
        if self.by == "recorded":
            return "gaze"
        return None if self.model is None else self.model.task


@dataclass(frozen=True)
class TradePoint:
    """One map at one strength.

    Attributes:
        strength: strength of the law, QP.
        gain: bits saved at equal quality where the judge looks (`sw_psnr`), percent.
        costs: each metric of the whole frame and its loss at equal rate, in the metric's unit.
    """

    strength: float
    gain: float
    costs: dict[str, float]


Lines = Mapping[str, Sequence[TradePoint]]
"""Name of a map to its points, by strength."""


@dataclass(frozen=True)
class TradeOff:
    """The comparisons of several maps at several strengths with the same plain encodes.

    Attributes:
        comparisons: the map's name to its comparisons, in the order of the strengths.
    """

    comparisons: dict[str, tuple[Comparison, ...]]

    @property
    def lines(self) -> Lines:
        """Gain and costs of each map; comparisons without a gain are left out."""
        return {
            name: [
                TradePoint(
                    c.provenance["steer"]["strength"],
                    -c.deltas["sw_psnr"].rate,
                    {m: -c.deltas[m].quality for m in COSTS if m in c.deltas},
                )
                for c in found
                if "sw_psnr" in c.deltas
            ]
            for name, found in self.comparisons.items()
        }

    @property
    def first(self) -> Comparison:
        """The first comparison, for the facts that all of them share."""
        return next(iter(self.comparisons.values()))[0]

    def all(self) -> list[Comparison]:
        """Return every comparison, map by map."""
        return [c for found in self.comparisons.values() for c in found]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values of every comparison, by the map's name."""
        return {name: [c.to_json() for c in found] for name, found in self.comparisons.items()}


def mean_lines(clips: Sequence[Lines]) -> Lines:
    """Return the means over several clips that were compared with the same maps and multiples."""
    means = {}
    for name in clips[0]:
        points = zip(*(lines[name] for lines in clips), strict=True)
        means[name] = [
            TradePoint(
                same[0].strength,
                float(np.mean([p.gain for p in same])),
                {m: float(np.mean([p.costs[m] for p in same])) for m in same[0].costs},
            )
            for same in points
        ]
    return means


def steer_map(name: str, registry: str | os.PathLike[str] | None = None) -> SteerMap:
    """Find a map by its name.

    Args:
        name: `centre` (a Gaussian around the picture's centre), `recorded` (the gaze that judges),
            `gaze` or `objects` (the registry's production model of that task), a model's id or path,
            or `gaze=MODEL` and `objects=MODEL`, which say what a path's map shows.
        registry: the user's own registry folder.

    Raises:
        RegistryError: there is no such model, or it has another task.
    """
    if name in FIXED:
        return SteerMap(name, FIXED[name])
    head, _, rest = name.partition("=")
    task: Task | None = head if head in get_args(Task) else None  # type: ignore[assignment]
    model = resolve_model(rest or None if task else name, registry, task=task, use="roi")
    return SteerMap(model.label if rest or task is None else name, "model", model)


def compare_maps(
    source: str | os.PathLike[str],
    work: str | os.PathLike[str],
    options: CompareOptions,
    steers: Sequence[SteerMap],
    multiples: Sequence[float] = (1.0,),
    *,
    registry: str | os.PathLike[str] | None = None,
    on_progress: Progress = lambda part, done, total: None,
) -> TradeOff:
    """Compare several maps at several strengths; see `eyeline.roi.compare.compare.compare`.

    Args:
        source: a video or a folder of images.
        work: folder for maps, encodes and scores. Plain encodes are made once.
        options: the options that all comparisons share.
        steers: the maps.
        multiples: factors of the strength of `options`, or else of the default for each map.
        registry: the user's own registry folder.
        on_progress: see `Progress`.

    Raises:
        UsageError: a map that is named twice, several maps without a judge of their own, or
            multiples that are not positive, stand there twice, or give too great a strength.
        EyelineError: see `eyeline.roi.compare.compare.compare`.
    """
    names = [s.name for s in steers]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UsageError(f"--steer {twice} is given more than once", "give each map once")
    if len(names) > 1 and not (
        options.judge_fixations or options.judge_masks or options.judge_model
    ):
        raise UsageError(
            f"{', '.join(names)} are compared, and no judge is given",
            "give --judge-fixations, --judge-masks or --judge-model",
        )
    if len(set(multiples)) < len(multiples) or not all(0 < k < float("inf") for k in multiples):
        given = ",".join(f"{k:g}" for k in multiples)
        raise UsageError(
            f"--multiples {given}: each must be more than 0, and none may stand there twice",
            "give for example 0.5,1,2",
        )
    # All options are made, and so checked, before the first comparison takes its time.
    asked = {
        s: [
            replace(options, steer_by=s.by, steer=_times(options.steer.for_map(s.shows), k))
            for k in multiples
        ]
        for s in steers
    }
    found = {
        s.name: tuple(
            compare(source, work, o, model=s.model, registry=registry, on_progress=on_progress)
            for o in each
        )
        for s, each in asked.items()
    }
    return TradeOff(found)


def _times(steer: SteerOptions, multiple: float) -> SteerOptions:
    return replace(steer, strength=steer.chosen[1] * multiple)
