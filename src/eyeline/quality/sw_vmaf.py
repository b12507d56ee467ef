"""VMAF, and VMAF weighted by where viewers look, computed in one pass over a frame.

VMAF's elementary features (VIF, ADM, motion) are means, or ratios of sums, over pixels. `SwVmaf`
computes the sums twice, without weights ("whole") and with one weight per pixel ("weighted"), and feeds
both sets of features to the published regression model. Uniform weights give the same score as VMAF. The
caller decodes and pairs the frames and computes the weights.

    engine = SwVmaf(load_model("vmaf_v0.6.1"))
    first = engine.part(pairs[0])                      # LumaPair: reference, distorted, weight
    second = engine.part(pairs[1], previous=pairs[0])
    score = engine.finish(first, following=second)
    score.whole["vmaf"], score.weighted["vmaf"]

`part` may be called in any order and from any thread.

A model file (Netflix's JSON) holds a support vector regression with an RBF kernel in LIBSVM's text
format, and linear scalings of its inputs and its output. The files are not part of eyeline: the package
ffmpeg-quality-metrics (extra `vmaf`) provides those in `PINNED`; other files are given by path.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eyeline.digests import sha256_hex
from eyeline.errors import MissingExtraError, ModelError, QualityError, VerificationError
from eyeline.quality._vmaf_features import (
    GAIN_LIMIT,
    Adm,
    MotionDifference,
    adm,
    motion,
    sum_of,
    vif,
)

if TYPE_CHECKING:
    Plane = NDArray[np.float32]
    Luma = NDArray[np.uint8] | NDArray[np.uint16]

PINNED = {
    "vmaf_v0.6.1": "5950d61fa1f861bd45d8149d80539ed9f3376cfc2495b8f0fa8e9f57cb131ee3",
    "vmaf_v0.6.1neg": "1fcda193aaa2a3136471b7516b3c5dc344546c05fcde2d58609f8c60a2387392",
    "vmaf_4k_v0.6.1": "73b187001309703c89d57cf58baab01660bd11e4ea6fac62bc064c5f5da6dac8",
}
"""SHA-256 digests of model files in `model/` of github.com/Netflix/vmaf, by model name."""

SUPPORTED = f"choose one of {', '.join(PINNED)}, or give the path of a VMAF model in JSON"

PACKAGE = "ffmpeg-quality-metrics"
PREFIX, SUFFIX = "VMAF_integer_feature_", "_score"
FEATURES = ("adm2", "motion2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3")

SMALLEST = 33
"""Smallest width and height in pixels; with less, libvmaf's coarsest wavelet band has under 3 rows."""


@dataclass(frozen=True)
class VmafModel:
    """A support vector regression from elementary features to a score of 0 to 100.

    Attributes:
        name: name of the model in logs.
        sha256: SHA-256 digest of the model file.
        features: names of the elementary features, in the order of the vectors.
        slopes: float64 (1 + F,), slope of the score, then slope of each feature.
        intercepts: float64 (1 + F,), intercepts in the same order.
        vectors: float64 (V, F), support vectors.
        coefficients: float64 (V,), coefficient of each support vector.
        gamma: gamma of the RBF kernel.
        rho: constant that the decision function subtracts.
        clip: smallest and greatest score, or None.
        vif_gain_limit, adm_gain_limit: options `vif_enhn_gain_limit` and `adm_enhn_gain_limit`.
    """

    name: str
    sha256: str
    features: tuple[str, ...]
    slopes: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    vectors: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    gamma: float
    rho: float
    clip: tuple[float, float] | None
    vif_gain_limit: float
    adm_gain_limit: float

    def score(self, features: Mapping[str, float]) -> float:
        """Return the score of a frame; `features` must hold at least the names in `self.features`."""
        x = np.array([features[name] for name in self.features])
        x = self.slopes[1:] * x + self.intercepts[1:]
        distances = ((self.vectors - x) ** 2).sum(axis=1)
        y = float(self.coefficients @ np.exp(-self.gamma * distances)) - self.rho
        y = (y - float(self.intercepts[0])) / float(self.slopes[0])
        return y if self.clip is None else min(max(y, self.clip[0]), self.clip[1])


def load_model(name: str | Path = "vmaf_v0.6.1") -> VmafModel:
    """Read a model, given by a name in `PINNED` or by the path of a JSON file.

    Raises:
        MissingExtraError: the package that provides the files in `PINNED` is not installed.
        VerificationError: the SHA-256 of the package's file differs from `PINNED`.
        ModelError: the file is not a VMAF model, or eyeline cannot compute its features.
    """
    pinned = PINNED.get(str(name))
    if pinned is not None:
        path = _packaged(str(name))
    else:
        path = Path(name)
        if path.suffix != ".json":
            raise ModelError(
                f"{name}: is not the name or the .json file of a VMAF model", SUPPORTED
            )
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: cannot be read: {exc.strerror or exc}", SUPPORTED) from exc
    digest = sha256_hex(data)
    if pinned is not None and digest != pinned:
        raise VerificationError(
            f"{path}: the SHA-256 is {digest}, expected {pinned}",
            f"reinstall {PACKAGE}, or give the path of a model that you trust",
        )
    return parse_model(data, name=path.stem, sha256=digest, where=str(path))


