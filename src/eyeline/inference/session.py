"""Prepare frames for a model, run it, check its output against the tensor contract, and resize maps."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from eyeline.errors import ContractError, ModelError, first_line
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from eyeline.runtime import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INPUT_NAME,
    OUTPUT_NAME,
    Device,
    import_runtime,
    open_runtime_session,
    runtime_errors,
)

Map = npt.NDArray[np.float32]

MAX_ASPECT = 6.0
"""Largest aspect ratio; wider or taller frames are squeezed to it, which limits their cost."""

LUMA_REC601 = np.array([0.299, 0.587, 0.114], np.float32)
"""Luma weights of R, G, B (ITU-R BT.601-7), with which the models with `luma_tiled` were trained."""

RANGE_TOLERANCE = 1e-5  # more than the float32 round-off of a sigmoid


def working_size(width: int, height: int, lines: int | None) -> tuple[int, int]:
    """Return the size of a frame after its short side is scaled to `lines`; the aspect ratio is kept.

    Args:
        width: display width, pixels.
        height: display height, pixels.
        lines: short side, pixels; None keeps the size of the frame.

    Returns:
        (width, height), each at least 1.
    """
    if lines is None:
        return width, height
    aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
    if aspect >= 1:
        return round(lines * aspect), lines
    return lines, round(lines / aspect)


def input_size(
    width: int, height: int, io: IoSpec, lines: int | Literal["native"] | None = None
) -> tuple[int, int]:
    """Return the size to which a frame is scaled for a model, before padding.

    Args:
        width: display width, pixels.
        height: display height, pixels.
        io: the model's I/O spec.
        lines: short side, pixels, or `native` for the size of the frame; both keep the aspect ratio.
            None uses the size of the I/O spec.

    Returns:
        (width, height), pixels.
    """
    if lines is None and io.squash is not None:
        return io.squash
    chosen = lines or io.working_lines
    return working_size(width, height, None if chosen == "native" else chosen)


def pad_to_multiple(x: Map, multiple: int) -> Map:
    """Pad (..., H, W) below and right by repeating the edge, until H and W are multiples of `multiple`."""
    h, w = x.shape[-2:]
    below, right = -h % multiple, -w % multiple
    if not below and not right:
        return x
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, below), (0, right)], "edge")


def prepare(rgb: npt.NDArray[np.uint8], io: IoSpec) -> Map:
    """Convert a planar RGB frame to the input of a model.

    Args:
        rgb: uint8 (3, h, w).
        io: the model's I/O spec.

    Returns:
        float32 (1, 3, H, W), ImageNet-normalised, padded to `io.multiple`.
    """
    std = np.array(IMAGENET_STD, np.float32)[:, None, None]
    mean = np.array(IMAGENET_MEAN, np.float32)[:, None, None]
    x = rgb.astype(np.float32)
    if io.channels == "luma_tiled":
        r, g, b = LUMA_REC601
        x[:] = r * x[0] + g * x[1] + b * x[2]  # a BLAS product would start threads
    top = 255.0 if io.scale == "255" else max(1.0, float(x.max()))
    x *= 1 / (np.float32(top) * std)
    x -= mean / std
    return pad_to_multiple(x, io.multiple)[None]


def finish(y: Map, height: int, width: int, io: IoSpec) -> Map:
    """Crop the output of a model to the visible frame and normalise it as the I/O spec demands.

    Args:
        y: float32 (H, W) in [0, 1].
        height: rows of the frame before padding.
        width: columns of the frame before padding.
        io: the model's I/O spec.
    """
    m = np.ascontiguousarray(y[:height, :width])
    if io.output == "minmax":
        low, high = m.min(), m.max()
        m = (m - low) / (high - low) if high > low else np.zeros_like(m)
    return m


def upscale(x: Map, width: int, height: int) -> Map:
    """Resize a map bilinearly with half-pixel centres (the `half_pixel` mode of ONNX `Resize`).

    A constant map keeps its value, and every result lies within the range of the input values.

    Args:
        x: float32 (h, w).
        width: columns of the result.
        height: rows of the result.

    Returns:
        float32 (height, width).
    """
    if x.shape == (height, width):
        return x
    left, wx = _taps(x.shape[1], width)
    top, wy = _taps(x.shape[0], height)
    right, below = np.minimum(left + 1, x.shape[1] - 1), np.minimum(top + 1, x.shape[0] - 1)
    row = np.take(x, left, axis=1)  # x[:, left] returns column order, which is slow
    row += (np.take(x, right, axis=1) - row) * wx
    out = row[top]
    out += (row[below] - out) * wy[:, None]
    return out


def _taps(size_in: int, size_out: int) -> tuple[npt.NDArray[np.intp], Map]:
    """Return, per output sample, the index of the left input sample and the weight of the right one."""
    at = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    at = np.clip(at, 0, size_in - 1)
    left = at.astype(np.intp)
    # A float32 weight of at most 1 - 2**-23 keeps a + (b - a) * w from rounding past b.
    return left, np.minimum(at - left, 1 - 2.0**-23).astype(np.float32)


class Session:
    """A loaded model. Several threads may call it at once; each call uses one thread.

    Args:
        model: the model to load; the registry verifies its bytes.
        device: `auto` uses CUDA if its provider is installed.

    Raises:
        ModelError: ONNX Runtime cannot load the bytes.
        ContractError: the name, rank or type of a tensor differs from the tensor contract.
        UsageError: the device is not available.
        VerificationError, RegistryError: see `eyeline.registry.registry.Model.data`.
    """

    def __init__(self, model: Model, device: Device = "auto") -> None:
        self.model = model
        self.failures = runtime_errors()
        self._session = open_runtime_session(model.data, model.id, device)
        try:
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
            self._check_tensor("input", inputs, INPUT_NAME, 3)
            self._check_tensor("output", outputs, OUTPUT_NAME, 1)
        except self.failures as exc:
            raise ModelError(
                f"{model.id}: the names and shapes of its tensors can't be read: {first_line(exc)}",
                "check that the file is an ONNX model",
            ) from exc
        self.provider: str = self._session.get_providers()[0]
        self.runtime_version: str = import_runtime().__version__

    def _check_tensor(self, kind: str, tensors: list[Any], name: str, channels: int) -> None:
        if len(tensors) != 1 or tensors[0].name != name:
            names = ", ".join(repr(t.name) for t in tensors)[:200] or "none"
            problem = f"the {kind} tensors are {names}; the tensor contract requires one, {name!r}"
        elif tensors[0].type != "tensor(float)" or len(tensors[0].shape) != 4:
            problem = (
                f"{name!r} is {tensors[0].type} of rank {len(tensors[0].shape)}; "
                f"the tensor contract requires float32 (N, {channels}, H, W)"
            )
        elif isinstance(found := tensors[0].shape[1], int) and found != channels:
            problem = f"{name!r} has {found} channels, not {channels}"
        else:
            return
        raise ContractError(f"{self.model.id}: {problem}", "export the model with this tensor")

    def run(self, x: Map) -> Map:
        """Run the model on one input.

        Args:
            x: float32 (1, 3, H, W), normalised.

        Returns:
            float32 (H, W) in [0, 1].

        Raises:
            ContractError: the map has another size than the input, NaN, or values outside [0, 1].
            ModelError: ONNX Runtime can't run the model at this size.
        """
        try:
            y: Map = self._session.run([OUTPUT_NAME], {INPUT_NAME: x})[0]
        except self.failures as exc:
            raise ModelError(
                f"{self.model.id}: failed on an input of {x.shape[3]}x{x.shape[2]}: {first_line(exc)}",
                "check the field multiple of its I/O spec",
            ) from exc
        if y.shape != (x.shape[0], 1, *x.shape[2:]):
            raise ContractError(
                f"{self.model.id}: the shape of the map is {y.shape} for an input of {x.shape}",
                "export the model so that its map has the height and width of the input",
            )
        low, high = float(y.min()), float(y.max())
        if not (
            low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE
        ):  # also rejects NaN, which fails both comparisons
            raise ContractError(
                f"{self.model.id}: the map has values in [{low:g}, {high:g}]; "
                "they must be finite and in [0, 1]",
                "check that the model ends in a sigmoid",
            )
        m: Map = y[0, 0]
        return m if low >= 0 and high <= 1 else np.clip(m, 0, 1)
