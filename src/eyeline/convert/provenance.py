"""Where a model comes from: an in-toto Statement v1 with a SLSA provenance v1 predicate.

Deterministic: digests, versions and relative names only; no clock, host, user or path. The same inputs
under the same tool versions give the same bytes on any machine. Measured numbers (parity) differ between
CPUs in their last digits: they are stored beside the manifest, not in it.

The licence receipt: what section 4 of the Apache License 2.0 asks of who passes a changed work on.

(a) a copy of the licence; (b) a notice that the files were changed; (c) the attributions that the source
carries; (d) the NOTICE file's text, where there is one.

A CycloneDX 1.6 bill of materials of a model (ML-BOM), deterministic and validated offline.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyeline.convert.mirror_recipe import MirrorRecipe
from eyeline.digests import sha256_hex
from eyeline.errors import MissingExtraError, ModelError, VerificationError
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME

QUANTISATION = "quantisation"
"""`kind` of a parity report that `eyeline model quantize` left: near its source, not equal to it."""

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:eyeline:model-export:v1"
BUILDER = "urn:eyeline:cli"


@dataclass(frozen=True)
class Material:
    """Something that went into a model.

    Attributes:
        name: file name or path inside the upstream; never a path of this machine.
        digest: algorithm to hex digest, `sha256` or `gitCommit`.
        uri: where it comes from, empty when that is not known.
        note: one sentence, such as the chain of custody.
    """

    name: str
    digest: dict[str, str]
    uri: str = ""
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """A SLSA ResourceDescriptor (in-toto attestation framework, v1)."""
        fields: dict[str, object] = {"name": self.name, "digest": dict(sorted(self.digest.items()))}
        if self.uri:
            fields["uri"] = self.uri
        if self.note:
            fields["annotations"] = {"note": self.note}
        return fields


def statement(
    subjects: Mapping[str, bytes],
    *,
    external: Mapping[str, object],
    internal: Mapping[str, object],
    materials: Sequence[Material],
    versions: Mapping[str, str],
) -> bytes:
    """A manifest.

    Args:
        subjects: file name to bytes of everything that was made.
        external: parameters that the user chose.
        internal: parameters that follow from the recipe and the code.
        materials: what went in.
        versions: of the tools.

    Returns:
        JSON, UTF-8, sorted keys, one trailing newline.
    """
    value = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": sha256_hex(data)}}
            for name, data in sorted(subjects.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(external),
                "internalParameters": dict(internal),
                "resolvedDependencies": [m.to_json() for m in materials],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": dict(sorted(versions.items()))}},
        },
    }  # fmt: skip
    return canonical_json(value)


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys, one space of indentation and a trailing newline."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def check_subjects(manifest: bytes, files: Mapping[str, bytes]) -> None:
    """Hold files against a manifest.

    Args:
        manifest: what `statement` made.
        files: name to bytes; every subject must be there.

    Raises:
        VerificationError: not a manifest, a file is missing, or its bytes are others.
    """
    try:
        value = json.loads(manifest)
        wanted = {s["name"]: s["digest"]["sha256"] for s in value["subject"]}
        kinds = (value["_type"], value["predicateType"])
    except (ValueError, KeyError, TypeError) as exc:
        raise VerificationError("not a manifest: no in-toto statement", "export it again") from exc
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise VerificationError(
            f"the manifest's predicate is {kinds[1]}; a manifest of eyeline has {PREDICATE_TYPE}",
            "export the model again",
        )
    for name, digest in wanted.items():
        if name not in files:
            raise VerificationError(
                f"{name} is in the manifest and not there", "keep the files together"
            )
        if sha256_hex(files[name]) != digest:
            raise VerificationError(f"{name}: its bytes are not the manifest's", "export it again")


CANONICAL = Path(__file__).parent / "mirrors" / "Apache-2.0.txt"


def licence_text() -> str:
    """The Apache License 2.0 as the Apache Software Foundation publishes it."""
    return CANONICAL.read_text()


def receipt(
    recipe: MirrorRecipe,
    *,
    changes: Sequence[str],
    source: str,
    license_text: str | None = None,
    notices: Sequence[str] = (),
    notice: str | None = None,
) -> bytes:
    """The receipt of a mirrored model.

    Args:
        recipe: what was mirrored.
        changes: what was done to it, one sentence each.
        source: what it was made from: commit, or asset and digest.
        license_text: the upstream's LICENSE; the canonical text when None.
        notices: copyright lines of the upstream's LICENSE, as they stand.
        notice: text of its NOTICE file; None or empty when it has none.

    Returns:
        Text, UTF-8.
    """
    named = [n for n in notices if "[yyyy]" not in n]
    copyright_lines = (
        "\n".join(named)
        if named else "The upstream's LICENSE names no holder: its copyright line is the unfilled template."
    )  # fmt: skip
    parts = [
        f"{recipe.id}: licence receipt",
        f"Made from {recipe.net} of {recipe.upstream}\n{source}\n"
        f"Licence: {recipe.license}. {recipe.weights_evidence}",
        "Changes (section 4 b). The files were modified:\n" + "\n".join(f"- {c}" for c in changes),
        f"Attribution (section 4 c).\n{recipe.attribution}\n{copyright_lines}",
        "NOTICE (section 4 d).\n"
        + (notice.strip() if notice and notice.strip() else "The upstream has no NOTICE file."),
        "Copy of the licence (section 4 a).\n\n" + (license_text or licence_text()).strip("\n"),
    ]
    return ("\n\n".join(parts) + "\n").encode()


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
