"""A progress bar of one line: as many metrics as the terminal has room for, the losses first."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from rich.progress import BarColumn, ProgressColumn, TimeRemainingColumn

from smx_lightning.metrics import loss_name
from smx_lightning.module import SoftmaxRegression

BAR, TIME = 8, len("0:00:00")  # characters
FORMAT = ".3g"


class OneLineBar(RichProgressBar):
    """Lightning's bar, without what makes it wrap at 80 columns."""

    def __init__(self) -> None:
        super().__init__(theme=RichProgressBarTheme(metrics_format=FORMAT))

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Description, bar, batches, and the time that remains."""
        description, bar, batches, *_ = super().configure_columns(trainer)
        if isinstance(bar, BarColumn):
            bar.bar_width = BAR
        return [description, bar, batches, TimeRemainingColumn()]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Those that fit, the losses before all others."""
        found = super().get_metrics(trainer, pl_module)
        found.pop("v_num", None)
        loss = ""
        if isinstance(pl_module, SoftmaxRegression):
            loss = loss_name(pl_module._smx_activation)
        first = [name for name in (f"train/{loss}", f"val/{loss}") if name in found]
        room = self._room(trainer)
        shown: dict[str, Any] = {}
        for name in (*first, *(name for name in found if name not in first)):
            value = f"{found[name]:{FORMAT}}" if isinstance(found[name], float) else found[name]
            length = len(f"{name}: {value}")
            if length <= room:
                shown[name] = value
                room -= length + 1
        return shown

    def _room(self, trainer: Trainer) -> int:
        """Characters of a line that the rest leaves, and the spaces between."""
        batches = trainer.num_training_batches
        total = "--" if batches == float("inf") else str(batches)
        parts = [self._get_train_description(trainer.current_epoch), f"{total}/{total}"]
        width = 80 if self._console is None else self._console.width
        return width - sum(len(part) + 1 for part in parts) - (BAR + 1) - (TIME + 1)
