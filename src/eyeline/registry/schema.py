"""The registry's JSON Schema, made of its records: `docs/registry.schema.json` is this, published."""

from __future__ import annotations

from typing import Any

from eyeline.registry.records import RegistryFile


def registry_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `registry.json`.

    It says what fields are and hold. That ids are unique, that version 1 has no decisions, and that
    files have their digests is beyond a schema: `eyeline model check` looks at that.
    """
    schema = RegistryFile.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Registry of eyeline",
    }
