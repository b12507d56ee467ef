"""Somebody's net as a model of ours: contract names, free sizes, opset 17, proof, receipt, manifest.

Two ways in: an audited checkout with a checkpoint (`mirror_upstream`), or an ONNX asset that a recipe
pins by digest (`mirror_onnx`). Both leave the same files, or none:

    NAME.onnx         the model
    NAME.json         its I/O spec, which every command reads beside it
    NAME.receipt.txt  Apache License 2.0, section 4
    NAME.cdx.json     CycloneDX 1.6 ML-BOM
    NAME.intoto.json  in-toto Statement with SLSA provenance, over the four files above
    NAME.parity.json  the measured parity, which differs between CPUs in its last digits
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from eyeline._version import __version__
from eyeline.convert.mirror_recipe import MirrorRecipe
from eyeline.convert.parity import GATE, INPUTS, SIZES, OnStep, Parity, against_asset, against_torch
from eyeline.convert.provenance import (
    Material,
    bill_of_materials,
    canonical_json,
    receipt,
    require_schema,
    statement,
    validate_bom,
)
from eyeline.convert.rewrite import (
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
from eyeline.convert.upstream import UpstreamSource, open_upstream, read_upstream
from eyeline.digests import sha256_hex
from eyeline.errors import ModelError, ScanError, VerificationError, first_line
from eyeline.files import read_regular_file, write_bytes
from eyeline.scan import scan


@dataclass(frozen=True)
class Mirrored:
    """What a mirror left.

    Attributes:
        model: the ONNX file.
        sha256: its hex digest.
        files: every file, by its suffix after the stem.
        parity: see `Parity`.
    """

    model: Path
    sha256: str
    files: dict[str, Path]
    parity: Parity


def mirror_onnx(
    asset: Path,
    out: Path,
    recipe: MirrorRecipe,
    *,
    checkout: Path | None = None,
    on_step: OnStep = lambda what, done, total: None,
) -> Mirrored:
    """Mirror a recipe's pinned ONNX asset.

    Args:
        asset: the file, wherever it came from.
        out: `NAME.onnx`; the other files stand beside it.
        recipe: what is mirrored.
        checkout: the upstream's git directory, to take LICENSE and NOTICE from it.
        on_step: see `OnStep`.

    Raises:
        VerificationError: not the recipe's asset.
        ModelError: a graph that can't be carried over, or parity that fails.
        ScanError: the result is not what the scanner admits.
        LicenceError: the checkout's terms are not the recipe's.
    """
    require_schema()
    if recipe.asset is None:
        raise ModelError(f"recipe {recipe.id} pins no ONNX asset", "mirror it from a checkout")
    data = read_regular_file(asset)
    digest = sha256_hex(data)
    if digest != recipe.asset.sha256:
        raise VerificationError(
            f"{asset}: sha256 is {digest[:16]}..., recipe {recipe.id} pins {recipe.asset.sha256[:16]}...",
            "get the pinned file, or pin yours in a recipe",
        )
    source = read_upstream(checkout, recipe) if checkout else None
    model = load_model(data, asset.name)
    outputs = len(model.graph.output)
    keep_output(model.graph, recipe.asset.head)
    opset = model.opset_import[0].version
    to_contract(model.graph)
    model = to_opset(model)
    drop_identities(model.graph)
    changed = half_pixel(model.graph)
    made = _finish(model, recipe, {"source": f"sha256:{digest}"})
    _scan(made, out.name)
    parity = against_asset(data, recipe.asset.head, made, out.name, on_step)
    changes = [
        f"one output of {outputs} is kept (number {recipe.asset.head})",
        "input and output are named input and saliency_map; batch, height and width are free",
        f"opset {opset} became {OPSET}",
        f"{changed} resizes say half_pixel instead of pytorch_half_pixel (equal here)",
        "equal nodes are one, tensors are numbered, metadata is ours",
    ]
    pinned = recipe.asset
    materials = [
        Material(pinned.name, {"sha256": digest}, pinned.url, pinned.custody),
        *_upstream_materials(recipe, source),
    ]
    about = f"Asset: {pinned.name}, sha256 {digest}. {pinned.custody}"
    versions = {"eyeline": __version__, "numpy": np.__version__, "onnx": onnx.__version__}
    return _write(
        out, recipe, made, parity, materials, changes, about, source, "onnx-asset", versions
    )


def mirror_upstream(
    checkout: Path,
    checkpoint: Path,
    out: Path,
    recipe: MirrorRecipe,
    *,
    on_step: OnStep = lambda what, done, total: None,
) -> Mirrored:
    """Mirror a checkout's net with a checkpoint's weights (extra `train`).

    Args:
        checkout: git checkout or git directory of the upstream.
        checkpoint: the weights, tensors only.
        out: `NAME.onnx`; the other files stand beside it.
        recipe: what is mirrored.
        on_step: see `OnStep`.

    Raises:
        LicenceError, VerificationError, ModelError, MissingExtraError: see
            `eyeline.convert.upstream.open_upstream`.
        ScanError: the result is not what the scanner admits.
    """
    require_schema()
    on_step("load", 0, 1)
    with open_upstream(checkout, recipe, checkpoint) as (source, net, digest):
        model = load_model(net.export(OPSET), source.module)
        drop_identities(model.graph)
        folded = fold_batch_norm(model.graph)
        made = _finish(
            model, recipe, {"source": f"git:{source.commit}", "checkpoint": f"sha256:{digest}"}
        )
        _scan(made, out.name)
        parity = against_torch(net.run, made, out.name, on_step)
        versions = {"eyeline": __version__, "onnx": onnx.__version__, **net.versions}
    changes = [
        "the PyTorch net was traced to ONNX, opset 17, batch, height and width free",
        f"output {recipe.head} is kept and named saliency_map; the input is named input",
        f"{folded} batch normalisations are folded into their convolutions, computed in float64",
        "equal nodes are one, tensors are numbered, metadata is ours",
    ]
    materials = [
        *_upstream_materials(recipe, source),
        Material(checkpoint.name, {"sha256": digest}, "", "weights as they were at hand"),
    ]
    about = (
        f"Commit {source.commit}, {source.module}; checkpoint {checkpoint.name}, sha256 {digest}."
    )
    return _write(
        out, recipe, made, parity, materials, changes, about, source, "checkout", versions
    )


def _finish(model: onnx.ModelProto, recipe: MirrorRecipe, origin: Mapping[str, str]) -> bytes:
    model.producer_name, model.producer_version = "eyeline", ""
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = recipe.id
    metadata = {"id": recipe.id, "license": recipe.license, "upstream": recipe.upstream, **origin}
    metadata["changes"] = "modified by eyeline: see the receipt that travels with the file"
    try:
        return finish(model, metadata)
    except onnx.checker.ValidationError as exc:
        raise ModelError(
            f"{recipe.id}: the rewritten graph is not valid: {first_line(exc)}", "report it"
        ) from exc


def _scan(data: bytes, name: str) -> None:
    report = scan(data, name=name)
    if report.findings:
        raise ScanError(f"{name}: {report.findings[0]}", "the scanner does not admit this net")


def _upstream_materials(recipe: MirrorRecipe, source: UpstreamSource | None) -> list[Material]:
    commit = source.commit if source else recipe.commit
    found = (
        [Material(recipe.net, {"gitCommit": commit}, f"git+{recipe.upstream}@{commit}")]
        if commit
        else []
    )
    if source:
        found += [
            Material(source.module, {"sha256": sha256_hex(source.code)}),
            Material(source.license_path, {"sha256": sha256_hex(source.license_text.encode())}),
        ]
    elif recipe.module_sha256:
        found.append(Material(recipe.module, {"sha256": recipe.module_sha256}))
    return found


def _write(
    out: Path,
    recipe: MirrorRecipe,
    made: bytes,
    parity: Parity,
    materials: Sequence[Material],
    changes: Sequence[str],
    about: str,
    source: UpstreamSource | None,
    mode: str,
    versions: Mapping[str, str],
) -> Mirrored:
    stem = out.name.removesuffix(".onnx")
    text = receipt(
        recipe, changes=changes, source=about,
        license_text=source.license_text if source else None,
        notices=source.notices if source else (),
        notice=source.notice if source else recipe.notice,
    )  # fmt: skip
    bom = bill_of_materials(recipe, made, out.name, materials, versions)
    validate_bom(bom)
    files = {
        ".onnx": made,
        ".json": canonical_json(recipe.io.model_dump(mode="json")),
        ".receipt.txt": text,
        ".cdx.json": bom,
    }
    named = {stem + suffix: data for suffix, data in files.items()}
    manifest = statement(
        named,
        external={"recipe": recipe.id, "from": mode},
        internal={
            "opset": OPSET,
            "changes": list(changes),
            "parity": {
                "gate": GATE,
                "sizes": [list(s) for s in SIZES],
                "inputs": INPUTS,
                "seed": 0,
            },
            "recipe": recipe.model_dump(mode="json"),
        },
        materials=materials,
        versions=versions,
    )
    files |= {".intoto.json": manifest, ".parity.json": canonical_json(parity.to_json())}
    places = {suffix: out.parent / (stem + suffix) for suffix in files}
    for suffix in (".json", ".receipt.txt", ".cdx.json", ".intoto.json", ".parity.json", ".onnx"):
        write_bytes(places[suffix], files[suffix])  # the model last: where it is, the rest is
    return Mirrored(places[".onnx"], sha256_hex(made), places, parity)
