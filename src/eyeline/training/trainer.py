"""Run a training, which can be resumed after every epoch.

`fit` writes all files of the run folder: checkpoints, `weights.pt`, `run.json`, and files that show the
progress (`curve.csv`, `curve.png`, `examples/`). `module` defines the training step, and `material` the
data.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import platform
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from PIL import Image

from eyeline.digests import sha256_hex
from eyeline.errors import TrainingError, UsageError, first_line
from eyeline.files import output_error, whole_file, write_bytes
from eyeline.parallel import usable_cores
from eyeline.training._backbone import load_backbone
from eyeline.training.material import TrainingMaterial
from eyeline.training.module import GazeModule, ObjectModule, TrainingModule
from eyeline.training.nets import count_parameters, start_from
from eyeline.training.recipes import AnyRecipe, GazeRecipe

EXAMPLES = 8  # pictures per sheet of example predictions
SHEETS = 20  # approximate number of example sheets per run
HEIGHT = 120  # height of an example, pixels
GAP = 4  # space between two examples, pixels
BACKGROUND = (24, 24, 24)


@dataclass(frozen=True)
class TrainingResult:
    """Results of a finished run.

    Attributes:
        weights: `.pt` file with the state dict of the selected epoch; these are the averaged weights if
            `recipe.ema` is set.
        record: JSON file with recipe, data digest, versions, device, wall-clock time and curve.
    """

    weights: Path
    record: Path


def fit(
    recipe: AnyRecipe,
    material: TrainingMaterial,
    out: Path,
    *,
    start: Path | None = None,
    progress: bool = True,
    devices: int = 1,
    nodes: int = 1,
) -> TrainingResult:
    """Train a recipe, or continue an interrupted run in `out`.

    Several devices share each batch (DDP of Lightning), so the batch size of a recipe does not depend on
    the number of devices. BatchNorm uses the statistics of the images on its device.

    Args:
        recipe: the recipe.
        material: the data of the run.
        out: folder for checkpoints, curve, example predictions, weights and run record.
        start: `weights.pt` of an earlier run with the same or a smaller network, to start from.
        progress: show the progress bar of Lightning on stderr.
        devices: number of GPUs of this machine, or of processes on a CPU.
        nodes: number of machines; each of them calls this function with the environment variables that
            Lightning needs.

    Raises:
        TrainingError: the loss is not finite, the material is for another task or lacks the maps of a
            teacher, `out` has a checkpoint of another recipe, the weights to start from do not fit, or
            the batch size is not a multiple of the number of devices.
        UsageError: this machine has fewer devices.
        OutputError: a checkpoint cannot be written; the previous checkpoint stays intact.
    """
    world = devices * nodes
    if recipe.batch % world:
        raise TrainingError(
            f"a batch of {recipe.batch} cannot be shared equally by {world} devices",
            "use a number of devices that divides the batch, or change batch in the recipe",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise output_error(out, exc) from exc
    L.seed_everything(recipe.seed, verbose=False)
    module = _build_module(recipe, material)
    started_from = _start(module, start) if start else None
    module.net = module.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last, best = out / "last.ckpt", out / "best.ckpt"
    # Two callbacks, since `save_last` saves only when a new best epoch is saved.
    keep_best = ModelCheckpoint(
        out, "best", monitor="score", mode="max", enable_version_counter=False
    )
    keep_last = ModelCheckpoint(out, "last", enable_version_counter=False)
    bar = [_Bar()] if progress else []
    try:
        trainer = L.Trainer(
            max_epochs=recipe.epochs,
            callbacks=[keep_best, keep_last, _RunPictures(out), *bar],
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if world > 1 else "auto",
            use_distributed_sampler=False,  # `Batches` selects the images of each device
            logger=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=out,
        )
    except MisconfigurationException as exc:
        raise UsageError(
            f"--devices {devices}: {first_line(exc)}", "give fewer devices, or leave the option out"
        ) from exc
    try:
        trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    except OSError as exc:
        raise output_error(out, exc) from exc
    seconds = module.seconds
    result = TrainingResult(out / "weights.pt", out / "run.json")
    if not trainer.is_global_zero:
        return result
    state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    prefix = "average.module." if recipe.ema else "net."
    buffer = io.BytesIO()  # torch.save would store the name of a file in the file
    torch.save(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, buffer
    )
    write_bytes(result.weights, buffer.getvalue())
    train = material.arrays.train
    record = {
        "recipe": recipe.model_dump(mode="json"),
        "started_from": started_from,
        "parameters": count_parameters(module.net),
        "data": material.names,
        "data_digest": material.arrays.digest,
        "data_facts": material.facts,
        "images": {"train": int(train.sum()), "selection": int((~train).sum())},
        "versions": {"torch": torch.__version__, "lightning": L.__version__},
        "machine": platform.machine(),
        "device": str(trainer.strategy.root_device),
        "devices": world,
        "cores": usable_cores(),
        "seconds": round(seconds, 1),
        "fit": _compare_folds(module),
        "curve": module.curve,
    }
    write_bytes(result.record, json.dumps(record, indent=1).encode())
    return result


def _build_module(recipe: AnyRecipe, material: TrainingMaterial) -> TrainingModule:
    if material.task != recipe.task:
        raise TrainingError(
            f"recipe {recipe.name} has the task {recipe.task}, but the data are for the other task",
            "give images with masks for objects, or fixation sets for gaze",
        )
    module = (
        GazeModule(recipe, material)
        if isinstance(recipe, GazeRecipe)
        else ObjectModule(recipe, material)
    )
    if material.backbone is not None:
        load_backbone(module.net.encoder, material.backbone)  # type: ignore[arg-type]
        module.average.module.load_state_dict(module.net.state_dict())
    return module


def _start(module: TrainingModule, weights: Path) -> dict[str, Any]:
    """Load the weights of an earlier run; return the entries for the run record."""
    try:
        data = weights.read_bytes()
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except OSError as exc:
        raise TrainingError(
            f"{weights}: can't be read: {exc.strerror}", "give --start the weights.pt of a run"
        ) from exc
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as exc:
        raise TrainingError(
            f"{weights}: is not a file with weights", "give --start the weights.pt of a run"
        ) from exc
    new = start_from(module.net, state)
    module.average.module.load_state_dict(module.net.state_dict())
    return {"weights_sha256": sha256_hex(data), "new_blocks": new}


def _compare_folds(module: TrainingModule) -> dict[str, dict[str, float]]:
    """Score unaugmented pictures of both folds. A better score on the training fold shows overfitting."""
    module.eval()
    unseen = np.flatnonzero(~module.arrays.train)
    seen = np.flatnonzero(module.arrays.train)
    seen = seen[np.linspace(0, len(seen) - 1, min(len(seen), len(unseen))).astype(int)]
    means = {}
    for fold, indices in (("training", seen), ("selection", unseen)):
        scores = [module.score(*module.predict_one(int(i))) for i in indices]
        means[fold] = {k: float(sum(s[k] for s in scores) / len(scores)) for k in scores[0]}
    return means


class _RunPictures(L.Callback):
    """Writes the curve and the example predictions into the run folder after each epoch."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(module, TrainingModule):
            return
        rows = io.StringIO()
        writer = csv.DictWriter(rows, sorted({k for row in module.curve for k in row}))
        writer.writeheader()
        writer.writerows(module.curve)
        write_bytes(self.out / "curve.csv", rows.getvalue().encode())
        _plot_curve(module.curve, module.measures, self.out / "curve.png")
        if trainer.current_epoch % max(1, module.recipe.epochs // SHEETS) == 0:
            folder = self.out / "examples"
            folder.mkdir(exist_ok=True)
            _draw_examples(module, folder / f"epoch_{trainer.current_epoch:03}.jpg")


def _plot_curve(curve: list[dict[str, float]], measures: tuple[str, str], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    known = [row for row in curve if "loss" in row]  # the first row of a resumed run has no loss
    left.plot([row["epoch"] for row in known], [row["loss"] for row in known], color="#444444")
    left.set(xlabel="epoch", ylabel="training loss")
    other = right.twinx()  # a separate scale per measure shows small changes, too
    for axes, name, colour in zip((right, other), measures, ("#1b6ca8", "#c0504d"), strict=True):
        axes.plot([row["epoch"] for row in curve], [row[name] for row in curve], color=colour)
        labels = {"iou": "IoU", "kl": "KL divergence, nats"}
        axes.set_ylabel(labels.get(name, name.upper()), color=colour)
    right.set(xlabel="epoch", title="selection fold: selects an epoch, is not a test")
    right.title.set_fontsize(9)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    with whole_file(path) as temporary:
        figure.savefig(temporary)


def _draw_examples(module: TrainingModule, path: Path) -> None:
    """Draw one column per picture, with the picture, its target and the prediction below each other."""
    chosen = np.flatnonzero(~module.arrays.train)[:EXAMPLES]
    widths = [max(1, round(HEIGHT * float(module.arrays.aspect[i]))) for i in chosen]
    size = sum(widths) + GAP * (len(widths) + 1), 3 * (HEIGHT + GAP) + GAP
    sheet = Image.new("RGB", size, BACKGROUND)
    x = GAP
    for index, width in zip(chosen, widths, strict=True):
        shown = module.show(*module.predict_one(int(index)))
        maps = [np.round(m[0, 0].cpu().numpy() * 255).astype(np.uint8) for m in shown]
        for row, picture in enumerate([module.arrays.images[index], *maps]):
            resized = Image.fromarray(picture).resize((width, HEIGHT))
            sheet.paste(resized, (x, GAP + row * (HEIGHT + GAP)))
        x += width + GAP
    with whole_file(path) as temporary:
        sheet.save(temporary, "JPEG", quality=88)


class _Bar(RichProgressBar):
    """Progress bar per epoch on stderr, which also shows the remaining time of the whole run."""

    def __init__(self) -> None:
        super().__init__(console_kwargs={"stderr": True})
        self._first: tuple[float, int] | None = None
        self._left = ""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        now, epoch = time.monotonic(), trainer.current_epoch
        if self._first is None:  # earlier epochs may have run on another machine
            self._first = now, epoch
            return
        since, first = self._first
        each = (now - since) / (epoch - first)
        left = each * ((trainer.max_epochs or epoch) - epoch)
        self._left = str(timedelta(seconds=round(left)))

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        return metrics | {"time left": self._left} if self._left else metrics
