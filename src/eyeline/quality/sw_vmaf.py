"""VMAF, and VMAF weighted by where viewers look, from the same pass over a frame.

VMAF's elementary features (VIF, ADM, motion) are ratios or means of sums over pixels. `SwVmaf`
computes those sums twice, plain and with a weight a pixel, and gives both sets to the published
regression. Uniform weights give VMAF. Frames in, numbers out: pairing, decoding and maps are the
caller's.

    engine = SwVmaf(load_model("vmaf_v0.6.1"))
    for score in engine.scores(pairs, workers=2):      # pairs: an iterable of LumaPair
        score.whole["vmaf"], score.weighted["vmaf"]

`scores` holds a few frames at a time. A caller with workers of its own calls `part` for each
frame, in any order and from any thread, and `finish` with a frame's part and the next one's.

VMAF's published models: reading one, and from elementary features to a score.

A model file (Netflix's JSON) holds a support vector regression with an RBF kernel in LIBSVM's
text form, and the linear scalings around it. The files are not part of eyeline: they come with the
package ffmpeg-quality-metrics (extra `vmaf`), are pinned by digest, or are named by path.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eyeline.errors import MissingExtraError, ModelError, QualityError, VerificationError
from eyeline.quality.vmaf_features import GAIN_LIMIT, Adm, Motion, adm, motion, sum_of, vif

if TYPE_CHECKING:
    Plane = NDArray[np.float32]
    Luma = NDArray[np.uint8] | NDArray[np.uint16]

PINNED = {
    "vmaf_v0.6.1": "5950d61fa1f861bd45d8149d80539ed9f3376cfc2495b8f0fa8e9f57cb131ee3",
    "vmaf_v0.6.1neg": "1fcda193aaa2a3136471b7516b3c5dc344546c05fcde2d58609f8c60a2387392",
    "vmaf_4k_v0.6.1": "73b187001309703c89d57cf58baab01660bd11e4ea6fac62bc064c5f5da6dac8",
}
"""SHA-256 of the files under `model/` of github.com/Netflix/vmaf, by name."""

PACKAGE = "ffmpeg-quality-metrics"
PREFIX, SUFFIX = "VMAF_integer_feature_", "_score"
FEATURES = ("adm2", "motion2", "vif_scale0", "vif_scale1", "vif_scale2", "vif_scale3")


@dataclass(frozen=True)
class VmafModel:
    """A support vector regression from elementary features to a score of 0 to 100.

    Attributes:
        name: what a log calls it.
        sha256: digest of the file it was read from.
        features: names of the elementary features, in the order of the vectors.
        slopes: float64 (1 + F,), of the score, then of each feature.
        intercepts: float64 (1 + F,), the same order.
        vectors: float64 (V, F), support vectors.
        coefficients: float64 (V,).
        gamma: of the RBF kernel.
        rho: what the decision function subtracts.
        clip: least and greatest score, or None.
        transform: coefficients of 1, x and x^2 of the "phone" transform, or None.
        out_gte_in: the transform never lowers a score.
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
    transform: tuple[float, float, float] | None
    out_gte_in: bool
    vif_gain_limit: float
    adm_gain_limit: float

    def score(self, features: Mapping[str, float], *, transformed: bool = False) -> float:
        """The score of a frame.

        Args:
            features: by name, at least those of `self.features`.
            transformed: apply the model's score transform, libvmaf's `enable_transform`
                (it was fitted for viewing on a phone).

        Raises:
            ModelError: a transform is asked for and the model has none.
        """
        x = np.array([features[name] for name in self.features])
        x = self.slopes[1:] * x + self.intercepts[1:]
        distances = ((self.vectors - x) ** 2).sum(axis=1)
        y = float(self.coefficients @ np.exp(-self.gamma * distances)) - self.rho
        y = (y - float(self.intercepts[0])) / float(self.slopes[0])
        if transformed:
            if self.transform is None:
                raise ModelError(f"{self.name}: the model has no score transform")
            p0, p1, p2 = self.transform
            moved = p0 + p1 * y + p2 * y * y
            y = max(moved, y) if self.out_gte_in else moved
        return y if self.clip is None else min(max(y, self.clip[0]), self.clip[1])


