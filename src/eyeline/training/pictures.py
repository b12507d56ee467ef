"""Pictures of a run: the curve, and a strip of the same examples every few epochs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from eyeline.output import whole_file

if TYPE_CHECKING:
    from eyeline.training.module import TrainingModule

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
