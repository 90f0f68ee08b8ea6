"""The objective and its gradient at one point, summed batch by batch over all processes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.processes.distributed import in_group

LOG_HALF = math.log(0.5)


class Evaluation(NamedTuple):
    """The objective at one point.

    ``gradient`` is (classes, features + 1) float64, the bias last. ``total_weight`` is Σ c and
    ``spread`` Σ c (1 - Σ p²), c a row's class weight. ``separated`` says that every row has more
    than half of the probability on its own class.
    """

    objective: float
    gradient: Tensor
    total_weight: float
    rows: float
    spread: float
    separated: bool


class EpochSums:
    """What batches add up to, in float64.

    Args:
        shape: (classes, features + 1).
        device: Where the batches are.
    """

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        # loss, total weight, spread, rows in doubt, rows
        self._scalars = torch.zeros(5, dtype=torch.float64, device=device)
        self._gradient = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(
        self, x: Tensor, log_probs: Tensor, probs: Tensor, y: Tensor, weights: Tensor | None
    ) -> None:
        """Add a batch; ``probs`` is overwritten.

        Args:
            x: (batch, features).
            log_probs: (batch, classes).
            probs: (batch, classes).
            y: (batch,) labels.
            weights: (batch,) or ``None``.
        """
        own = log_probs.gather(1, y[:, None])[:, 0]
        spread = 1 - probs.square().sum(1)
        # The gradient by the logits is p - onehot(y).
        residual = probs.scatter_add_(1, y[:, None], own.new_full((len(y), 1), -1.0))
        loss = -own.sum(dtype=torch.float64)
        rows = loss.new_tensor(float(len(y)))
        sums = [loss, rows, spread.sum(dtype=torch.float64)]
        if weights is not None:
            residual *= weights[:, None]
            wide = weights.double()
            sums = [-(own * wide).sum(), wide.sum(), (spread * wide).sum()]
        self._scalars += torch.stack([*sums, (own <= LOG_HALF).sum().double(), rows])
        self._gradient[:, :-1] += residual.T @ x
        self._gradient[:, -1] += residual.sum(0)

    def evaluation(self, weight: Tensor, l2: float) -> Evaluation:
        """Of all processes together, at ``weight`` (classes, features) float64."""
        sums = summed(torch.cat([self._scalars, self._gradient.flatten()]))
        loss, total_weight, spread, in_doubt, rows = sums[:5].tolist()
        if rows == 0:
            raise InputError("expected training rows, got an epoch without any; check the data")
        gradient = sums[5:].view_as(self._gradient) / total_weight
        gradient[:, :-1] += l2 * weight
        objective = loss / total_weight + 0.5 * l2 * float(weight.square().sum())
        return Evaluation(objective, gradient, total_weight, rows, spread, separated=in_doubt == 0)


def summed(tensor: Tensor, group: Any = None) -> Tensor:
    """The sum over all processes, or over those of a group; the same bits on each."""
    if in_group():
        torch.distributed.all_reduce(tensor, group=group)
    return tensor
