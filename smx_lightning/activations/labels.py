"""The Fenchel-Young loss of labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smx_lightning.activations.family import SOFTMAX, Activation


def label_losses(activation: Activation, scores: Tensor, y: Tensor, probs: Tensor) -> Tensor:
    """Ω*(s) - s_y of each row, (batch,): at least 0, and its gradient is p - onehot(y).

    Args:
        activation: The member.
        scores: (batch, classes).
        y: (batch,) class indices.
        probs: p(s), of which no gradient is taken: that of Ω* is p itself.
    """
    p = probs.detach()
    differences = scores - scores.gather(1, y[:, None])
    # A score of -∞ has probability 0, and 0 · ∞ is NaN.
    return torch.where(p > 0, p * differences, 0.0).sum(1) + activation.entropy(p, 1)


def label_loss(activation: Activation, scores: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """The mean loss of a batch of labels; with weights (classes,), ``Σ w[y] · loss / Σ w[y]``.

    Args:
        activation: The member; of softmax it is the negative log-likelihood.
        scores: (batch, classes); of softmax log-probabilities.
        y: (batch,) class indices.
        weights: How much each class counts.
    """
    if activation == SOFTMAX:
        return nn.functional.nll_loss(scores, y, weights)
    losses = label_losses(activation, scores, y, activation.probs(scores.detach(), 1))
    if weights is None:
        return losses.mean()
    of_rows = weights[y]
    return (of_rows * losses).sum() / of_rows.sum()
