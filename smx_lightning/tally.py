"""The metrics of one stage, counted many batches at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from smx_lightning.checks import check_labels

ENTRIES = 2**20  # of log-probabilities kept until then: 4 MB


class Tally:
    """Collects log-probabilities and labels, and updates the stage's metrics with many at once.

    An update of torchmetrics costs 100 µs whatever its rows, a quarter of a mini-batch step of a
    small model; checking labels costs 15.

    Args:
        metrics: The collection to update with (log_probs, y).
        num_classes: K, for the complaint about labels.
        where: Which rows they are, for the same.
    """

    def __init__(self, metrics: MetricCollection, num_classes: int, where: str) -> None:
        self.metrics, self.num_classes, self.where = metrics, num_classes, where
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._entries = 0

    def add(self, log_probs: Tensor, y: Tensor) -> None:
        """Count a batch: log_probs (batch, classes), y (batch,)."""
        self._batches.append((log_probs.detach(), y))
        self._entries += log_probs.numel()
        if self._entries >= ENTRIES:
            self.flush()

    def flush(self) -> None:
        """Update the metrics with what has been collected.

        Raises:
            InputError: For labels out of range.
        """
        batches, self._batches, self._entries = self._batches, [], 0
        if batches:
            log_probs, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
            check_labels(y, self.num_classes, self.where)
            self.metrics.update(log_probs, y)

    def compute(self) -> dict[str, Tensor]:
        """The values over all rows since the last time, under their names; begins anew."""
        self.flush()
        values: dict[str, Tensor] = self.metrics.compute()
        self.metrics.reset()
        return values
