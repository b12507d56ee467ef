"""The registry of models: what each one is, where its bytes are, and proof that they are those bytes.

`records` says what an entry holds, `registry` finds entries and hands out verified bytes,
`placeholder` makes the smoke model, `export` turns a trained net into ONNX (needs torch).
"""

from __future__ import annotations

from eyeline.models.records import IoSpec, ModelRecord
from eyeline.models.registry import Model, Registry, resolve_model

__all__ = ["IoSpec", "Model", "ModelRecord", "Registry", "resolve_model"]
