"""VMAF, and VMAF weighted by where viewers look, from the same pass over a frame.

VMAF's elementary features (VIF, ADM, motion) are ratios or means of sums over pixels. `SwVmaf`
computes those sums twice, plain and with a weight per pixel, and gives both sets to the published
regression. Uniform weights give VMAF. The caller decodes, pairs and weights the frames.

    engine = SwVmaf(load_model("vmaf_v0.6.1"))
    first = engine.part(pairs[0])                      # LumaPair: reference, distorted, weight
    second = engine.part(pairs[1], previous=pairs[0])
    score = engine.finish(first, following=second)
    score.whole["vmaf"], score.weighted["vmaf"]

`part` may be called in any order and from any thread.

A model file (Netflix's JSON) holds a support vector regression with an RBF kernel in LIBSVM's text
form, and the linear scalings around it. The files are not part of eyeline: the package
ffmpeg-quality-metrics (extra `vmaf`) holds those of `PINNED`; other files are named by path.
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
"""SHA-256 of the files under `model/` of github.com/Netflix/vmaf, by name."""

SUPPORTED = f"choose one of {', '.join(PINNED)}, or give the path of a .json file like these"

PACKAGE = "ffmpeg-quality-metrics"
PREFIX, SUFFIX = "VMAF_integer_feature_", "_score"
FEATURES = ("adm2", "motion2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3")

SMALLEST = 33
"""Least width and height in pixels: below it libvmaf's coarsest wavelet band has under 3 rows."""


@dataclass(frozen=True)
class VmafModel:
    """A support vector regression from elementary features to a score of 0 to 100.

    Attributes:
        name: name for the log.
        sha256: digest of the model file.
        features: names of the elementary features, in the order of the vectors.
        slopes: float64 (1 + F,), of the score, then of each feature.
        intercepts: float64 (1 + F,), the same order.
        vectors: float64 (V, F), support vectors.
        coefficients: float64 (V,).
        gamma: of the RBF kernel.
        rho: constant that the decision function subtracts.
        clip: least and greatest score, or None.
        vif_gain_limit: `vif_enhn_gain_limit`.
        adm_gain_limit: `adm_enhn_gain_limit`.
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
        """Return the score of a frame from its features by name, at least `self.features`."""
        x = np.array([features[name] for name in self.features])
        x = self.slopes[1:] * x + self.intercepts[1:]
        distances = ((self.vectors - x) ** 2).sum(axis=1)
        y = float(self.coefficients @ np.exp(-self.gamma * distances)) - self.rho
        y = (y - float(self.intercepts[0])) / float(self.slopes[0])
        return y if self.clip is None else min(max(y, self.clip[0]), self.clip[1])


def load_model(name: str | Path = "vmaf_v0.6.1") -> VmafModel:
    """Read a model: a name of `PINNED`, or the path of a JSON file.

    Raises:
        MissingExtraError: the package that holds the files of `PINNED` is not installed.
        VerificationError: the package's file is not the pinned one.
        ModelError: the file is not a VMAF model, or eyeline cannot compute its features.
    """
    pinned = PINNED.get(str(name))
    if pinned is not None:
        path = _packaged(str(name))
    else:
        path = Path(name)
        if path.suffix != ".json":
            raise ModelError(f"{name}: is not a VMAF model", SUPPORTED)
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: cannot be read: {exc.strerror or exc}", SUPPORTED) from exc
    digest = sha256_hex(data)
    if pinned is not None and digest != pinned:
        raise VerificationError(
            f"{path}: SHA-256 {digest} is not the pinned {pinned}",
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
    """Read the JSON of a model file; `where` begins the error messages.

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
            f"{where}: has {model.slopes.size - 1} scalings for {len(features)} features", SUPPORTED
        )
    return model


def _gain_limits(
    features: tuple[str, ...], options: list[dict[str, Any]] | None, where: str
) -> tuple[float, float]:
    """Return the (vif, adm) gain limits; refuse any other option of a feature."""
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
            f"{where}: needs several gain limits for one kind of feature; one is supported",
            SUPPORTED,
        )
    return found["vif"].pop(), found["adm"].pop()


