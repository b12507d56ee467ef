"""The files beside a model: their suffixes, the provenance manifest, and the function that writes them.

The manifest is an in-toto Statement v1 with a SLSA provenance v1 predicate. It contains digests, versions
and relative names, but no time, host name, user name or path. So the same inputs and tool versions give
the same bytes on every machine. The last digits of measured numbers depend on the CPU, so the parity
report is not one of the subjects of the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eyeline.digests import sha256_hex
from eyeline.errors import VerificationError
from eyeline.files import write_bytes

IO_SPEC, BOM, MANIFEST, PARITY = ".json", ".cdx.json", ".intoto.json", ".parity.json"
LICENSE, RECEIPT = ".license.txt", ".receipt.txt"
SIDECARS = (IO_SPEC, LICENSE, RECEIPT, BOM, MANIFEST, PARITY)

MAX_SIDECAR = 16 * 1024 * 1024  # bytes

QUANTISATION = "quantisation"
"""`kind` of the parity report of a quantised model, which is near its source but not equal to it."""

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"

_APACHE = Path(__file__).parent / "mirrors" / "Apache-2.0.txt"


@dataclass(frozen=True)
class ResourceDescriptor:
    """An input from which a model was made (in-toto attestation framework, v1).

    Attributes:
        name: file name, or path inside the upstream repository; never a path of this machine.
        digest: maps an algorithm, `sha256` or `gitCommit`, to the hex digest.
        uri: URI of the origin; empty if it is not known.
        note: one sentence about the input, such as who supplied it.
    """

    name: str
    digest: dict[str, str]
    uri: str = ""
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """Return JSON values."""
        fields: dict[str, object] = {"name": self.name, "digest": dict(sorted(self.digest.items()))}
        if self.uri:
            fields["uri"] = self.uri
        if self.note:
            fields["annotations"] = {"note": self.note}
        return fields


def canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys, one space of indentation and a trailing newline."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def make_manifest(
    subjects: Mapping[str, bytes],
    *,
    external: Mapping[str, object],
    internal: Mapping[str, object],
    materials: Sequence[ResourceDescriptor],
    versions: Mapping[str, str],
) -> bytes:
    """Make the manifest of a model.

    Args:
        subjects: maps the name of each written file to its bytes.
        external: parameters that the user chose.
        internal: parameters that the recipe and the code determine.
        materials: the inputs from which the model was made.
        versions: maps the name of each tool to its version.
    """
    subject = [
        {"name": name, "digest": {"sha256": sha256_hex(data)}}
        for name, data in sorted(subjects.items())
    ]
    build = {
        "buildType": "urn:eyeline:model-export:v1",
        "externalParameters": dict(external),
        "internalParameters": dict(internal),
        "resolvedDependencies": [m.to_json() for m in materials],
    }
    run = {"builder": {"id": "urn:eyeline:cli", "version": dict(versions)}}
    return canonical_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": subject,
            "predicateType": PREDICATE_TYPE,
            "predicate": {"buildDefinition": build, "runDetails": run},
        }
    )


def check_subjects(manifest: bytes, files: Mapping[str, bytes]) -> set[str]:
    """Compare files with the digests in a manifest.

    Args:
        manifest: bytes of a manifest of `make_manifest`.
        files: maps file names to bytes; it must contain every subject of the manifest.

    Returns:
        The names of the subjects.

    Raises:
        VerificationError: the manifest is invalid, a file is missing, or a digest differs.
    """
    try:
        value = json.loads(manifest)
        wanted = {s["name"]: s["digest"]["sha256"] for s in value["subject"]}
        kinds = (value["_type"], value["predicateType"])
    except (ValueError, KeyError, TypeError) as exc:
        raise VerificationError(
            "the manifest is not a valid in-toto statement", "export the model again"
        ) from exc
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise VerificationError(
            f"the predicate type of the manifest is {kinds[1]}; it must be {PREDICATE_TYPE}",
            "export the model again",
        )
    for name, digest in wanted.items():
        if name not in files:
            raise VerificationError(
                f"the manifest lists {name}, but this file is missing",
                "copy the file to the folder of the model, or export the model again",
            )
        if sha256_hex(files[name]) != digest:
            raise VerificationError(
                f"{name}: its sha256 differs from the one in the manifest", "export the model again"
            )
    return set(wanted)


def apache_text() -> str:
    """Return the text of the Apache License 2.0 as the Apache Software Foundation publishes it."""
    return _APACHE.read_text()


def write_model(out: Path, model: bytes, sidecars: Mapping[str, bytes]) -> dict[str, Path]:
    """Write the sidecars of a model and then `NAME.onnx`, so that no model lacks its sidecars.

    Returns:
        The path of each file, by suffix.
    """
    files = {**sidecars, ".onnx": model}
    paths = {suffix: out.parent / (out.name.removesuffix(".onnx") + suffix) for suffix in files}
    for suffix, data in files.items():
        write_bytes(paths[suffix], data)
    return paths
