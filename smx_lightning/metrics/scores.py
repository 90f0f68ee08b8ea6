"""The two proper scores that torchmetrics lacks for several classes.

Symbols: n rows, K classes, ``p[i, k]`` the probability of class k in row i, ``y[i]`` the label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class MeanScore(Metric):
    """Mean of a score a row: sums and counts, so batches and processes of any size add up."""

    is_differentiable = False
    higher_is_better: bool | None = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: preds (batch, classes) log-probabilities, target (batch,) labels."""
        self.total += self.scores(preds, target.long()).sum()
        self.count += target.numel()

    def compute(self) -> Tensor:
        """The mean over all rows so far."""
        return self.total / self.count

    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        """One number a row, shape (batch,)."""
        raise NotImplementedError


class NegativeLogLikelihood(MeanScore):
    """Mean of ``-log p[i, y[i]]``, in nats.

    >>> metric = NegativeLogLikelihood()
    >>> metric.update(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    >>> round(float(metric.compute()), 4)
    0.2877
    """

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """``-log p[i, y[i]]``."""
        return -preds.gather(1, target[:, None])[:, 0]


class BrierScore(MeanScore):
    """Mean of ``Σ_k (p[i, k] - [k = y[i]])²``: 0 is perfect, 2 is certain and wrong.

    Brier, "Verification of forecasts expressed in terms of probability", 1950.

    >>> metric = BrierScore()
    >>> metric.update(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    >>> float(metric.compute())
    0.125
    """

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """``Σ_k p² - 2 p[i, y[i]] + 1``, the square written out."""
        probs = preds.exp()
        return probs.square().sum(1) - 2 * probs.gather(1, target[:, None])[:, 0] + 1
