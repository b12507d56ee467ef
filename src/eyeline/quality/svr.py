"""VMAF's published models: reading one, and from elementary features to a score.

A model file (Netflix's JSON) holds a support vector regression with an RBF kernel in LIBSVM's
text form, and the linear scalings around it. The files are not part of eyeline: they come with the
package ffmpeg-quality-metrics (extra `vmaf`), are pinned by digest, or are named by path.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eyeline.errors import MissingExtraError, ModelError, VerificationError
from eyeline.quality import adm, vif

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
            default = vif.GAIN_LIMIT if kind == "vif" else adm.GAIN_LIMIT
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