def load_model(name: str | Path = "vmaf_v0.6.1") -> VmafModel:
    """Read a model: a name of `PINNED`, or the path of a JSON file.

    Raises:
        MissingExtraError: a name is given and the package that brings the files is not installed.
        VerificationError: the package's file is not the pinned one.
        ModelError: not a VMAF model, or one whose features are computed otherwise.
    """
    if str(name) in PINNED:
        path = _packaged(str(name))
    else:
        path = Path(name)
        if path.suffix != ".json":
            raise ModelError(
                f"{name}: no VMAF model", f"one of {', '.join(PINNED)}, or the path of a .json file"
            )
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: can't be read: {exc.strerror or exc}") from exc
    digest = hashlib.sha256(data).hexdigest()
    pinned = PINNED.get(str(name))
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
    """Read the bytes of a model file.

    Args:
        data: JSON.
        name: of the model.
        sha256: digest of the bytes.
        where: for messages.

    Raises:
        ModelError: see `load_model`.
    """
    try:
        record = json.loads(data)["model_dict"]
        if record["model_type"] != "LIBSVMNUSVR" or record["norm_type"] != "linear_rescale":
            raise ModelError(
                f"{where}: a model of type {record['model_type']} is not supported",
                f"models that work: {', '.join(PINNED)}",
            )
        features = tuple(
            str(f).removeprefix(PREFIX).removesuffix(SUFFIX) for f in record["feature_names"]
        )
        limits = _gain_limits(features, record.get("feature_opts_dicts"), where)
        head, vectors, coefficients = _libsvm(record["model"], len(features))
        transform = record.get("score_transform")
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
            transform=_transform(transform, where),
            out_gte_in=bool(transform) and transform.get("out_gte_in") == "true",
            vif_gain_limit=limits[0],
            adm_gain_limit=limits[1],
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
        raise ModelError(f"{where}: not a VMAF model ({type(exc).__name__}: {exc})") from exc
    if model.slopes.shape != (1 + len(features),) or model.intercepts.shape != model.slopes.shape:
        raise ModelError(f"{where}: {len(features)} features, {model.slopes.size - 1} scalings")
    return model


def _gain_limits(
    features: tuple[str, ...], options: list[dict[str, Any]] | None, where: str
) -> tuple[float, float]:
    """(vif, adm) gain limits; anything else that a model asks of a feature is refused."""
    unknown = [f for f in features if f not in FEATURES]
    found: dict[str, set[float]] = {"vif": set(), "adm": set()}
    for feature, given in zip(features, options or [{}] * len(features), strict=True):
        kind = feature.split("_")[0].rstrip("2")
        asked = dict(given)
        if kind in found:
            default = GAIN_LIMIT
            found[kind].add(float(asked.pop(f"{kind}_enhn_gain_limit", default)))
        unknown += [f"{feature} with {option}" for option in asked]
    if unknown:
        raise ModelError(
            f"{where}: features that eyeline does not compute: {', '.join(unknown)}",
            f"models that work: {', '.join(PINNED)}",
        )
    if any(len(values) != 1 for values in found.values()):
        raise ModelError(f"{where}: one gain limit a feature family is supported")
    return found["vif"].pop(), found["adm"].pop()


def _transform(given: dict[str, Any] | None, where: str) -> tuple[float, float, float] | None:
    if not given:
        return None
    unknown = set(given) - {"p0", "p1", "p2", "out_gte_in"}
    if unknown:
        raise ModelError(f"{where}: score transform with {', '.join(sorted(unknown))}")
    return float(given.get("p0", 0)), float(given.get("p1", 0)), float(given.get("p2", 0))


def _libsvm(
    text: str, count: int
) -> tuple[dict[str, str], NDArray[np.float64], NDArray[np.float64]]:
    """Header, support vectors and coefficients of LIBSVM's text form.

    Vectors are sparse (`index:value`, from 1); what is not named is 0.
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


SMALLEST = 33
"""Least width and height in pixels: below it libvmaf's coarsest wavelet band has under 3 rows."""


class LumaPair(NamedTuple):
    """What one frame's score needs.

    Attributes:
        reference: uint8 or uint16 (H, W), luma codes.
        distorted: the same of the distorted frame.
        bit_depth: of both.
        weight: float32 (H, W), not negative, or None for plain VMAF alone. Only ratios count.
    """

    reference: Luma
    distorted: Luma
    bit_depth: int
    weight: Plane | None


@dataclass(frozen=True)
class Spatial:
    """Elementary features that need one frame alone."""

    vif: tuple[float, ...]
    adm: Adm


@dataclass(frozen=True)
class FramePart:
    """What one frame contributes: all but the neighbours' say in motion.

    Attributes:
        whole: features over all pixels.
        weighted: features with weights, or None.
        motion: difference from the frame before, None for the first.
    """

    whole: Spatial
    weighted: Spatial | None
    motion: Motion | None


@dataclass(frozen=True)
class FrameScore:
    """A frame's features and score, by libvmaf's names without its prefixes.

    Keys: `vif_scale0` to `vif_scale3`, `adm2`, `adm_scale0` to `adm_scale3`, `motion2`, `vmaf`.

    Attributes:
        whole: of the whole frame, which is libvmaf's value.
        weighted: with weights; None where the pair had none.
    """

    whole: Mapping[str, float]
    weighted: Mapping[str, float] | None


