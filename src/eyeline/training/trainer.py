"""A training run: recipe + data -> weights and a run record, resumable at every epoch.

What a step is stands in `module`; here are folder, data, checkpoints and what is left behind.

Pictures of a run: the curve, and a strip of the same examples every few epochs.

What people watch while a run goes on: the bar, `curve.csv`, `curve.png`, and `examples/`.
"""

from __future__ import annotations

import csv
import io
import json
import os
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
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from PIL import Image

from eyeline.digests import sha256_hex
from eyeline.errors import TrainingError, UsageError, first_line
from eyeline.files import output_error, whole_file, write_bytes
from eyeline.training.backbone import load_backbone
from eyeline.training.gaze import GazeModule
from eyeline.training.material import GazeMaterial, Material, prepare_material
from eyeline.training.module import StudentModule, TrainingModule
from eyeline.training.nets import GazeNet, count_parameters, start_from
from eyeline.training.recipes import GazeRecipe, Recipe

LABELS = {"iou": "IoU", "kl": "KL divergence, nats"}
EXAMPLES = 8
HEIGHT = 120  # of an example, pixels
GAP = 4
GROUND = (24, 24, 24)


def plot_curve(curve: list[dict[str, float]], measures: tuple[str, ...], path: Path) -> None:
    """Draw the loss, and the selection fold's scores, over epochs, as a PNG of 900 x 400 pixels.

    Args:
        curve: one row per epoch, with `epoch`, the two measures and, from the second on, `loss`.
        measures: names of the two scores.
        path: the file.

    Raises:
        OutputError: it can't be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in curve]
    known = [row for row in curve if "loss" in row]  # a resumed run lacks one
    left.plot([row["epoch"] for row in known], [row["loss"] for row in known], color="#444444")
    left.set(xlabel="epoch", ylabel="training loss")
    other = right.twinx()  # each on its own scale: a run that starts well moves little
    for axes, name, colour in zip((right, other), measures, ("#1b6ca8", "#c0504d"), strict=True):
        axes.plot(epochs, [row[name] for row in curve], color=colour)
        axes.set_ylabel(LABELS.get(name, name.upper()), color=colour)
    right.set(xlabel="epoch", title="selection fold: picks an epoch, reports nothing")
    right.title.set_fontsize(9)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    with whole_file(path) as temporary:
        figure.savefig(temporary)


def draw_strip(module: TrainingModule, path: Path) -> None:
    """Draw image, ground truth and prediction of the first images of the selection fold, as a JPEG.

    Args:
        module: the run's module, between two epochs.
        path: the file.

    Raises:
        OutputError: it can't be written.
    """
    columns: list[list[Image.Image]] = []
    for index in np.flatnonzero(~module.train_fold)[:EXAMPLES]:
        pictures, aspect = module.example(int(index))
        size = max(1, round(HEIGHT * aspect)), HEIGHT
        columns.append([Image.fromarray(np.asarray(p)).resize(size) for p in pictures])
    width = sum(c[0].width + GAP for c in columns) + GAP
    sheet = Image.new("RGB", (width, 3 * (HEIGHT + GAP) + GAP), GROUND)
    x = GAP
    for column in columns:
        for row, picture in enumerate(column):
            sheet.paste(picture, (x, GAP + row * (HEIGHT + GAP)))
        x += column[0].width + GAP
    with whole_file(path) as temporary:
        sheet.save(temporary, "JPEG", quality=88)


STRIPS = 20  # strips of example predictions that a run leaves


class Pictures(L.Callback):
    """Curve and examples in the run's folder, after each epoch.

    Args:
        out: the run's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Draw them anew."""
        if not trainer.is_global_zero or not isinstance(module, TrainingModule):
            return
        rows = io.StringIO()
        writer = csv.DictWriter(rows, sorted({k for row in module.curve for k in row}))
        writer.writeheader()
        writer.writerows(module.curve)
        write_bytes(self.out / "curve.csv", rows.getvalue().encode())
        plot_curve(module.curve, module.measures, self.out / "curve.png")
        epochs = module.recipe.epochs
        if trainer.current_epoch % max(1, epochs // STRIPS) == 0:
            folder = self.out / "examples"
            folder.mkdir(exist_ok=True)
            draw_strip(module, folder / f"epoch_{trainer.current_epoch:03}.jpg")


class Bar(RichProgressBar):
    """Lightning's bar of an epoch, on stderr, with the time left of the whole run."""

    def __init__(self) -> None:
        super().__init__(console_kwargs={"stderr": True})
        self._begun: tuple[float, int] | None = None
        self._left = ""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reckon by the epochs of this call: those before may have run elsewhere."""
        super().on_train_epoch_start(trainer, pl_module)
        now, epoch = time.monotonic(), trainer.current_epoch
        if self._begun is None:
            self._begun = now, epoch
            return
        since, first = self._begun
        each = (now - since) / (epoch - first)
        self._left = duration(each * ((trainer.max_epochs or epoch) - epoch))

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Lightning's, and the time left, once an epoch is done."""
        metrics: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        return metrics | {"all done in": self._left} if self._left else metrics


def duration(seconds: float) -> str:
    """`2 h 05 min`, `12 min`, or `40 s`."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


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
    material = prepare_material(
        recipe, data, cache or out / "cache", without=without, teacher=teacher
    )
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
