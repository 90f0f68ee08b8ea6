"""The members as layers: for attention and gates, and the last one of a softmax regression.

They have no state but a learnt α.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smx_lightning.activations.derivatives import entmax
from smx_lightning.activations.family import SOFTMAX, Activation
from smx_lightning.errors import InputError


class _AlongDim(nn.Module):
    """A map along a dimension.

    Args:
        dim: Where the classes are.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        """As torch prints it."""
        return f"dim={self.dim}"


class Sparsemax(_AlongDim):
    """:func:`.sparsemax` in the place of nn.Softmax."""

    def forward(self, scores: Tensor) -> Tensor:
        """Probabilities along ``dim``."""
        return entmax(scores, 2.0, self.dim)


class Entmax15(_AlongDim):
    """:func:`.entmax15` in the place of nn.Softmax."""

    def forward(self, scores: Tensor) -> Tensor:
        """Probabilities along ``dim``."""
        return entmax(scores, 1.5, self.dim)


class AdaptiveEntmax(_AlongDim):
    """α-entmax that learns its α, between 1 and 2 (Correia, Niculae & Martins 2019).

    α = 1 + sigmoid(``raw``), so that any step of an optimiser leaves it in there.

    Args:
        shape: Of α, to broadcast with the scores, 1 along ``dim``: (heads, 1, 1) has one a head
            where scores are (batch, heads, queries, keys); () has one in all.
        alpha: To begin with, between 1 and 2.
        dim: Where the classes are.
    """

    def __init__(self, shape: Sequence[int] = (), alpha: float = 1.5, dim: int = -1) -> None:
        super().__init__(dim)
        if not 1 < alpha < 2:
            raise InputError(f"expected alpha between 1 and 2 to begin with, got {alpha}")
        self.raw = nn.Parameter(torch.full(tuple(shape), math.log((alpha - 1) / (2 - alpha))))

    @property
    def alpha(self) -> Tensor:
        """α as it is now."""
        return 1 + self.raw.sigmoid()

    def forward(self, scores: Tensor) -> Tensor:
        """Probabilities along ``dim``."""
        return entmax(scores, self.alpha, self.dim)


class LogProbabilities(nn.Module):
    """The logarithm of an activation's probabilities along the classes, minus infinity of zeros.

    Args:
        activation: Any but softmax, whose layer is :class:`torch.nn.LogSoftmax`.
    """

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, scores: Tensor) -> Tensor:
        """Scores (batch, classes) → log-probabilities (batch, classes)."""
        return self.activation.log_probs(scores, 1)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return repr(self.activation.spec)


def log_probabilities(activation: Activation) -> nn.Module:
    """The layer of an activation; of softmax torch's own."""
    return nn.LogSoftmax(dim=1) if activation == SOFTMAX else LogProbabilities(activation)