class SwVmaf:
    """A model and the features it needs. Holds no state between frames.

    Args:
        model: see `load_model`. Its gain limits apply (the "neg" models set them to 1).
        transformed: apply the model's score transform (viewing on a phone).
    """

    def __init__(self, model: VmafModel, *, transformed: bool = False) -> None:
        self.model = model
        self.transformed = transformed

    def part(self, pair: LumaPair, previous: LumaPair | None = None) -> FramePart:
        """Features of a frame; a pure function, safe in threads (most of it runs without the GIL).

        Args:
            pair: the frame.
            previous: the frame before, of which the reference and the weight are used; None for
                the first frame.

        Raises:
            QualityError: shapes that differ, a frame under 33 x 33, a weight that is negative, not
                finite or zero everywhere that counts.
            MissingExtraError: OpenCV is not installed.
        """
        _check(pair)
        reference, distorted = _codes(pair.reference, pair), _codes(pair.distorted, pair)
        weight = pair.weight
        change = None
        if previous is not None:
            if previous.reference.shape != pair.reference.shape:
                raise QualityError(
                    f"frames change size: {_size(previous.reference)}, then {_size(pair.reference)}"
                )
            change = motion(
                reference, _codes(previous.reference, previous), weight, previous.weight
            )
        fidelity = vif(reference, distorted, weight, self.model.vif_gain_limit)
        detail = adm(reference, distorted, weight, self.model.adm_gain_limit)
        weighted = None
        if fidelity.weighted is not None and detail.weighted is not None:
            weighted = Spatial(fidelity.weighted, detail.weighted)
        return FramePart(Spatial(fidelity.whole, detail.whole), weighted, change)

    def finish(self, part: FramePart, following: FramePart | None = None) -> FrameScore:
        """Features and score of a frame.

        Args:
            part: the frame's.
            following: the next frame's; None for the last frame.
        """
        before, after = part.motion, None if following is None else following.motion
        whole = self._score(part.whole, before and before.whole, after and after.whole)
        if part.weighted is None:
            return FrameScore(whole, None)
        # Both differences are weighed with this frame's map: what moves where viewers look now.
        weighted = self._score(
            part.weighted, before and before.weighted, after and after.weighted_by_previous
        )
        return FrameScore(whole, weighted)

    def scores(self, pairs: Iterable[LumaPair], workers: int = 1) -> Iterator[FrameScore]:
        """Scores of a clip, in order, a frame behind its input.

        Args:
            pairs: the frames, all of one size; read as they are needed, at most `workers` + 2 held.
            workers: threads; 1 computes in the caller's thread.

        Raises:
            QualityError, MissingExtraError: see `part`.
        """
        waiting: FramePart | None = None
        for part in self._parts(_with_previous(pairs), workers):
            if waiting is not None:
                yield self.finish(waiting, part)
            waiting = part
        if waiting is not None:
            yield self.finish(waiting)

    def _parts(
        self, frames: Iterable[tuple[LumaPair, LumaPair | None]], workers: int
    ) -> Iterator[FramePart]:
        if workers <= 1:
            for pair, previous in frames:
                yield self.part(pair, previous)
            return
        with ThreadPoolExecutor(workers) as pool:
            running: deque[Future[FramePart]] = deque()
            try:
                for pair, previous in frames:
                    running.append(pool.submit(self.part, pair, previous))
                    if len(running) > workers:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _score(
        self, spatial: Spatial, before: float | None, after: float | None
    ) -> dict[str, float]:
        # libvmaf: 0 for the first frame, else the smaller difference of those that exist.
        motion2 = 0.0 if before is None else before if after is None else min(before, after)
        features = {f"vif_scale{i}": value for i, value in enumerate(spatial.vif)}
        features |= {"adm2": spatial.adm.adm2}
        features |= {f"adm_scale{i}": value for i, value in enumerate(spatial.adm.scales)}
        features["motion2"] = motion2
        features["vmaf"] = self.model.score(features, transformed=self.transformed)
        return features


def _with_previous(pairs: Iterable[LumaPair]) -> Iterator[tuple[LumaPair, LumaPair | None]]:
    previous = None
    for pair in pairs:
        yield pair, previous
        previous = pair


def _codes(luma: Luma, pair: LumaPair) -> Plane:
    """float32 (H, W): luma in codes of 8 bits."""
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
            "scale one to the other's size",
        )
    if min(reference.shape) < SMALLEST:
        raise QualityError(
            f"frames of {_size(reference)}: VMAF needs at least {SMALLEST}x{SMALLEST} pixels"
        )
    if weight is None:
        return
    if weight.shape != reference.shape:
        raise QualityError(f"the map is {_size(weight)}, the frame {_size(reference)}")
    total = sum_of(weight)
    if not math.isfinite(total):
        raise QualityError("the map has values that are not finite numbers")
    if float(weight.min()) < 0:
        raise QualityError("the map has negative values")
    if total == 0:
        raise QualityError(
            "the map is zero everywhere, so no pixel has a weight",
            "give a map with a value above 0",
        )
