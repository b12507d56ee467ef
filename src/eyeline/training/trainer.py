"""A training run: recipe + data -> weights and a run record, resumable at every epoch.

What a step is stands in `module`; here are folder, data, checkpoints and what is left behind.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint

from eyeline.digest import sha256_hex
from eyeline.errors import TrainingError, UsageError
from eyeline.output import output_error, write_bytes
from eyeline.saliency.runtime import first_line
from eyeline.training.backbone import load_backbone
from eyeline.training.gaze import GazeModule
from eyeline.training.material import GazeMaterial, Material, prepare
from eyeline.training.module import StudentModule, TrainingModule
from eyeline.training.nets import GazeNet, count_parameters, start_from
from eyeline.training.progress import Bar, Pictures
from eyeline.training.recipes import GazeRecipe, Recipe


@dataclass(frozen=True)
class RunResult:
    """Where a finished run left its results.

    Attributes:
        weights: state dict (EMA weights of the selected epoch), `.pt`.
        record: JSON with config, data digest, versions, host, wall-clock and curve.
    """

    weights: Path
    record: Path


def _start(module: TrainingModule, weights: Path) -> dict[str, Any]:
    """Begin with an earlier run's weights; what the record says of them."""
    try:
        data = weights.read_bytes()
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except OSError as exc:
        raise TrainingError(f"{weights}: can't be read: {exc.strerror}") from exc
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as exc:
        raise TrainingError(f"{weights}: holds no weights", "name a run's weights.pt") from exc
    new = start_from(module.net, state)
    module.average.module.load_state_dict(module.net.state_dict())
    return {"weights_sha256": sha256_hex(data), "new_blocks": new}


def _module(recipe: Recipe | GazeRecipe, material: Material | GazeMaterial) -> TrainingModule:
    """The module of a recipe, with its backbone's weights where it has one."""
    if isinstance(recipe, GazeRecipe) and isinstance(material, GazeMaterial):
        module = GazeModule(recipe, material.arrays, material.unlabelled)
        if not isinstance(module.net, GazeNet):
            raise TrainingError(
                f"recipe {recipe.name} has arch = {recipe.net.get('arch')!r}; its task is gaze",
                "set arch = 'gaze' in the recipe",
            )
        load_backbone(module.net.encoder, material.backbone)
        module.average.module.load_state_dict(module.net.state_dict())
        return module
    if isinstance(recipe, Recipe) and isinstance(material, Material):
        return StudentModule(recipe, material.arrays, material.teacher)
    raise TrainingError(
        f"recipe {recipe.name} has the task {recipe.task}, and the data are for the other task",
        "give images with masks for objects, or fixation sets for gaze",
    )


def _facts(material: Material | GazeMaterial) -> dict[str, Any]:
    """What the run record says of the data, besides names and digest."""
    if isinstance(material, GazeMaterial):
        return material.arrays.facts | material.facts
    return material.arrays.facts | {"dropped": material.dropped}


def _fit(module: TrainingModule) -> dict[str, dict[str, float]]:
    """Does it learn by heart: the same scores on pictures that it learned from and on those it did not.

    As many of the training fold as the selection fold has, unaugmented.
    """
    module.eval()
    unseen = np.flatnonzero(~module.train_fold)
    seen = np.flatnonzero(module.train_fold)
    seen = seen[np.linspace(0, len(seen) - 1, min(len(seen), len(unseen))).astype(int)]
    means = {}
    for fold, indices in (("training", seen), ("selection", unseen)):
        scores = [module.score_one(int(i)) for i in indices]
        means[fold] = {k: float(sum(s[k] for s in scores) / len(scores)) for k in scores[0]}
    return means


def train(
    recipe: Recipe,
    data: Sequence[Path],
    out: Path,
    *,
    without: Sequence[Path] = (),
    teacher: Path | None = None,
    cache: Path | None = None,
    start: Path | None = None,
    progress: bool = True,
) -> RunResult:
    """Prepare data and train a recipe on it: `prepare`, then `fit`, which say what can go wrong.

    Args:
        recipe: see `eyeline.training.recipes`.
        data: datasets, see `prepare`.
        out: folder for checkpoints, curve, example predictions, weights and run record.
        without: test sets, see `prepare`.
        teacher: ONNX file, see `prepare`.
        cache: folder for decoded arrays; `out/cache` when None.
        start: weights to begin with, see `fit`.
        progress: show Lightning's progress bar.
    """
    material = prepare(recipe, data, cache or out / "cache", without=without, teacher=teacher)
    return fit(recipe, material, out, start=start, progress=progress)


