"""The calibration error: torchmetrics keeps every row, and gives confidence 1 a bin of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smx_lightning.metrics.weights import Weighing, share_of

CALIBRATION_BINS = 15  # as Guo et al. have it


class CalibrationError(Weighing):
    """Expected calibration error: ``Σ_b |Σ_{i in b} ([argmax p[i] = y[i]] - max p[i])| / n``.

    Bin b of B has the rows whose confidence, max p, lies in (b/B, (b+1)/B].
    Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 3.

    Rows weigh ``c[i] / Σ c`` in place of 1 / n, and a distribution has ``q[i, argmax p[i]]`` for
    what is in brackets.

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
        self.add_sums(bins + 1)  # the excess of each bin, and Σ c

    def count_alike(self, preds: Tensor, target: Tensor) -> None:
        """See :class:`Weighing`."""
        predicted, confidence, inside = self._binned(preds)
        correct = (predicted == target).to(preds.dtype)
        members = torch.nn.functional.one_hot(inside, self.bins).to(preds.dtype)
        self.excess += (correct - confidence) @ members
        self.count += target.numel()

    def count_weighted(self, preds: Tensor, target: Tensor, weight: Tensor) -> None:
        """See :class:`Weighing`."""
        predicted, confidence, inside = self._binned(preds)
        excess = weight * (share_of(predicted[:, None], target) - confidence)
        self.sums.index_add_(0, inside, torch.where(weight > 0, excess, 0))
        self.sums[-1] += weight.sum()

    def _binned(self, preds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The predicted class of each row, its probability, and the bin of that."""
        highest, predicted = preds.max(1)
        confidence = highest.exp()
        edges = torch.linspace(0, 1, self.bins + 1, dtype=preds.dtype, device=preds.device)
        inside = torch.bucketize(confidence, edges[1:-1])  # right edges belong to their bins
        return predicted, confidence, inside

    def compute(self) -> Tensor:
        """The error over all rows so far; NaN where they weigh nothing."""
        if not self.weighs:
            return self.excess.abs().sum() / self.count
        error = (self.excess + self.sums[:-1]).abs().sum() / (self.count + self.sums[-1])
        return error.to(self.excess.dtype)
