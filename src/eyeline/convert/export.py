"""A trained net to ONNX that keeps the contract (extra `train`: torch is imported here).

The same weights give the same bytes: no clock, host or path gets into the file.
"""

from __future__ import annotations

import copy
import json
import pickle
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from eyeline.convert.parity import GATE, ParityProof, natural_inputs, prove_parity
from eyeline.convert.rewrite import OPSET, finish
from eyeline.digests import sha256_hex
from eyeline.errors import ModelError
from eyeline.files import whole_file
from eyeline.inference.session import Session
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME
from eyeline.training.nets import ARCHITECTURES, Contract, build_net
from eyeline.training.recipes import parse_recipe


@dataclass(frozen=True)
class Exported:
    """What an export left.

    Attributes:
        path: the ONNX file.
        sha256: its hex digest.
        parity: that it is the torch net, and what says so.
    """

    path: Path
    sha256: str
    parity: ParityProof


def load_weights(net: torch.nn.Module, weights: Path) -> None:
    """Load a state dict, refusing anything but tensors and any name that does not match.

    Raises:
        ModelError: not a state dict of this architecture.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        net.load_state_dict(state, strict=True)
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as exc:
        first = " ".join(str(exc).split())[:200]
        raise ModelError(f"{weights}: not weights of this net: {first}", "same recipe?") from exc


def export_net(
    config: dict[str, Any],
    weights: Path,
    out: Path,
    *,
    metadata: dict[str, str],
    multiple: int = 1,
) -> Exported:
    """Export a net with dynamic batch, height and width; refuse it when parity fails.

    Args:
        config: the recipe's `[net]` table.
        weights: state dict of the training run.
        out: the ONNX file.
        metadata: stored in the file's metadata.
        multiple: what the net's input sides must be multiples of.

    Raises:
        ModelError: weights of another net, or one that is not the torch net, see
            `eyeline.convert.parity.prove_parity`.
    """
    net = build_net(config)
    load_weights(net, weights)
    torch_model = Contract(net).eval()
    axes = {0: "N", 2: "H", 3: "W"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        raw = Path(folder) / "net.onnx"
        # The TorchScript exporter is deprecated, and the one that is deterministic without onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            torch_model,
            (torch.zeros(1, 3, 64, 96),),
            raw,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: axes, OUTPUT_NAME: axes},
            dynamo=False,
        )
        model = onnx.load(raw)
    data = finish(model, metadata)

    def from_torch(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(torch_model(torch.from_numpy(x)).numpy())

    def in_float64(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            exact = copy.deepcopy(torch_model).double()
            return np.asarray(exact(torch.from_numpy(x).double()).numpy())

    with whole_file(out) as temporary:  # what fails the gate never gets the name
        temporary.write_bytes(data)
        session = Session(Model(str(out), temporary, IoSpec(multiple=multiple)), "cpu")
        proof = prove_parity(
            from_torch,
            lambda x: session.run(x)[None, None],
            in_float64,
            images=natural_inputs(io=IoSpec(multiple=multiple)),
            multiple=multiple,
        )
        if not proof.passed:
            worst = max(proof.reports.values(), key=lambda r: r.max_abs)
            raise ModelError(
                f"{out}: differs from the torch net by {worst.max_abs:.2e} at {worst.worst}",
                f"the gate is {GATE:g}",
            )
    return Exported(out, sha256_hex(data), proof)


def export_run(run: Path, out: Path) -> Exported:
    """Export what `eyeline train` left in a folder.

    The file's metadata names the recipe and the digest of the training data.

    Args:
        run: folder with `run.json` and `weights.pt`.
        out: the ONNX file.

    Raises:
        ModelError: no finished run there, or see `export_net`.
    """
    try:
        record = json.loads((run / "run.json").read_text())
        recipe = parse_recipe(record["recipe"])
        digest = str(record["data_digest"])
    except (OSError, ValueError, KeyError) as exc:
        raise ModelError(f"{run}: no finished training run", "eyeline train leaves one") from exc
    metadata = {"recipe": recipe.name, "training_data_sha256": digest}
    multiple = ARCHITECTURES[recipe.net["arch"]].multiple
    return export_net(
        recipe.net, run / "weights.pt", out, metadata=metadata, multiple=int(multiple)
    )
