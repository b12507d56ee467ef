"""Export a trained net to ONNX (extra `train`: torch is imported here).

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

from eyeline.convert.graph import OPSET, finish
from eyeline.convert.parity import ParityInputs, ParityProof, natural_inputs, prove_parity
from eyeline.digests import sha256_hex
from eyeline.errors import ModelError, first_line
from eyeline.files import whole_file
from eyeline.inference import Session
from eyeline.registry.records import IoSpec
from eyeline.registry.registry import Model
from eyeline.runtime import INPUT_NAME, OUTPUT_NAME
from eyeline.training.nets import ARCHITECTURES, Contract, build_net
from eyeline.training.recipes import parse_recipe


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        path: the ONNX file.
        sha256: its hex digest.
        parity: the proof that it equals the torch net.
    """

    path: Path
    sha256: str
    parity: ParityProof


def export_net(
    config: dict[str, Any],
    weights: Path,
    out: Path,
    *,
    metadata: dict[str, str],
    multiple: int = 1,
) -> Exported:
    """Export a net with dynamic batch, height and width; write nothing when parity fails.

    Args:
        config: the recipe's `[net]` table.
        weights: state dict of the training run.
        out: the ONNX file.
        metadata: stored in the file's metadata.
        multiple: both sides of the net's input must be multiples of it.

    Raises:
        ModelError: weights of another net, or the ONNX model is not the torch net.
    """
    net = build_net(config)
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        net.load_state_dict(state, strict=True)
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as exc:
        raise ModelError(
            f"{weights}: not weights of this net: {first_line(exc)}", "same recipe?"
        ) from exc
    torch_model = Contract(net).eval()
    exact_model = copy.deepcopy(torch_model).double()
    data = finish(_trace(torch_model), metadata)

    def from_torch(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(torch_model(torch.from_numpy(x)).numpy())

    def in_float64(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(exact_model(torch.from_numpy(x).double()).numpy())

    with whole_file(out) as temporary:  # a failed proof leaves no file of that name
        temporary.write_bytes(data)
        io = IoSpec(multiple=multiple)
        session = Session(Model(str(out), temporary, io), "cpu")
        proof = prove_parity(
            from_torch,
            lambda x: session.run(x)[None, None],
            ParityInputs(images=natural_inputs(io=io), multiple=multiple),
            exact=in_float64,
        )
        proof.require(str(out), "the torch net")
    return Exported(out, sha256_hex(data), proof)


def _trace(model: torch.nn.Module) -> onnx.ModelProto:
    axes = {0: "N", 2: "H", 3: "W"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        raw = Path(folder) / "net.onnx"
        # The TorchScript exporter is deprecated, but deterministic, and needs no onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, 64, 96),),
            raw,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: axes, OUTPUT_NAME: axes},
            dynamo=False,
        )
        return onnx.load(raw)


def export_run(run: Path, out: Path) -> Exported:
    """Export the result of `eyeline train`.

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
        raise ModelError(f"{run}: no finished training run", "eyeline train makes one") from exc
    metadata = {"recipe": recipe.name, "training_data_sha256": digest}
    multiple = int(ARCHITECTURES[recipe.net["arch"]].multiple)
    return export_net(recipe.net, run / "weights.pt", out, metadata=metadata, multiple=multiple)
