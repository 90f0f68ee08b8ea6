"""The calibration error: torchmetrics keeps every row, and gives confidence 1 a bin of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

CALIBRATION_BINS = 15  # as Guo et al. have it


class CalibrationError(Metric):
    """Expected calibration error: ``Σ_b |Σ_{i in b} ([argmax p[i] = y[i]] - max p[i])| / n``.

    Bin b of B has the rows whose confidence, max p, lies in (b/B, (b+1)/B].
    Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3.

    Args:
        bins: B.

    >>> metric = CalibrationError()
    >>> metric.update(torch.tensor([[0.25, 0.75], [0.25, 0.75]]).log(), torch.tensor([1, 0]))
    >>> float(metric.compute())
    0.25
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    excess: Tensor
    count: Tensor

    def __init__(self, bins: int = CALIBRATION_BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        self.add_state("excess", torch.zeros(bins), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: preds (batch, classes) log-probabilities, target (batch,) labels."""
        highest, predicted = preds.max(1)
        confidence = highest.exp()
        edges = torch.linspace(0, 1, self.bins + 1, dtype=preds.dtype, device=preds.device)
        inside = torch.bucketize(confidence, edges[1:-1])  # right edges belong to their bins
        correct = (predicted == target.long()).to(preds.dtype)
        members = torch.nn.functional.one_hot(inside, self.bins).to(preds.dtype)
        self.excess += (correct - confidence) @ members
        self.count += target.numel()

    def compute(self) -> Tensor:
        """The error over all rows so far."""
        return self.excess.abs().sum() / self.count