def _packaged(name: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as exc:
        raise MissingExtraError(PACKAGE, "vmaf") from exc
    return Path(str(distribution.locate_file(f"ffmpeg_quality_metrics/vmaf_models/{name}.json")))


def parse_model(data: bytes, *, name: str, sha256: str, where: str) -> VmafModel:
    """Parse the JSON of a model file; error messages begin with `where`.

    Raises:
        ModelError: the data is not a VMAF model, or eyeline cannot compute its features.
    """
    try:
        record = json.loads(data)["model_dict"]
        if record["model_type"] != "LIBSVMNUSVR" or record["norm_type"] != "linear_rescale":
            raise ModelError(
                f"{where}: a model of type {record['model_type']} is not supported", SUPPORTED
            )
        features = tuple(
            str(f).removeprefix(PREFIX).removesuffix(SUFFIX) for f in record["feature_names"]
        )
        limits = _gain_limits(features, record.get("feature_opts_dicts"), where)
        head, vectors, coefficients = _libsvm(record["model"], len(features))
        clip = record.get("score_clip")
        model = VmafModel(
            name=name,
            sha256=sha256,
            features=features,
            slopes=np.array(record["slopes"], np.float64),
            intercepts=np.array(record["intercepts"], np.float64),
            vectors=vectors,
            coefficients=coefficients,
            gamma=float(head["gamma"]),
            rho=float(head["rho"]),
            clip=None if clip is None else (float(clip[0]), float(clip[1])),
            vif_gain_limit=limits[0],
            adm_gain_limit=limits[1],
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
        raise ModelError(
            f"{where}: is not a VMAF model ({type(exc).__name__}: {exc})", SUPPORTED
        ) from exc
    if model.slopes.shape != (1 + len(features),) or model.intercepts.shape != model.slopes.shape:
        raise ModelError(
            f"{where}: has slopes and intercepts for {model.slopes.size - 1} and "
            f"{model.intercepts.size - 1} features, expected {len(features)}",
            SUPPORTED,
        )
    return model


def _gain_limits(
    features: tuple[str, ...], options: list[dict[str, Any]] | None, where: str
) -> tuple[float, float]:
    """Return the (VIF, ADM) gain limits; any other option of a feature is an error."""
    unknown = [f for f in features if f not in FEATURES]
    found: dict[str, set[float]] = {"vif": set(), "adm": set()}
    for feature, given in zip(features, options or [{}] * len(features), strict=True):
        kind = feature.split("_")[0].rstrip("2")
        asked = dict(given)
        if kind in found:
            found[kind].add(float(asked.pop(f"{kind}_enhn_gain_limit", GAIN_LIMIT)))
        unknown += [f"{feature} with {option}" for option in asked]
    if unknown:
        raise ModelError(
            f"{where}: needs features that eyeline does not compute: {', '.join(unknown)}",
            SUPPORTED,
        )
    if any(len(values) != 1 for values in found.values()):
        raise ModelError(
            f"{where}: VIF or ADM has several gain limits, or none; eyeline supports exactly one for each",
            SUPPORTED,
        )
    return found["vif"].pop(), found["adm"].pop()


def _libsvm(
    text: str, count: int
) -> tuple[dict[str, str], NDArray[np.float64], NDArray[np.float64]]:
    """Parse the header, support vectors and coefficients of LIBSVM's text format.

    The vectors are sparse: `index:value`, with indices from 1; missing values are 0.
    """
    head_text, _, body = text.partition("\nSV\n")
    head = dict(line.split(" ", 1) for line in head_text.splitlines())
    if head["svm_type"] != "nu_svr" or head["kernel_type"] != "rbf":
        raise ValueError(
            f"the model is {head['svm_type']} with kernel {head['kernel_type']}, expected nu_svr, rbf"
        )
    lines = [line.split() for line in body.splitlines() if line.strip()]
    if len(lines) != int(head["total_sv"]):
        raise ValueError(f"the model has {len(lines)} support vectors, expected {head['total_sv']}")
    vectors = np.zeros((len(lines), count))
    for i, line in enumerate(lines):
        for item in line[1:]:
            index, value = item.split(":")
            if not 1 <= int(index) <= count:
                raise ValueError(
                    f"support vector {i} has a value for feature {index}, expected 1 to {count}"
                )
            vectors[i, int(index) - 1] = float(value)
    return head, vectors, np.array([float(line[0]) for line in lines])


class LumaPair(NamedTuple):
    """The planes and weights of one frame.

    Attributes:
        reference: uint8 or uint16 (H, W), luma codes.
        distorted: luma of the distorted frame, with the same shape and type.
        bit_depth: bits per sample of both planes.
        weight: float32 (H, W), 0 or more; only the ratios between pixels matter. None = measure
            unweighted VMAF alone.
    """

    reference: Luma
    distorted: Luma
    bit_depth: int
    weight: Plane | None


class SpatialFeatures(NamedTuple):
    """The features that do not depend on neighbouring frames."""

    vif: tuple[float, ...]
    adm: Adm


class FramePart(NamedTuple):
    """The features of one frame, before its motion to the next frame is known.

    Attributes:
        whole: features without weights.
        weighted: features with weights; None if the frame has no weights.
        motion: difference from the previous frame; None for the first frame.
    """

    whole: SpatialFeatures
    weighted: SpatialFeatures | None
    motion: MotionDifference | None


class VmafScore(NamedTuple):
    """Features and score of a frame, by libvmaf's names without prefixes.

    Keys: `vif_scale0` to `vif_scale3`, `adm2`, `adm_scale0` to `adm_scale3`, `motion2`, `vmaf`.

    Attributes:
        whole: values without weights; they equal libvmaf's values.
        weighted: values with weights; None if the pair has no weights.
    """

    whole: Mapping[str, float]
    weighted: Mapping[str, float] | None


class SwVmaf:
    """Compute VMAF and weighted VMAF with one model, without state between frames."""

    def __init__(self, model: VmafModel) -> None:
        self.model = model

    def part(self, pair: LumaPair, previous: LumaPair | None = None) -> FramePart:
        """Compute the features of a frame. Any thread may call `part`; most of its work releases the GIL.

        `previous` is the previous frame, and None for the first frame.

        Raises:
            QualityError: the shapes differ, the frame is smaller than 33x33, or the weights are
                negative, not finite, or zero everywhere inside the border that ADM leaves out.
        """
        _check(pair)
        reference, distorted = _codes(pair.reference, pair), _codes(pair.distorted, pair)
        weight = pair.weight
        change = None
        if previous is not None:
            if previous.reference.shape != pair.reference.shape:
                raise QualityError(
                    f"the frame size changes from {_size(previous.reference)} to "
                    f"{_size(pair.reference)}",
                    "scale all frames to one size",
                )
            change = motion(
                reference, _codes(previous.reference, previous), weight, previous.weight
            )
        fidelity = vif(reference, distorted, weight, self.model.vif_gain_limit)
        detail = adm(reference, distorted, weight, self.model.adm_gain_limit)
        weighted = None
        if fidelity.weighted is not None and detail.weighted is not None:
            weighted = SpatialFeatures(fidelity.weighted, detail.weighted)
        return FramePart(SpatialFeatures(fidelity.whole, detail.whole), weighted, change)

    def finish(self, part: FramePart, following: FramePart | None = None) -> VmafScore:
        """Return the score of a frame; `following` is the next frame's part, None for the last frame."""
        before, after = part.motion, None if following is None else following.motion
        whole = self._score(part.whole, before and before.whole, after and after.whole)
        if part.weighted is None:
            return VmafScore(whole, None)
        # Weight both differences with this frame's weights, so that motion counts where viewers look.
        weighted = self._score(
            part.weighted, before and before.weighted, after and after.weighted_by_previous
        )
        return VmafScore(whole, weighted)

    def _score(
        self, spatial: SpatialFeatures, before: float | None, after: float | None
    ) -> dict[str, float]:
        # As in libvmaf, motion2 is 0 for the first frame, else the smaller of the known differences.
        motion2 = 0.0 if before is None else before if after is None else min(before, after)
        features = {f"vif_scale{i}": value for i, value in enumerate(spatial.vif)}
        features |= {"adm2": spatial.adm.adm2}
        features |= {f"adm_scale{i}": value for i, value in enumerate(spatial.adm.scales)}
        features["motion2"] = motion2
        features["vmaf"] = self.model.score(features)
        return features


def _codes(luma: Luma, pair: LumaPair) -> Plane:
    """Convert luma to 8-bit codes in float32."""
    codes = luma.astype(np.float32)
    if pair.bit_depth != 8:
        codes *= np.float32(2.0 ** (8 - pair.bit_depth))
    return codes


def _size(plane: NDArray[np.generic]) -> str:
    return f"{plane.shape[1]}x{plane.shape[0]}"


def _check(pair: LumaPair) -> None:
    reference, distorted, weight = pair.reference, pair.distorted, pair.weight
    if reference.ndim != 2 or reference.shape != distorted.shape:
        raise QualityError(
            f"the frames differ in size: the reference is {_size(reference)}, the distorted frame "
            f"{_size(distorted)}",
            "scale one of them to the other's size",
        )
    if min(reference.shape) < SMALLEST:
        raise QualityError(
            f"the frame is {_size(reference)}; VMAF needs at least {SMALLEST}x{SMALLEST} pixels",
            "leave sw_vmaf out of --metrics",
        )
    if weight is None:
        return
    hint = "give a map of the frame's size with finite values of 0 or more, not all 0"
    if weight.shape != reference.shape:
        raise QualityError(f"the map is {_size(weight)}, but the frame is {_size(reference)}", hint)
    total = sum_of(weight)
    if not math.isfinite(total):
        raise QualityError("the map has NaN or infinite values", hint)
    if float(weight.min()) < 0:
        raise QualityError("the map has negative values", hint)
    if total == 0:
        raise QualityError("the map is zero everywhere, so no pixel has a weight", hint)
