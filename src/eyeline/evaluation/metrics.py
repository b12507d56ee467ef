"""Score maps against masks with the metrics of salient object detection, and pool the scores.

PySODMetrics computes F-measures, weighted F, S-measure, E-measure and MAE. It first stretches every map
to [0, 1], also for MAE, so these measures do not depend on the scale of the map. IoU, PLCC and block IoU
use the map without this stretching.

Images with an empty mask count in every mean. For them, F, weighted F and adaptive F are 0, S-measure is
1 - mean(map), and E-measure is the share of background. IoU and block IoU are 1 if the map is below the
threshold everywhere, and 0 otherwise. PLCC has no value if the map or the mask is constant, and the mean
of PLCC leaves these images out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eyeline.arrays import block_edges, block_means
from eyeline.errors import MissingExtraError
from eyeline.evaluation.statistics import Floats, Means

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Curve = npt.NDArray[np.float32]

BETA2 = 0.3  # weight of precision in the F-measure (Achanta et al., CVPR 2009)
THRESHOLD = 0.5  # a pixel or a block is salient if its value is at least this
BLOCKS = (16, 64)  # sides in pixels of an H.264 macroblock and of a coding tree unit
LEVELS = 256  # thresholds of the precision/recall and E-measure curves

SCALARS: Final = (
    "adaptive_fmeasure",
    "weighted_fmeasure",
    "smeasure",
    "adaptive_emeasure",
    "mae",
    "iou",
    "plcc",
    "block_iou_16",
    "block_iou_64",
)
"""Measures with one number per image; the value of a dataset is their mean."""

CURVES: Final = ("precision", "recall", "emeasure")
"""Measures with 256 numbers per image, one per threshold, from the highest threshold down."""

MEASURES: Final[dict[str, str]] = {
    "max_fmeasure_dataset": "max over thresholds of F of the dataset-mean precision and recall",
    "max_fmeasure_mean": "max over thresholds of the mean of the images' F curves",
    "mean_fmeasure": "mean over thresholds of the mean of the images' F curves",
    "adaptive_fmeasure": "F at twice the map's mean, a mean over images",
    "weighted_fmeasure": "weighted F (Margolin et al., CVPR 2014), beta^2 = 1",
    "smeasure": "S-measure (Fan et al., ICCV 2017), alpha = .5",
    "max_emeasure": "max over thresholds of the mean of the images' E-measure curves",
    "mean_emeasure": "mean over thresholds of the mean of the images' E-measure curves",
    "adaptive_emeasure": "E-measure (Fan et al., IJCAI 2018) at twice the map's mean",
    "mae": "mean absolute error of the min-max-normalised map; lower is better",
    "iou": "intersection over union at .5 of the map as it comes, a mean over images",
    "plcc": "Pearson correlation of map and mask",
    "block_iou_16": "IoU of the 16x16 blocks whose mean is .5 or more; partial edge blocks count",
    "block_iou_64": "the same with 64x64 blocks",
}
"""Name and definition of each measure of a dataset, in the order of the tables."""

LOWER_IS_BETTER = frozenset({"mae"})


@dataclass(frozen=True)
class ImageScore:
    """The scores of one map.

    Attributes:
        values: value of each of `SCALARS`; NaN if PLCC has no value.
        curves: float32 (256,), curve of each of `CURVES`.
    """

    values: dict[str, float]
    curves: dict[str, Curve]


def import_engine() -> Any:
    """Import `py_sod_metrics`.

    Raises:
        MissingExtraError: PySODMetrics, or a library that it needs, is not installed.
    """
    try:
        import py_sod_metrics
    except ModuleNotFoundError as exc:
        raise MissingExtraError(exc.name or "pysodmetrics", "eval") from exc
    return py_sod_metrics


def score_image(saliency: Map, truth: Mask) -> ImageScore:
    """Score one map, float32 (H, W) in [0, 1], against its mask, bool (H, W).

    Raises:
        MissingExtraError: PySODMetrics is not installed.
    """
    engine = import_engine()
    # PySODMetrics takes values from 0 to 255; float64 avoids rounding to 8 bits.
    pred = saliency.astype(np.float64) * 255
    gt = truth.astype(np.uint8) * 255
    with warnings.catch_warnings():
        # Fmeasure warns that a later major version removes it; pyproject.toml excludes that version.
        warnings.simplefilter("ignore")
        steps = {
            name: getattr(engine, name)()
            for name in ("Fmeasure", "WeightedFmeasure", "Smeasure", "Emeasure", "MAE")
        }
    # If an object touches the last row or column, some quarters are empty and their mean is NaN.
    ssim = steps["Smeasure"].ssim
    steps["Smeasure"].ssim = lambda p, g: ssim(p, g) if p.size else 0.0
    results: dict[str, Any] = {}
    for step in steps.values():
        step.step(pred, gt)
        results |= step.get_results()
    values = {
        "adaptive_fmeasure": results["fm"]["adp"],
        "weighted_fmeasure": results["wfm"],
        "smeasure": results["sm"],
        "adaptive_emeasure": results["em"]["adp"],
        "mae": results["mae"],
        "iou": overlap(saliency >= THRESHOLD, truth),
        "plcc": correlation(saliency, truth),
    }
    for side in BLOCKS:
        values[f"block_iou_{side}"] = overlap(_is_salient(saliency, side), _is_salient(truth, side))
    curves = {
        "precision": results["pr"]["p"],
        "recall": results["pr"]["r"],
        "emeasure": results["em"]["curve"],
    }
    return ImageScore(
        {k: float(v) for k, v in values.items()},
        {k: np.asarray(v, np.float32) for k, v in curves.items()},
    )


def overlap(a: Mask, b: Mask) -> float:
    """Return the intersection over union; 1 if both masks are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def correlation(saliency: Map, truth: Mask) -> float:
    """Return Pearson's linear correlation coefficient; NaN if either array is constant."""
    x = saliency.astype(np.float64).ravel()
    y = truth.astype(np.float64).ravel()
    if x.min() == x.max() or y.min() == y.max():
        return float("nan")
    x -= x.mean()
    y -= y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _is_salient(x: Map | Mask, side: int) -> Mask:
    """Return which blocks have a mean of at least `THRESHOLD`, bool (ceil(H / side), ceil(W / side))."""
    edges = (block_edges(length, side) for length in x.shape)
    found: Mask = block_means(x.astype(np.float64), *edges) >= THRESHOLD
    return found


