"""The registry of models: what each one is, where its bytes are, and proof that they are those bytes.

`records` says what an entry holds, `registry` finds entries and hands out verified bytes,
`placeholder` makes the smoke model, `export` turns a trained net into ONNX (needs torch), `scan` says
whether a file may be loaded at all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyeline.registry.records import IoSpec, ModelRecord
    from eyeline.registry.registry import Model, Registry, resolve_model

__all__ = ["IoSpec", "Model", "ModelRecord", "Registry", "resolve_model"]

_HOMES = dict.fromkeys(("IoSpec", "ModelRecord"), "eyeline.registry.records")


def __getattr__(name: str) -> Any:
    # On first use: a scan must not wait for the records' pydantic.
    if name not in __all__:
        raise AttributeError(f"module 'eyeline.registry' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "eyeline.registry.registry")), name)
