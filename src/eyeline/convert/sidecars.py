"""The files beside a model: their suffixes, the provenance manifest, and how all are written.

The manifest is an in-toto Statement v1 with a SLSA provenance v1 predicate. It holds digests, versions and
relative names only, no clock, host, user or path: the same inputs under the same versions of the tools
give the same bytes on any machine. Measured numbers differ between CPUs in their last digits, so the
parity report stands beside the manifest and is not one of its subjects.
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
"""`kind` of the parity report of `eyeline model quantize`: near its source, not equal to it."""

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"

_APACHE = Path(__file__).parent / "mirrors" / "Apache-2.0.txt"


@dataclass(frozen=True)
class ResourceDescriptor:
    """Something that went into a model (in-toto attestation framework, v1).

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
        subjects: file name to bytes of everything that was made.
        external: parameters that the user chose.
        internal: parameters that follow from the recipe and the code.
        materials: what went in.
        versions: of the tools.
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
        manifest: see `make_manifest`.
        files: name to bytes; every subject must be among them.

    Returns:
        The names of the subjects.

    Raises:
        VerificationError: not a manifest, a file is missing, or a file has other bytes.
    """
    try:
        value = json.loads(manifest)
        wanted = {s["name"]: s["digest"]["sha256"] for s in value["subject"]}
        kinds = (value["_type"], value["predicateType"])
    except (ValueError, KeyError, TypeError) as exc:
        raise VerificationError(
            "not a manifest: it is not an in-toto statement", "export the model again"
        ) from exc
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
            raise VerificationError(
                f"{name}: its bytes are not the manifest's", "export the model again"
            )
    return set(wanted)


def apache_text() -> str:
    """Return the Apache License 2.0 as the Apache Software Foundation publishes it."""
    return _APACHE.read_text()


def write_model(out: Path, model: bytes, sidecars: Mapping[str, bytes]) -> dict[str, Path]:
    """Write a model's sidecars and then `NAME.onnx`: where a model is, its sidecars are.

    Returns:
        The paths by suffix.
    """
    files = {**sidecars, ".onnx": model}
    paths = {suffix: out.parent / (out.name.removesuffix(".onnx") + suffix) for suffix in files}
    for suffix, data in files.items():
        write_bytes(paths[suffix], data)
    return paths
