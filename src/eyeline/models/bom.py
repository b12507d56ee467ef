"""A CycloneDX 1.6 bill of materials of a model (ML-BOM), deterministic and validated offline."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from eyeline.digest import sha256_hex
from eyeline.errors import MissingExtraError, ModelError
from eyeline.models.manifest import Material, canonical_json
from eyeline.models.mirror_recipe import MirrorRecipe
from eyeline.saliency.contract import INPUT_NAME, OUTPUT_NAME

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:eyeline:ml-bom:v1")


def bill_of_materials(
    recipe: MirrorRecipe,
    model: bytes,
    file: str,
    materials: Sequence[Material],
    versions: Mapping[str, str],
) -> bytes:
    """The ML-BOM of a mirrored model.

    Args:
        recipe: what was mirrored.
        model: the ONNX bytes.
        file: name of the ONNX file.
        materials: what went in.
        versions: of the tools.

    Returns:
        JSON, UTF-8, sorted keys. The serial number follows from the model's digest; there is no time stamp.
    """
    digest = sha256_hex(model)
    licence = [{"license": {"id": recipe.license}}]
    parts = [_part(m, licence) for m in materials]
    card = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "salient object detection",
            "architectureFamily": "convolutional network",
            "modelArchitecture": recipe.net,
            "inputs": [{"format": f"{INPUT_NAME}: float32 (N, 3, H, W), RGB, ImageNet-normalised"}],
            "outputs": [{"format": f"{OUTPUT_NAME}: float32 (N, 1, H, W) in [0, 1]"}],
        },
        "considerations": {"technicalLimitations": list(recipe.limits)},
    }
    component = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{digest}",
        "name": recipe.id,
        "version": digest[:12],
        "description": recipe.description,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": licence,
        "copyright": recipe.attribution,
        "externalReferences": [{"type": "vcs", "url": recipe.upstream}],
        "modelCard": card,
        "pedigree": {"ancestors": parts, "notes": recipe.weights_evidence},
        "properties": [{"name": "eyeline:file", "value": file}],
    }
    tools = [
        {"type": "application", "name": name, "version": version}
        for name, version in sorted(versions.items())
    ]
    return canonical_json(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, digest)}",
            "version": 1,
            "metadata": {"component": component, "tools": {"components": tools}},
        }
    )


def _part(material: Material, licence: list[dict[str, Any]]) -> dict[str, Any]:
    """A material as a component; a git commit, no hash of CycloneDX, becomes its version."""
    part: dict[str, Any] = {"type": "file", "name": material.name, "licenses": licence}
    if "sha256" in material.digest:
        part["hashes"] = [{"alg": "SHA-256", "content": material.digest["sha256"]}]
    if "gitCommit" in material.digest:
        part |= {"type": "application", "version": material.digest["gitCommit"]}
    if material.uri:
        kind = "vcs" if material.uri.startswith("git+") else "distribution"
        part["externalReferences"] = [{"type": kind, "url": material.uri}]
    if material.note:
        part["description"] = material.note
    return part


def require_schema() -> None:
    """Find before the work whether the schema is at hand.

    Raises:
        MissingExtraError: the extra `audit` is not installed.
    """
    try:
        import cyclonedx.validation.json  # noqa: F401
    except ModuleNotFoundError as exc:
        raise MissingExtraError("cyclonedx-python-lib", "audit") from exc


def validate_bom(data: bytes) -> None:
    """Validate against the CycloneDX 1.6 schema, offline.

    Raises:
        MissingExtraError: the extra `audit` is not installed.
        ModelError: not valid.
    """
    require_schema()
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())
    if error is not None:
        first = " ".join(str(getattr(error, "data", error)).split())[:200]
        raise ModelError(f"the bill of materials is not CycloneDX 1.6: {first}", "report it")
