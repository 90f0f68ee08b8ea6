"""Callbacks that training and prediction need."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from smx_lightning.errors import InputError
from smx_lightning.module import Prediction, SoftmaxRegression


class PredictionsCsv(BasePredictionWriter):
    """Write what ``predict`` answers as a CSV file: row, class name, one probability a class.

    Args:
        path: The file; ``predictions.csv`` in the run's log folder by default.

    Attributes:
        written: The file of the last prediction, or ``None``.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.path = path
        self.written: Path | None = None

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write all batches in order."""
        if not isinstance(pl_module, SoftmaxRegression):
            raise InputError(
                f"PredictionsCsv expected a SoftmaxRegression or a subclass, got "
                f"{type(pl_module).__name__}"
            )
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        path = Path(self.path) if self.path else folder / "predictions.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        names = pl_module.class_names
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "class", *(f"p({name})" for name in names)])
            row = 0
            for prediction in predictions:
                label, probs = Prediction(*prediction)
                for k, p in zip(label.tolist(), probs.tolist(), strict=True):
                    writer.writerow([row, names[k], *(f"{value:.7g}" for value in p)])
                    row += 1
        self.written = path
