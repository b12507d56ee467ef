"""Export a trained network to ONNX (needs the extra `train`, for torch).

The same weights give the same bytes: the file contains no time, host name or path.
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
        sha256: hex digest of the ONNX file.
        parity: the comparison with the torch network, which passed.
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
    """Export a network with dynamic batch, height and width; write nothing if the parity check fails.

    Args:
        config: the `[net]` table of the training recipe.
        weights: file with the state dict of the training run.
        out: the ONNX file to write.
        metadata: key-value pairs to store in the ONNX file.
        multiple: height and width of the input must be multiples of this number.

    Raises:
        ModelError: the weights do not fit the network, or the ONNX model differs from the torch network.
    """
    net = build_net(config)
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        net.load_state_dict(state, strict=True)
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as exc:
        raise ModelError(
            f"{weights}: these weights do not fit the network of the recipe: {first_line(exc)}",
            "use the weights and the recipe of the same training run",
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

    with whole_file(out) as temporary:  # a failed parity check leaves no file
        temporary.write_bytes(data)
        io = IoSpec(multiple=multiple)
        session = Session(Model(str(out), temporary, io), "cpu")
        proof = prove_parity(
            from_torch,
            lambda x: session.run(x)[None, None],
            ParityInputs(images=natural_inputs(io=io), multiple=multiple),
            exact=in_float64,
        )
        proof.require(str(out), "the torch network")
    return Exported(out, sha256_hex(data), proof)


def _trace(model: torch.nn.Module) -> onnx.ModelProto:
    axes = {0: "N", 2: "H", 3: "W"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        raw = Path(folder) / "net.onnx"
        # The TorchScript exporter is deprecated, but it is deterministic and needs no onnxscript.
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

    The metadata of the ONNX file contains the recipe's name and the digest of the training data.

    Args:
        run: folder with `run.json` and `weights.pt`.
        out: the ONNX file to write.

    Raises:
        ModelError: the folder contains no finished training run, or `export_net` raises this error.
    """
    try:
        record = json.loads((run / "run.json").read_text())
        recipe = parse_recipe(record["recipe"])
        digest = str(record["data_digest"])
    except (OSError, ValueError, KeyError) as exc:
        raise ModelError(
            f"{run}: the folder contains no finished training run",
            "give the output folder of eyeline train",
        ) from exc
    metadata = {"recipe": recipe.name, "training_data_sha256": digest}
    multiple = int(ARCHITECTURES[recipe.net["arch"]].multiple)
    return export_net(recipe.net, run / "weights.pt", out, metadata=metadata, multiple=multiple)
