"""The registry of models: which models there are, where their files are, and whether to trust them.

A registry is a folder with `registry.json` and one ONNX file per model. The package has one built in;
a user names another with `--registry` or `EYELINE_REGISTRY`. ::

    model = resolve_model("saliency_student_v4")
    model.data      # the file's bytes, compared with the registered sha256 before they are returned
    model.record    # licence, role, provenance
    model.io        # how a frame becomes the model's input

Open `registry` to change how a model is found, `records` for the fields of `registry.json` and
`trust.json`, and `signing` for releases, signatures and the checks at load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyeline.registry.records import IoSpec, ModelRecord
    from eyeline.registry.registry import Model, Registry, resolve_model

__all__ = ["IoSpec", "Model", "ModelRecord", "Registry", "resolve_model"]


def __getattr__(name: str) -> Any:
    # On first use: pydantic takes a third of a command's start.
    if name not in __all__:
        raise AttributeError(f"module 'eyeline.registry' has no attribute {name!r}")
    home = "records" if name in ("IoSpec", "ModelRecord") else "registry"
    return getattr(import_module(f"eyeline.registry.{home}"), name)
