"""The network of the fake upstream: its weights, its output in torch, and its output in the child."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyeline.convert.upstream import MirrorRecipe, open_upstream, read_upstream
from fake_upstream import FILES, NET, RECIPE_FIELDS, make_checkout


def recipe(**fields: Any) -> MirrorRecipe:
    return MirrorRecipe.model_validate(RECIPE_FIELDS | fields)


def tiny_net(seed: int = 0) -> Any:
    """The network, with batch statistics that are not the identity."""
    torch = pytest.importorskip("torch", reason="extra `train` is not installed")
    scope: dict[str, Any] = {"__name__": "tiny"}
    exec(NET, scope)
    torch.manual_seed(seed)
    net = scope["TinyNet"]()
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return net.eval()


def save(value: Any) -> bytes:
    """A checkpoint file."""
    import torch

    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


def weights(seed: int = 0) -> bytes:
    return save(tiny_net(seed).state_dict())


def noise() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, 3, 17, 23)).astype(np.float32)


def run_one(checkout: Path, data: bytes, **fields: Any) -> np.ndarray:
    """The output of the child with the checkpoint `data`."""
    chosen = recipe(**fields)
    with open_upstream(read_upstream(checkout, chosen), chosen, data) as net:
        return net.run(noise())


def run_code(folder: Path, code: str) -> np.ndarray:
    """The output of the child whose module is `code`."""
    return run_one(make_checkout(folder / "up", FILES | {"model/tinynet.py": code}), weights())


def expected(head: int = 0) -> np.ndarray:
    """The output of the network in this process."""
    import torch

    with torch.no_grad():
        return np.asarray(tiny_net()(torch.from_numpy(noise()))[head].numpy())
