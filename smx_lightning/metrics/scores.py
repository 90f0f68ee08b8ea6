"""The two proper scores that torchmetrics lacks for several classes.

Symbols: n rows, K classes, ``p[i, k]`` the probability of class k in row i, ``y[i]`` the label, or
``q[i, k]`` a distribution in its place; of weights see :mod:`smx_lightning.metrics.weights`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smx_lightning.metrics.weights import Weighing, of_target, total

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped


class MeanScore(Weighing):
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
        self.add_sums(2)  # Σ c v and Σ c

    def count_alike(self, preds: Tensor, target: Tensor) -> None:
        """See :class:`Weighing`."""
        self.total += self.scores(preds, target).sum()
        self.count += target.numel()

    def count_weighted(self, preds: Tensor, target: Tensor, weight: Tensor) -> None:
        """See :class:`Weighing`."""
        self.sums += torch.stack([total(self.scores(preds, target), weight), weight.sum()])

    def compute(self) -> Tensor:
        """The mean over all rows so far; NaN where they weigh nothing."""
        if not self.weighs:
            return self.total / self.count
        weighted, weight = self.sums
        return ((self.total + weighted) / (self.count + weight)).to(self.total.dtype)

    @abstractmethod
    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        """One number a row, shape (batch,); of a distribution the mean over its labels."""


class NegativeLogLikelihood(MeanScore):
    """Mean of ``-log p[i, y[i]]``, in nats.

    >>> metric = NegativeLogLikelihood()
    >>> metric.update(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    >>> round(float(metric.compute()), 4)
    0.2877
    """

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Shaped[Tensor, "batch ..."]
    ) -> Float[Tensor, " batch"]:
        """``-log p[i, y[i]]``, of a distribution the cross-entropy ``-Σ_k q[i, k] log p[i, k]``."""
        return -of_target(preds, target)


class BrierScore(MeanScore):
    """Mean of ``Σ_k (p[i, k] - [k = y[i]])²``: 0 is perfect, 2 is certain and wrong.

    Brier, "Verification of forecasts expressed in terms of probability", 1950. Of a distribution it
    is the expected score ``Σ_k (p[i, k] - q[i, k])² + 1 - Σ_k q[i, k]²``, as the cross-entropy is of
    the NLL (Gneiting & Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007,
    sec. 2): least at p = q, where it is what chance leaves.

    >>> metric = BrierScore()
    >>> metric.update(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    >>> float(metric.compute())
    0.125
    """

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Shaped[Tensor, "batch ..."]
    ) -> Float[Tensor, " batch"]:
        """``Σ_k p² - 2 p[i, y[i]] + 1``, the square written out."""
        probs = preds.exp()
        return probs.square().sum(1) - 2 * of_target(probs, target) + 1
