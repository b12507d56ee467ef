"""A training run: recipe + data -> weights and a run record, resumable at every epoch.

What a step is stands in `module`; here are folder, data, checkpoints and what is left behind.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import pickle
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from eyeline.datasets.union import find_union
from eyeline.digest import sha256_hex
from eyeline.errors import TrainingError
from eyeline.output import output_error, write_bytes
from eyeline.training.data import load_arrays
from eyeline.training.module import StudentModule
from eyeline.training.nets import count_parameters, start_from
from eyeline.training.pictures import draw_strip, plot_curve
from eyeline.training.recipes import Recipe
from eyeline.training.teacher import soft_maps

log = logging.getLogger(__name__)

STRIPS = 20  # strips of example predictions that a run leaves


@dataclass(frozen=True)
class RunResult:
    """Where a finished run left its results.

    Attributes:
        weights: state dict (EMA weights of the selected epoch), `.pt`.
        record: JSON with config, data digest, versions, host, wall-clock and curve.
    """

    weights: Path
    record: Path


class _Progress(L.Callback):
    """What people watch while a run goes on: `curve.csv`, `curve.png`, and `examples/`."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(module, StudentModule):
            return
        rows = io.StringIO()
        writer = csv.DictWriter(rows, sorted({k for row in module.curve for k in row}))
        writer.writeheader()
        writer.writerows(module.curve)
        write_bytes(self.out / "curve.csv", rows.getvalue().encode())
        plot_curve(module.curve, self.out / "curve.png")
        epochs = module.recipe.epochs
        if trainer.current_epoch % max(1, epochs // STRIPS) == 0:
            folder = self.out / "examples"
            folder.mkdir(exist_ok=True)
            draw_strip(module, folder / f"epoch_{trainer.current_epoch:03}.jpg")


def _log_progress(done: int, total: int) -> None:
    log.info("teacher: %d of %d images", done, total)


def _start(module: StudentModule, weights: Path) -> dict[str, Any]:
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
    log.info("started from %s; new: %s", weights, ", ".join(new) or "nothing")
    return {"weights_sha256": sha256_hex(data), "new_blocks": new}


def _fit(module: StudentModule) -> dict[str, dict[str, float]]:
    """Does it learn by heart: the same scores on pictures that it learned from and on those it did not.

    As many of the training fold as the selection fold has, unaugmented.
    """
    module.eval()
    unseen = np.flatnonzero(~module.arrays.train)
    seen = np.flatnonzero(module.arrays.train)
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
    trainer_options: dict[str, Any] | None = None,
) -> RunResult:
    """Train a recipe, or continue what an interrupted call left in `out`.

    Args:
        recipe: see `eyeline.training.recipes`.
        data: datasets, see `eyeline.datasets.pairs.find_pairs`; near-duplicates across several are
            dropped, see `eyeline.datasets.union`.
        out: folder for checkpoints, curve, example predictions, weights and run record.
        without: test sets whose pictures must not be learned from.
        teacher: ONNX file whose soft maps the recipe learns from, see `eyeline.training.teacher`.
        cache: folder for decoded arrays; `out/cache` when None.
        start: `weights.pt` of an earlier run to begin with, see `eyeline.training.nets.start_from`.
        progress: show Lightning's progress bar.
        trainer_options: further arguments of `lightning.Trainer` (devices, num_nodes, ...).

    Raises:
        DatasetError: data that can't be used.
        ModelError: a teacher that can't be run.
        TrainingError: a loss that is not finite, a recipe without the teacher it wants, a
            checkpoint in `out` of another recipe, or weights to start from that do not fit.
        OutputError: a checkpoint can't be written; the one before is intact.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise output_error(out, exc) from exc
    union = find_union(data, without)
    for name, twin in union.dropped:
        log.info("%s repeats %s: left out", name, twin)
    pairs = union.pairs
    arrays = load_arrays(pairs, recipe.store, recipe.selection_share, cache or out / "cache")
    soft = None
    if teacher is not None and recipe.teacher > 0:
        soft = soft_maps(pairs, teacher, cache or out / "cache", _log_progress)
    L.seed_everything(recipe.seed, verbose=False)
    module = StudentModule(recipe, arrays, soft)
    started_from = _start(module, start) if start else None
    module.net = module.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    log.info("%s: %d parameters", recipe.name, count_parameters(module.net))
    last, best = out / "last.ckpt", out / "best.ckpt"
    # Two keepers: Lightning's `save_last` follows the best, and would not resume at the last epoch.
    keep_best = ModelCheckpoint(
        out, "best", monitor="score", mode="max", enable_version_counter=False
    )
    keep_last = ModelCheckpoint(out, "last", enable_version_counter=False)
    started = time.time()
    trainer = L.Trainer(
        max_epochs=recipe.epochs,
        callbacks=[keep_best, keep_last, _Progress(out)],
        logger=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=out,
        **(trainer_options or {}),
    )
    try:
        trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    except OSError as exc:
        raise output_error(out, exc) from exc
    state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    prefix = "average.module." if recipe.ema else "net."
    weights = out / "weights.pt"
    kept = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    buffer = io.BytesIO()  # a file's own name would get into its bytes
    torch.save(kept, buffer)
    write_bytes(weights, buffer.getvalue())
    record = out / "run.json"
    write_bytes(
        record,
        json.dumps(
            {
                "recipe": recipe.model_dump(mode="json"),
                "started_from": started_from,
                "parameters": count_parameters(module.net),
                "data": [root.stem for root in data],
                "data_digest": arrays.digest,
                "data_facts": arrays.facts | {"dropped": len(union.dropped)},
                "images": {
                    "train": int(arrays.train.sum()),
                    "selection": int((~arrays.train).sum()),
                },
                "versions": {"torch": torch.__version__, "lightning": L.__version__},
                "machine": platform.machine(),
                "device": str(trainer.strategy.root_device),
                "seconds_since_last_resume": time.time() - started,
                "fit": _fit(module),
                "curve": module.curve,
            },
            indent=1,
        ).encode(),
    )
    return RunResult(weights, record)
