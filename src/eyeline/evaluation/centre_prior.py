"""The centre prior: viewers look near the centre of any picture, so every model is held against it.

The prior is a Gaussian whose mean and variances are those of the fixations of other sets, averaged
over the sets. It is never fitted on the set that it is judged by. `centre_priors.json` holds what
this module prints for OSIE, Saliency in Crowd and Scene:

    python -m eyeline.evaluation.centre_prior osie.tar crowd.tar scene.tar
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from eyeline.datasets.density import CentreGaussian
from eyeline.datasets.fixations import FixationSet, load_fixation_set
from eyeline.errors import UsageError


@dataclass(frozen=True)
class FittedPrior:
    """The moments of all fixations of one set.

    Attributes:
        name: of the set.
        digest: of the set.
        stimuli: images or videos.
        fixations: how many.
        x, y, std_x, std_y: see `CentreGaussian`.
    """

    name: str
    digest: str
    stimuli: int
    fixations: int
    x: float
    y: float
    std_x: float
    std_y: float


def fit_prior(dataset: FixationSet) -> FittedPrior:
    """Measure where viewers looked on average over a whole set.

    Args:
        dataset: with two fixations or more that differ in both coordinates.

    Raises:
        UsageError: the fixations do not differ.
    """
    x = np.concatenate([s.fixations.x for s in dataset.stimuli])
    y = np.concatenate([s.fixations.y for s in dataset.stimuli])
    moments = [round(float(v), 5) for v in (x.mean(), y.mean(), x.std(), y.std())]
    if min(moments[2:]) <= 0:
        raise UsageError(
            f"{dataset.name}: all fixations have the same x or y, so no centre prior can be fitted",
            "give --prior a set with more fixations",
        )
    return FittedPrior(dataset.name, dataset.digest, len(dataset.stimuli), len(x), *moments)


def shipped_priors() -> list[FittedPrior]:
    """Return the fits that come with the package."""
    text = resources.files("eyeline.evaluation").joinpath("centre_priors.json").read_text("utf-8")
    return [FittedPrior(**fields) for fields in json.loads(text)]


def priors_for(dataset: FixationSet, own: Sequence[FittedPrior] | None = None) -> list[FittedPrior]:
    """Return the fits that may be used to judge maps on a set: all but its own.

    Args:
        dataset: the set that is judged.
        own: fits of the user's own sets; the shipped ones when None.

    Raises:
        UsageError: the user's own sets are the set that is judged.
    """
    known = shipped_priors() if own is None else own
    # Imported anew, a set has another digest: its name decides, too.
    same = (dataset.digest, dataset.name.casefold())
    others = [p for p in known if p.digest != same[0] and p.name.casefold() != same[1]]
    if not others:
        raise UsageError(
            f"--prior names {dataset.name}, the set that is judged",
            "fit the centre prior on another set, or leave the option out",
        )
    return others


def combined(priors: Sequence[FittedPrior]) -> CentreGaussian:
    """Return the Gaussian with the mean and variance over several sets, each of equal weight.

    Args:
        priors: at least one.
    """
    x, std_x = _mixture([(p.x, p.std_x) for p in priors])
    y, std_y = _mixture([(p.y, p.std_y) for p in priors])
    return CentreGaussian(x, y, std_x, std_y)


def _mixture(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean and standard deviation of an equal mixture of (mean, standard deviation)."""
    mean = sum(m for m, _ in parts) / len(parts)
    square = sum(s * s + m * m for m, s in parts) / len(parts)
    return mean, math.sqrt(square - mean * mean)


if __name__ == "__main__":
    fits = [asdict(fit_prior(load_fixation_set(Path(path)))) for path in sys.argv[1:]]
    sys.stdout.write(json.dumps(fits, indent=1) + "\n")
