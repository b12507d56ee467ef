"""The registry of models: it lists models, finds their files, and verifies them before use.

A registry is a folder with `registry.json` and one ONNX file per model. One registry is part of the
package; `--registry` or `EYELINE_REGISTRY` adds a folder of the user.

::

    model = resolve_model("saliency_student_v4")
    model.data      # the file's bytes, compared with the registered sha256 before they are returned
    model.record    # licence, role, provenance
    model.io        # how a frame is converted to the input of the model

The module `registry` finds a model by its id or path, `records` defines the fields of `registry.json` and
`trust.json`, and `signing` contains releases, signatures and the checks before a model is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyeline.registry.records import IoSpec, ModelRecord
    from eyeline.registry.registry import Model, Registry, resolve_model

__all__ = ["IoSpec", "Model", "ModelRecord", "Registry", "resolve_model"]


def __getattr__(name: str) -> Any:
    # Imported on first use, because importing pydantic takes a third of the start-up time.
    if name not in __all__:
        raise AttributeError(f"module 'eyeline.registry' has no attribute {name!r}")
    home = "records" if name in ("IoSpec", "ModelRecord") else "registry"
    return getattr(import_module(f"eyeline.registry.{home}"), name)
