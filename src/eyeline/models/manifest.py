"""Where a model comes from: an in-toto Statement v1 with a SLSA provenance v1 predicate.

Deterministic: digests, versions and relative names only; no clock, host, user or path. The same inputs
under the same tool versions give the same bytes on any machine. Measured numbers (parity) differ between
CPUs in their last digits: they are stored beside the manifest, not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eyeline.digest import sha256_hex
from eyeline.errors import VerificationError

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