def fmeasure(precision: Floats, recall: Floats) -> Floats:
    """Return the elementwise F-measure with beta^2 = 0.3; 0 where precision and recall are 0."""
    bottom = BETA2 * precision + recall
    f: Floats = (1 + BETA2) * precision * recall / np.where(bottom > 0, bottom, 1)
    return f


class Scores:
    """The scores of one or more images, which `pool` combines to scores of a dataset."""

    def __init__(self, images: Sequence[ImageScore]) -> None:
        self.count = len(images)
        self._means = Means({n: np.array([i.values[n] for i in images]) for n in SCALARS})
        self._curves = {
            name: np.stack([i.curves[name] for i in images]).astype(np.float64) for name in CURVES
        }
        self._curves["fmeasure"] = fmeasure(self._curves["precision"], self._curves["recall"])

    def pool(self, weights: Floats | None = None) -> dict[str, Floats]:
        """Return each of `MEASURES` (see `Poolable`); NaN if PLCC has no value for any image."""
        w = np.ones((1, self.count)) if weights is None else weights
        total = w.sum(1, keepdims=True)
        mean = {name: (w @ curve) / total for name, curve in self._curves.items()}
        out = self._means.pool(w) | {
            "max_fmeasure_dataset": fmeasure(mean["precision"], mean["recall"]).max(1),
            "max_fmeasure_mean": mean["fmeasure"].max(1),
            "mean_fmeasure": mean["fmeasure"].mean(1),
            "max_emeasure": mean["emeasure"].max(1),
            "mean_emeasure": mean["emeasure"].mean(1),
        }
        return {name: out[name] for name in MEASURES}