def fit(
    recipe: Recipe | GazeRecipe,
    material: Material | GazeMaterial,
    out: Path,
    *,
    start: Path | None = None,
    progress: bool = True,
    devices: int = 1,
    nodes: int = 1,
) -> RunResult:
    """Train a recipe, or continue what an interrupted call left in `out`.

    On several devices each takes its share of every batch (Lightning's DDP), so that a recipe's
    batch means the same on any number of them; BatchNorm sees the share.

    Args:
        recipe: see `eyeline.training.recipes`.
        material: see `eyeline.training.material`.
        out: folder for checkpoints, curve, example predictions, weights and run record.
        start: `weights.pt` of an earlier run to begin with, see `eyeline.training.nets.start_from`.
        progress: show Lightning's progress bar, on stderr.
        devices: GPUs of this machine; processes, on a CPU.
        nodes: machines, each of which runs this call with the environment that Lightning asks for.

    Raises:
        TrainingError: a loss that is not finite, a recipe without the teacher it wants, a
            checkpoint in `out` of another recipe, weights to start from that do not fit, or a batch
            that the devices do not divide.
        UsageError: devices that are not there.
        OutputError: a checkpoint can't be written; the one before is intact.
    """
    world = devices * nodes
    if recipe.batch % world:
        raise TrainingError(
            f"{world} devices don't divide a batch of {recipe.batch}",
            "take fewer, or another batch in the recipe",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise output_error(out, exc) from exc
    arrays = material.arrays
    L.seed_everything(recipe.seed, verbose=False)
    module = _module(recipe, material)
    started_from = _start(module, start) if start else None
    module.net = module.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last, best = out / "last.ckpt", out / "best.ckpt"
    # Two keepers: Lightning's `save_last` follows the best, and would not resume at the last epoch.
    keep_best = ModelCheckpoint(
        out, "best", monitor="score", mode="max", enable_version_counter=False
    )
    keep_last = ModelCheckpoint(out, "last", enable_version_counter=False)
    bar = [Bar()] if progress else []
    try:
        trainer = L.Trainer(
            max_epochs=recipe.epochs,
            callbacks=[keep_best, keep_last, Pictures(out), *bar],
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if world > 1 else "auto",
            use_distributed_sampler=False,  # what a device takes of a batch, the module knows
            logger=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=out,
        )
    except MisconfigurationException as exc:
        raise UsageError(f"--devices {devices}: {first_line(exc)}") from exc
    try:
        trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    except OSError as exc:
        raise output_error(out, exc) from exc
    seconds = module.seconds
    weights, record = out / "weights.pt", out / "run.json"
    if not trainer.is_global_zero:
        return RunResult(weights, record)
    state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    prefix = "average.module." if recipe.ema else "net."
    kept = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    buffer = io.BytesIO()  # a file's own name would get into its bytes
    torch.save(kept, buffer)
    write_bytes(weights, buffer.getvalue())
    write_bytes(
        record,
        json.dumps(
            {
                "recipe": recipe.model_dump(mode="json"),
                "started_from": started_from,
                "parameters": count_parameters(module.net),
                "data": material.names,
                "data_digest": arrays.digest,
                "data_facts": _facts(material),
                "images": {
                    "train": int(arrays.train.sum()),
                    "selection": int((~arrays.train).sum()),
                },
                "versions": {"torch": torch.__version__, "lightning": L.__version__},
                "machine": platform.machine(),
                "device": str(trainer.strategy.root_device),
                "devices": world,
                "cores": os.cpu_count(),
                "seconds": round(seconds, 1),
                "fit": _fit(module),
                "curve": module.curve,
            },
            indent=1,
        ).encode(),
    )
    return RunResult(weights, record)