def _libsvm(
    text: str, count: int
) -> tuple[dict[str, str], NDArray[np.float64], NDArray[np.float64]]:
    """Read the header, support vectors and coefficients of LIBSVM's text form.

    The vectors are sparse (`index:value`, from 1); values that are not named are 0.
    """
    head_text, _, body = text.partition("\nSV\n")
    head = dict(line.split(" ", 1) for line in head_text.splitlines())
    if head["svm_type"] != "nu_svr" or head["kernel_type"] != "rbf":
        raise ValueError(f"{head['svm_type']} with kernel {head['kernel_type']}")
    lines = [line.split() for line in body.splitlines() if line.strip()]
    if len(lines) != int(head["total_sv"]):
        raise ValueError(f"{len(lines)} support vectors of {head['total_sv']}")
    vectors = np.zeros((len(lines), count))
    for i, line in enumerate(lines):
        for item in line[1:]:
            index, value = item.split(":")
            if not 1 <= int(index) <= count:
                raise ValueError(f"support vector {i} has a value for feature {index} of {count}")
            vectors[i, int(index) - 1] = float(value)
    return head, vectors, np.array([float(line[0]) for line in lines])


class LumaPair(NamedTuple):
    """The planes and weights of one frame.

    Attributes:
        reference: uint8 or uint16 (H, W), luma codes.
        distorted: the same of the distorted frame.
        bit_depth: of both.
        weight: float32 (H, W), 0 or more, or None for plain VMAF alone. Only ratios count.
    """

    reference: Luma
    distorted: Luma
    bit_depth: int
    weight: Plane | None


class SpatialFeatures(NamedTuple):
    """The elementary features that depend on one frame alone."""

    vif: tuple[float, ...]
    adm: Adm


class FramePart(NamedTuple):
    """The features of one frame, before motion is compared with that of the next frame.

    Attributes:
        whole: features over all pixels.
        weighted: features with weights, or None.
        motion: difference from the frame before, None for the first.
    """

    whole: SpatialFeatures
    weighted: SpatialFeatures | None
    motion: MotionDifference | None


class VmafScore(NamedTuple):
    """A frame's features and score, by libvmaf's names without its prefixes.

    Keys: `vif_scale0` to `vif_scale3`, `adm2`, `adm_scale0` to `adm_scale3`, `motion2`, `vmaf`.

    Attributes:
        whole: over the whole frame; these are libvmaf's values.
        weighted: with weights; None where the pair had none.
    """

    whole: Mapping[str, float]
    weighted: Mapping[str, float] | None


class SwVmaf:
    """Compute VMAF and weighted VMAF with one model; holds no state between frames.

    Args:
        model: see `load_model`. Its gain limits apply (the "neg" models set them to 1).
    """

    def __init__(self, model: VmafModel) -> None:
        self.model = model

    def part(self, pair: LumaPair, previous: LumaPair | None = None) -> FramePart:
        """Compute the features of a frame; threads may call it, and most of it releases the GIL.

        Args:
            pair: the frame.
            previous: the frame before, of which the reference and the weight are used; None for
                the first frame.

        Raises:
            QualityError: shapes that differ, a frame under 33 x 33, or a weight that is negative, not
                finite, or zero outside the border that ADM leaves out.
            MissingExtraError: OpenCV is not installed.
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
        """Return the score of a frame from its part and the next frame's (None for the last)."""
        before, after = part.motion, None if following is None else following.motion
        whole = self._score(part.whole, before and before.whole, after and after.whole)
        if part.weighted is None:
            return VmafScore(whole, None)
        # Both differences get this frame's weights: what moves where viewers look in it.
        weighted = self._score(
            part.weighted, before and before.weighted, after and after.weighted_by_previous
        )
        return VmafScore(whole, weighted)

    def _score(
        self, spatial: SpatialFeatures, before: float | None, after: float | None
    ) -> dict[str, float]:
        # libvmaf: 0 for the first frame, else the smaller difference of those that exist.
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
            f"the reference is {_size(reference)}, the distorted frame {_size(distorted)}",
            "scale one of them to the other's size",
        )
    if min(reference.shape) < SMALLEST:
        raise QualityError(
            f"the frame is {_size(reference)}; VMAF needs at least {SMALLEST}x{SMALLEST} pixels",
            "leave VMAF out",
        )
    if weight is None:
        return
    hint = "give a finite map of the frame's size, 0 or more, with a value above 0"
    if weight.shape != reference.shape:
        raise QualityError(f"the map is {_size(weight)}, the frame {_size(reference)}", hint)
    total = sum_of(weight)
    if not math.isfinite(total):
        raise QualityError("the map has values that are not finite numbers", hint)
    if float(weight.min()) < 0:
        raise QualityError("the map has negative values", hint)
    if total == 0:
        raise QualityError("the map is zero everywhere, so no pixel has a weight", hint)
