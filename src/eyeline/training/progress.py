"""What people watch while a run goes on: the bar, `curve.csv`, `curve.png`, and `examples/`."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from eyeline.output import write_bytes
from eyeline.training.module import TrainingModule
from eyeline.training.pictures import draw_strip, plot_curve

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
