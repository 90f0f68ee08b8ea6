"""A progress bar of one line: as many metrics as the terminal has room for, the losses first."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from rich.progress import BarColumn, ProgressColumn, TimeRemainingColumn

from smx_lightning.metrics import loss_name
from smx_lightning.module import SoftmaxRegression

BAR = 8  # characters
# Of a line that are not for metrics: "Sanity Checking", the bar, "9999/9999", "0:00:00", and what
# parts them.
TAKEN = 15 + 1 + BAR + 1 + 9 + 1 + 7 + 1
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
        room = (80 if self._console is None else self._console.width) - TAKEN
        shown: dict[str, Any] = {}
        for name in (*first, *(name for name in found if name not in first)):
            value = f"{found[name]:{FORMAT}}" if isinstance(found[name], float) else found[name]
            length = len(f"{name}: {value}")
            if length <= room:
                shown[name] = value
                room -= length + 1
        return shown
