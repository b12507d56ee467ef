"""Create ONNX Runtime sessions from bytes in memory, with one thread and without telemetry.

No other module creates sessions. The constants below are the tensor contract: every saliency model has one
input and one output with these names, shapes and value ranges.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from eyeline.errors import ModelError, UsageError, first_line

Device = Literal["auto", "cpu", "cuda"]

INPUT_NAME = "input"
"""float32 (N, 3, H, W), RGB, ImageNet-normalised."""

OUTPUT_NAME = "saliency_map"
"""float32 (N, 1, H, W) in [0, 1]."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet's training set, R, G, B in [0, 1] (torchvision's model documentation)."""


def open_runtime_session(data: bytes, name: str, device: Device = "auto") -> Any:
    """Create a session from the bytes of an ONNX model.

    The session uses one thread and does not spin, because callers run frames in parallel and an idle
    thread would take CPU time from the others.

    Args:
        data: the ONNX model.
        name: name of the model in error messages.
        device: `auto` uses CUDA if its provider is installed.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ModelError: ONNX Runtime cannot load the bytes.
        UsageError: the device is not available.
    """
    if data[4:8] == b"ORTM":
        raise ModelError(
            f"{name}: the file is in ORT format, which eyeline does not load", "give an ONNX model"
        )
    runtime = import_runtime()
    available = runtime.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise UsageError(
            "the installed ONNX Runtime does not support CUDA",
            "pip install onnxruntime-gpu, or use --device cpu",
        )
    use_cuda = device != "cpu" and "CUDAExecutionProvider" in available
    providers = ["CUDAExecutionProvider"] if use_cuda else []
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors reach the user as exceptions instead
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Tensors in external files are not verified, so ONNX Runtime must find none: /dev/null is no folder.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    try:
        session = runtime.InferenceSession(
            data,
            options,
            providers=[*providers, "CPUExecutionProvider"],
            enable_fallback=0,  # the fallback prints to stdout and hides errors
        )
    except runtime_errors() as exc:
        raise ModelError(
            f"{name}: ONNX Runtime can't load the model: {first_line(exc)}",
            "check that the file is an ONNX model",
        ) from exc
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise UsageError("CUDA can't be started", "check the driver, or use --device cpu")
    return session


def import_runtime() -> Any:
    """Import `onnxruntime` with telemetry turned off."""
    # ONNX Runtime >= 1.29 records usage events unless this variable is set before the import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return the classes of exceptions that ONNX Runtime raises, for an `except` clause.

    The exception classes of ONNX Runtime have no common base class. Its Python binding also raises
    `ValueError` (a tensor name that is not UTF-8) and `RuntimeError`.
    """
    import_runtime()  # first: importing any submodule starts the telemetry
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [c for c in vars(state).values() if isinstance(c, type) and issubclass(c, Exception)]
    return (*own, ValueError, RuntimeError)
