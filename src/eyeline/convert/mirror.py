"""Convert the network of another project to an ONNX model that keeps eyeline's tensor contract.

The contract fixes tensor names, shapes and value ranges (see `eyeline.runtime`). The source is either a
git checkout with a checkpoint (`mirror_upstream`), or an ONNX file whose digest a recipe records
(`mirror_onnx`). Both functions write all of these files, or none:

    NAME.onnx         the model
    NAME.json         the I/O spec of the model, which every command reads
    NAME.receipt.txt  licence, changes and attributions, which Apache License 2.0, section 4, requires
    NAME.cdx.json     CycloneDX 1.6 ML-BOM, validated offline
    NAME.intoto.json  in-toto Statement with SLSA provenance; its subjects are the four files above
    NAME.parity.json  measured differences from the source; their last digits depend on the CPU
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from eyeline._version import __version__
from eyeline.convert.graph import (
    OPSET,
    drop_identities,
    finish,
    fold_batch_norm,
    half_pixel,
    keep_output,
    load_model,
    to_contract,
    to_opset,
)
from eyeline.convert.parity import (
    GATE,
    RANDOM_INPUTS,
    SIZES,
    MirrorParity,
    OnStep,
    against_asset,
    against_torch,
)
from eyeline.convert.sidecars import (
    BOM,
    IO_SPEC,
    MANIFEST,
    PARITY,
    RECEIPT,
    ResourceDescriptor,
    apache_text,
    canonical_json,
    make_manifest,
    write_model,
)
from eyeline.convert.upstream import MirrorRecipe, UpstreamSource, open_upstream, read_upstream
from eyeline.digests import sha256_hex
from eyeline.errors import (
    MissingExtraError,
    ModelError,
    ScanError,
    VerificationError,
)
from eyeline.files import read_regular_file
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME
from eyeline.scan import scan

_BOM_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:eyeline:ml-bom:v1")

COMPACTED = "equal nodes are one, tensors are numbered, metadata is ours"


@dataclass(frozen=True)
class Mirrored:
    """The result of a mirror.

    Attributes:
        model: the ONNX file.
        sha256: hex digest of the ONNX file.
        files: path of every written file, by suffix.
        parity: the measured differences between the model and its source.
    """

    model: Path
    sha256: str
    files: dict[str, Path]
    parity: MirrorParity

    def text(self) -> str:
        """Return the files and the parity as lines of text."""
        beside = ", ".join(path.name for suffix, path in self.files.items() if suffix != ".onnx")
        proofs = (proof.text(source) for source, proof in self.parity.proofs.items())
        head = f"wrote {self.model}, sha256 {self.sha256}\nbeside it: {beside}"
        return "\n".join((head, *proofs))


@dataclass(frozen=True)
class _Origin:
    kind: Literal["onnx-asset", "checkout"]
    about: str
    changes: Sequence[str]
    materials: Sequence[ResourceDescriptor]
    upstream: UpstreamSource | None
    versions: Mapping[str, str]


def mirror_onnx(
    asset: Path,
    out: Path,
    recipe: MirrorRecipe,
    *,
    checkout: Path | None = None,
    on_step: OnStep = lambda what, done, total: None,
) -> Mirrored:
    """Convert the ONNX file whose digest a recipe records.

    Args:
        asset: the downloaded ONNX file.
        out: `NAME.onnx`; the other files are written beside it.
        recipe: describes the source and the model.
        checkout: git directory of the upstream project, from which LICENSE and NOTICE are read.
        on_step: progress callback, see `OnStep`.

    Raises:
        VerificationError: the digest of the file differs from the recipe.
        ModelError: the graph cannot be converted, or the parity check fails.
        ScanError: the scanner rejects the result.
        LicenceError: the licence of the checkout is not that of the recipe.
    """
    _require_cyclonedx()
    pinned = recipe.asset
    if pinned is None:
        raise ModelError(
            f"recipe {recipe.id} names no ONNX file to convert",
            "give a git checkout of the upstream project and a checkpoint instead",
        )
    data = read_regular_file(asset)
    digest = sha256_hex(data)
    if digest != pinned.sha256:
        raise VerificationError(
            f"{asset}: its sha256 is {digest[:16]}..., but recipe {recipe.id} requires "
            f"{pinned.sha256[:16]}...",
            f"download {pinned.url}, or write a recipe with the sha256 of this file",
        )
    source = read_upstream(checkout, recipe) if checkout else None
    theirs = load_model(data, asset.name)
    model = keep_output(theirs, pinned.head)
    to_contract(model.graph)
    model = to_opset(model)
    drop_identities(model.graph)
    changed = half_pixel(model.graph)
    made = _finish(model, recipe, out.name, {"source": f"sha256:{digest}"})
    parity = against_asset(data, pinned.head, made, out.name, on_step)
    origin = _Origin(
        kind="onnx-asset",
        about=f"Asset: {pinned.name}, sha256 {digest}. {pinned.custody}",
        changes=[
            f"one output of {len(theirs.graph.output)} is kept (number {pinned.head})",
            "input and output are named input and saliency_map; batch, height and width are free",
            f"opset {theirs.opset_import[0].version} became {OPSET}",
            f"{changed} resizes say half_pixel instead of pytorch_half_pixel (equal here)",
            COMPACTED,
        ],
        materials=[
            ResourceDescriptor(pinned.name, {"sha256": digest}, pinned.url, pinned.custody),
            *_upstream_materials(recipe, source),
        ],
        upstream=source,
        versions={"eyeline": __version__, "numpy": np.__version__, "onnx": onnx.__version__},
    )
    return _write(out, recipe, made, parity, origin)


def mirror_upstream(
    checkout: Path,
    checkpoint: Path,
    out: Path,
    recipe: MirrorRecipe,
    *,
    on_step: OnStep = lambda what, done, total: None,
) -> Mirrored:
    """Convert the network in a git checkout with the weights of a checkpoint (needs the extra `train`).

    Args:
        checkout: git checkout or git directory of the upstream project.
        checkpoint: file with the weights; it may contain tensors only.
        out: `NAME.onnx`; the other files are written beside it.
        recipe: describes the source and the model.
        on_step: progress callback, see `OnStep`.

    Raises:
        LicenceError, VerificationError: see `eyeline.convert.upstream.read_upstream`.
        ModelError: see `eyeline.convert.upstream.open_upstream`, or the parity check fails.
        MissingExtraError: torch is not installed.
        ScanError: the scanner rejects the result.
    """
    _require_cyclonedx()
    on_step("load", 0, 1)
    source = read_upstream(checkout, recipe)
    weights = read_regular_file(checkpoint)
    digest = sha256_hex(weights)
    with open_upstream(source, recipe, weights) as net:
        model = load_model(net.export(OPSET), source.module)
        drop_identities(model.graph)
        folded = fold_batch_norm(model.graph)
        inputs = {"source": f"git:{source.commit}", "checkpoint": f"sha256:{digest}"}
        made = _finish(model, recipe, out.name, inputs)
        parity = against_torch(net.run, made, out.name, on_step)
        versions = {"eyeline": __version__, "onnx": onnx.__version__, **net.versions}
    origin = _Origin(
        kind="checkout",
        about=f"Commit {source.commit}, {source.module}; "
        f"checkpoint {checkpoint.name}, sha256 {digest}.",
        changes=[
            "the PyTorch net was traced to ONNX, opset 17, batch, height and width free",
            f"output {recipe.head} is kept and named saliency_map; the input is named input",
            f"{folded} batch normalisations are folded into their convolutions, computed in float64",
            COMPACTED,
        ],
        materials=[
            *_upstream_materials(recipe, source),
            ResourceDescriptor(
                checkpoint.name, {"sha256": digest}, note="weights as they were at hand"
            ),
        ],
        upstream=source,
        versions=versions,
    )
    return _write(out, recipe, made, parity, origin)


def _finish(
    model: onnx.ModelProto, recipe: MirrorRecipe, name: str, origin: Mapping[str, str]
) -> bytes:
    metadata = {"id": recipe.id, "license": recipe.license, "upstream": recipe.upstream, **origin}
    metadata["changes"] = "modified by eyeline: see the receipt that travels with the file"
    data = finish(model, metadata, name=recipe.id)
    report = scan(data, name=name)
    if report.findings:
        raise ScanError(
            f"{name}: the scanner rejects the converted model: {report.findings[0]}",
            "eyeline does not load such a model; choose another network",
        )
    return data


def _upstream_materials(
    recipe: MirrorRecipe, source: UpstreamSource | None
) -> list[ResourceDescriptor]:
    commit = source.commit if source else recipe.commit
    found = []
    if commit:
        uri = f"git+{recipe.upstream}@{commit}"
        found.append(ResourceDescriptor(recipe.net, {"gitCommit": commit}, uri))
    if source:
        licence = sha256_hex(source.license_text.encode())
        found += [
            ResourceDescriptor(source.module, {"sha256": sha256_hex(source.code)}),
            ResourceDescriptor(source.license_path, {"sha256": licence}),
        ]
    elif recipe.module_sha256:
        found.append(ResourceDescriptor(recipe.module, {"sha256": recipe.module_sha256}))
    return found


def _write(
    out: Path, recipe: MirrorRecipe, made: bytes, parity: MirrorParity, origin: _Origin
) -> Mirrored:
    files = {
        ".onnx": made,
        IO_SPEC: canonical_json(recipe.io.model_dump(mode="json")),
        RECEIPT: _receipt(recipe, origin),
        BOM: _bill_of_materials(recipe, made, out.name, origin),
    }
    _validate_bom(files[BOM])
    stem = out.name.removesuffix(".onnx")
    sizes = [list(s) for s in SIZES]
    manifest = make_manifest(
        {stem + suffix: data for suffix, data in files.items()},
        external={"recipe": recipe.id, "from": origin.kind},
        internal={
            "opset": OPSET,
            "changes": list(origin.changes),
            "parity": {"gate": GATE, "sizes": sizes, "inputs": RANDOM_INPUTS, "seed": 0},
            "recipe": recipe.model_dump(mode="json"),
        },
        materials=origin.materials,
        versions=origin.versions,
    )
    del files[".onnx"]
    files |= {MANIFEST: manifest, PARITY: canonical_json(parity.to_json())}
    paths = write_model(out, made, files)
    return Mirrored(paths[".onnx"], sha256_hex(made), paths, parity)


def _receipt(recipe: MirrorRecipe, origin: _Origin) -> bytes:
    """Return the text that section 4 of the Apache License 2.0 requires beside a changed work.

    It contains a copy of the licence (a), a notice that the files were changed (b), the attributions
    of the source (c), and the text of its NOTICE file (d).
    """
    source = origin.upstream
    holders = [n for n in (source.notices if source else ()) if "[yyyy]" not in n]
    notice = (source.notice or "") if source else recipe.notice
    parts = [
        f"{recipe.id}: licence receipt",
        f"Made from {recipe.net} of {recipe.upstream}\n{origin.about}\n"
        f"Licence: {recipe.license}. {recipe.weights_evidence}",
        "Changes (section 4 b). The files were modified:\n"
        + "\n".join(f"- {c}" for c in origin.changes),
        f"Attribution (section 4 c).\n{recipe.attribution}\n"
        + (
            "\n".join(holders)
            or "The upstream's LICENSE names no holder: its copyright line is the unfilled template."
        ),
        "NOTICE (section 4 d).\n" + (notice.strip() or "The upstream has no NOTICE file."),
        "Copy of the licence (section 4 a).\n\n"
        + (source.license_text if source else apache_text()).strip("\n"),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _bill_of_materials(recipe: MirrorRecipe, model: bytes, file: str, origin: _Origin) -> bytes:
    digest = sha256_hex(model)
    licence = [{"license": {"id": recipe.license}}]
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
    ancestors = [_bom_component(m, licence) for m in origin.materials]
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
        "pedigree": {"ancestors": ancestors, "notes": recipe.weights_evidence},
        "properties": [{"name": "eyeline:file", "value": file}],
    }
    tools = [
        {"type": "application", "name": name, "version": version}
        for name, version in sorted(origin.versions.items())
    ]
    return canonical_json(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            # A random serial number or a time stamp would change the bytes from run to run.
            "serialNumber": f"urn:uuid:{uuid.uuid5(_BOM_NAMESPACE, digest)}",
            "version": 1,
            "metadata": {"component": component, "tools": {"components": tools}},
        }
    )


def _bom_component(material: ResourceDescriptor, licence: list[Any]) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "file", "name": material.name, "licenses": licence}
    if "sha256" in material.digest:
        part["hashes"] = [{"alg": "SHA-256", "content": material.digest["sha256"]}]
    if "gitCommit" in material.digest:  # CycloneDX has no hash type for git commits
        part |= {"type": "application", "version": material.digest["gitCommit"]}
    if material.uri:
        kind = "vcs" if material.uri.startswith("git+") else "distribution"
        part["externalReferences"] = [{"type": kind, "url": material.uri}]
    if material.note:
        part["description"] = material.note
    return part


def _require_cyclonedx() -> None:
    # A missing extra must be reported before the parity check, which takes minutes.
    try:
        import cyclonedx.validation.json  # noqa: F401
    except ModuleNotFoundError as exc:
        raise MissingExtraError("cyclonedx-python-lib", "audit") from exc


def _validate_bom(data: bytes) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())
    if error is not None:
        reason = " ".join(str(getattr(error, "data", error)).split())[:200]
        raise ModelError(
            f"the bill of materials is not valid CycloneDX 1.6: {reason}",
            "report this as a bug, with the recipe",
        )
