"""An ONNX Runtime session over verified bytes, held to the tensor contract."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eyeline.errors import ContractError, ModelError, first_line
from eyeline.registry.registry import Model
from eyeline.runtime import (
    INPUT_NAME,
    OUTPUT_NAME,
    Device,
    import_runtime,
    open_runtime_session,
    runtime_errors,
)

RANGE_TOLERANCE = 1e-5  # a sigmoid computed in float32 may leave [0, 1] by round-off only


class Session:
    """A model ready to run: thread-safe, one thread a call, bit-identical whatever the caller.

    Args:
        model: what to load; its bytes are verified by the registry.
        device: `auto` takes CUDA when its provider is there.

    Raises:
        ModelError: bytes that ONNX Runtime refuses.
        ContractError: tensor names, ranks or types that are not the contract's.
        UsageError: a device that is not there.
        VerificationError, RegistryError: see `eyeline.registry.registry`.
    """

    def __init__(self, model: Model, device: Device = "auto") -> None:
        self.model = model
        self.failures = runtime_errors()
        self._session = open_runtime_session(model.data, model.id, device)
        try:
            self._check_contract()
        except self.failures as exc:
            raise ModelError(
                f"{model.id}: its tensors can't be read: {first_line(exc)}", "is it an ONNX model?"
            ) from exc
        self.provider: str = self._session.get_providers()[0]
        self.runtime_version: str = import_runtime().__version__

    def _check_contract(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        for kind, tensors, name, channels in (
            ("input", inputs, INPUT_NAME, 3),
            ("output", outputs, OUTPUT_NAME, 1),
        ):
            if len(tensors) != 1 or tensors[0].name != name:
                names = ", ".join(repr(t.name) for t in tensors)[:200] or "none"
                raise ContractError(
                    f"{self.model.id}: {kind} tensors are {names}; the contract says one {name!r}",
                    "export it with the contract's names",
                )
            tensor = tensors[0]
            if tensor.type != "tensor(float)" or len(tensor.shape) != 4:
                raise ContractError(
                    f"{self.model.id}: {name!r} is {tensor.type} of rank {len(tensor.shape)}; "
                    f"the contract says float32 (N, {channels}, H, W)",
                    "export it to the contract",
                )
            if isinstance(tensor.shape[1], int) and tensor.shape[1] != channels:
                raise ContractError(
                    f"{self.model.id}: {name!r} has {tensor.shape[1]} channels, not {channels}",
                    "export it to the contract",
                )

    def run(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run one input.

        Args:
            x: float32 (1, 3, H, W), normalised.

        Returns:
            float32 (H, W) in [0, 1].

        Raises:
            ContractError: a map of another size, NaN, or values outside [0, 1].
            ModelError: ONNX Runtime fails at this size.
        """
        try:
            y: npt.NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: x})[0]
        except self.failures as exc:
            raise ModelError(
                f"{self.model.id}: failed on an input of {x.shape[3]}x{x.shape[2]}: {first_line(exc)}",
                "does its I/O spec state the right multiple?",
            ) from exc
        if y.shape != (x.shape[0], 1, *x.shape[2:]):
            raise ContractError(
                f"{self.model.id}: map is {y.shape} for an input of {x.shape}",
                "the contract wants the input's own size",
            )
        low, high = float(y.min()), float(y.max())
        if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):  # NaN fails both
            raise ContractError(
                f"{self.model.id}: map values are in [{low:g}, {high:g}]",
                "the contract says [0, 1] and finite: is the sigmoid missing?",
            )
        m: npt.NDArray[np.float32] = y[0, 0]
        return m if low >= 0 and high <= 1 else np.clip(m, 0, 1)
