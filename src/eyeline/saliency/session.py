"""An ONNX Runtime session over verified bytes, held to the tensor contract."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from eyeline.errors import ContractError, ModelError, UsageError
from eyeline.models.registry import Model
from eyeline.saliency.contract import INPUT_NAME, OUTPUT_NAME

Device = Literal["auto", "cpu", "cuda"]

RANGE_TOLERANCE = 1e-5  # a sigmoid computed in float32 may leave [0, 1] by round-off only


def _import_runtime() -> Any:
    # ONNX Runtime >= 1.29 queues usage events unless this is set before the import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


class Session:
    """A model ready to run: thread-safe, one thread a call, bit-identical whatever the caller.

    Args:
        model: what to load; its bytes are verified by the registry.
        device: `auto` takes CUDA when its provider is there.

    Raises:
        ModelError: bytes that ONNX Runtime refuses.
        ContractError: tensor names, ranks or types that are not the contract's.
        UsageError: a device that is not there.
        VerificationError, RegistryError: see `eyeline.models.registry`.
    """

    def __init__(self, model: Model, device: Device = "auto") -> None:
        data = model.data
        if data[4:8] == b"ORTM":
            raise ModelError(f"{model.id}: an ORT-format file, not ONNX", "give the ONNX model")
        runtime = _import_runtime()
        available = runtime.get_available_providers()
        if device == "cuda" and "CUDAExecutionProvider" not in available:
            raise UsageError(
                "no CUDA in this ONNX Runtime", "pip install onnxruntime-gpu, or --device cpu"
            )
        use_cuda = device != "cpu" and "CUDAExecutionProvider" in available
        providers = ["CUDAExecutionProvider"] if use_cuda else []
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong reaches the user as one line of ours
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # Tensors in other files were not verified: point them at a folder that can't exist.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", os.devnull
        )
        self.model = model
        self.failures = _runtime_errors()
        try:
            self._session = runtime.InferenceSession(
                data,
                options,
                providers=[*providers, "CPUExecutionProvider"],
                enable_fallback=0,  # it prints to stdout, and hides a failure
            )
            self._check_contract()
        except self.failures as exc:
            raise ModelError(
                f"{model.id}: ONNX Runtime can't load it: {_first_line(exc)}",
                "is it an ONNX model?",
            ) from exc
        self.provider: str = self._session.get_providers()[0]
        if device == "cuda" and self.provider != "CUDAExecutionProvider":
            raise UsageError("CUDA can't be started", "check the driver, or --device cpu")
        self.runtime_version: str = runtime.__version__

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
                f"{self.model.id}: failed on an input of {x.shape[3]}x{x.shape[2]}: {_first_line(exc)}",
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
        m = y[0, 0]
        return m if low >= 0 and high <= 1 else np.clip(m, 0, 1)


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own classes, which share no base, and its binding's.

    The binding raises `ValueError` (a tensor name that is not UTF-8) and `RuntimeError`.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [c for c in vars(state).values() if isinstance(c, type) and issubclass(c, Exception)]
    return (*own, ValueError, RuntimeError)


def _first_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200]
