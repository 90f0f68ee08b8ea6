"""What there is to tell of probabilities that may be exactly 0.

Symbols as in :mod:`smx_lightning.metrics.scores`; the support of a row are its classes of
``p[i, k] > 0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smx_lightning.activations import Activation, fenchel_young_loss
from smx_lightning.metrics.beside import OfScores
from smx_lightning.metrics.scores import MeanScore
from smx_lightning.metrics.weights import of_target

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped


class MeanFenchelYoungLoss(MeanScore, OfScores):
    """Mean of the losses of the labels, ``Ω*(s[i]) - s[i, y[i]]``; of softmax it is the NLL.

    Of a distribution ``Ω*(s[i]) - Σ_k q[i, k] s[i, k]``, the mean of its labels' losses, without
    the Ω(q[i]) that makes the loss 0 at p = q; of softmax that is the cross-entropy.

    Blondel, Martins & Niculae, "Learning with Fenchel-Young losses", JMLR 21, 2020.

    Args:
        activation: The member whose loss it is.

    >>> from smx_lightning.activations import activation_of
    >>> metric = MeanFenchelYoungLoss(activation_of("sparsemax"))
    >>> metric.update(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1]))
    >>> float(metric.compute())
    0.125
    """

    def __init__(self, activation: Activation, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Shaped[Tensor, "batch ..."]
    ) -> Float[Tensor, " batch"]:
        """``Ω*(s[i]) - s[i, y[i]]``; preds are scores."""
        scores = self.scores_beside(preds)
        losses = fenchel_young_loss(scores, target, self.activation, reduction="none")
        return losses if target.ndim == 1 else losses + self.activation.entropy(target)


class SupportSize(MeanScore):
    """Mean number of classes in the support.

    >>> metric = SupportSize()
    >>> probs = torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]])
    >>> metric.update(probs.log(), torch.tensor([1, 0]))
    >>> float(metric.compute())
    1.5
    """

    higher_is_better = None

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Shaped[Tensor, "batch ..."]
    ) -> Float[Tensor, " batch"]:
        """``Σ_k [p[i, k] > 0]``."""
        return (preds > -torch.inf).sum(1)


class ZeroShare(MeanScore):
    """Share of the probabilities that are exactly 0.

    >>> metric = ZeroShare()
    >>> metric.update(torch.tensor([[0.25, 0.75, 0.0, 0.0]]).log(), torch.tensor([1]))
    >>> float(metric.compute())
    0.5
    """

    higher_is_better = None

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Shaped[Tensor, "batch ..."]
    ) -> Float[Tensor, " batch"]:
        """``Σ_k [p[i, k] = 0] / K``."""
        return preds.isneginf().to(preds.dtype).mean(1)


class LabelInSupport(MeanScore):
    """Share of rows whose label is in the support: the NLL is finite where it is 1.

    Of a distribution the part of it that is in the support.

    >>> metric = LabelInSupport()
    >>> probs = torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]])
    >>> metric.update(probs.log(), torch.tensor([0, 0]))
    >>> float(metric.compute())
    0.5
    """

    higher_is_better = True

    def scores(
        self, preds: Float[Tensor, "batch classes"], target: Shaped[Tensor, "batch ..."]
    ) -> Float[Tensor, " batch"]:
        """``[p[i, y[i]] > 0]``."""
        return of_target(preds > -torch.inf, target)
